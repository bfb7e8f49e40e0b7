//! What is recorded, and that it is before the answer ends.

use autoglm_domain::{AnswerSource, Endpoint, FinishReason, Sampling, Usage, VersionNumber};
use axum::{body::Body, http::Request};
use futures::StreamExt as _;
use serde_json::json;
use std::sync::atomic::Ordering;
use tower::ServiceExt as _;

use crate::harness::{Harness, eventually, gateway};

#[tokio::test]
async fn an_interaction_says_all_that_was_asked_and_answered() {
    let harness = Harness::new();
    let more = json!({
        "model": "starter", "temperature": 0.5, "seed": 3, "max_tokens": 2, "user": "ada",
        "metadata": {"task": "greeting"},
    });
    let reply = harness.chat("good day to you", more).await;
    let recorded = harness.doubles.store.all().pop().unwrap();
    assert_eq!(reply.headers["x-request-id"], recorded.id.to_string());
    assert_eq!(reply.headers["x-autoglm-model-version"], "v3");
    assert_eq!(recorded.endpoint, Endpoint::Chat);
    assert_eq!((recorded.model.as_str(), recorded.version), ("starter", VersionNumber(3)));
    assert_eq!(recorded.messages, [autoglm_domain::ChatMessage::user("good day to you")]);
    let sampling = Sampling { temperature: 0.5, seed: Some(3), max_tokens: Some(2), ..Sampling::default() };
    assert_eq!(recorded.sampling, sampling);
    assert_eq!(recorded.answer, "echo good");
    assert_eq!(recorded.source, AnswerSource::Weights);
    assert_eq!(recorded.finish_reason, FinishReason::Length);
    assert_eq!(recorded.usage, Usage { prompt_tokens: 4, completion_tokens: 2 });
    assert!(recorded.first_token_ms > 0.0 && recorded.first_token_ms <= recorded.latency_ms);
    assert_eq!((recorded.principal.as_str(), recorded.session), ("ada", None));
    assert_eq!(recorded.metadata["task"], "greeting");
    assert_eq!(*harness.doubles.notes.interactions.lock().unwrap(), [recorded.id]);
}

#[tokio::test]
async fn every_choice_is_an_interaction_and_takes_feedback() {
    let harness = Harness::new();
    let reply = harness.chat("hello", json!({"n": 3})).await.json();
    assert_eq!(harness.doubles.store.appends.load(Ordering::SeqCst), 1, "one append for all");
    let recorded = harness.doubles.store.all();
    assert_eq!(recorded.len(), 3);
    assert!(recorded.iter().all(|i| i.answer == "echo hello" && i.messages.len() == 1));
    assert_eq!(reply["choices"][0]["autoglm"]["id"], reply["id"]);
    assert_eq!(reply["usage"]["prompt_tokens"], 1);
    assert_eq!(reply["usage"]["completion_tokens"], 6);
    for choice in reply["choices"].as_array().unwrap() {
        let body = json!({"request_id": choice["autoglm"]["id"], "thumb": "up"});
        assert_eq!(harness.post("/v1/feedback", body).await.status, 200);
    }
    assert_eq!(harness.doubles.store.feedback.lock().unwrap().len(), 3);
    assert_eq!(harness.doubles.notes.feedback.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_stream_is_recorded_before_its_last_chunk() {
    let (gateway, doubles) = gateway(autoglm_gateway::Config::default());
    doubles.store.delay_ms.store(20, Ordering::SeqCst);
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "stream": true}).to_string();
    let request = Request::post("/v1/chat/completions").body(Body::from(body)).unwrap();
    let response = gateway.router().oneshot(request).await.unwrap();
    let mut chunks = response.into_body().into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = String::from_utf8(chunk.unwrap().to_vec()).unwrap();
        let last = chunk.contains("finish_reason\":\"") || chunk.contains("[DONE]");
        assert_eq!(last, !doubles.store.all().is_empty(), "{chunk}");
    }
    assert_eq!(doubles.store.all()[0].answer, "echo hello");
}

/// A client that goes away exactly while its answer is being written down: it is written down once.
#[tokio::test]
async fn a_client_that_leaves_during_the_append_leaves_one_record() {
    let (gateway, doubles) = gateway(autoglm_gateway::Config::default());
    doubles.store.delay_ms.store(50, Ordering::SeqCst);
    let body = json!({"messages": [{"role": "user", "content": "hello"}]}).to_string();
    let request = Request::post("/v1/chat/completions").body(Body::from(body)).unwrap();
    let answering = tokio::spawn(gateway.router().oneshot(request));
    eventually("the append begins", || doubles.store.begun.load(Ordering::SeqCst) > 0).await;
    answering.abort();
    eventually("the record", || !doubles.store.all().is_empty()).await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(doubles.store.appends.load(Ordering::SeqCst), 1);
    assert_eq!(doubles.store.all()[0].finish_reason, FinishReason::Stop);
}

#[tokio::test]
async fn the_version_is_fixed_when_the_request_begins() {
    let (gateway, doubles) = gateway(autoglm_gateway::Config::default());
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "stream": true}).to_string();
    let request = Request::post("/v1/chat/completions").body(Body::from(body)).unwrap();
    let response = gateway.router().oneshot(request).await.unwrap();
    doubles.table.0.store(8, Ordering::SeqCst);
    assert_eq!(response.headers()["x-autoglm-model-version"], "v3");
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    assert!(String::from_utf8(body.to_vec()).unwrap().contains("\"system_fingerprint\":\"autoglm-v3\""));
    assert_eq!(doubles.store.all()[0].version, VersionNumber(3));
    assert_eq!(doubles.generator.requests.lock().unwrap()[0].version, VersionNumber(3));
}
