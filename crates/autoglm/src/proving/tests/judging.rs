//! A judge of pairs beside a rollout: our own server, one that knows what is right, and ones that fail.

use std::{io::Write as _, path::PathBuf, sync::Arc, time::Duration};

use autoglm_domain::{JudgeStanding, Preference};
use axum::{
    Json, Router,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use super::*;

/// A double of a judging server.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Double {
    /// Prefers the answer that holds the second word, and says so in one letter.
    Knows,
    /// Answers every question with an error.
    Fails,
    /// Answers with what is no verdict.
    Rambles,
    /// Never answers.
    Hangs,
}

impl Double {
    /// Starts it; where its API is.
    async fn start(self) -> String {
        let models = async || Json(json!({"data": [{"id": "double", "max_model_len": 4096}]}));
        let chat = async move |Json(body): Json<Value>| self.answer(&body).await;
        let routes = Router::new().route("/v1/models", get(models)).route("/v1/chat/completions", post(chat));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        base
    }

    async fn answer(self, body: &Value) -> Response {
        let asked = body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap();
        let (_, answers) = asked.split_once("Answer A:").unwrap();
        let (first, second) = answers.split_once("Answer B:").unwrap();
        let said = match (self, first.contains(WORDS[1]), second.contains(WORDS[1])) {
            (Self::Fails, ..) => return (StatusCode::BAD_REQUEST, "no").into_response(),
            (Self::Hangs, ..) => std::future::pending().await,
            (Self::Rambles, ..) => "Answer A has its charms",
            (Self::Knows, true, false) => "A",
            (Self::Knows, false, true) => "B",
            (Self::Knows, ..) => "C",
        };
        let chunk = json!({"choices": [{"index": 0, "delta": {"content": said}, "finish_reason": "stop"}]});
        let events = format!("data: {chunk}\n\ndata: [DONE]\n\n");
        ([(header::CONTENT_TYPE, "text/event-stream")], events).into_response()
    }
}

/// What people say of pairs: the second word is right, in either place.
fn labels() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.jsonl");
    let mut file = std::fs::File::create(&path).unwrap();
    for n in 0..40 {
        let [right, wrong] = [WORDS[1], WORDS[0]];
        let line = match n % 2 {
            0 => json!({"prompt": format!("{n}"), "first": right, "second": wrong, "preferred": "first"}),
            _ => json!({"prompt": format!("{n}"), "first": wrong, "second": right, "preferred": "second"}),
        };
        writeln!(file, "{line}").unwrap();
    }
    (folder, path)
}

/// A shadow and nothing after it, decided by `metric`, with the judge at `base`.
fn settings(base: &str, labels: PathBuf, metric: &str) -> Settings {
    let mut policy = accuracy(MetricConfig::improve(0.0));
    policy.metrics = [(metric.to_owned(), MetricConfig::improve(0.0))].into();
    policy.canary.steps.clear();
    policy.watch.window_s = 0;
    let mut settings = Settings { rollout: policy, ..Settings::default() };
    settings.evaluate.judge.base_url = base.to_owned();
    settings.evaluate.judge.labels = Some(labels);
    settings.evaluate.judge.timeout_ms = 20_000;
    settings
}

