//! Every body that a successful request brings.

use autoglm_domain::{ExperienceId, SequentialIds};
use autoglm_gateway::{Config, Example, RecallDecision};
use insta::assert_snapshot;
use serde_json::json;

use crate::harness::Harness;

#[tokio::test]
async fn chat() {
    let harness = Harness::new();
    assert_snapshot!(harness.chat("hello there", json!({"model": "champion"})).await.show());
}

#[tokio::test]
async fn chat_with_choices_and_logprobs() {
    let harness = Harness::new();
    let more = json!({"n": 2, "logprobs": true, "top_logprobs": 2, "max_tokens": 1, "seed": 40});
    assert_snapshot!(harness.chat("hello", more).await.show());
    let requests = harness.doubles.generator.requests.lock().unwrap();
    let seeds: Vec<_> = requests.iter().map(|request| request.sampling.seed).collect();
    assert_eq!(seeds, [Some(40), Some(41)]);
}

#[tokio::test]
async fn completion_of_two_prompts_with_logprobs() {
    let harness = Harness::new();
    let body = json!({"model": "v2", "prompt": ["one two", "three"], "logprobs": 1, "stop": "two"});
    assert_snapshot!(harness.post("/v1/completions", body).await.show());
}

#[tokio::test]
async fn embeddings() {
    let harness = Harness::new();
    let body = json!({"model": "champion", "input": ["even", "odd words"], "dimensions": 2});
    assert_snapshot!("embeddings_float", harness.post("/v1/embeddings", body).await.show());
    let body = json!({"input": "even", "encoding_format": "base64"});
    assert_snapshot!("embeddings_base64", harness.post("/v1/embeddings", body).await.show());
}

#[tokio::test]
async fn models() {
    let harness = Harness::new();
    assert_snapshot!("models", harness.get("/v1/models").await.show());
    assert_snapshot!("model_with_a_slash", harness.get("/v1/models/org/starter").await.show());
    let prefix = &crate::doubles::hash().to_string()[..8];
    let by_hash = harness.get(&format!("/v1/models/{prefix}")).await.json();
    assert_eq!((&by_hash["id"], &by_hash["autoglm"]["version"]), (&json!(prefix), &json!("v3")));
}

#[tokio::test]
async fn feedback() {
    let harness = Harness::new();
    let id = harness.chat("hello", json!({})).await.json()["id"].clone();
    let body = json!({
        "request_id": id, "thumb": "down", "score": 12.5, "metric": "resolved", "value": 0,
        "correction": "good day", "comment": "too short", "tags": ["tone"], "user": "ada",
    });
    assert_snapshot!(harness.post("/v1/feedback", body).await.show());
    let thumbs = [json!("up"), json!("+1"), json!(true), json!(1), json!("down"), json!(false), json!(-1)];
    for thumb in thumbs {
        let up = thumb == "up" || thumb == "+1" || thumb == true || thumb == 1;
        let said = harness.post("/v1/feedback", json!({"id": id, "thumb": thumb})).await.json();
        assert_eq!(said["thumb"], if up { "up" } else { "down" }, "{thumb}");
    }
}

#[tokio::test]
async fn an_echoed_prompt_stands_before_the_answer_with_its_own_scores() {
    let harness = Harness::new();
    let body = json!({"prompt": "one two", "echo": true, "logprobs": 1, "max_tokens": 1, "n": 2});
    let reply = harness.post("/v1/completions", body).await;
    assert_snapshot!(reply.show());
    let asked = harness.doubles.generator.requests.lock().unwrap().clone();
    let scored: Vec<_> = asked.iter().map(|asked| asked.sampling.prompt_logprobs).collect();
    assert_eq!(scored, [Some(1), None], "the prompt is scored once");
    assert!(harness.doubles.recall.modes.lock().unwrap().is_empty(), "memory has no part in it");
    assert_eq!(harness.doubles.store.all()[0].answer, "echo");

    let alone = json!({"prompt": "one two", "echo": true, "max_tokens": 0});
    let reply = harness.post("/v1/completions", alone).await.json();
    assert_eq!(reply["choices"][0]["text"], "one two");
    assert_eq!(reply["choices"][0]["finish_reason"], "length");
    let streamed = json!({"prompt": "one two", "echo": true, "logprobs": 0, "max_tokens": 1, "stream": true});
    assert_snapshot!("echo_streamed", harness.post("/v1/completions", streamed).await.show());
}

