use super::*;
use crate::demo::{
    doubles::{ByHeart, stream},
    users::Opinion,
};

#[tokio::test]
async fn weights_and_recall_are_told_apart() {
    let (double, server) = ByHeart::default().start().await;
    let stream = stream(1, 9);
    let client = Client::new(&server.base_url).unwrap();
    let held_out = &stream.tasks[0].held_out[0];
    let answer = client.ask(held_out, Asking::default()).await.unwrap();
    client.tell(&answer.id, &Opinion::Correction(held_out.reference.clone())).await.unwrap();

    let base = VersionNumber::BASE;
    let weights = from_weights(&server.generator, &stream, 0, usize::MAX, base).await.unwrap();
    assert_eq!(weights.right, [false, false, false]);
    let (recall, failures) = with_recall(&client, &stream, 0, RecallMode::Answer, 4).await;
    assert_eq!(recall.right, [true, false, false]);
    assert!(failures.is_empty());
    let last = double.bodies().pop().unwrap();
    assert_eq!(last["autoglm"], serde_json::json!({"recall": "answer"}));
    assert!(last.get("metadata").is_none(), "measuring must not name the task");
    assert_eq!(double.feedback().len(), 1);
}

#[tokio::test]
async fn a_version_that_is_gone_is_an_error_and_not_a_zero() {
    let (_, server) = ByHeart::default().start().await;
    let stream = stream(1, 3);
    let error = from_weights(&server.generator, &stream, 0, 3, VersionNumber(7)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}

#[test]
fn accuracy_looks_at_the_first_utterances_only() {
    let score = TaskScore { right: vec![true, true, false, false] };
    assert_eq!((score.accuracy(2), score.accuracy(usize::MAX)), (Some(1.0), Some(0.5)));
    assert_eq!(TaskScore::default().accuracy(5), None);
    assert_eq!(mean([Some(1.0), None, Some(0.5)]), Some(0.75));
    assert_eq!(mean([None]), None);
}

#[test]
fn forgetting_is_best_minus_last_and_never_negative() {
    let mut retention = Retention::new(2);
    let (v1, v2, v3) = (VersionNumber(1), VersionNumber(2), VersionNumber(3));
    retention.set(0, v1, Some(0.9));
    retention.set(0, v2, Some(0.7));
    retention.set(1, v2, Some(0.6));
    retention.set(0, v3, Some(0.8));
    retention.set(1, v3, Some(0.65));
    assert_eq!(retention.accuracy, [[Some(0.9), Some(0.7), Some(0.8)], [None, Some(0.6), Some(0.65)]]);
    assert!((retention.forgetting(0, v3).unwrap() - 0.1).abs() < 1e-12);
    assert_eq!(retention.forgetting(1, v3), Some(0.0));
    assert_eq!(retention.forgetting(1, v1), None);
    retention.set(1, v3, Some(0.5));
    assert_eq!(retention.get(1, v3), Some(0.5));
}
