//! What an answer looks like on the wire, whole and in pieces.

use autoglm_domain::{
    AnswerSource, Endpoint, FinishReason, InteractionId, TokenLogprob, Usage, VersionNumber,
};
use serde::Serialize;

use crate::{
    exchange::{Choice, Exchange},
    logprobs::{ChatLogprobs, Logprobs, TextLogprobs},
};

/// Our extension of a choice: the interaction that feedback should name, and what the answer came from.
#[derive(Debug, Serialize)]
pub(crate) struct ChoiceExtension {
    id: InteractionId,
    version: String,
    source: AnswerSource,
}

impl ChoiceExtension {
    pub(crate) fn new(choice: &Choice, version: VersionNumber) -> Self {
        Self { id: choice.id, version: version.to_string(), source: choice.source }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct UsageBody {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
}

impl From<Usage> for UsageBody {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens.saturating_add(usage.completion_tokens),
        }
    }
}

/// OpenAI's word; it has none for an answer that was cut off.
pub(crate) fn finish_word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::Cancelled => "stop",
        FinishReason::Length => "length",
    }
}

/// What every object of one answer begins with.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Head<'a> {
    id: InteractionId,
    object: &'static str,
    created: i64,
    model: &'a str,
    system_fingerprint: VersionFingerprint,
}

impl<'a> Head<'a> {
    pub(crate) fn new(exchange: &'a Exchange, stream: bool) -> Self {
        let object = match (exchange.request.endpoint, stream) {
            (Endpoint::Chat, false) => "chat.completion",
            (Endpoint::Chat, true) => "chat.completion.chunk",
            (Endpoint::Completion, _) => "text_completion",
        };
        Self {
            id: exchange.arrival.id,
            object,
            created: exchange.arrival.at.0.div_euclid(1000),
            model: &exchange.request.model,
            system_fingerprint: VersionFingerprint(exchange.version),
        }
    }
}

/// OpenAI's fingerprint changes when answers to the same seed may; here that is when the version does.
#[derive(Debug, Clone, Copy)]
struct VersionFingerprint(VersionNumber);

impl Serialize for VersionFingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("autoglm-{}", self.0))
    }
}

/// A whole answer.
#[derive(Debug, Serialize)]
pub(crate) struct Whole<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    choices: Vec<WholeChoice<'a>>,
    usage: UsageBody,
}

#[derive(Debug, Serialize)]
struct WholeChoice<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: Option<&'static str>,
    autoglm: ChoiceExtension,
}

#[derive(Debug, Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    refusal: Option<()>,
}

impl<'a> Whole<'a> {
    pub(crate) fn new(exchange: &'a Exchange) -> Self {
        let endpoint = exchange.request.endpoint;
        let wanted = exchange.request.sampling.logprobs.is_some();
        let choice = |(index, choice): (usize, &'a Choice)| {
            let text = choice.text.as_str();
            let (message, text) = match endpoint {
                Endpoint::Chat => (Some(Message { role: "assistant", content: text, refusal: None }), None),
                Endpoint::Completion => (None, Some(text)),
            };
            WholeChoice {
                index,
                message,
                text,
                logprobs: wanted.then(|| logprobs(endpoint, &choice.logprobs, &mut 0)),
                finish_reason: choice.end.map(|end| finish_word(end.finish_reason)),
                autoglm: ChoiceExtension::new(choice, exchange.version),
            }
        };
        let choices = exchange.choices.iter().enumerate().map(choice).collect();
        Self { head: Head::new(exchange, false), choices, usage: exchange.usage().into() }
    }
}

/// One choice in a chunk of a stream.
#[derive(Debug, Serialize)]
pub(crate) struct ChunkChoice<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Delta<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    autoglm: Option<ChoiceExtension>,
}

#[derive(Debug, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

impl<'a> ChunkChoice<'a> {
    /// The first chunk of a choice: who speaks, and our extension.
    pub(crate) fn first(endpoint: Endpoint, index: usize, autoglm: ChoiceExtension) -> Self {
        let role = Some("assistant");
        let mut chunk = Self::blank(endpoint, index, Delta { role, content: Some("") });
        chunk.autoglm = Some(autoglm);
        chunk
    }

    /// Some more text; `tokens` where log-probabilities were asked for, `offset` as in [`TextLogprobs`].
    pub(crate) fn text(
        endpoint: Endpoint,
        index: usize,
        text: &'a str,
        tokens: Option<&'a [TokenLogprob]>,
        offset: &mut usize,
    ) -> Self {
        let mut chunk = Self::blank(endpoint, index, Delta { role: None, content: Some(text) });
        chunk.text = chunk.text.map(|_| text);
        chunk.logprobs = tokens.map(|tokens| logprobs(endpoint, tokens, offset));
        chunk
    }

    /// The last chunk of a choice.
    pub(crate) fn last(endpoint: Endpoint, index: usize, reason: FinishReason) -> Self {
        let mut chunk = Self::blank(endpoint, index, Delta { role: None, content: None });
        chunk.finish_reason = Some(finish_word(reason));
        chunk
    }

    fn blank(endpoint: Endpoint, index: usize, delta: Delta<'a>) -> Self {
        let (delta, text) = match endpoint {
            Endpoint::Chat => (Some(delta), None),
            Endpoint::Completion => (None, Some("")),
        };
        Self { index, delta, text, logprobs: None, finish_reason: None, autoglm: None }
    }
}

fn logprobs<'a>(endpoint: Endpoint, tokens: &'a [TokenLogprob], offset: &mut usize) -> Logprobs<'a> {
    match endpoint {
        Endpoint::Chat => Logprobs::Chat(ChatLogprobs::new(tokens)),
        Endpoint::Completion => Logprobs::Text(TextLogprobs::new(tokens, offset)),
    }
}

/// Appends `value` as JSON. Our own types always serialise; should one not, the log says so.
pub(crate) fn write_json(out: &mut Vec<u8>, value: &impl Serialize) {
    if let Err(error) = serde_json::to_writer(out, value) {
        tracing::error!(%error, "an answer did not serialise");
    }
}
