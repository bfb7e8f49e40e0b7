//! Every error as a client sees it.

use std::sync::atomic::Ordering;

use autoglm_gateway::{Config, Keys};
use axum::{body::Body, http::Request};
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::harness::Harness;

/// One line a case: status, param, code, message.
fn line(reply: &crate::harness::Reply) -> String {
    let error = reply.json()["error"].clone();
    let word = |key: &str| error[key].as_str().unwrap_or("-").to_owned();
    format!(
        "{} {} {} {}: {}",
        reply.status.as_u16(),
        word("type"),
        word("param"),
        word("code"),
        word("message")
    )
}

async fn lines(harness: &Harness, path: &str, bodies: Vec<Value>) -> String {
    let mut all = String::new();
    for body in bodies {
        let reply = harness.post(path, body).await;
        all.push_str(&line(&reply));
        all.push('\n');
    }
    all
}

#[tokio::test]
async fn the_form_of_an_error() {
    let harness = Harness::new();
    assert_snapshot!(
        "malformed_json",
        harness.post_text("/v1/chat/completions", "{\"model\": ").await.show()
    );
    assert_snapshot!("unknown_model", harness.chat("q", json!({"model": "gpt-9"})).await.show());
    assert_snapshot!("unknown_route", harness.get("/v1/chat/completion").await.show());
    assert_snapshot!("wrong_method", harness.get("/v1/chat/completions").await.show());
    assert_snapshot!("queue_full", harness.chat("queue full", json!({})).await.show());
    assert_snapshot!("too_long", harness.chat(&"word ".repeat(70), json!({})).await.show());
    assert_snapshot!("engine_refuses", harness.chat("refuse", json!({})).await.show());
    assert_snapshot!("engine_fault", harness.chat("broken engine", json!({})).await.show());
    assert_snapshot!("engine_dies", harness.chat("dies midway", json!({})).await.show());
    assert_snapshot!("not_resident", harness.chat("q", json!({"model": "v9"})).await.show());
    assert!(harness.doubles.store.all().is_empty(), "nothing was answered, so nothing is recorded");
}

