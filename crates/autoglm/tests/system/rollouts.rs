//! A candidate on the traffic of two servers that share a Postgres: both split it alike, the leader counts what both
//! answered, and both leave the candidate as soon as that is decided.

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use autoglm_doubles::PostgresServer;
use serde_json::{Value, json};

use crate::{
    server::{PATIENCE, QUICK, Server, autoglm, run},
    words::{self, COPY, WORDS},
};

/// Accuracy alone decides: shown in the shadow, guarded in a canary that is never long enough.
const POLICY: &str = r#"
[rollout]
live = true
settle_s = 20
shadow = { share = 1.0, min_pairs = 10, max_pairs = 500 }
canary = { steps = [50], min_requests = 100000, min_s = 0 }

[rollout.metrics]
accuracy = { role = "improve", difference = 0 }
error_rate = { role = "off", difference = 0.02 }
empty_rate = { role = "off", difference = 0.02 }
refusal_rate = { role = "off", difference = 0.02 }
format_error_rate = { role = "off", difference = 0.02 }
leak_rate = { role = "off", difference = 0.005 }
latency_p95 = { role = "off", ratio = 1.5 }
tokens = { role = "off", ratio = 1.5 }
thumb_down_rate = { role = "off", difference = 0.05 }
"#;

const SECRET: &[u8] = b"0123456789abcdef";

