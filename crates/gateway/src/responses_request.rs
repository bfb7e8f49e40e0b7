//! The body of `POST /v1/responses`.

use autoglm_domain::{ChatMessage, Endpoint, InteractionId, Role, ToolCall};
use serde_json::{Map, Value, json};

use crate::{
    Config, GatewayError,
    feedback::parse_id,
    fields::{Fields, missing, wrong_type},
    request::{self, AnswerRequest, Show},
    response_format, sampling,
    tools::{ToolForm, toolbox},
};

type Result<T> = std::result::Result<T, GatewayError>;

/// Fields of OpenAI's that leave the answer as it is. Every answer is stored, as the server learns from it.
const WITHOUT_EFFECT: [&str; 5] =
    ["service_tier", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "stream_options"];

/// Fields that would change the answer and cannot be honoured.
const REFUSED: [(&str, &[&str]); 5] = [
    ("background", &[]),
    ("conversation", &[]),
    ("prompt", &[]),
    ("max_tool_calls", &[]),
    ("truncation", &["disabled"]),
];

/// What a response says of its request.
#[derive(Debug, Clone)]
pub(crate) struct ResponseShape {
    /// The request's fields as the response repeats them.
    pub(crate) repeated: Map<String, Value>,
    /// The instructions, which stand before the conversation and do not outlast the request.
    pub(crate) instructions: Option<String>,
    /// The response that this one follows.
    pub(crate) previous: Option<InteractionId>,
}

/// Reads a request. Its prompt is `input` alone: what came before it is for the handler to put in front.
pub(crate) fn parse(body: Value, config: &Config) -> Result<AnswerRequest> {
    let mut repeated = repeated(&body);
    let mut fields = Fields::of_body(body)?;
    let model = request::model(&mut fields)?;
    let input = fields.any("input").ok_or_else(|| missing("input"))?;
    let messages = conversation(input)?;
    let instructions = fields.string("instructions")?;
    let mut sampling = sampling::sampling(&mut fields, config)?;
    repeated.insert("temperature".into(), json!(sampling.temperature));
    repeated.insert("top_p".into(), json!(sampling.top_p));
    sampling.max_tokens = sampling::tokens(&mut fields, "max_output_tokens", 1)?;
    sampling.logprobs = logprobs(&mut fields)?;
    if let Some(mut text) = fields.object("text")? {
        sampling.format = response_format::of_response(&mut text)?;
        request::refuse(&mut text, "verbosity", &["medium"])?;
        text.finish()?;
    }
    let toolbox = toolbox(&mut fields, ToolForm::Flat)?;
    if let Some(mut reasoning) = fields.object("reasoning")? {
        request::refuse(&mut reasoning, "effort", &["none"])?;
        request::refuse(&mut reasoning, "summary", &[])?;
        reasoning.finish()?;
    }
    let previous = fields.string("previous_response_id")?;
    let previous = previous.map(|id| parse_id(&id, "previous_response_id")).transpose()?;
    let stream = fields.boolean("stream")?.unwrap_or(false);
    fields.boolean("store")?;
    let user = fields.string("user")?;
    let metadata = request::metadata(&mut fields)?;
    let show = Show::of(&sampling, stream)?;
    if show != Show::default() {
        let message =
            "`return_token_ids` and `prompt_logprobs` are for completions (hint: use `/v1/chat/completions`)";
        return Err(GatewayError::unsupported("return_token_ids", message));
    }
    let recall = request::extension(&mut fields)?;
    request::without_effect(&mut fields, &WITHOUT_EFFECT);
    for (name, harmless) in REFUSED {
        request::refuse(&mut fields, name, harmless)?;
    }
    fields.finish()?;
    Ok(AnswerRequest {
        endpoint: Endpoint::Responses,
        model,
        prompts: vec![messages],
        sampling,
        n: 1,
        stream,
        include_usage: true,
        user,
        metadata,
        recall,
        show,
        toolbox,
        response: Some(Box::new(ResponseShape { repeated, instructions, previous })),
    })
}

