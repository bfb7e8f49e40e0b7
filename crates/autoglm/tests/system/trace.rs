//! From an answer back to everything behind it.

use serde_json::{Value, json};

use crate::server::{QUICK, Server, question, read_json};

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_after_a_run_is_traced_to_version_run_experiences_and_feedback() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), &QUICK).await;
    let taught = server.teach(16).await;
    server.idle().await;
    let run = server.train().await;
    server.order("/v1/autoglm/promote", json!({"version": "v1", "reason": "test"})).await;
    let off = json!({"model": "champion", "messages": [{"role": "user", "content": "a question about weather"}],
        "max_tokens": 4, "autoglm": {"recall": "off"}});
    let answer = server.order("/v1/chat/completions", off).await["id"].as_str().unwrap().to_owned();

    // Every version that is listed answers by its number, whether an alias serves it or not.
    server.order("/v1/autoglm/rollback", json!({"reason": "test"})).await;
    let data = server.data.clone();
    server.stop();
    let server = Server::start(&data, &QUICK).await;
    let by_number = server.order("/v1/chat/completions", question("v1", "a question about weather")).await;
    assert_eq!(by_number["system_fingerprint"], "autoglm-v1");
    server.order("/v1/autoglm/promote", json!({"version": "v1", "reason": "again"})).await;

    // Beside the running server, and after it has ended.
    let live = read_json(&server.data, &["trace", &answer]);
    let data = server.data.clone();
    server.stop();
    let trace = read_json(&data, &["trace", &answer, "--all"]);
    for trace in [&live, &trace] {
        assert_eq!(trace["answer"]["interaction"]["id"], answer.as_str());
        assert_eq!(trace["answer"]["interaction"]["version"], 1);
        let version = &trace["versions"][0];
        assert_eq!((&version["number"], &version["run"]), (&json!(1), &json!(run)));
        assert_eq!(version["made_by"]["id"], run.as_str());
        assert_eq!(version["made_by"]["trigger"]["kind"], "manual");
        assert_eq!(version["aliases"], json!(["champion"]));
        assert_eq!(version["moves"][0]["reason"], "test");
        assert_eq!(version["rollouts"][0]["candidate"], 1);
    }
    let learned = trace["learned_from"]["experiences"].as_array().unwrap();
    assert!(!learned.is_empty());
    assert_eq!(trace["learned_from"]["count"], learned.len());
    for experience in learned {
        let behind = &experience["behind"];
        assert_eq!(behind["held_out"], false, "what is held out is not trained on");
        assert_eq!(behind["verifier"], "correction");
        let interaction = behind["interactions"][0].as_str().unwrap();
        assert!(taught.iter().any(|id| id == interaction), "{interaction} was never asked");
        assert_eq!(behind["feedback"][0]["correction"], experience["target"]);
    }
    // And back: an experience names the version, a feedback its answer, a run its version.
    let id = learned[0]["id"].as_str().unwrap();
    let experience = read_json(&data, &["trace", id]);
    assert_eq!(experience["experience"]["trained"][0]["version"], 1);
    let feedback = learned[0]["behind"]["feedback"][0]["id"].as_str().unwrap();
    let of = |trace: &Value, path: &str| trace.pointer(path).cloned().unwrap_or_default();
    let spoken_of = read_json(&data, &["trace", feedback]);
    assert_eq!(of(&spoken_of, "/answer/interaction/id"), learned[0]["behind"]["interactions"][0]);
    assert_eq!(of(&read_json(&data, &["trace", &run]), "/versions/0/number"), 1);
}