async fn standing(host: &Host) -> JudgeStanding {
    let begin = std::time::Instant::now();
    loop {
        if let Some(standing) = host.parts().judging.standing() {
            return standing;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "the judge was not held to the labels");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_judge_that_agrees_with_people_decides_a_rollout_that_nobody_speaks_of() {
    let (_folder, labels) = labels();
    let mut settings = settings(&Double::Knows.start().await, labels, "judge");
    // Where nobody speaks every pair waits for so long, and the judge has to be done with it by then.
    settings.rollout.settle_s = 8;
    let (host, versions) = host_with(settings).await;
    let known = standing(&host).await;
    assert!(known.trusted && known.pairs == 40 && known.kappa > 0.999, "{known:?}");
    let id = begin(&host, versions).await;
    let client = host.client().unwrap();
    let mut state = None;
    let utterances: Vec<_> = host.stream.tasks.iter().flat_map(|task| &task.traffic).collect();
    for utterance in utterances.into_iter().cycle().take(2000) {
        let asking = Asking { recall: Some(RecallMode::Off), ..Asking::default() };
        client.ask(utterance, asking).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let rollouts = host.parts().store.rollouts().await.unwrap();
        let rollout = rollouts.into_iter().find(|it| it.id == id).unwrap();
        if !rollout.is_unfinished() {
            state = Some(rollout.state);
            break;
        }
    }
    let Some(RolloutState::Decided { verdict }) = state else { panic!("{state:?}") };
    assert_eq!(verdict.outcome, Outcome::Promote, "{}", verdict.reason);
    let look = &verdict.evidence.live[0];
    assert_eq!((look.metrics[0].metric.as_str(), look.judge), ("judge", Some(known)));
    let pairs = host.parts().store.shadow_pairs(id, PairOrder::Oldest, 1000).await.unwrap();
    let preferred = pairs.iter().filter(|pair| pair.preference == Some(Preference::Candidate)).count();
    assert!(preferred >= 5 && preferred as u64 >= look.observations, "{preferred} of {}", pairs.len());
    host.close().await.unwrap();
}

/// Trained to say one letter whatever it is asked, our own server prefers a place and no answer.
#[tokio::test(flavor = "multi_thread")]
async fn our_own_server_as_a_judge_that_likes_a_place_is_not_believed() {
    let judge = Host::start(Settings::default()).await.unwrap();
    let letter = judge.teach("A", 40).await.unwrap().number;
    let parts = judge.parts();
    parts.registry.point(Alias::champion(), None, letter, "test", "the first", None).await.unwrap();
    parts.residents.follow(parts).await.unwrap();

    let (_folder, labels) = labels();
    let mut settings = settings(&format!("{}/v1", judge.base_url), labels, "accuracy");
    settings.evaluate.judge.model = "champion".into();
    let (host, versions) = host_with(settings).await;
    let known = standing(&host).await;
    assert!(!known.trusted && known.kappa.abs() < 0.3, "{known:?}");
    let id = begin(&host, versions).await;
    let (_, state) = converse(&host, id, WORDS[1]).await;
    assert_eq!(outcome(&state).0, Outcome::Promote, "{state:?}");
    let pairs = host.parts().store.shadow_pairs(id, PairOrder::Oldest, 1000).await.unwrap();
    let said: Vec<_> = pairs.iter().filter_map(|pair| pair.preference).collect();
    assert!(!said.is_empty() && said.iter().all(|it| *it == Preference::Tie), "{said:?}");
    host.close().await.unwrap();
    judge.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_judge_that_fails_leaves_pairs_unjudged_and_nothing_else_changes() {
    for double in [Double::Fails, Double::Rambles, Double::Hangs] {
        let (_folder, labels) = labels();
        let mut settings = settings(&double.start().await, labels, "accuracy");
        // A pair that the judge never speaks of waits for all of it.
        settings.rollout.settle_s = 5;
        settings.evaluate.judge.timeout_ms = 1000;
        let (host, versions) = host_with(settings).await;
        let id = begin(&host, versions).await;
        let (_, state) = converse(&host, id, WORDS[1]).await;
        assert_eq!(outcome(&state).0, Outcome::Promote, "{double:?}: {state:?}");
        let pairs = host.parts().store.shadow_pairs(id, PairOrder::Oldest, 1000).await.unwrap();
        let preferred = pairs.iter().any(|pair| !matches!(pair.preference, None | Some(Preference::Tie)));
        assert!(pairs.len() >= 5 && !preferred, "{double:?}");
        assert!(!host.parts().judging.is_trusted(), "{double:?}");
        host.close().await.unwrap();
    }
}

#[tokio::test]
async fn the_agreement_is_measured_beforehand_as_well() {
    let (folder, labels) = labels();
    let clock: Arc<dyn autoglm_domain::Clock> = Arc::new(autoglm_domain::SystemClock);
    let knows = settings(&Double::Knows.start().await, labels.clone(), "judge");
    let known = crate::node::judging::check(&knows, &clock, &labels).await.unwrap();
    assert!(known.trusted && known.share > 0.999 && known.lower > 0.8, "{known:?}");
    let none = Settings::default();
    let refused = crate::node::judging::check(&none, &clock, &labels).await.unwrap_err();
    assert!(refused.hint.unwrap().contains("evaluate.judge.base_url"));
    let broken = folder.path().join("broken.jsonl");
    std::fs::write(&broken, "{\"prompt\": 1}\n").unwrap();
    let refused = crate::node::judging::check(&knows, &clock, &broken).await.unwrap_err();
    assert!(refused.message.starts_with("line 1 is not a labelled pair"), "{refused}");
}