/// The fields that a response repeats, with OpenAI's defaults.
fn repeated(body: &Value) -> Map<String, Value> {
    let defaults = json!({
        "instructions": null, "max_output_tokens": null, "metadata": {}, "parallel_tool_calls": true,
        "previous_response_id": null, "reasoning": {"effort": null, "summary": null}, "store": true,
        "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "truncation": "disabled",
        "user": null,
    });
    let Value::Object(mut repeated) = defaults else { return Map::new() };
    for (name, value) in &mut repeated {
        if let Some(given) = body.get(name).filter(|given| !given.is_null()) {
            *value = given.clone();
        }
    }
    repeated
}

/// `include` with the log-probabilities asks for them, `top_logprobs` for alternatives as well.
fn logprobs(fields: &mut Fields) -> Result<Option<u32>> {
    let mut wanted = false;
    for (i, value) in fields.array("include")?.unwrap_or_default().into_iter().enumerate() {
        if value != "message.output_text.logprobs" {
            let path = format!("include[{i}]");
            let message =
                format!("`{path}` is {value}; this server only includes `message.output_text.logprobs`");
            return Err(GatewayError::unsupported(path, message));
        }
        wanted = true;
    }
    let top = fields.integer("top_logprobs", 0..=sampling::MAX_LOGPROBS)?;
    let top = top.and_then(|top| u32::try_from(top).ok()).unwrap_or(0);
    Ok((wanted || top > 0).then_some(top))
}

/// A text, or items.
fn conversation(input: Value) -> Result<Vec<ChatMessage>> {
    let items = match input {
        Value::String(text) => return Ok(vec![ChatMessage::user(text)]),
        Value::Array(items) => items,
        other => return Err(wrong_type("input", "a string or an array of items", &other)),
    };
    if items.is_empty() {
        return Err(GatewayError::field(
            "input",
            "empty_array",
            "`input` is empty (hint: at least one item is needed)",
        ));
    }
    let mut turns = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        add_item(&mut turns, Fields::nested(item, format!("input[{i}]"))?)?;
    }
    Ok(turns)
}

fn add_item(turns: &mut Vec<ChatMessage>, mut item: Fields) -> Result<()> {
    let path = item.path_of("type");
    let kind = item.string("type")?.unwrap_or_else(|| "message".to_owned());
    match kind.as_str() {
        "message" => turns.push(message(&mut item)?),
        "function_call" => {
            let call = ToolCall {
                id: required(&mut item, "call_id")?,
                name: required(&mut item, "name")?,
                arguments: required(&mut item, "arguments")?,
            };
            // A model's text and its calls, or several calls, are one turn.
            match turns.last_mut().filter(|turn| turn.role == Role::Assistant) {
                Some(turn) => turn.tool_calls.push(call),
                None => turns.push(ChatMessage { tool_calls: vec![call], ..ChatMessage::assistant("") }),
            }
        }
        "function_call_output" => {
            let id = required(&mut item, "call_id")?;
            let path = item.path_of("output");
            let output = item.any("output").ok_or_else(|| missing(&path))?;
            turns.push(ChatMessage::tool(id, text(output, &path)?));
        }
        other => {
            let message = format!(
                "`{path}` is `{other}`; this server reads `message`, `function_call` and `function_call_output`"
            );
            return Err(GatewayError::unsupported(path, message));
        }
    }
    // What a client sends back when it appends an earlier answer as it came.
    request::without_effect(&mut item, &["id", "status"]);
    item.finish()
}

fn required(item: &mut Fields, key: &'static str) -> Result<String> {
    let path = item.path_of(key);
    item.string(key)?.ok_or_else(|| missing(&path))
}

