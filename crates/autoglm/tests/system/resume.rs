//! A training run that the end of the process cuts short goes on with the next one.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::server::{PATIENCE, QUICK, Server, read_json};

/// [`QUICK`] with more steps.
fn settings(steps: &'static str) -> Vec<(&'static str, &'static str)> {
    let others = QUICK.into_iter().filter(|(name, _)| !name.ends_with("__STEPS"));
    others.chain([("AUTOGLM_TRAIN__HYPER__STEPS", steps)]).collect()
}

/// What is off by default, on.
const EVERYTHING: [(&str, &str); 5] = [
    ("AUTOGLM_TRAIN__HYPER__USE_RSLORA", "true"),
    ("AUTOGLM_TRAIN__HYPER__LAYERS_TO_TRANSFORM", "[0, 2]"),
    ("AUTOGLM_TRAIN__HYPER__GRADIENT_CHECKPOINTING", "true"),
    ("AUTOGLM_TRAIN__PLAN__PREFER_CORRECTIONS", "true"),
    ("AUTOGLM_TRAIN__PLAN__DISTILL_SHARE", "0.25"),
];

/// Waits until the run in progress has done `step` steps; its id and how far it is.
async fn reaches(server: &Server, step: u64) -> (String, u64) {
    let begin = Instant::now();
    loop {
        let status = server.status().await;
        let run = &status["activity"]["run"];
        let done = run["progress"]["step"].as_u64().unwrap_or_default();
        if done >= step {
            return (run["run"].as_str().unwrap().to_owned(), done);
        }
        assert!(begin.elapsed() < PATIENCE, "never at step {step}: {status}\n{}", server.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the run has left a checkpoint.
async fn is_kept(checkpoint: &Path) {
    let begin = Instant::now();
    while !checkpoint.exists() {
        assert!(begin.elapsed() < PATIENCE, "{} never comes", checkpoint.display());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn run(data: &Path, id: &str) -> Value {
    let runs = read_json(data, &["runs", "list"]);
    let runs = runs.as_array().unwrap().clone();
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(runs[0]["id"], id);
    runs[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_after_a_kill_and_after_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // With everything that changes how it trains.
    let settings = [settings("200"), EVERYTHING.to_vec()].concat();
    let server = Server::start(&data, &settings).await;
    server.teach(24).await;
    server.order("/v1/autoglm/train", serde_json::json!({"reason": "test"})).await;
    let (id, killed_at) = reaches(&server, 6).await;
    is_kept(&data.join("checkpoint").join(&id)).await;
    server.kill();
    assert_eq!(run(&data, &id)["state"], "running");

    let server = Server::start(&data, &settings).await;
    let (again, stopped_at) = reaches(&server, killed_at + 6).await;
    assert_eq!(again, id);
    server.stop();
    assert_eq!(run(&data, &id)["state"], "running");

    let server = Server::start(&data, &settings).await;
    let (again, went_on_at) = reaches(&server, 1).await;
    assert_eq!(again, id);
    assert!(went_on_at > stopped_at, "it stopped at {stopped_at} and goes on at {went_on_at}");
    server.idle().await;
    let ended = run(&data, &id);
    assert_eq!((&ended["state"], ended["metrics"]["steps"].as_f64()), (&"succeeded".into(), Some(200.0)));
    assert_eq!(std::fs::read_dir(data.join("checkpoint")).unwrap().count(), 0);
    let version = read_json(&data, &["versions", "show", "v1"]);
    let hyper = version.pointer("/version/hyper").or_else(|| version.get("hyper")).unwrap();
    assert_eq!(
        (&hyper["use_rslora"], &hyper["layers_to_transform"]),
        (&true.into(), &serde_json::json!([0, 2]))
    );
}

/// Without a checkpoint, or with one that is damaged, the run is cancelled, and its trigger still holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_checkpoint_is_damaged_is_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let (data, settings) = (folder.path().join("data"), settings("1000"));
    let server = Server::start(&data, &settings).await;
    server.teach(24).await;
    server.order("/v1/autoglm/train", serde_json::json!({"reason": "test"})).await;
    let (id, _) = reaches(&server, 3).await;
    let checkpoint = data.join("checkpoint").join(&id);
    is_kept(&checkpoint).await;
    server.kill();
    let mut state = std::fs::read(&checkpoint).unwrap();
    let middle = state.len() / 2;
    state[middle] ^= 1;
    std::fs::write(&checkpoint, state).unwrap();

    let server = Server::start(&data, &settings).await;
    server.idle().await;
    let ended = run(&data, &id);
    assert_eq!(
        (&ended["state"], &ended["reason"]),
        (&"cancelled".into(), &"found unfinished at start".into())
    );
    assert!(!checkpoint.exists());
    assert!(server.log().contains("its content is not what was written"), "{}", server.log());
}
