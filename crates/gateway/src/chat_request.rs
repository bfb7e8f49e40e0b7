//! The body of `POST /v1/chat/completions`.

use autoglm_domain::{ChatMessage, Endpoint, Role, ToolCall};
use serde_json::Value;

use crate::{
    Config, GatewayError,
    fields::{Fields, missing, wrong_type},
    request::{self, AnswerRequest, Show},
    response_format, sampling,
    tools::{ToolForm, toolbox},
};

type Result<T> = std::result::Result<T, GatewayError>;

/// Fields of OpenAI's that leave the text of the answer as it is: hints for caching, billing and speed.
const WITHOUT_EFFECT: [&str; 7] = [
    "store",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "prediction",
];

/// Reads a chat request.
pub(crate) fn parse(body: Value, config: &Config) -> Result<AnswerRequest> {
    let mut fields = Fields::of_body(body)?;
    let model = request::model(&mut fields)?;
    let messages = fields.array("messages")?.ok_or_else(|| missing("messages"))?;
    let messages = conversation(messages)?;
    let mut sampling = sampling::sampling(&mut fields, config)?;
    sampling.max_tokens = max_tokens(&mut fields)?;
    sampling.logprobs = logprobs(&mut fields)?;
    sampling.format = response_format::of_chat(&mut fields)?;
    let toolbox = toolbox(&mut fields, ToolForm::Nested)?;
    let n = sampling::choices(&mut fields, config)?;
    let (stream, include_usage) = request::streaming(&mut fields)?;
    let user = fields.string("user")?;
    let metadata = request::metadata(&mut fields)?;
    let show = Show::of(&sampling, stream)?;
    let recall = show.recall(request::extension(&mut fields)?)?;
    request::without_effect(&mut fields, &WITHOUT_EFFECT);
    refuse_what_cannot_be_honoured(&mut fields)?;
    fields.finish()?;
    Ok(AnswerRequest {
        endpoint: Endpoint::Chat,
        model,
        prompts: vec![messages],
        sampling,
        n,
        stream,
        include_usage,
        user,
        metadata,
        recall,
        show,
        toolbox,
        response: None,
    })
}

fn refuse_what_cannot_be_honoured(fields: &mut Fields) -> Result<()> {
    if let Some(modalities) = fields.array("modalities")?
        && modalities.iter().any(|modality| modality != "text")
    {
        let message = "`modalities` asks for more than `text`, which is all that this server writes";
        return Err(GatewayError::unsupported("modalities", message));
    }
    request::refuse(fields, "functions", &[])?;
    request::refuse(fields, "function_call", &["none", "auto"])?;
    request::refuse(fields, "audio", &[])?;
    request::refuse(fields, "moderation", &[])?;
    request::refuse(fields, "web_search_options", &[])?;
    request::refuse(fields, "reasoning_effort", &["none"])?;
    request::refuse(fields, "verbosity", &["medium"])
}

/// `max_tokens` is the older name of `max_completion_tokens`.
fn max_tokens(fields: &mut Fields) -> Result<Option<u32>> {
    let old = sampling::tokens(fields, "max_tokens", 1)?;
    let new = sampling::tokens(fields, "max_completion_tokens", 1)?;
    match (old, new) {
        (Some(old), Some(new)) if old != new => {
            let message =
                format!("`max_tokens` is {old} but `max_completion_tokens` is {new} (hint: give one)");
            Err(GatewayError::value("max_tokens", message))
        }
        _ => Ok(new.or(old)),
    }
}

/// `logprobs: true` asks for the drawn tokens', `top_logprobs` for alternatives as well.
fn logprobs(fields: &mut Fields) -> Result<Option<u32>> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", 0..=sampling::MAX_LOGPROBS)?;
    match (wanted, top) {
        (false, Some(_)) => {
            let message = "`top_logprobs` is only for `logprobs: true`";
            Err(GatewayError::value("top_logprobs", message))
        }
        (false, None) => Ok(None),
        (true, top) => Ok(Some(top.and_then(|top| u32::try_from(top).ok()).unwrap_or(0))),
    }
}

fn conversation(messages: Vec<Value>) -> Result<Vec<ChatMessage>> {
    if messages.is_empty() {
        let message = "`messages` is empty (hint: at least one message is needed)";
        return Err(GatewayError::field("messages", "empty_array", message));
    }
    messages
        .into_iter()
        .enumerate()
        .map(|(i, message)| turn(Fields::nested(message, format!("messages[{i}]"))?))
        .collect()
}