fn message(item: &mut Fields) -> Result<ChatMessage> {
    let roles = [
        ("system", Role::System),
        ("developer", Role::System),
        ("user", Role::User),
        ("assistant", Role::Assistant),
    ];
    let role = item.word("role", &roles)?.ok_or_else(|| missing(&item.path_of("role")))?;
    let path = item.path_of("content");
    let content = item.any("content").ok_or_else(|| missing(&path))?;
    Ok(ChatMessage::new(role, text(content, &path)?))
}

/// A string, or text parts, which are joined by line breaks.
fn text(content: Value, path: &str) -> Result<String> {
    let parts = match content {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        other => return Err(wrong_type(path, "a string or an array of text parts", &other)),
    };
    let mut texts = Vec::with_capacity(parts.len());
    for (i, part) in parts.into_iter().enumerate() {
        let mut part = Fields::nested(part, format!("{path}[{i}]"))?;
        let kind = required(&mut part, "type")?;
        if !matches!(kind.as_str(), "input_text" | "output_text" | "text") {
            let path = part.path_of("type");
            let message =
                format!("`{path}` is `{kind}`; this server only reads `input_text` and `output_text`");
            return Err(GatewayError::unsupported(path, message));
        }
        texts.push(required(&mut part, "text")?);
        request::without_effect(&mut part, &["annotations", "logprobs"]);
        part.finish()?;
    }
    Ok(texts.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> std::result::Result<AnswerRequest, String> {
        parse(body, &Config::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_text_is_one_user_turn() {
        let request =
            read(json!({"input": "hi", "max_output_tokens": 5, "instructions": "be brief"})).unwrap();
        assert_eq!(request.prompts, [[ChatMessage::user("hi")]]);
        assert_eq!(request.sampling.max_tokens, Some(5));
        let shape = request.response.unwrap();
        assert_eq!(shape.instructions.as_deref(), Some("be brief"));
        assert_eq!(shape.repeated["max_output_tokens"], 5);
        assert_eq!(shape.repeated["truncation"], "disabled");
    }

    #[test]
    fn items_become_turns() {
        let request = read(json!({"input": [
            {"role": "developer", "content": "d"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
            {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
             "content": [{"type": "output_text", "text": "let me see", "annotations": []}]},
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}", "status": "completed"},
            {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{\"x\":1}"},
            {"type": "function_call_output", "call_id": "c1", "output": "42"},
        ]}))
        .unwrap();
        let call = |id: &str, name: &str, arguments: &str| ToolCall {
            id: id.into(),
            name: name.into(),
            arguments: arguments.into(),
        };
        let calls = vec![call("c1", "f", "{}"), call("c2", "g", "{\"x\":1}")];
        let expected = vec![
            ChatMessage::system("d"),
            ChatMessage::user("a\nb"),
            ChatMessage { tool_calls: calls, ..ChatMessage::assistant("let me see") },
            ChatMessage::tool("c1", "42"),
        ];
        assert_eq!(request.prompts, [expected]);
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        let refused = |more: Value| {
            let mut body = json!({"input": "q"});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            read(body).unwrap_err()
        };
        assert!(
            refused(json!({"tools": [{"type": "web_search_preview"}]}))
                .starts_with("`tools[0].type` is `web_search_preview`")
        );
        assert!(refused(json!({"background": true})).starts_with("`background` is not supported"));
        assert!(refused(json!({"truncation": "auto"})).contains("or use `disabled`"));
        assert!(
            refused(json!({"input": [{"type": "reasoning", "summary": []}]}))
                .starts_with("`input[0].type` is `reasoning`")
        );
        assert!(
            refused(json!({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}))
                .starts_with("`input[0].content[0].type` is `input_image`")
        );
        assert!(refused(json!({"reasoning": {"effort": "high"}})).contains("`effort` is not supported"));
        assert!(refused(json!({"previous_response_id": "x"})).contains("is not the id"));
        assert!(refused(json!({"include": ["file_search_call.results"]})).starts_with("`include[0]`"));
        assert!(refused(json!({"max_tokens": 3})).starts_with("unknown parameter `max_tokens`"));
    }
}
