//! Tools, calls and results as chat templates take them.

use autoglm_domain::{ChatMessage, Role, Tool, ToolCall};
use minijinja::{Value, value::Serde};
use serde_json::{Value as Json, json};

/// The tools as templates expect them: what transformers makes of OpenAI's `tools`.
pub(crate) fn tools_value(tools: &[Tool]) -> Value {
    Value::from(Serde(tools.iter().map(tool_json).collect::<Vec<_>>()))
}

fn tool_json(tool: &Tool) -> Json {
    let mut function = serde_json::Map::new();
    function.insert("name".into(), json!(tool.name));
    if let Some(description) = &tool.description {
        function.insert("description".into(), json!(description));
    }
    let none = || json!({"type": "object", "properties": {}});
    function.insert("parameters".into(), tool.parameters.clone().unwrap_or_else(none));
    json!({"type": "function", "function": function})
}

/// The conversation as templates expect it: `{"role": …, "content": …}`, in this order, as `tojson` would show
/// it, with `tool_calls`, `tool_call_id` and the called function's `name` where there are any.
pub(crate) fn messages_value(messages: &[ChatMessage]) -> Value {
    let turn = |message: &ChatMessage| {
        let mut turn = serde_json::Map::new();
        turn.insert("role".into(), json!(role(message.role)));
        turn.insert("content".into(), json!(message.content));
        if !message.tool_calls.is_empty() {
            let calls: Vec<Json> = message.tool_calls.iter().map(call_json).collect();
            turn.insert("tool_calls".into(), Json::Array(calls));
        }
        if let Some(id) = &message.tool_call_id {
            turn.insert("tool_call_id".into(), json!(id));
            let called = messages.iter().flat_map(|message| &message.tool_calls).find(|call| call.id == *id);
            if let Some(call) = called {
                turn.insert("name".into(), json!(call.name));
            }
        }
        turn
    };
    Value::from(Serde(messages.iter().map(turn).collect::<Vec<_>>()))
}

fn role(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    }
}

fn call_json(call: &ToolCall) -> Json {
    json!({
        "type": "function",
        "id": call.id,
        "function": {"name": call.name, "arguments": arguments_json(&call.arguments)},
    })
}

/// Templates write arguments as JSON themselves, and would quote a text once more.
fn arguments_json(arguments: &str) -> Json {
    serde_json::from_str(arguments).unwrap_or_else(|_| json!(arguments))
}

/// The conversation for a template that knows nothing of tools, of calls, or of their results: what it lacks is
/// written into the turns that it has.
pub(crate) fn adapt(template: &str, messages: &[ChatMessage], tools: &[Tool]) -> Vec<ChatMessage> {
    let shows_tools = template.contains("tools");
    let shows_calls = template.contains("tool_calls");
    let shows_results = template.contains("'tool'") || template.contains("\"tool\"");
    let mut turns: Vec<ChatMessage> = Vec::with_capacity(messages.len() + 1);
    for message in messages {
        match message.role {
            // A tool's turn that answers no call is shown as the template shows it, if at all.
            Role::Tool if !shows_results && message.tool_call_id.is_some() => {
                let result = format!("<tool_response>\n{}\n</tool_response>", message.content);
                match turns.last_mut().filter(|turn| turn.content.starts_with("<tool_response>")) {
                    Some(turn) => turn.content.extend(["\n", &result]),
                    None => turns.push(ChatMessage::user(result)),
                }
            }
            Role::Assistant if !shows_calls && !message.tool_calls.is_empty() => {
                let mut parts: Vec<String> = Some(&message.content).into_iter().cloned().collect();
                parts.retain(|part| !part.is_empty());
                parts.extend(message.tool_calls.iter().map(hermes_call));
                turns.push(ChatMessage::assistant(parts.join("\n")));
            }
            _ => turns.push(message.clone()),
        }
    }
    if !shows_tools && !tools.is_empty() {
        let text = description(tools);
        match turns.first_mut().filter(|turn| turn.role == Role::System) {
            Some(system) => system.content.extend(["\n\n", &text]),
            None => turns.insert(0, ChatMessage::system(text)),
        }
    }
    turns
}

fn hermes_call(call: &ToolCall) -> String {
    let call = json!({"name": call.name, "arguments": arguments_json(&call.arguments)});
    format!("<tool_call>\n{call}\n</tool_call>")
}

/// What a model is told of tools where its template does not.
fn description(tools: &[Tool]) -> String {
    let lines: Vec<String> = tools.iter().map(|tool| tool_json(tool).to_string()).collect();
    format!(
        "These functions can be called, each described by a line of JSON:\n<tools>\n{}\n</tools>\nTo call one, \
         write its name and its arguments between these marks:\n<tool_call>\n{{\"name\": \"…\", \"arguments\": \
         {{…}}}}\n</tool_call>",
        lines.join("\n")
    )
}