#[tokio::test]
async fn trainers_get_token_ids_and_scores_of_the_prompt() {
    let harness = Harness::new();
    let more = json!({"return_token_ids": true, "prompt_logprobs": 1, "logit_bias": {"5": -100}});
    assert_snapshot!("chat_token_ids", harness.chat("one two", more).await.show());
    let asked = harness.doubles.generator.requests.lock().unwrap().pop().unwrap();
    assert_eq!(asked.sampling.logit_bias, [(5, -100.0)]);
    let streamed = json!({"return_token_ids": true, "stream": true});
    assert_snapshot!("chat_token_ids_streamed", harness.chat("one", streamed).await.show());
    let body = json!({"prompt": ["one", "two"], "return_token_ids": true});
    let reply = harness.post("/v1/completions", body).await.json();
    assert_eq!(reply["choices"][1]["prompt_token_ids"], json!([100]));
    assert_eq!(reply["choices"][1]["token_ids"], json!([7, 7]));
    assert_eq!(reply.get("prompt_token_ids"), None);
}

#[tokio::test]
async fn an_answer_from_memory_needs_no_generation() {
    let harness = Harness::new();
    let experience = ExperienceId::next(&SequentialIds::default());
    *harness.doubles.recall.decision.lock().unwrap() =
        Ok(RecallDecision::Answer { experience, text: "Paris. It is".into() });
    let more = json!({"stop": ["."], "logprobs": true});
    assert_snapshot!(harness.chat("capital of france", more).await.show());
    assert!(harness.doubles.generator.requests.lock().unwrap().is_empty());
    // Longer than the client wants: the weights answer instead.
    let reply = harness.chat("capital of france", json!({"max_tokens": 2})).await.json();
    assert_eq!(reply["choices"][0]["message"]["content"], "echo capital");
    assert_eq!(reply["choices"][0]["autoglm"]["source"], json!({"kind": "weights"}));
}

#[tokio::test]
async fn examples_stand_before_the_question_and_are_left_out_when_they_do_not_fit() {
    use autoglm_domain::{ChatMessage, GenerationInput};
    let harness = Harness::new();
    let example = |prompt: String| Example {
        prompt: vec![ChatMessage::system("secret"), ChatMessage::user(prompt)],
        target: "yes".into(),
    };
    let recall = &harness.doubles.recall;
    *recall.decision.lock().unwrap() = Ok(RecallDecision::Examples(vec![example("is it so".into())]));
    let body =
        json!({"messages": [{"role": "system", "content": "brief"}, {"role": "user", "content": "q"}]});
    let reply = harness.post("/v1/chat/completions", body).await.json();
    assert_eq!(reply["choices"][0]["autoglm"]["source"], json!({"kind": "examples", "count": 1}));
    let turns = vec![
        ChatMessage::system("brief"),
        ChatMessage::user("is it so"),
        ChatMessage::assistant("yes"),
        ChatMessage::user("q"),
    ];
    let asked = harness.doubles.generator.requests.lock().unwrap().pop().unwrap();
    assert_eq!(asked.input, GenerationInput::Chat(turns));
    // What is recorded is what the client sent.
    assert_eq!(harness.doubles.store.all()[0].messages.len(), 2);

    *recall.decision.lock().unwrap() = Ok(RecallDecision::Examples(vec![example("too long ".repeat(64))]));
    let reply = harness.chat("q", json!({})).await.json();
    assert_eq!(reply["choices"][0]["autoglm"]["source"], json!({"kind": "weights"}));

    *recall.decision.lock().unwrap() = Ok(RecallDecision::Examples(vec![example("a:".into())]));
    harness.post("/v1/completions", json!({"prompt": "b:"})).await;
    let asked = harness.doubles.generator.requests.lock().unwrap().pop().unwrap();
    assert_eq!(asked.input, GenerationInput::Text("secreta:yes\n\nb:".into()));
}

#[tokio::test]
async fn the_client_decides_over_recall_and_a_failing_memory_fails_no_request() {
    use autoglm_gateway::RecallMode;
    let harness = Harness::new();
    for mode in ["off", "examples", "answer"] {
        assert_eq!(harness.chat("q", json!({"autoglm": {"recall": mode}})).await.status, 200);
    }
    *harness.doubles.recall.decision.lock().unwrap() = Err(autoglm_domain::Error::internal("no index"));
    assert_eq!(harness.chat("q", json!({})).await.status, 200);
    let modes = harness.doubles.recall.modes.lock().unwrap();
    assert_eq!(*modes, [Some(RecallMode::Examples), Some(RecallMode::Answer), None]);
}

