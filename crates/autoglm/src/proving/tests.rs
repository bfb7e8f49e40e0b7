//! Whole rollouts on the traffic of a real server: two versions that were trained to say one word each, and users who
//! say what would have been right.

mod changes;
mod judging;

use std::time::Duration;

use autoglm_domain::{AbState, AbTest, AbTestId, PairOrder, RolloutId};
use autoglm_rollout::{Confirmation, MetricConfig, RolloutPolicy, Scanned, SliceKind};

use super::*;
use crate::{
    bench::Host,
    demo::{Asking, RecallMode, users::Opinion},
    settings::Settings,
};

const WORDS: [&str; 2] = ["balance", "weather"];

/// Two versions on a server with `policy`; the first is champion.
async fn host(policy: RolloutPolicy) -> (Host, [VersionNumber; 2]) {
    host_with(Settings { rollout: policy, ..Settings::default() }).await
}

async fn host_with(mut settings: Settings) -> (Host, [VersionNumber; 2]) {
    settings.rollout.live = true;
    let host = Host::start(settings).await.unwrap();
    let versions =
        [host.teach(WORDS[0], 40).await.unwrap().number, host.teach(WORDS[1], 40).await.unwrap().number];
    let parts = host.parts();
    let first = parts.registry.point(Alias::champion(), None, versions[0], "test", "the first", None).await;
    first.unwrap();
    parts.residents.follow(parts).await.unwrap();
    (host, versions)
}

/// Accuracy alone, judged by what users say. What is waited for is waited for longer than a busy machine takes.
fn accuracy(config: MetricConfig) -> RolloutPolicy {
    let mut policy = RolloutPolicy { alpha: 0.05, settle_s: 30, ..RolloutPolicy::default() };
    policy.metrics = [("accuracy".to_owned(), config)].into();
    policy.shadow.share = 1.0;
    policy.shadow.min_pairs = 5;
    policy.shadow.max_pairs = 200;
    policy.shadow.deadline_ms = 30_000;
    policy.canary.steps = vec![50.0];
    policy.canary.min_requests = 5;
    policy.canary.min_s = 0;
    policy.canary.max_s = 120;
    policy.watch.window_s = 1;
    policy
}

/// A candidate that passed the gate.
async fn begin(host: &Host, [champion, candidate]: [VersionNumber; 2]) -> RolloutId {
    let parts = host.parts();
    let stage = parts.rollouts.begin(candidate, champion).await.unwrap();
    let Scanned::Clean(stage) = stage.scanned(None).await.unwrap() else { unreachable!() };
    let rollout = match parts.settings.rollout.has_shadow() {
        true => stage.shadow(parts.clock.now()).await.unwrap().rollout().clone(),
        false => stage.canary(50.0, parts.clock.now()).await.unwrap().rollout().clone(),
    };
    parts.traffic.follow(&rollout);
    parts.proving.begun();
    rollout.id
}

/// Asks and says that `right` is right, until the rollout has ended; gives who answered, in order, and how it ended.
async fn converse(host: &Host, id: RolloutId, right: &'static str) -> (Vec<VersionNumber>, RolloutState) {
    converse_as(host, id, |_| right).await
}

