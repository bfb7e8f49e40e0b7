//! Streams, chunk by chunk.

use std::{sync::atomic::Ordering, time::Duration};

use autoglm_domain::{ExperienceId, SequentialIds};
use autoglm_gateway::{Config, RecallDecision};
use axum::{body::Body, http::Request};
use insta::assert_snapshot;
use serde_json::json;

use crate::harness::Harness;

#[tokio::test]
async fn chat() {
    let harness = Harness::new();
    let more = json!({"model": "v2", "stream": true, "stream_options": {"include_usage": true}});
    assert_snapshot!(harness.chat("hello there", more).await.show());
}

#[tokio::test]
async fn chat_with_choices_and_logprobs() {
    let harness = Harness::new();
    let more = json!({"stream": true, "n": 2, "logprobs": true, "top_logprobs": 1, "max_tokens": 1});
    let reply = harness.chat("hello", more).await;
    // The two choices come in any order; each has its own.
    let mut chunks: Vec<&str> = reply.body.trim_end().split("\n\n").collect();
    assert_eq!(chunks.pop(), Some("data: [DONE]"));
    for index in ["\"index\":0", "\"index\":1"] {
        let own: Vec<&str> = chunks.iter().copied().filter(|chunk| chunk.contains(index)).collect();
        assert_snapshot!(format!("choice_{}", &index[8..]), own.join("\n"));
    }
    assert_eq!(chunks.len(), 6);
}

#[tokio::test]
async fn completion_with_logprobs() {
    let harness = Harness::new();
    let body = json!({"prompt": "one two", "stream": true, "logprobs": 1});
    assert_snapshot!(harness.post("/v1/completions", body).await.show());
}

#[tokio::test]
async fn memory_is_streamed_like_anything_else() {
    let harness = Harness::new();
    let experience = ExperienceId::next(&SequentialIds::default());
    *harness.doubles.recall.decision.lock().unwrap() =
        Ok(RecallDecision::Answer { experience, text: "Paris".into() });
    let more = json!({"stream": true, "stream_options": {"include_usage": true}});
    assert_snapshot!(harness.chat("capital of france", more).await.show());
}

#[tokio::test]
async fn errors_before_the_first_chunk_have_a_status() {
    let harness = Harness::new();
    for (content, status) in [("queue full", 429), ("broken engine", 500), ("refuse", 400)] {
        assert_eq!(harness.chat(content, json!({"stream": true})).await.status, status, "{content}");
    }
}

#[tokio::test]
async fn an_engine_that_is_busy_or_gone_says_when_to_try_again() {
    let harness = Harness::new();
    for (content, status, after_s) in [("engine busy", 429, "7"), ("engine gone", 503, "9")] {
        for stream in [false, true] {
            let reply = harness.chat(content, json!({"stream": stream})).await;
            assert_eq!(reply.status, status, "{content}");
            assert_eq!(reply.headers["retry-after"], after_s, "{content}");
        }
    }
}

#[tokio::test]
async fn a_request_says_how_long_it_may_take() {
    let harness = Harness::with(Config { request_timeout_s: 30, ..Config::default() });
    let ask = async |content: &str, timeout: &str| {
        let body = json!({"messages": [{"role": "user", "content": content}]}).to_string();
        let request = Request::post("/v1/chat/completions").header("x-request-timeout-ms", timeout);
        harness.send(request.body(Body::from(body)).unwrap()).await
    };
    // The engine ends the answer; one that does not is not waited for.
    for content in ["overdue", "hangs"] {
        let late = ask(content, "400").await;
        assert_eq!((late.status.as_u16(), &late.json()["error"]["code"]), (504, &json!("timeout")));
        let message = late.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("the answer took longer than 0.4 s"), "{message}");
    }
    assert_eq!(ask("hello", "90000").await.status, 200);
    let timeouts: Vec<_> =
        harness.doubles.generator.requests.lock().unwrap().iter().map(|r| r.timeout.unwrap()).collect();
    assert!(timeouts[0] <= Duration::from_millis(400) && timeouts[0] > Duration::ZERO, "{timeouts:?}");
    // The server's own limit goes before what the client asks for.
    assert!(timeouts[2] <= Duration::from_secs(30) && timeouts[2] > Duration::from_secs(20), "{timeouts:?}");
    for nonsense in ["0", "soon", "-1", "1.5"] {
        let refused = ask("hello", nonsense).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["error"]["param"]),
            (400, &json!("x-request-timeout-ms"))
        );
    }
}

#[tokio::test]
async fn an_engine_that_dies_ends_the_stream_with_an_error_and_the_part_is_recorded() {
    let harness = Harness::new();
    let reply = harness.chat("dies midway", json!({"stream": true})).await;
    assert_snapshot!(reply.show());
    let store = harness.doubles.store.clone();
    crate::harness::eventually("the record", || !store.all().is_empty()).await;
    assert_eq!(store.all()[0].answer, "half an answer");
    assert_eq!(store.all()[0].finish_reason, autoglm_domain::FinishReason::Cancelled);
}

#[tokio::test]
async fn a_stream_that_cannot_be_recorded_does_not_end_well() {
    let harness = Harness::new();
    harness.doubles.store.broken.store(true, Ordering::SeqCst);
    let reply = harness.chat("q", json!({"stream": true})).await;
    assert_snapshot!(reply.show());
}