#[tokio::test]
async fn chat_fields() {
    let harness = Harness::new();
    let user = json!([{"role": "user", "content": "q"}]);
    let with = |more: Value| {
        let mut body = json!({"messages": user});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let bodies = vec![
        json!([]),
        json!({}),
        json!({"messages": "q"}),
        json!({"messages": []}),
        json!({"messages": ["q"]}),
        json!({"messages": [{"content": "q"}]}),
        json!({"messages": [{"role": "robot", "content": "q"}]}),
        json!({"messages": [{"role": "user"}]}),
        json!({"messages": [{"role": "user", "content": 5}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
        json!({"messages": [{"role": "user", "content": "q", "contnet": "q"}]}),
        json!({"messages": [{"role": "assistant", "content": "q", "tool_calls": [{"id": "1"}]}]}),
        with(json!({"model": 5})),
        with(json!({"temprature": 1})),
        with(json!({"zzz": 1})),
        with(json!({"temperature": "hot"})),
        with(json!({"temperature": 2.5})),
        with(json!({"temperature": -0.1})),
        with(json!({"top_p": 0})),
        with(json!({"top_k": -2})),
        with(json!({"repetition_penalty": 0})),
        with(json!({"presence_penalty": 3})),
        with(json!({"max_tokens": 0})),
        with(json!({"max_tokens": 1.5})),
        with(json!({"max_tokens": 5, "max_completion_tokens": 6})),
        with(json!({"n": 0})),
        with(json!({"n": 17})),
        with(json!({"seed": 1.5})),
        with(json!({"stop": ""})),
        with(json!({"stop": [1]})),
        with(json!({"stop": {"a": 1}})),
        with(json!({"logprobs": 2})),
        with(json!({"top_logprobs": 2})),
        with(json!({"logprobs": true, "top_logprobs": 21})),
        with(json!({"stream": "yes"})),
        with(json!({"stream_options": {"include_usage": true}})),
        with(json!({"stream": true, "stream_options": {"includeusage": true}})),
        with(json!({"metadata": {"a": 1}})),
        with(json!({"metadata": []})),
        with(json!({"autoglm": {"recall": "always"}})),
        with(json!({"autoglm": {"recal": "off"}})),
        with(json!({"tools": [{"type": "function"}]})),
        with(json!({"tool_choice": "required"})),
        with(json!({"functions": [{"name": "f"}]})),
        with(json!({"response_format": {"type": "xml"}})),
        with(json!({"response_format": {"type": "json_schema"}})),
        with(json!({"return_token_ids": "yes"})),
        with(json!({"prompt_logprobs": 21})),
        with(json!({"logit_bias": {"5": 500}})),
        with(json!({"modalities": ["text", "audio"]})),
        with(json!({"audio": {"voice": "x"}})),
        with(json!({"reasoning_effort": "high"})),
    ];
    assert_snapshot!(lines(&harness, "/v1/chat/completions", bodies).await);
}

#[tokio::test]
async fn other_fields() {
    let harness = Harness::new();
    let completions = vec![
        json!({}),
        json!({"prompt": 5}),
        json!({"prompt": []}),
        json!({"prompt": [1, 2]}),
        json!({"prompt": [[1, 2]]}),
        json!({"prompt": "q", "messages": []}),
        json!({"prompt": "q", "logprobs": true}),
        json!({"prompt": "q", "best_of": 3}),
        json!({"prompt": "q", "echo": true}),
        json!({"prompt": "q", "suffix": "end"}),
        json!({"prompt": ["q", "r", "s"], "n": 6}),
    ];
    assert_snapshot!("completion_fields", lines(&harness, "/v1/completions", completions).await);
    let embeddings = vec![
        json!({}),
        json!({"input": ""}),
        json!({"input": [1, 2]}),
        json!({"input": {}}),
        json!({"input": "a", "dimensions": 3}),
        json!({"input": "a", "encoding_format": "int8"}),
        json!({"input": "a", "model": "gpt-9"}),
        json!({"input": "word ".repeat(70)}),
        json!({"inputs": "a"}),
    ];
    assert_snapshot!("embedding_fields", lines(&harness, "/v1/embeddings", embeddings).await);
    let id = harness.chat("q", json!({})).await.json()["id"].clone();
    let feedback = vec![
        json!({}),
        json!({"id": id}),
        json!({"id": "nonsense", "thumb": "up"}),
        json!({"id": "chatcmpl-ffffffffffffffffffffffffffffffff", "thumb": "up"}),
        json!({"id": id, "request_id": "chatcmpl-1", "thumb": "up"}),
        json!({"id": id, "thumb": "sideways"}),
        json!({"id": id, "thumb": 2}),
        json!({"id": id, "thumb": []}),
        json!({"id": id, "score": 101}),
        json!({"id": id, "metric": "x"}),
        json!({"id": id, "value": 1}),
        json!({"id": id, "correction": " "}),
        json!({"id": id, "tags": [""]}),
        json!({"id": id, "tags": "a"}),
        json!({"id": id, "corection": "a"}),
    ];
    assert_snapshot!("feedback_fields", lines(&harness, "/v1/feedback", feedback).await);
    assert!(harness.doubles.store.feedback.lock().unwrap().is_empty());
    let orders = vec![json!({}), json!({"version": "x"}), json!({"version": "v4", "force": true})];
    assert_snapshot!("promote_fields", lines(&harness, "/v1/autoglm/promote", orders.clone()).await);
    let arm = json!({"version": "v3", "share": 0.5});
    let tests = vec![
        json!({}),
        json!({"arms": [arm]}),
        json!({"arms": [arm, {"share": 1}]}),
        json!({"arms": [arm, {"version": "v4", "share": -1}]}),
        json!({"arms": [arm, arm], "allocation": "greedy"}),
        json!({"arms": [arm, arm], "alpha": 0.7}),
        json!({"arms": [arm, arm], "min_requests": 0}),
        json!({"arms": [arm, arm], "metrics": "accuracy"}),
    ];
    assert_snapshot!("start_ab_fields", lines(&harness, "/v1/autoglm/ab-tests", tests).await);
    let none = harness.post("/v1/autoglm/ab-tests/ab_1/stop", json!({})).await;
    assert_eq!(none.status, 400);
    assert_snapshot!("start_rollout_fields", lines(&harness, "/v1/autoglm/rollouts", orders).await);
    let again = harness.post("/v1/autoglm/train", json!({"reason": "again"})).await;
    assert_eq!(line(&again), "409 invalid_request_error - conflict: a run is on its way");
    let missing = harness.get("/v1/autoglm/interactions/chatcmpl-ffffffffffffffffffffffffffffffff").await;
    assert_eq!(missing.status, 404);
}

#[tokio::test]
async fn limits() {
    let small = Harness::with(Config { max_body_bytes: 40, ..Config::default() });
    assert_snapshot!("body_too_large", small.chat("a long message", json!({})).await.show());
    // The same without a declared length, so that the bytes have to be counted.
    let pieces = futures::stream::iter([(); 2].map(|()| Ok::<_, std::io::Error>("x".repeat(30))));
    let request = Request::post("/v1/chat/completions").body(Body::from_stream(pieces)).unwrap();
    assert_eq!(small.send(request).await.status, 413);

    let impatient = Harness::with(Config { request_timeout_s: 0, ..Config::default() });
    assert_snapshot!("timed_out", impatient.chat("hangs", json!({})).await.show());
    let none = Harness::with(Config { max_in_flight: 0, ..Config::default() });
    assert_snapshot!("too_many", none.chat("q", json!({})).await.show());

    let never = futures::stream::pending::<Result<String, std::io::Error>>();
    let slow = Harness::with(Config { body_timeout_s: 0, ..Config::default() });
    let request = Request::post("/v1/chat/completions").body(Body::from_stream(never)).unwrap();
    assert_snapshot!("slow_body", slow.send(request).await.show());
}

#[tokio::test]
async fn an_answer_that_cannot_be_recorded_is_withheld() {
    let harness = Harness::new();
    harness.doubles.store.broken.store(true, Ordering::SeqCst);
    assert_snapshot!("not_recorded", harness.chat("q", json!({"model": "v2"})).await.show());
    let feedback = json!({"id": "chatcmpl-00000000000000000000000000000001", "thumb": "up"});
    assert_snapshot!("feedback_not_recorded", harness.post("/v1/feedback", feedback).await.show());
    assert!(harness.doubles.notes.interactions.lock().unwrap().is_empty());
}

#[tokio::test]
async fn keys() {
    let keys = [("sk-ada".to_owned(), "ada".to_owned()), ("sk-bob".to_owned(), "bob".to_owned())];
    let config =
        Config { keys: Keys(keys.into_iter().collect()), admins: vec!["ada".into()], ..Config::default() };
    let harness = Harness::with(config);
    let with_key = |key: &str, request: axum::http::request::Builder, body: Value| {
        request.header("authorization", format!("Bearer {key}")).body(Body::from(body.to_string())).unwrap()
    };
    assert_snapshot!("no_key", harness.chat("q", json!({})).await.show());
    let chat = json!({"messages": [{"role": "user", "content": "q"}], "user": "eve"});
    let wrong = with_key("sk-eve", Request::post("/v1/chat/completions"), chat.clone());
    assert_snapshot!("wrong_key", harness.send(wrong).await.show());

    let session = Request::post("/v1/chat/completions").header("x-session-id", "s-1");
    let reply = harness.send(with_key("sk-bob", session, chat)).await;
    assert_eq!(reply.status, 200);
    let recorded = harness.doubles.store.all().pop().unwrap();
    assert_eq!((recorded.principal.as_str(), recorded.session.as_deref()), ("bob", Some("s-1")));

    let status = with_key("sk-bob", Request::get("/v1/autoglm/status"), Value::Null);
    assert_snapshot!("not_an_admin", harness.send(status).await.show());
    let trace = format!("/v1/autoglm/interactions/{}", recorded.id);
    for (key, expected) in [("sk-bob", 200), ("sk-ada", 200)] {
        let request = with_key(key, Request::get(&trace), Value::Null);
        assert_eq!(harness.send(request).await.status, expected, "{key}");
    }
    assert_eq!(harness.get("/healthz").await.status, 200, "probes have no key");
}

#[tokio::test]
async fn a_strange_page_does_not_speak_for_the_person_before_it() {
    let harness = Harness::new();
    let request = Request::post("/v1/autoglm/train").header("sec-fetch-site", "cross-site");
    assert_snapshot!(harness.send(request.body(Body::from("{}")).unwrap()).await.show());
}
