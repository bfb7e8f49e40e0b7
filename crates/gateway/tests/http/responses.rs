//! `POST /v1/responses`.

use autoglm_domain::{ChatMessage, Endpoint, FinishReason, GenerationInput};
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::harness::{Harness, eventually};

async fn respond(harness: &Harness, body: Value) -> crate::harness::Reply {
    harness.post("/v1/responses", body).await
}

fn tools() -> Value {
    let tool = |name: &str| json!({"type": "function", "name": name, "parameters": {"type": "object"}, "strict": true});
    json!([tool("weather"), tool("time")])
}

#[tokio::test]
async fn a_text() {
    let harness = Harness::new();
    let body = json!({
        "model": "champion", "input": "hello there", "instructions": "be brief", "metadata": {"task": "t"},
        "include": ["message.output_text.logprobs"], "max_output_tokens": 2, "temperature": 0.5, "user": "ada",
    });
    assert_snapshot!(respond(&harness, body).await.show());
    let recorded = harness.doubles.store.all().pop().unwrap();
    assert_eq!(recorded.endpoint, Endpoint::Responses);
    assert_eq!(recorded.finish_reason, FinishReason::Length);
    assert_eq!(recorded.messages, [ChatMessage::system("be brief"), ChatMessage::user("hello there")]);
    assert!(recorded.instructed);
}

#[tokio::test]
async fn calls() {
    let harness = Harness::new();
    let body =
        json!({"input": "use weather {\"city\":\"Bern\"}", "tools": tools(), "tool_choice": "required"});
    assert_snapshot!(respond(&harness, body).await.show());
}

#[tokio::test]
async fn events() {
    let harness = Harness::new();
    assert_snapshot!("text_events", events_of(&harness, json!({"input": "hello"})).await);
    assert_snapshot!(
        "cut_events",
        events_of(&harness, json!({"input": "one two", "max_output_tokens": 1})).await
    );
    assert_snapshot!(
        "call_events",
        events_of(&harness, json!({"input": "use both", "tools": tools()})).await
    );
    assert_snapshot!("broken_events", events_of(&harness, json!({"input": "dies midway"})).await);
    // What broke off is recorded once its stream is dropped.
    eventually("the records", || harness.doubles.store.all().len() == 4).await;
}

/// The events of a stream, the last one's response left out where it is what a plain call gives.
async fn events_of(harness: &Harness, mut body: Value) -> String {
    body["stream"] = json!(true);
    let reply = respond(harness, body).await;
    assert_eq!(reply.headers["content-type"], "text/event-stream; charset=utf-8");
    let mut shown = String::new();
    for (number, frame) in reply.body.trim_end().split("\n\n").enumerate() {
        let (event, data) = frame.split_once('\n').unwrap();
        let mut data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(event, format!("event: {}", data["type"].as_str().unwrap()));
        assert_eq!(data["sequence_number"], number);
        if let Some(response) = data.get_mut("response") {
            *response = json!({"status": response["status"], "output": response["output"], "usage": response["usage"]});
        }
        shown.push_str(&data.to_string());
        shown.push('\n');
    }
    shown
}

#[tokio::test]
async fn a_conversation_goes_on_where_a_response_ended() {
    let harness = Harness::new();
    let first =
        respond(&harness, json!({"input": "use time {}", "tools": tools(), "instructions": "old"})).await;
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(first.headers["x-request-id"], id);
    let call_id = first.json()["output"][1]["call_id"].clone();
    let output = json!([{"type": "function_call_output", "call_id": call_id, "output": "noon"}]);
    let body = json!({"input": output, "previous_response_id": id, "instructions": "new", "tools": tools()});
    let second = respond(&harness, body).await.json();
    assert_eq!(second["output"][0]["content"][0]["text"], "echo noon");
    assert_eq!(second["previous_response_id"], id);
    let asked = harness.doubles.generator.requests.lock().unwrap().pop().unwrap();
    let GenerationInput::ChatWithTools { messages, .. } = asked.input else { panic!("no tools") };
    let roles: Vec<String> = messages.iter().map(|m| format!("{:?} {}", m.role, m.content)).collect();
    assert_eq!(roles, ["System new", "User use time {}", "Assistant I look.", "Tool noon"]);
    assert_eq!(messages[2].tool_calls[0].id, call_id.as_str().unwrap());

    // A chat answer can be followed as well, and feedback takes a response's id.
    let chat = harness.chat("hello", json!({})).await.json();
    let body = json!({"input": "and?", "previous_response_id": chat["id"]});
    assert_eq!(respond(&harness, body).await.status, 200);
    let feedback = harness.post("/v1/feedback", json!({"id": second["id"], "thumb": "up"})).await;
    assert_eq!(feedback.status, 200);
}

#[tokio::test]
async fn a_conversation_of_somebody_else_or_of_nobody_cannot_be_followed() {
    let harness = Harness::new();
    let id = respond(&harness, json!({"input": "secret", "user": "ada"})).await.json()["id"].clone();
    let follow = |user: &str, id: Value| json!({"input": "and?", "previous_response_id": id, "user": user});
    assert_eq!(respond(&harness, follow("ada", id.clone())).await.status, 200);
    assert_snapshot!("previous_of_another", respond(&harness, follow("eve", id)).await.show());
    let nobody = json!(format!("resp_{}", "0".repeat(32)));
    assert_eq!(respond(&harness, follow("ada", nobody)).await.status, 400);
    let plain =
        harness.post("/v1/completions", json!({"prompt": "q", "user": "ada"})).await.json()["id"].clone();
    let refused = respond(&harness, follow("ada", plain)).await.json();
    assert_eq!(refused["error"]["param"], "previous_response_id");
}
