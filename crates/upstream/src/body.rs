//! A request in the API's form.

use autoglm_domain::{ChatMessage, GenerationInput, ResponseFormat, Sampling, ToolCall, ToolChoice, Toolbox};
use serde_json::{Map, Value, json};

use crate::dialect::Target;

/// The path of the endpoint that takes `input`.
pub(crate) fn path(input: &GenerationInput) -> &'static str {
    match input {
        GenerationInput::Chat(_) | GenerationInput::ChatWithTools { .. } => "/chat/completions",
        GenerationInput::Text(_) => "/completions",
    }
}

/// The body of a streamed request. What holds no choice of the caller's is left out, so that servers which know only
/// OpenAI's fields are not asked for more.
pub(crate) fn body(
    target: &Target,
    input: &GenerationInput,
    sampling: &Sampling,
    max_tokens: Option<u32>,
    max_tokens_field: &str,
) -> Value {
    let mut body = Map::new();
    let mut put = |key: &str, value: Value| body.insert(key.to_owned(), value);
    put("model", json!(target.model));
    if let Some(adapter) = &target.lora_path {
        put("lora_path", json!(adapter));
    }
    put("stream", json!(true));
    put("stream_options", json!({"include_usage": true}));
    match input {
        GenerationInput::Chat(messages) | GenerationInput::ChatWithTools { messages, .. } => {
            put("messages", messages.iter().map(turn).collect());
            if let GenerationInput::ChatWithTools { toolbox, .. } = input {
                tool_fields(toolbox, &mut put);
            }
            if let Some(limit) = max_tokens {
                put(max_tokens_field, json!(limit));
            }
            if let Some(count) = sampling.logprobs {
                put("logprobs", json!(true));
                put("top_logprobs", json!(count));
            }
        }
        GenerationInput::Text(text) => {
            put("prompt", json!(text));
            if let Some(limit) = max_tokens {
                put("max_tokens", json!(limit));
            }
            if let Some(count) = sampling.logprobs {
                put("logprobs", json!(count));
            }
        }
    }
    sampling_fields(sampling, &mut put);
    Value::Object(body)
}

fn sampling_fields(sampling: &Sampling, put: &mut impl FnMut(&str, Value) -> Option<Value>) {
    let plain = Sampling::default();
    put("temperature", short(sampling.temperature));
    for (key, value, default) in [
        ("top_p", sampling.top_p, plain.top_p),
        ("min_p", sampling.min_p, plain.min_p),
        ("repetition_penalty", sampling.repetition_penalty, plain.repetition_penalty),
        ("frequency_penalty", sampling.frequency_penalty, plain.frequency_penalty),
        ("presence_penalty", sampling.presence_penalty, plain.presence_penalty),
    ] {
        if value != default {
            put(key, short(value));
        }
    }
    if sampling.top_k != plain.top_k {
        put("top_k", json!(sampling.top_k));
    }
    if let Some(seed) = sampling.seed {
        // The API's seeds are signed; the same bits come back from another autoglm.
        put("seed", json!(seed.cast_signed()));
    }
    if !sampling.stop.is_empty() {
        put("stop", json!(sampling.stop));
    }
    if !sampling.logit_bias.is_empty() {
        let by_token = sampling.logit_bias.iter().map(|(id, bias)| (id.to_string(), short(*bias)));
        put("logit_bias", Value::Object(by_token.collect()));
    }
    match &sampling.format {
        ResponseFormat::Text => {}
        ResponseFormat::JsonObject => drop(put("response_format", json!({"type": "json_object"}))),
        ResponseFormat::JsonSchema(schema) => {
            let named = json!({"name": "answer", "schema": schema, "strict": true});
            put("response_format", json!({"type": "json_schema", "json_schema": named}));
        }
    }
}

/// A turn as the API writes it.
fn turn(message: &ChatMessage) -> Value {
    let mut turn = json!({"role": message.role, "content": message.content});
    let Some(map) = turn.as_object_mut() else { return turn };
    if !message.tool_calls.is_empty() {
        let call = |call: &ToolCall| {
            let function = json!({"name": call.name, "arguments": call.arguments});
            json!({"id": call.id, "type": "function", "function": function})
        };
        map.insert("tool_calls".into(), message.tool_calls.iter().map(call).collect());
    }
    if let Some(id) = &message.tool_call_id {
        map.insert("tool_call_id".into(), json!(id));
    }
    turn
}