/// Announces an adapter to a server; the status and the body of its answer.
async fn announce(server: &Server, adapter: &Path) -> (u16, Value) {
    let body = json!({"path": adapter}).to_string();
    let (secret, now_s) = (autoglm_webhook::Secret::new("test", SECRET).unwrap(), now_ms() / 1000);
    let signature = autoglm_webhook::sign(&secret, now_s, body.as_bytes());
    let request = server.http.post(format!("{}/v1/autoglm/webhooks/model", server.base)).body(body);
    let request = request.header("x-autoglm-timestamp", now_s).header("x-autoglm-signature", signature);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// An answer of the weights to the first turn of `session`, told what is right: its id and the version that gave it.
async fn ask(server: &Server, session: &str, right: &str) -> (String, String) {
    ask_with(server, session, json!({"reference": right})).await
}

async fn ask_with(server: &Server, session: &str, metadata: Value) -> (String, String) {
    let body = json!({
        "model": "champion", "messages": [{"role": "user", "content": format!("what is it, {session}")}],
        "metadata": metadata, "max_tokens": 8, "autoglm": {"recall": "off"},
    });
    let answer = server.order("/v1/chat/completions", body).await;
    let version = answer["choices"][0]["autoglm"]["version"].as_str().unwrap().to_owned();
    (answer["id"].as_str().unwrap().to_owned(), version)
}

async fn current(server: &Server) -> Value {
    let url = format!("{}/v1/autoglm/rollouts", server.base);
    let rollouts: Value = server.http.get(url).send().await.unwrap().json().await.unwrap();
    rollouts["data"][0].clone()
}

/// Runs a command over the database and reads its JSON.
fn command(data: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Value {
    let ended =
        run(autoglm(arguments).args(["--json", "--data-dir"]).arg(data).envs(variables.iter().copied()));
    assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.err);
    serde_json::from_str(&ended.out).unwrap()
}

#[allow(
    clippy::disallowed_methods,
    reason = "the servers are other processes, and their clock is the machine's"
)]
fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_servers_split_the_traffic_and_leave_a_bad_candidate_at_once() {
    let Some(postgres) = PostgresServer::start() else { return };
    let upstream = words::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (url, artifacts, adapters, config) =
        (postgres.url("postgres"), path("artifacts"), path("adapters"), path("autoglm.toml"));
    let secret = path("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let inbound = format!("[webhook.inbound]\nsecret_file = {secret:?}\nfolders = [{:?}]\n", folder.path());
    std::fs::write(&config, format!("{POLICY}\n{inbound}")).unwrap();
    let mut variables = QUICK.to_vec();
    variables.extend([
        ("AUTOGLM_CONFIG", config.as_str()),
        ("AUTOGLM_STORE__URL", url.as_str()),
        ("AUTOGLM_REGISTRY__ARTIFACTS", artifacts.as_str()),
        ("AUTOGLM_UPSTREAM__BASE_URL", upstream.as_str()),
        ("AUTOGLM_UPSTREAM__ADAPTER_DIR", adapters.as_str()),
        ("AUTOGLM_MODEL__PATH", COPY),
    ]);
    let [one_data, other_data] = ["one", "other"].map(|name| folder.path().join(name));
    let one = Server::start(&one_data, &variables).await;
    let begin = Instant::now();
    while one.status().await["activity"]["leading"] != true {
        assert!(begin.elapsed() < PATIENCE, "{}", one.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let other = Server::start(&other_data, &variables).await;
    assert_eq!(other.status().await["activity"]["leading"], false);

    // The first version answers on both; held-out experiences say that the second one's word is right.
    for (name, value) in [("v1", 0.001), ("v2", 0.002)] {
        let peft = words::adapter(folder.path(), name, value);
        command(&one_data, &variables, &["versions", "import", peft.to_str().unwrap()]);
    }
    one.order("/v1/autoglm/promote", json!({"version": "v1", "reason": "test"})).await;
    for n in 0..40 {
        let (id, _) = ask(&other, &format!("before {n}"), WORDS[1]).await;
        other.correct(&id, WORDS[1]).await;
    }
    one.idle().await;

    // An order is the leader's to carry out, whoever gets it, and so is a refusal.
    let (status, refused) = other.post("/v1/autoglm/rollouts", &json!({"version": "v1"})).await.unwrap();
    let (same, by_leader) = one.post("/v1/autoglm/rollouts", &json!({"version": "v1"})).await.unwrap();
    assert_eq!((status, &refused), (same, &by_leader));
    assert!(status == 400 || status == 409, "{status}: {refused}");
    let begun = other.order("/v1/autoglm/rollouts", json!({"version": "v2", "reason": "test"})).await;
    let id = begun["id"].as_str().unwrap().to_owned();
    let mut of_the_other = Vec::new();
    let begin = Instant::now();
    for n in 0.. {
        let rollout = current(&one).await;
        assert!(matches!(rollout["state"].as_str(), Some("scanning" | "offline_gate" | "live")), "{rollout}");
        if rollout["stage"] == "canary" {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{rollout}: {}", one.log());
        ask(&one, &format!("one {n}"), WORDS[1]).await;
        of_the_other.push(ask(&other, &format!("other {n}"), WORDS[1]).await.0);
    }
    let pairs = command(&one_data, &variables, &["rollouts", "pairs", &id, "--order", "oldest"]);
    let pairs = pairs.as_array().unwrap();
    let from_the_other =
        pairs.iter().filter(|pair| of_the_other.iter().any(|id| pair["interaction"] == id.as_str())).count();
    assert!(from_the_other > 0 && from_the_other < pairs.len(), "{from_the_other} of {}", pairs.len());

    // In the canary a session has one version, whichever server it comes to, once both have heard of the canary. Nobody says
    // yet what is right: what a stage has shown of one truth would stand against the other.
    let begin = Instant::now();
    let mut probes = (0..).map(|n| format!("probe {n}"));
    let probe = loop {
        let session = probes.next().unwrap();
        if ask_with(&one, &session, json!({})).await.1 == "v2" {
            break session;
        }
        assert!(begin.elapsed() < PATIENCE, "{session}: {}", one.log());
    };
    while ask_with(&other, &probe, json!({})).await.1 != "v2" {
        assert!(begin.elapsed() < PATIENCE, "{probe}: {}", other.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut heard = Vec::new();
    for n in 0..20 {
        let session = format!("session {n}");
        let at_one = ask_with(&one, &session, json!({})).await.1;
        assert_eq!(ask_with(&other, &session, json!({})).await.1, at_one, "{session}");
        if at_one == "v2" {
            heard.push(session);
        }
    }
    assert!((1..20).contains(&heard.len()), "{heard:?}");

    // A person holds it by way of the follower, and lets it go on.
    for (action, state) in [("pause", "paused"), ("resume", "live")] {
        let path = format!("/v1/autoglm/rollouts/{id}/{action}");
        let rollout = other.order(&path, json!({"reason": "test"})).await;
        assert_eq!(rollout["state"], state, "{rollout}");
        assert_eq!(current(&one).await["state"], state);
        let (status, again) = other.post(&path, &json!({"reason": "test"})).await.unwrap();
        assert_eq!(status, 409, "{again}");
    }
    tokio::time::sleep(Duration::from_millis(600)).await;

    // Now it is said, and the other word is right. Only the follower is asked, and the leader decides on what it answered.
    let begin = Instant::now();
    let (mut last_bad, mut after) = (0, 0);
    for n in 0.. {
        let (bad, unheard) = (&heard[n % heard.len()], format!("more {n}"));
        let sent = now_ms();
        let is_bad = ask(&other, bad, WORDS[0]).await.1 == "v2";
        if is_bad {
            last_bad = sent;
        }
        ask(&other, &unheard, WORDS[0]).await;
        assert!(begin.elapsed() < PATIENCE, "{}", one.log());
        // A while beyond the decision, for those that come late.
        after += usize::from(current(&one).await["state"] == "decided");
        if after >= 50 && !is_bad {
            break;
        }
    }
    let shown = command(&one_data, &variables, &["rollouts", "show", &id]);
    assert_eq!(shown["verdict"]["outcome"], "reject", "{shown}");
    let decided = shown["verdict"]["at"].as_i64().unwrap();
    println!(
        "the last request to the bad version on the follower came {} ms after the decision",
        last_bad - decided
    );
    assert!(last_bad > 0 && last_bad - decided < 1000, "{last_bad} {decided}");
    for session in &heard {
        for server in [&one, &other] {
            assert_eq!(ask(server, session, WORDS[0]).await.1, "v1");
        }
    }

    // What is announced to the follower sets out as well.
    one.idle().await;
    let (status, announced) = announce(&other, &folder.path().join("v2")).await;
    assert_eq!(status, 200, "{announced}");
    assert_eq!(announced["version"], "v2");
    assert_eq!(announced["rollout"], current(&one).await["id"]);
    let (status, refused) = announce(&other, &folder.path().join("unknown")).await;
    assert_eq!(status, 403, "{refused}");
    one.stop();
    other.stop();
}
