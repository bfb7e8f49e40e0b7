//! One request and its answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ExperienceId, InteractionId, Timestamp, Tool, ToolCall, VersionNumber};

/// Who speaks in a [`ChatMessage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions of whoever runs the application.
    System,
    /// The person or program that asks.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// The functions that the model wants called, in a model's turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that `content` is the result of, in a tool's turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl ChatMessage {
    /// A turn without tool calls.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), tool_calls: Vec::new(), tool_call_id: None }
    }

    /// A user's turn.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }

    /// A model's turn.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// A system prompt.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }

    /// The result of the tool call `id`.
    pub fn tool(id: impl Into<String>, content: impl Into<String>) -> Self {
        Self { tool_call_id: Some(id.into()), ..Self::new(Role::Tool, content) }
    }
}

/// The form that an answer must have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseFormat {
    /// Any text.
    #[default]
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that follows this schema.
    JsonSchema(serde_json::Value),
}

impl ResponseFormat {
    /// Whether any text will do.
    pub fn is_text(&self) -> bool {
        *self == Self::Text
    }
}

/// How tokens are drawn. The defaults are greedy and unpenalised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// Nucleus: the smallest set of tokens with this much probability; 1 is off.
    pub top_p: f32,
    /// The k likeliest tokens; 0 is off.
    pub top_k: u32,
    /// Tokens at least this likely relative to the likeliest; 0 is off.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen before; 1 is off (CTRL, Keskar 2019).
    pub repetition_penalty: f32,
    /// Subtracted from a logit once for each time that its token was generated; 0 is off.
    pub frequency_penalty: f32,
    /// Subtracted from the logit of each token that was generated; 0 is off.
    pub presence_penalty: f32,
    /// Same seed, same request, same version: same answer.
    pub seed: Option<u64>,
    /// The answer ends before the first of these.
    pub stop: Vec<String>,
    /// Most tokens to generate; `None` fills the context.
    pub max_tokens: Option<u32>,
    /// How many alternatives to report a token; `None` reports no log-probabilities.
    pub logprobs: Option<u32>,
    /// Added to the logits of these tokens before a draw.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logit_bias: Vec<(u32, f32)>,
    /// The form of the answer; tokens that would break it are not drawn.
    #[serde(skip_serializing_if = "ResponseFormat::is_text")]
    pub format: ResponseFormat,
    /// Whether every token is reported, those that end the answer and those of the prompt too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub token_ids: bool,
    /// How many alternatives to report a token of the prompt; `None` does not score the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<u32>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: None,
            stop: Vec::new(),
            max_tokens: None,
            logprobs: None,
            logit_bias: Vec::new(),
            format: ResponseFormat::Text,
            token_ids: false,
            prompt_logprobs: None,
        }
    }
}

/// The API call that an interaction came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completion,
    /// `/v1/responses`
    Responses,
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// End-of-sequence token or a stop string.
    Stop,
    /// `max_tokens` or the context was reached.
    Length,
    /// The client went away or the server is shutting down.
    Cancelled,
}

/// What an answer was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum AnswerSource {
    /// Generated by the model version alone.
    Weights,
    /// Generated by the model version with remembered examples in the prompt.
    Examples {
        /// How many experiences were put in.
        count: u32,
    },
    /// Answered from memory without generation.
    Memory {
        /// The experience that was recalled.
        experience: ExperienceId,
    },
}

/// Token counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt after the chat template.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
}

/// One generated token with its log-probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token's text.
    pub token: String,
    /// The token's id.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest alternatives, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<(String, f32)>,
}

/// One token of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptToken {
    /// The token's text.
    pub token: String,
    /// The token's id.
    pub id: u32,
    /// How likely it was; `None` for the first token, and where it was not asked for.
    pub score: Option<PromptScore>,
}

/// How likely a token of a prompt was after those before it.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptScore {
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Its place among all tokens by probability, from 1.
    pub rank: u32,
    /// The likeliest alternatives with their log-probabilities, best first: id, text, log-probability.
    pub top: Vec<(u32, String, f32)>,
}

/// One request and its answer, as it is recorded before the response ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interaction {
    /// Its id, also the completion's `id`.
    pub id: InteractionId,
    /// When the request came in.
    pub at: Timestamp,
    /// The API call.
    pub endpoint: Endpoint,
    /// The `model` that the client named.
    pub model: String,
    /// The version that answered.
    pub version: VersionNumber,
    /// The conversation; a plain completion is one user turn.
    pub messages: Vec<ChatMessage>,
    /// Whether the first message is the request's `instructions`, which do not outlast it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub instructed: bool,
    /// The tools that the model was shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// How tokens were drawn.
    pub sampling: Sampling,
    /// The answer's text as the model wrote it, tool calls included.
    pub answer: String,
    /// The answer as a turn, where it calls tools: what is said beside the calls, and the calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<ChatMessage>,
    /// What the answer was made from.
    pub source: AnswerSource,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Token counts.
    pub usage: Usage,
    /// Log-probabilities of the answer's tokens, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprob>,
    /// From request to last token.
    pub latency_ms: f64,
    /// From request to first token.
    pub first_token_ms: f64,
    /// Who asked: the API key's principal, or `anonymous`.
    pub principal: String,
    /// The conversation it belongs to, where the client says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The client's own `metadata` (OpenAI: up to 16 pairs); `task` and `context` are understood.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}
