//! Tool calls and answers of a given form.

use autoglm_domain::{
    ChatMessage, ExperienceId, GenerationInput, ResponseFormat, SequentialIds, ToolCall, ToolChoice,
};
use autoglm_gateway::RecallDecision;
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::harness::Harness;

pub(crate) fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "description": "d", "parameters": {"type": "object"}}})
}

fn with_tools(more: Value) -> Value {
    let mut body = json!({"tools": [tool("weather"), tool("time")]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn calls_are_told_whole_and_in_pieces() {
    let harness = Harness::new();
    let asked = "use weather {\"city\":\"Bern\"}";
    assert_snapshot!("call", harness.chat(asked, with_tools(json!({"logprobs": true}))).await.show());
    let more = with_tools(json!({"stream": true, "stream_options": {"include_usage": true}}));
    assert_snapshot!("calls_streamed", harness.chat("use both", more).await.show());
}

#[tokio::test]
async fn tools_reach_the_engine_and_calls_the_record() {
    let harness = Harness::new();
    let choice = json!({"type": "function", "function": {"name": "time"}});
    let more = with_tools(json!({"tool_choice": choice, "parallel_tool_calls": false}));
    let reply = harness.chat("use time {}", more).await.json();
    assert_eq!(reply["choices"][0]["finish_reason"], "tool_calls");
    let asked = harness.doubles.generator.requests.lock().unwrap().pop().unwrap();
    let GenerationInput::ChatWithTools { toolbox, .. } = asked.input else { panic!("no tools") };
    assert_eq!((toolbox.choice, toolbox.parallel), (ToolChoice::Named("time".into()), false));
    let names: Vec<_> = toolbox.tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["weather", "time"]);

    let recorded = harness.doubles.store.all().pop().unwrap();
    assert_eq!(recorded.answer, "I look.<call>time{}</call>", "as the model wrote it");
    assert_eq!(recorded.tools.len(), 2);
    let id = reply["choices"][0]["message"]["tool_calls"][0]["id"].as_str().unwrap().to_owned();
    let tool_calls = vec![ToolCall { id: id.clone(), name: "time".into(), arguments: "{}".into() }];
    assert_eq!(recorded.turn, Some(ChatMessage { tool_calls, ..ChatMessage::assistant("I look.") }));

    // The conversation goes on with the call and its result.
    let mut messages = vec![json!({"role": "user", "content": "use time {}"})];
    messages.push(reply["choices"][0]["message"].clone());
    messages.push(json!({"role": "tool", "tool_call_id": id, "content": "noon"}));
    let body = with_tools(json!({"messages": messages}));
    let reply = harness.post("/v1/chat/completions", body).await.json();
    assert_eq!(reply["choices"][0]["message"]["content"], "echo noon");
    assert_eq!(reply["choices"][0]["finish_reason"], "stop");
    assert_eq!(harness.doubles.store.all().last().unwrap().messages[2], ChatMessage::tool(id, "noon"));
}

#[tokio::test]
async fn tools_that_may_not_be_called_stay_away_from_the_engine() {
    let harness = Harness::new();
    harness.chat("use time {}", with_tools(json!({"tool_choice": "none"}))).await;
    let asked = harness.doubles.generator.requests.lock().unwrap().pop().unwrap();
    assert_eq!(asked.input, GenerationInput::Chat(vec![ChatMessage::user("use time {}")]));
}

#[tokio::test]
async fn the_form_reaches_the_engine_and_its_refusal_names_the_field() {
    let harness = Harness::new();
    let schema = json!({"type": "object"});
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": true}});
    harness.chat("q", json!({"response_format": format})).await;
    let asked = harness.doubles.generator.requests.lock().unwrap().pop().unwrap();
    assert_eq!(asked.sampling.format, ResponseFormat::JsonSchema(schema));
    let refused = harness.chat("refuse the form", json!({"response_format": format})).await;
    assert_snapshot!("form_refused", refused.show());
    let format = json!({"format": {"type": "json_schema", "name": "n", "schema": {}}});
    let refused = harness.post("/v1/responses", json!({"input": "refuse the form", "text": format})).await;
    assert_eq!(refused.json()["error"]["param"], "text.format");
}

#[tokio::test]
async fn memory_answers_only_in_the_form_that_is_asked_for() {
    let harness = Harness::new();
    let experience = ExperienceId::next(&SequentialIds::default());
    let remember = |text: &str| {
        let answer = RecallDecision::Answer { experience, text: text.into() };
        *harness.doubles.recall.decision.lock().unwrap() = Ok(answer);
    };
    let schema = json!({"type": "object", "required": ["city"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let kind = |reply: Value| reply["choices"][0]["autoglm"]["source"]["kind"].clone();
    remember("{\"city\": \"Bern\"}");
    assert_eq!(kind(harness.chat("q", json!({"response_format": format})).await.json()), "memory");
    assert_eq!(kind(harness.chat("q", with_tools(json!({}))).await.json()), "weights");
    assert_eq!(kind(harness.chat("q", json!({"logit_bias": {"3": 1}})).await.json()), "weights");
    remember("Bern");
    assert_eq!(kind(harness.chat("q", json!({"response_format": format})).await.json()), "weights");
    assert_eq!(kind(harness.chat("q", json!({})).await.json()), "memory");
}
