//! Several servers on one Postgres: what one of them is told, the others know; when the leader dies, another leads.

use std::time::{Duration, Instant};

use autoglm_doubles::PostgresServer;
use serde_json::json;

use super::server::{PATIENCE, QUICK, Server, autoglm, run};

/// The settings of a server on a database, beside [`QUICK`]: adapters lie where all servers see them.
fn on<'a>(url: &'a str, artifacts: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut variables = QUICK.to_vec();
    variables.push(("AUTOGLM_STORE__URL", url));
    variables.push(("AUTOGLM_REGISTRY__ARTIFACTS", artifacts));
    variables
}

async fn leads(server: &Server) -> bool {
    server.status().await["activity"]["leading"] == true
}

/// Waits until `known` holds; how long it took.
async fn within(at_most: Duration, what: &str, known: impl AsyncFn() -> bool) -> Duration {
    let begin = Instant::now();
    while !known().await {
        assert!(begin.elapsed() < at_most, "{what} took longer than {at_most:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begin.elapsed()
}

/// The version that answers `champion` on a server.
async fn champion(server: &Server) -> String {
    let answer =
        server.order("/v1/chat/completions", super::server::question("champion", "a question")).await;
    answer.pointer("/autoglm/version").or(answer.pointer("/choices/0/autoglm/version")).unwrap().to_string()
}

#[tokio::test]
async fn two_servers_share_a_database() {
    let Some(postgres) = PostgresServer::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let artifacts = folder.path().join("artifacts").display().to_string();
    let url = postgres.url("postgres");
    let variables = on(&url, &artifacts);
    let [one_data, other_data] = ["one", "other"].map(|name| folder.path().join(name));
    let one = Server::start(&one_data, &variables).await;
    within(PATIENCE, "leading", async || leads(&one).await).await;
    let other = Server::start(&other_data, &variables).await;
    assert!(!leads(&other).await, "two servers lead");

    // A correction that one is told of is recalled by both: the leader may take its own experience in after the follower,
    // which hears of it from the database.
    let (id, _) = other.ask("champion", "where is my card").await;
    other.correct(&id, "report lost card").await;
    for (name, server) in [("follower", &other), ("leader", &one)] {
        let took = within(Duration::from_secs(2), "recall", async || {
            server.ask("champion", "where is my card").await.1 == "report lost card"
        })
        .await;
        println!("a correction told to the follower is recalled by the {name} after {took:?}");
    }

    // An order to train is carried out by the leader, wherever it is given.
    other.teach(40).await;
    other.idle().await;
    other.train().await;
    one.idle().await;
    let versions = read_json(&other_data, &url, &["versions", "list"]);
    assert!(!versions.as_array().unwrap().is_empty(), "no version was trained: {}", one.log());
    assert!(!one_data.join("autoglm.db").exists(), "there is a file beside Postgres");

    // A promotion by one is followed by the other, and so is one by the command line; how soon is printed.
    within(PATIENCE, "one champion", async || champion(&one).await == champion(&other).await).await;
    let before = champion(&other).await;
    let to = if before.contains('1') { "base" } else { "v1" };
    one.order("/v1/autoglm/promote", json!({"version": to, "reason": "test"})).await;
    let took = within(PATIENCE, "the other", async || champion(&other).await != before).await;
    println!("a promotion is followed after {took:?}");
    let moved =
        run(autoglm(&["versions", "promote", if to == "base" { "v1" } else { "base" }, "--data-dir"])
            .arg(&one_data)
            .envs(variables.iter().copied()));
    assert_eq!(moved.code, Some(0), "{}", moved.err);
    for server in [&one, &other] {
        let took = within(PATIENCE, "a server", async || champion(server).await == before).await;
        println!("a promotion by the command line is followed after {took:?}");
    }

    // The leader dies; the other leads, and assesses what it is told from now on.
    one.kill();
    let took = within(PATIENCE, "taking over", async || leads(&other).await).await;
    println!("the other leads {took:?} after kill -9");
    let (id, _) = other.ask("champion", "how do i pay rent").await;
    other.correct(&id, "rent").await;
    within(PATIENCE, "recall", async || other.ask("champion", "how do i pay rent").await.1 == "rent").await;
    assert!(!other.log().contains("p%40ss") && !other.log().contains("p@ss"), "the password is logged");
    other.stop();
}

/// Runs a command over the database and reads its JSON.
fn read_json(data: &std::path::Path, url: &str, arguments: &[&str]) -> serde_json::Value {
    let mut command = autoglm(arguments);
    let ended = run(command.args(["--json", "--data-dir"]).arg(data).env("AUTOGLM_STORE__URL", url));
    assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.err);
    serde_json::from_str(&ended.out).unwrap()
}