fn turn(mut fields: Fields) -> Result<ChatMessage> {
    let roles = [
        ("system", Role::System),
        ("developer", Role::System),
        ("user", Role::User),
        ("assistant", Role::Assistant),
        ("tool", Role::Tool),
    ];
    let role = fields.word("role", &roles)?.ok_or_else(|| missing(&fields.path_of("role")))?;
    let path = fields.path_of("content");
    let content = fields.any("content");
    let tool_calls = match fields.array("tool_calls")? {
        Some(calls) if role == Role::Assistant => tool_calls(calls, &fields.path_of("tool_calls"))?,
        Some(calls) if !calls.is_empty() => {
            let path = fields.path_of("tool_calls");
            return Err(GatewayError::value(
                path.clone(),
                format!("`{path}` is only for the role `assistant`"),
            ));
        }
        _ => Vec::new(),
    };
    let id_path = fields.path_of("tool_call_id");
    let tool_call_id = fields.string("tool_call_id")?.filter(|_| role == Role::Tool);
    if role == Role::Tool && tool_call_id.is_none() {
        return Err(missing(&id_path));
    }
    let content = match content {
        Some(content) => text(content, &path)?,
        // A turn that calls says nothing, often.
        None if !tool_calls.is_empty() => String::new(),
        None => return Err(missing(&path)),
    };
    // What a client sends back when it appends an earlier answer as it came.
    request::without_effect(
        &mut fields,
        &["name", "refusal", "annotations", "audio", "function_call", "parsed"],
    );
    fields.finish()?;
    Ok(ChatMessage { role, content, tool_calls, tool_call_id })
}

fn tool_calls(calls: Vec<Value>, path: &str) -> Result<Vec<ToolCall>> {
    let read = |(i, call): (usize, Value)| {
        let mut call = Fields::nested(call, format!("{path}[{i}]"))?;
        let kind = call.string("type")?.unwrap_or_else(|| "function".to_owned());
        if kind != "function" {
            let path = call.path_of("type");
            let message = format!("`{path}` is `{kind}`; this server only knows calls of type `function`");
            return Err(GatewayError::unsupported(path, message));
        }
        let id = call.string("id")?.ok_or_else(|| missing(&call.path_of("id")))?;
        let path = call.path_of("function");
        let mut function = call.object("function")?.ok_or_else(|| missing(&path))?;
        let name = function.string("name")?.ok_or_else(|| missing(&function.path_of("name")))?;
        let arguments =
            function.string("arguments")?.ok_or_else(|| missing(&function.path_of("arguments")))?;
        // The client's library adds what it parsed.
        request::without_effect(&mut function, &["parsed_arguments"]);
        function.finish()?;
        request::without_effect(&mut call, &["index"]);
        call.finish()?;
        Ok(ToolCall { id, name, arguments })
    };
    calls.into_iter().enumerate().map(read).collect()
}