#[tokio::test]
async fn admin() {
    let harness = Harness::new();
    let id = harness.chat("hello", json!({"model": "v3", "user": "ada"})).await.json()["id"].clone();
    let id = id.as_str().unwrap();
    assert_snapshot!("status", harness.get("/v1/autoglm/status").await.show());
    let mirrors = harness.get("/v1/autoglm/mirrors").await.json();
    let failing = json!({"name": "lake", "health": "failing", "seq": 7, "behind": 2, "since": 5, "failures": 3,
        "last_error": "the bucket is away", "failed_at": 6});
    assert_eq!(mirrors, json!({"object": "list", "data": [failing]}));
    let mut trace = harness.get(&format!("/v1/autoglm/interactions/{id}")).await.json();
    trace["interaction"]["latency_ms"] = json!("…");
    trace["interaction"]["first_token_ms"] = json!("…");
    assert_snapshot!("trace", serde_json::to_string_pretty(&trace).unwrap());
    let order = json!({"reason": "try"});
    assert_snapshot!("train", harness.post("/v1/autoglm/train", order).await.show());
    let order = json!({"version": "v4", "reason": "it is good"});
    assert_snapshot!("promote", harness.post("/v1/autoglm/promote", order).await.show());
    let start = json!({"version": "v4", "reason": "a look"});
    assert_snapshot!("start_rollout", harness.post("/v1/autoglm/rollouts", start).await.show());
    let rollouts = harness.get("/v1/autoglm/rollouts").await.json();
    let rollout = rollouts["data"][0]["id"].as_str().unwrap();
    let slices = harness.get(&format!("/v1/autoglm/rollouts/{rollout}/slices")).await.json();
    assert_eq!(slices["data"], json!([{"kind": "all", "key": "all", "pairs": 3, "of": rollout}]));
    let test = json!({"arms": [{"version": "v3", "share": 0.5}, {"version": "v4"}], "allocation": "bandit"});
    assert_snapshot!("start_ab", harness.post("/v1/autoglm/ab-tests", test).await.show());
    let tests = harness.get("/v1/autoglm/ab-tests").await.json();
    assert_eq!(tests["data"].as_array().map(Vec::len), Some(1));
    let one = harness.get("/v1/autoglm/ab-tests/current").await.json();
    assert_eq!(one["found"][1]["mean"], 85.0);
    let stopped = harness.post("/v1/autoglm/ab-tests/current/stop", json!({"reason": "enough"})).await.json();
    assert_eq!((stopped["state"].as_str(), stopped["reason"].as_str()), (Some("stopped"), Some("enough")));
    assert_snapshot!("rollback", harness.post("/v1/autoglm/rollback", json!({})).await.show());
}

#[tokio::test]
async fn health_and_metrics() {
    let harness = Harness::with(Config::default());
    assert_snapshot!("healthz", harness.get("/healthz").await.show());
    assert_snapshot!("readyz", harness.get("/readyz").await.show());
    harness.doubles.store.broken.store(true, std::sync::atomic::Ordering::SeqCst);
    harness.doubles.table.0.store(9, std::sync::atomic::Ordering::SeqCst);
    assert_snapshot!("readyz_broken", harness.get("/readyz").await.show());

    harness.doubles.store.broken.store(false, std::sync::atomic::Ordering::SeqCst);
    harness.doubles.table.0.store(3, std::sync::atomic::Ordering::SeqCst);
    let id = harness.chat("hello", json!({})).await.json()["id"].clone();
    harness.post("/v1/feedback", json!({"id": id, "thumb": "up"})).await;
    metrics::gauge!("autoglm_set_by_another_crate").set(4.0);
    let page = harness.get("/metrics").await.body;
    for line in [
        "autoglm_http_requests_total{route=\"/v1/chat/completions\",method=\"POST\",status=\"200\"}",
        "autoglm_answers_total{endpoint=\"chat\",source=\"weights\",finish=\"stop\"}",
        "autoglm_answer_seconds_bucket{endpoint=\"chat\",le=\"0.001\"}",
        "autoglm_tokens_total{kind=\"completion\"}",
        "autoglm_feedback_total{kind=\"thumb_up\"}",
        "autoglm_in_flight ",
        "autoglm_set_by_another_crate 4",
    ] {
        assert!(page.contains(line), "`{line}` is not in\n{page}");
    }
}
