//! What both completion endpoints make of a body: one request to answer.

use std::collections::BTreeMap;

use autoglm_domain::{ChatMessage, Endpoint, Sampling, Toolbox};
use serde_json::Value;

use crate::{GatewayError, RecallMode, fields::Fields, responses_request::ResponseShape};

type Result<T> = std::result::Result<T, GatewayError>;

/// OpenAI's bounds of `metadata`. `context` and `task` are ours and `context` may be long, so that values
/// are bounded by the body alone.
const METADATA_PAIRS: usize = 16;
const METADATA_KEY_CHARS: usize = 64;

/// A request that was read and found answerable.
#[derive(Debug)]
pub(crate) struct AnswerRequest {
    /// The API call.
    pub(crate) endpoint: Endpoint,
    /// The model's name as the client gave it.
    pub(crate) model: String,
    /// One conversation a prompt; a plain prompt is one user turn.
    pub(crate) prompts: Vec<Vec<ChatMessage>>,
    /// How tokens are drawn.
    pub(crate) sampling: Sampling,
    /// Choices a prompt.
    pub(crate) n: usize,
    /// Whether to answer in pieces.
    pub(crate) stream: bool,
    /// Whether a stream's last chunk gives the usage.
    pub(crate) include_usage: bool,
    /// The client's name for its user.
    pub(crate) user: Option<String>,
    /// The client's own pairs.
    pub(crate) metadata: BTreeMap<String, String>,
    /// How memory should take part, where the client says so.
    pub(crate) recall: Option<RecallMode>,
    /// What is shown of the prompt and of tokens beside the answer.
    pub(crate) show: Show,
    /// The tools that the model may call.
    pub(crate) toolbox: Option<Toolbox>,
    /// What a response says of its request.
    pub(crate) response: Option<Box<ResponseShape>>,
}

/// What a response shows beside the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Show {
    /// The prompt before the answer.
    pub(crate) echo: bool,
    /// The ids of the tokens of prompt and answer.
    pub(crate) token_ids: bool,
    /// How likely the prompt's tokens are.
    pub(crate) prompt_logprobs: bool,
}

impl Show {
    /// What the fields in `sampling` ask to be shown.
    pub(crate) fn of(sampling: &Sampling, stream: bool) -> Result<Self> {
        let (token_ids, prompt_logprobs) = (sampling.token_ids, sampling.prompt_logprobs.is_some());
        if prompt_logprobs && stream {
            let message = "`prompt_logprobs` is not for `stream: true` (hint: ask without a stream)";
            return Err(GatewayError::value("prompt_logprobs", message));
        }
        Ok(Self { echo: false, token_ids, prompt_logprobs })
    }

    /// How memory takes part: not at all where the weights and the prompt themselves are asked about.
    pub(crate) fn recall(self, asked: Option<RecallMode>) -> Result<Option<RecallMode>> {
        if self == Self::default() {
            return Ok(asked);
        }
        if asked.is_none_or(|mode| mode == RecallMode::Off) {
            return Ok(Some(RecallMode::Off));
        }
        let message = "`autoglm.recall` must be `off` with `echo`, `return_token_ids` and `prompt_logprobs`, \
                       which show what the weights make of the prompt as it is";
        Err(GatewayError::value("autoglm.recall", message))
    }
}

/// Reads `model`; the champion answers where none is named.
pub(crate) fn model(fields: &mut Fields) -> Result<String> {
    Ok(fields.string("model")?.unwrap_or_else(|| "champion".to_owned()))
}

/// Reads `stream` and `stream_options`: whether to stream, and whether to end with the usage.
pub(crate) fn streaming(fields: &mut Fields) -> Result<(bool, bool)> {
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let Some(mut options) = fields.object("stream_options")? else { return Ok((stream, false)) };
    if !stream {
        let message = "`stream_options` is only for `stream: true`";
        return Err(GatewayError::value("stream_options", message));
    }
    let include_usage = options.boolean("include_usage")?.unwrap_or(false);
    options.boolean("include_obfuscation")?; // Padding against traffic analysis; leaving it out is allowed.
    options.finish()?;
    Ok((stream, include_usage))
}

/// Reads `metadata`.
pub(crate) fn metadata(fields: &mut Fields) -> Result<BTreeMap<String, String>> {
    let Some(value) = fields.any("metadata") else { return Ok(BTreeMap::new()) };
    let Value::Object(map) = value else {
        return Err(crate::fields::wrong_type("metadata", "an object", &value));
    };
    if map.len() > METADATA_PAIRS {
        let message = format!("`metadata` has {} pairs, more than {METADATA_PAIRS}", map.len());
        return Err(GatewayError::value("metadata", message));
    }
    map.into_iter()
        .map(|(key, value)| match value {
            _ if key.chars().count() > METADATA_KEY_CHARS => {
                let message = format!("a key of `metadata` is longer than {METADATA_KEY_CHARS} characters");
                Err(GatewayError::value("metadata", message))
            }
            Value::String(text) => Ok((key, text)),
            other => Err(crate::fields::wrong_type(&format!("metadata.{key}"), "a string", &other)),
        })
        .collect()
}

/// Reads our extension `autoglm`.
pub(crate) fn extension(fields: &mut Fields) -> Result<Option<RecallMode>> {
    let Some(mut ours) = fields.object("autoglm")? else { return Ok(None) };
    let words =
        [("off", RecallMode::Off), ("examples", RecallMode::Examples), ("answer", RecallMode::Answer)];
    let recall = ours.word("recall", &words)?;
    ours.finish()?;
    Ok(recall)
}

/// Reads fields of OpenAI's that leave the answer as it is, and forgets them.
pub(crate) fn without_effect(fields: &mut Fields, names: &[&'static str]) {
    for name in names {
        fields.any(name);
    }
}

/// Refuses fields that would change the answer and that cannot be honoured, unless they hold nothing or one
/// of the values in `harmless`.
pub(crate) fn refuse(fields: &mut Fields, name: &'static str, harmless: &[&str]) -> Result<()> {
    let Some(value) = fields.any(name) else { return Ok(()) };
    let empty = match &value {
        Value::Array(values) => values.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(value) => !value,
        Value::String(text) => text.is_empty() || harmless.contains(&text.as_str()),
        _ => false,
    };
    if empty {
        return Ok(());
    }
    let hint = if harmless.is_empty() {
        "leave it out".to_owned()
    } else {
        let words: Vec<String> = harmless.iter().map(|word| format!("`{word}`")).collect();
        format!("leave it out, or use {}", words.join(" or "))
    };
    Err(GatewayError::field(
        name,
        "unsupported_parameter",
        format!("`{name}` is not supported by this server (hint: {hint})"),
    ))
}