/// The same where `right` says what is right for each request.
async fn converse_as(
    host: &Host,
    id: RolloutId,
    right: impl Fn(usize) -> &'static str,
) -> (Vec<VersionNumber>, RolloutState) {
    let client = host.client().unwrap();
    let mut answered = Vec::new();
    let utterances: Vec<_> = host.stream.tasks.iter().flat_map(|task| &task.traffic).collect();
    for utterance in utterances.into_iter().cycle().take(2000) {
        let asking = Asking { recall: Some(RecallMode::Off), ..Asking::default() };
        let answer = client.ask(utterance, asking).await.unwrap_or_else(|error| panic!("{error}"));
        let right = right(answered.len()).to_owned();
        answered.push(answer.version.unwrap());
        client.tell(&answer.id, &Opinion::Correction(right)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        let rollouts = host.parts().store.rollouts().await.unwrap();
        let rollout = rollouts.into_iter().find(|rollout| rollout.id == id).unwrap();
        if !rollout.is_unfinished() {
            // It is on record before it is followed: what is served is as decided once the look has ended.
            drop(host.parts().proving.turn().await);
            return (answered, rollout.state);
        }
    }
    panic!("the rollout did not end: {:?}", host.parts().store.rollouts().await.unwrap().last());
}

fn outcome(state: &RolloutState) -> (Outcome, &str) {
    match state {
        RolloutState::Decided { verdict } => (verdict.outcome, &verdict.reason),
        other => panic!("{other:?}"),
    }
}

/// Has the first request of the traffic corrected, and waits until the memory has it.
async fn remember_first(host: &Host) {
    let client = host.client().unwrap();
    let utterance = host.stream.tasks.iter().flat_map(|task| &task.traffic).next().unwrap();
    let answer = client.ask(utterance, Asking::default()).await.unwrap();
    client.tell(&answer.id, &Opinion::Correction(WORDS[1].to_owned())).await.unwrap();
    let remembered = async {
        while host.parts().memory.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), remembered).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_better_candidate_goes_from_the_shadow_to_the_champion_s_place() {
    let (host, versions) = host(accuracy(MetricConfig::improve(0.0))).await;
    remember_first(&host).await;
    let id = begin(&host, versions).await;
    let (answered, state) = converse(&host, id, WORDS[1]).await;
    assert_eq!(outcome(&state).0, Outcome::Promote, "{state:?}");
    let parts = host.parts();
    assert_eq!(parts.residents.serving(&Alias::champion()), versions[1]);
    let pairs = parts.store.shadow_pairs(id, PairOrder::Worst, 1000).await.unwrap();
    assert!(pairs.len() >= 5, "{}", pairs.len());
    let shadowed: Vec<_> = pairs.iter().map(|pair| pair.candidate.text.trim().to_lowercase()).collect();
    assert!(shadowed.iter().all(|text| text == WORDS[1]), "{shadowed:?}");
    let slices = slices(&*parts.store, &parts.settings.rollout, id).await.unwrap();
    let pairs_by =
        |kind| slices.iter().filter(|it| it.kind == kind).map(|it| it.pairs as usize).sum::<usize>();
    for kind in [SliceKind::All, SliceKind::Route, SliceKind::PrincipalGroup] {
        assert_eq!(pairs_by(kind), pairs.len(), "{slices:#?}");
    }
    let clustered = pairs.iter().filter(|pair| pair.cluster.is_some()).count();
    assert!(clustered > 0, "the first request is like one that is remembered");
    assert_eq!(pairs_by(SliceKind::Cluster), clustered);
    assert!(slices[0].gain.difference > 0.0, "{:?}", slices[0]);
    // Nobody heard it while it was in the shadow, and it was heard before it was champion.
    let heard = answered.iter().position(|version| *version == versions[1]).unwrap();
    assert!(heard >= 5, "{answered:?}");
    let looks = parts.store.rollout_progress(id, 1000).await.unwrap();
    let mut stages: Vec<String> = looks.iter().rev().map(|look| look.stage.to_string()).collect();
    stages.dedup();
    assert_eq!(stages, ["shadow", "canary at 50%", "watch"]);
    host.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worse_candidate_is_taken_out_of_its_canary_and_fails_nobody() {
    let mut policy = accuracy(MetricConfig::guard_difference(-5.0));
    policy.shadow.min_pairs = 0;
    policy.canary.min_requests = 500;
    let (host, versions) = host(policy).await;
    let id = begin(&host, versions).await;
    let (answered, state) = converse(&host, id, WORDS[0]).await;
    let (ruling, reason) = outcome(&state);
    assert_eq!(ruling, Outcome::Reject, "{state:?}");
    assert!(reason.contains("accuracy"), "{reason}");
    assert!(answered.contains(&versions[0]) && answered.contains(&versions[1]), "{answered:?}");
    // From the decision on the champion alone answers.
    let client = host.client().unwrap();
    for utterance in host.stream.tasks.iter().flat_map(|task| &task.traffic).take(20) {
        let asking = Asking { recall: Some(RecallMode::Off), ..Asking::default() };
        assert_eq!(client.ask(utterance, asking).await.unwrap().version, Some(versions[0]));
    }
    host.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_champion_that_disappoints_while_it_is_watched_gives_its_place_back() {
    let mut policy = accuracy(MetricConfig::guard_difference(-5.0));
    policy.shadow.min_pairs = 0;
    policy.watch.window_s = 600;
    let (host, versions) = host(policy).await;
    let parts = host.parts();
    // The champion answers well before the candidate takes its place.
    let client = host.client().unwrap();
    for utterance in host.stream.tasks.iter().flat_map(|task| &task.traffic).take(60) {
        let asking = Asking { recall: Some(RecallMode::Off), ..Asking::default() };
        let answer = client.ask(utterance, asking).await.unwrap();
        client.tell(&answer.id, &Opinion::Correction(WORDS[0].to_owned())).await.unwrap();
    }
    while parts.store.assessment_lag().await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let turn = parts.proving.turn().await;
    let id = begin(&host, versions).await;
    let Some(OnTraffic::Canary(stage)) = parts.rollouts.on_traffic().await.unwrap() else { unreachable!() };
    promote(parts, stage, "a person was sure", parts.clock.now()).await.unwrap();
    drop(turn);
    assert_eq!(parts.residents.serving(&Alias::champion()), versions[1]);
    let (_, state) = converse(&host, id, WORDS[0]).await;
    assert_eq!(outcome(&state).0, Outcome::Reject, "{state:?}");
    assert_eq!(parts.residents.serving(&Alias::champion()), versions[0]);
    host.close().await.unwrap();
}

/// `POST` to the admin API: status and body.
async fn post(host: &Host, path: &str, body: serde_json::Value) -> (u16, serde_json::Value) {
    let url = format!("{}/v1/autoglm/rollouts{path}", host.base_url);
    let response = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordered_version_passes_the_gate_awaits_a_word_and_is_judged_on_all_of_it() {
    let mut policy = accuracy(MetricConfig::improve(0.0));
    policy.gate.min_new_skill_pairs = 5;
    policy.canary.confirm = Confirmation::Person;
    let mut settings = Settings { rollout: policy, ..Settings::default() };
    settings.memory.held_out_share = 0.5;
    let (host, versions) = host_with(settings).await;
    let parts = host.parts();
    let client = host.client().unwrap();
    for utterance in host.stream.tasks.iter().flat_map(|task| &task.traffic).take(60) {
        let asking = Asking { recall: Some(RecallMode::Off), ..Asking::default() };
        let answer = client.ask(utterance, asking).await.unwrap();
        client.tell(&answer.id, &Opinion::Correction(WORDS[1].to_owned())).await.unwrap();
    }
    while parts.store.assessment_lag().await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let order =
        |version: VersionNumber| serde_json::json!({"version": version.to_string(), "reason": "a look"});
    let (status, refused) = post(&host, "", order(versions[0])).await;
    assert_eq!(status, 400, "the champion is no candidate: {refused}");
    let (status, begun) = post(&host, "", order(versions[1])).await;
    assert_eq!((status, begun["candidate"].as_str()), (200, Some("v2")), "{begun}");
    let id: RolloutId = begun["id"].as_str().unwrap().parse().unwrap();
    let (status, busy) = post(&host, "", order(versions[1])).await;
    assert_eq!(status, 409, "{busy}");

    let word = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let rollouts = parts.store.rollouts().await.unwrap();
            let rollout = rollouts.into_iter().find(|it| it.id == id).unwrap();
            assert!(rollout.is_unfinished(), "it ended before anybody was asked: {rollout:?}");
            if awaits_word(&rollout) {
                let resumed = post(&host, "/current/resume", serde_json::json!({})).await;
                assert_eq!(resumed.0, 409, "to resume is not to confirm");
                let confirmed =
                    post(&host, "/current/confirm", serde_json::json!({"reason": "it reads well"})).await;
                assert_eq!(
                    (confirmed.0, confirmed.1["stage"].as_str()),
                    (200, Some("canary")),
                    "{confirmed:?}"
                );
                return rollout.live().unwrap().stage;
            }
        }
    };
    let (asked_at, (_, state)) = tokio::join!(word, converse(&host, id, WORDS[1]));
    assert_eq!(asked_at, LiveStage::Shadow);
    let RolloutState::Decided { verdict } = &state else { panic!("{state:?}") };
    assert_eq!(verdict.outcome, Outcome::Promote, "{verdict:?}");
    let evidence = &verdict.evidence;
    assert!(evidence.new_skill.as_ref().is_some_and(|paired| paired.pairs >= 5 && paired.lower > 0.0));
    assert!(evidence.gate.contains("points"), "{}", evidence.gate);
    let stages: Vec<String> = evidence.live.iter().map(|look| look.stage.to_string()).collect();
    assert_eq!(stages, ["shadow", "canary at 50%", "watch"]);
    let gain = &evidence.live[0].metrics[0];
    assert!(gain.metric == "accuracy" && gain.lower.is_some_and(|lower| lower > 0.0), "{gain:?}");
    let too_late = post(&host, &format!("/{id}/confirm"), serde_json::json!({})).await;
    assert_eq!(too_late.0, 409);
    host.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_is_held_is_still_taken_out_when_it_disappoints() {
    let mut policy = accuracy(MetricConfig::guard_difference(-5.0));
    policy.shadow.min_pairs = 0;
    policy.canary.min_requests = 500;
    let (host, versions) = host(policy).await;
    let id = begin(&host, versions).await;
    let (status, paused) = post(&host, "/current/pause", serde_json::json!({"reason": "lunch"})).await;
    assert_eq!((status, paused["state"].as_str()), (200, Some("paused")), "{paused}");
    let (_, state) = converse(&host, id, WORDS[0]).await;
    assert_eq!(outcome(&state).0, Outcome::Reject, "{state:?}");
    host.close().await.unwrap();
}

/// `POST` to the API of tests of versions.
async fn compare(host: &Host, body: serde_json::Value) -> AbTest {
    let url = format!("{}/v1/autoglm/ab-tests", host.base_url);
    let response = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// Asks and says that `right` is right, until the test has ended; gives who answered, in order, and the test.
async fn converse_in(host: &Host, id: AbTestId, right: &str) -> (Vec<VersionNumber>, AbTest) {
    let client = host.client().unwrap();
    let mut answered = Vec::new();
    let utterances: Vec<_> = host.stream.tasks.iter().flat_map(|task| &task.traffic).collect();
    for utterance in utterances.into_iter().take(3000) {
        let asking = Asking { recall: Some(RecallMode::Off), ..Asking::default() };
        let answer = client.ask(utterance, asking).await.unwrap_or_else(|error| panic!("{error}"));
        answered.push(answer.version.unwrap());
        client.tell(&answer.id, &Opinion::Correction(right.to_owned())).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let tests = host.parts().store.ab_tests().await.unwrap();
        let test = tests.into_iter().find(|test| test.id == id).unwrap();
        if !test.is_running() {
            return (answered, test);
        }
    }
    panic!("the test did not end: {:?}", host.parts().store.ab_tests().await.unwrap().last());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_better_of_two_versions_is_found_and_the_champion_stays() {
    let (host, versions) = host(accuracy(MetricConfig::improve(0.0))).await;
    let arms = serde_json::json!([{"version": "v1", "share": 0.5}, {"version": "2", "share": 0.5}]);
    let body = serde_json::json!({"arms": arms, "metric": "accuracy", "min_requests": 10});
    let begun = compare(&host, body).await;
    assert_eq!(begun.arms.iter().map(|arm| arm.version).collect::<Vec<_>>(), versions);
    // Neither a candidate nor another test may disturb it.
    let order = serde_json::json!({"version": "v2"});
    let (status, refused) = post(&host, "", order).await;
    assert_eq!(status, 409, "{refused}");
    let (answered, test) = converse_in(&host, begun.id, WORDS[1]).await;
    let AbState::Decided { best, .. } = test.state else { panic!("{test:?}") };
    assert_eq!(best, Some(versions[1]), "{}", test.reason);
    assert!(test.found.iter().all(|arm| arm.count >= 10), "{:?}", test.found);
    assert!(test.found[0].upper < test.found[1].lower, "{:?}", test.found);
    let share =
        answered.iter().filter(|version| **version == versions[1]).count() as f64 / answered.len() as f64;
    assert!((0.25..0.75).contains(&share), "{share} at a share of a half");
    // It names the best and promotes nobody: from its end on the champion alone answers.
    let client = host.client().unwrap();
    for utterance in host.stream.tasks.iter().flat_map(|task| &task.traffic).take(20) {
        let asking = Asking { recall: Some(RecallMode::Off), ..Asking::default() };
        assert_eq!(client.ask(utterance, asking).await.unwrap().version, Some(versions[0]));
    }
    host.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bandit_leaves_out_what_cannot_be_best_and_stops_with_the_best() {
    let (host, versions) = host(accuracy(MetricConfig::improve(0.0))).await;
    // The base model is an arm too; it knows none of the words.
    let arms = serde_json::json!([{"version": "base", "share": 1}, {"version": "v1"}, {"version": "v2"}]);
    // Far more than it takes to show that the others are worse, so that the best is asked alone for a while.
    let body = serde_json::json!({"arms": arms, "allocation": "bandit", "min_requests": 400});
    let begun = compare(&host, body).await;
    let (answered, test) = converse_in(&host, begun.id, WORDS[1]).await;
    let AbState::Decided { best, .. } = test.state else { panic!("{test:?}") };
    assert_eq!(best, Some(versions[1]), "{}", test.reason);
    let standing: Vec<bool> = test.found.iter().map(|arm| arm.is_in).collect();
    assert_eq!(standing, [false, false, true], "{:?}", test.found);
    // The last answers are all of the arm that was left, while it gathered what it needs to be named; but for the very
    // last, which may have been asked after the end that it then found, of the champion.
    let last = &answered[answered.len() - 11..answered.len() - 1];
    assert!(last.iter().all(|version| *version == versions[1]), "{answered:?}");
    assert!(answered.contains(&VersionNumber::BASE) && answered.contains(&versions[0]), "{answered:?}");
    host.close().await.unwrap();
}

/// A hook that keeps what it was asked and answers from a script, the last for ever.
#[derive(Clone, Default)]
struct Hook {
    asked: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<Vec<(u16, &'static str)>>>,
}

impl Hook {
    /// Its address, with what it will answer.
    async fn start(&self, answers: &[(u16, &'static str)]) -> String {
        *self.answers.lock() = answers.to_vec();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let hook = self.clone();
        let answer = move |body: axum::Json<serde_json::Value>| async move {
            let mut answers = hook.answers.lock();
            let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0] };
            let stage = body["stage"]["stage"].as_str().unwrap_or("champion").to_owned();
            hook.asked.lock().push(format!("{} {stage} {}", body["question"].as_str().unwrap(), answer.0));
            (axum::http::StatusCode::from_u16(answer.0).unwrap(), answer.1)
        };
        let app = axum::Router::new().fallback(axum::routing::any(answer));
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }
}

/// Settings with `policy`, and a gate at `url` for `questions`.
fn gated(
    policy: RolloutPolicy,
    url: String,
    questions: &[autoglm_domain::Question],
    folder: &std::path::Path,
) -> Settings {
    let secret_file = folder.join("secret");
    std::fs::write(&secret_file, "0123456789abcdef").unwrap();
    let gate = autoglm_webhook::GateConfig {
        url,
        questions: questions.to_vec(),
        secret_env: String::new(),
        secret_file,
        timeout_ms: 20_000,
    };
    let mut settings = Settings { rollout: policy, ..Settings::default() };
    settings.webhook.gates.insert("quality".into(), gate);
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn doors_open_when_hooks_say_so_and_not_before() {
    use autoglm_domain::Question::{ConfirmPromotion, ConfirmRollout};
    let folder = tempfile::tempdir().unwrap();
    let hook = Hook::default();
    let url = hook.start(&[(503, ""), (500, ""), (200, "")]).await;
    let policy = accuracy(MetricConfig::improve(0.0));
    let (host, versions) =
        host_with(gated(policy, url, &[ConfirmRollout, ConfirmPromotion], folder.path())).await;
    let id = begin(&host, versions).await;
    let (_, state) = converse(&host, id, WORDS[1]).await;
    assert_eq!(outcome(&state).0, Outcome::Promote, "{state:?}");
    let asked = hook.asked.lock().clone();
    assert_eq!(
        asked,
        [
            "confirm-rollout canary 503",
            "confirm-rollout canary 500",
            "confirm-rollout canary 200",
            "confirm-promotion watch 200"
        ]
    );
    let looks = host.parts().store.rollout_progress(id, 1000).await.unwrap();
    let waited = looks.iter().any(|look| look.reason.contains("waits for `confirm-rollout`"));
    assert!(waited, "{:?}", looks.iter().map(|look| &look.reason).collect::<Vec<_>>());
    host.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_takes_a_candidate_out_of_its_canary() {
    let folder = tempfile::tempdir().unwrap();
    let hook = Hook::default();
    let rollback = r#"{"rollback": true, "reason": "tickets pile up"}"#;
    let url = hook.start(&[(503, ""), (200, r#"{"rollback": false}"#), (200, rollback)]).await;
    let mut policy = accuracy(MetricConfig::guard_difference(-95.0));
    policy.shadow.min_pairs = 0;
    policy.canary.min_requests = 5000;
    let mut settings = gated(policy, url, &[autoglm_domain::Question::Rollback], folder.path());
    settings.webhook.rollback_every_ms = 100;
    let (host, versions) = host_with(settings).await;
    let id = begin(&host, versions).await;
    let (_, state) = converse(&host, id, WORDS[1]).await;
    let (ruling, reason) = outcome(&state);
    assert_eq!(ruling, Outcome::Reject, "{state:?}");
    assert_eq!(reason, "`quality` asked for a rollback: tickets pile up");
    assert_eq!(host.parts().residents.serving(&Alias::champion()), versions[0]);
    host.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announced_model_is_registered_and_goes_through_the_gate() {
    let folder = tempfile::tempdir().unwrap();
    let secret_file = folder.path().join("secret");
    std::fs::write(&secret_file, "0123456789abcdef").unwrap();
    let mut settings = Settings::default();
    settings.webhook.inbound.secret_file = secret_file;
    settings.webhook.inbound.folders = vec![folder.path().join("models")];
    std::fs::create_dir(folder.path().join("models")).unwrap();
    let host = Host::start(settings).await.unwrap();
    let taught = host.teach(WORDS[0], 5).await.unwrap().number;
    let parts = Arc::clone(host.parts());
    let (inside, outside) = (folder.path().join("models/a"), folder.path().join("b"));
    parts.registry.export(taught, &inside).await.unwrap();
    parts.registry.export(taught, &outside).await.unwrap();

    let secret = autoglm_webhook::Secret::new("test", b"0123456789abcdef").unwrap();
    let client = reqwest::Client::new();
    let announce = |path: &std::path::Path, spoil: bool| {
        let body = serde_json::json!({"path": path, "note": "nightly"}).to_string();
        let now = parts.clock.now().0 / 1000;
        let signature = autoglm_webhook::sign(&secret, now, body.as_bytes());
        let body = if spoil { body.replace("nightly", "nightlz") } else { body };
        let request = client.post(format!("{}/v1/autoglm/webhooks/model", host.base_url)).body(body);
        request.header("x-autoglm-timestamp", now).header("x-autoglm-signature", signature).send()
    };
    assert_eq!(announce(&inside, true).await.unwrap().status(), 401);
    assert_eq!(announce(&outside, false).await.unwrap().status(), 403);
    assert_eq!(announce(&folder.path().join("models/c"), false).await.unwrap().status(), 403);
    assert_eq!(announce(&folder.path().join("models"), false).await.unwrap().status(), 400);
    let reply = announce(&inside, false).await.unwrap();
    assert_eq!(reply.status(), 200);
    let reply: serde_json::Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
    assert_eq!(reply["version"], "v2");
    assert_eq!(parts.registry.get(VersionNumber(2)).await.unwrap().note.as_deref(), Some("nightly"));
    // Nothing was held out to show that it is better: the gate does not let it through.
    let state = loop {
        let rollouts = parts.store.rollouts().await.unwrap();
        let rollout = rollouts.into_iter().find(|it| reply["rollout"] == it.id.to_string()).unwrap();
        if !rollout.is_unfinished() {
            break rollout.state;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(outcome(&state).0, Outcome::Inconclusive, "{state:?}");
    assert_eq!(parts.residents.serving(&Alias::champion()), VersionNumber::BASE);
    host.close().await.unwrap();
}