/// A content: a string, or text parts, which are joined by line breaks.
fn text(content: Value, path: &str) -> Result<String> {
    let parts = match content {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        other => return Err(wrong_type(path, "a string or an array of text parts", &other)),
    };
    let mut whole = String::new();
    for (i, part) in parts.into_iter().enumerate() {
        let mut fields = Fields::nested(part, format!("{path}[{i}]"))?;
        let kind = fields.string("type")?.ok_or_else(|| missing(&fields.path_of("type")))?;
        if kind != "text" {
            let message = format!("`{path}[{i}]` is of type `{kind}`; this server only reads `text`");
            return Err(GatewayError::unsupported(fields.path_of("type"), message));
        }
        let text = fields.string("text")?.ok_or_else(|| missing(&fields.path_of("text")))?;
        request::without_effect(&mut fields, &["prompt_cache_breakpoint", "annotations"]);
        fields.finish()?;
        if i > 0 {
            whole.push('\n');
        }
        whole.push_str(&text);
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> std::result::Result<AnswerRequest, String> {
        parse(body, &Config::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_greedy_and_the_champion_answers() {
        let request = read(json!({"messages": [{"role": "developer", "content": "hi"}]})).unwrap();
        assert_eq!(request.model, "champion");
        assert_eq!(request.sampling, autoglm_domain::Sampling::default());
        assert_eq!(request.prompts, vec![vec![ChatMessage::system("hi")]]);
        assert_eq!((request.n, request.stream, request.recall), (1, false, None));
    }

    #[test]
    fn every_sampling_field_arrives() {
        let request = read(json!({
            "model": "v3", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"},
            {"type": "text", "text": "b"}]}], "temperature": 0.5, "top_p": 0.9, "top_k": -1, "min_p": 0.1,
            "repetition_penalty": 1.5, "frequency_penalty": -1, "presence_penalty": 2, "seed": -1,
            "stop": ["x", "y"], "max_completion_tokens": 7, "max_tokens": 7, "logprobs": true,
            "top_logprobs": 3, "n": 2, "stream": true, "stream_options": {"include_usage": true},
            "user": "ada", "store": true, "tools": [], "response_format": {"type": "text"},
            "metadata": {"task": "t"}, "autoglm": {"recall": "answer"}, "modalities": ["text"],
            "logit_bias": {"7": -100, "50": 2.5},
        }))
        .unwrap();
        assert_eq!(request.prompts[0][0].content, "a\nb");
        let expected = autoglm_domain::Sampling {
            temperature: 0.5,
            top_p: 0.9,
            top_k: 0,
            min_p: 0.1,
            repetition_penalty: 1.5,
            frequency_penalty: -1.0,
            presence_penalty: 2.0,
            seed: Some(u64::MAX),
            stop: vec!["x".into(), "y".into()],
            max_tokens: Some(7),
            logprobs: Some(3),
            logit_bias: vec![(7, -100.0), (50, 2.5)],
            ..autoglm_domain::Sampling::default()
        };
        assert_eq!(request.sampling, expected);
        assert!(request.stream && request.include_usage);
        assert_eq!(request.metadata["task"], "t");
        assert_eq!(request.recall, Some(crate::RecallMode::Answer));
    }

    #[test]
    fn calls_and_their_results_are_turns() {
        let call =
            json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}});
        let request = read(json!({"messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ]}))
        .unwrap();
        let tool_calls = vec![ToolCall { id: "c1".into(), name: "f".into(), arguments: "{\"x\":1}".into() }];
        assert_eq!(request.prompts[0][1], ChatMessage { tool_calls, ..ChatMessage::assistant("") });
        assert_eq!(request.prompts[0][2], ChatMessage::tool("c1", "42"));
        let refused = |message: Value| read(json!({"messages": [message]})).unwrap_err();
        assert_eq!(
            refused(json!({"role": "tool", "content": "42"})),
            "the required parameter `messages[0].tool_call_id` is missing"
        );
        assert_eq!(
            refused(json!({"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f"}}]})),
            "the required parameter `messages[0].tool_calls[0].function.arguments` is missing"
        );
        assert!(
            refused(json!({"role": "user", "content": "q", "tool_calls": [call]}))
                .ends_with("only for the role `assistant`")
        );
        assert_eq!(
            refused(json!({"role": "assistant"})),
            "the required parameter `messages[0].content` is missing"
        );
    }

    #[test]
    fn a_bias_names_a_token_and_stays_within_a_hundred() {
        let refused = |bias: Value| {
            read(json!({"messages": [{"role": "user", "content": "q"}], "logit_bias": bias})).unwrap_err()
        };
        assert_eq!(
            refused(json!({"the": 1})),
            "`the` is not the id of a token (hint: ids are whole numbers)"
        );
        assert_eq!(refused(json!({"7": 101})), "`logit_bias.7` is 101; it must be from -100 to 100");
        assert_eq!(refused(json!({"7": "x"})), "`logit_bias.7` is a string, expected a number");
        assert!(refused(json!([1])).contains("expected an object from token id to bias"));
    }

    #[test]
    fn who_asks_what_the_weights_make_of_the_prompt_asks_without_memory() {
        let ask = |more: Value| {
            let mut body = json!({"messages": [{"role": "user", "content": "q"}], "return_token_ids": true});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            read(body)
        };
        assert_eq!(ask(json!({})).unwrap().recall, Some(crate::RecallMode::Off));
        assert!(
            ask(json!({"autoglm": {"recall": "examples"}}))
                .unwrap_err()
                .starts_with("`autoglm.recall` must be `off`")
        );
        assert!(
            ask(json!({"prompt_logprobs": 2, "stream": true}))
                .unwrap_err()
                .starts_with("`prompt_logprobs` is not for")
        );
    }

    #[test]
    fn an_answer_can_be_sent_back_as_it_came() {
        let request = read(json!({"messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a", "refusal": null, "annotations": null, "tool_calls": null},
        ]}));
        assert_eq!(request.unwrap().prompts[0][1], ChatMessage::assistant("a"));
    }
}