fn tool_fields(toolbox: &Toolbox, put: &mut impl FnMut(&str, Value) -> Option<Value>) {
    // A tool is kept as the API writes its `function`.
    let tools = toolbox.tools.iter().map(|tool| json!({"type": "function", "function": tool}));
    put("tools", tools.collect());
    match &toolbox.choice {
        ToolChoice::Auto => {}
        ToolChoice::Required => drop(put("tool_choice", json!("required"))),
        ToolChoice::Named(name) => {
            put("tool_choice", json!({"type": "function", "function": {"name": name}}));
        }
    }
    if !toolbox.parallel {
        put("parallel_tool_calls", json!(false));
    }
}

/// A 32-bit number as people write it: 0.7, not 0.699999988079071.
fn short(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or_else(|_| json!(value), |value| json!(value))
}

#[cfg(test)]
mod tests {
    use autoglm_domain::Tool;

    use super::*;

    fn target() -> Target {
        Target { model: "m".into(), lora_path: None }
    }

    #[test]
    fn a_plain_chat_asks_for_nothing_that_only_some_servers_know() {
        let input = GenerationInput::Chat(vec![ChatMessage::system("be brief"), ChatMessage::user("hi")]);
        assert_eq!(path(&input), "/chat/completions");
        assert_eq!(
            body(&target(), &input, &Sampling::default(), None, "max_tokens"),
            json!({
                "model": "m", "stream": true, "stream_options": {"include_usage": true},
                "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
                "temperature": 0.0,
            })
        );
    }

    #[test]
    fn every_choice_of_the_caller_is_passed_on() {
        let sampling = Sampling {
            temperature: 0.7,
            top_p: 0.9,
            top_k: 40,
            min_p: 0.05,
            repetition_penalty: 1.1,
            frequency_penalty: 0.5,
            presence_penalty: -0.5,
            seed: Some(u64::MAX),
            stop: vec!["\n".into()],
            max_tokens: Some(9),
            logprobs: Some(2),
            logit_bias: vec![(7, -1.5)],
            format: ResponseFormat::JsonObject,
            ..Sampling::default()
        };
        let adapter = Target { model: "m".into(), lora_path: Some("autoglm-1".into()) };
        let text = GenerationInput::Text("once".into());
        let rest = json!({
            "stream": true, "stream_options": {"include_usage": true}, "temperature": 0.7, "top_p": 0.9, "top_k": 40,
            "min_p": 0.05, "repetition_penalty": 1.1, "frequency_penalty": 0.5, "presence_penalty": -0.5, "seed": -1,
            "stop": ["\n"], "model": "m", "logit_bias": {"7": -1.5}, "response_format": {"type": "json_object"},
        });
        let with = |more: Value| {
            let mut all = rest.as_object().unwrap().clone();
            all.extend(more.as_object().unwrap().clone());
            Value::Object(all)
        };
        assert_eq!(path(&text), "/completions");
        assert_eq!(
            body(&adapter, &text, &sampling, Some(9), "max_completion_tokens"),
            with(json!({"lora_path": "autoglm-1", "prompt": "once", "max_tokens": 9, "logprobs": 2}))
        );
        let chat = GenerationInput::Chat(vec![ChatMessage::user("hi")]);
        assert_eq!(
            body(&target(), &chat, &sampling, Some(9), "max_completion_tokens"),
            with(json!({
                "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 9, "logprobs": true,
                "top_logprobs": 2,
            }))
        );
    }

    #[test]
    fn tools_calls_and_results_are_passed_on_as_the_api_writes_them() {
        let call = ToolCall { id: "c1".into(), name: "f".into(), arguments: "{}".into() };
        let messages = vec![
            ChatMessage { tool_calls: vec![call], ..ChatMessage::assistant("") },
            ChatMessage::tool("c1", "42"),
        ];
        let tool = Tool { name: "f".into(), description: None, parameters: Some(json!({})), strict: false };
        let toolbox = Toolbox { tools: vec![tool], choice: ToolChoice::Named("f".into()), parallel: false };
        let input = GenerationInput::ChatWithTools { messages, toolbox };
        assert_eq!(path(&input), "/chat/completions");
        let function = json!({"name": "f", "parameters": {}});
        assert_eq!(
            body(&target(), &input, &Sampling::default(), None, "max_tokens"),
            json!({
                "model": "m", "stream": true, "stream_options": {"include_usage": true},
                "messages": [
                    {"role": "assistant", "content": "", "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                    {"role": "tool", "content": "42", "tool_call_id": "c1"},
                ],
                "tools": [{"type": "function", "function": function}],
                "tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": false,
                "temperature": 0.0,
            })
        );
    }
}
