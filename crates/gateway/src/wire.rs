//! What an answer looks like on the wire, whole and in pieces.

use std::borrow::Cow;

use autoglm_domain::{
    AnswerSource, Endpoint, FinishReason, InteractionId, PromptToken, TokenLogprob, ToolCall, ToolCallPiece,
    Usage, VersionNumber,
};
use serde::Serialize;

use crate::{
    exchange::{Choice, Exchange},
    logprobs::{Logprobs, PromptLogprobs, TextLogprobs},
    request::AnswerRequest,
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

/// OpenAI's word for how a choice ended; it has none for an answer that was cut off.
pub(crate) fn finish_word(choice: &Choice) -> Option<&'static str> {
    Some(match choice.end?.finish_reason {
        FinishReason::Length => "length",
        FinishReason::Stop | FinishReason::Cancelled if choice.calls.is_empty() => "stop",
        FinishReason::Stop | FinishReason::Cancelled => "tool_calls",
    })
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
            (Endpoint::Responses, _) => "response",
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
    #[serde(flatten)]
    prompt: ShownPrompt<'a>,
}

#[derive(Debug, Serialize)]
struct WholeChoice<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
    #[serde(flatten)]
    prompt: ShownPrompt<'a>,
    autoglm: ChoiceExtension,
}

#[derive(Debug, Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Option<&'a str>,
    refusal: Option<()>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WholeCall<'a>>,
}

#[derive(Debug, Serialize)]
struct WholeCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Debug, Serialize)]
struct Function<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

impl<'a> Message<'a> {
    fn new(choice: &'a Choice) -> Self {
        let call = |call: &'a ToolCall| WholeCall {
            id: &call.id,
            r#type: "function",
            function: Function { name: Some(&call.name), arguments: &call.arguments },
        };
        // An answer that only calls says nothing, which is not the same as an empty text.
        let silent = choice.text.is_empty() && !choice.calls.is_empty();
        Self {
            role: "assistant",
            content: (!silent).then_some(choice.text.as_str()),
            refusal: None,
            tool_calls: choice.calls.iter().map(call).collect(),
        }
    }
}

/// What is shown of a prompt: of the only one beside a chat answer, of each choice's own in a completion.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ShownPrompt<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<PromptLogprobs<'a>>,
}

impl<'a> ShownPrompt<'a> {
    pub(crate) fn new(exchange: &'a Exchange, prompt: usize) -> Self {
        let tokens = exchange.prompt_tokens.get(prompt).map(Vec::as_slice);
        let show = exchange.request.show;
        let ids = |tokens: &[PromptToken]| tokens.iter().map(|token| token.id).collect();
        Self {
            prompt_token_ids: tokens.filter(|_| show.token_ids).map(ids),
            prompt_logprobs: tokens.filter(|_| show.prompt_logprobs).map(PromptLogprobs),
        }
    }
}

impl<'a> Whole<'a> {
    pub(crate) fn new(exchange: &'a Exchange) -> Self {
        let choice = |(index, choice)| WholeChoice::new(exchange, index, choice);
        let choices = exchange.choices.iter().enumerate().map(choice).collect();
        let prompt = match exchange.request.endpoint {
            Endpoint::Completion => ShownPrompt::default(),
            _ => ShownPrompt::new(exchange, 0),
        };
        Self { head: Head::new(exchange, false), choices, usage: exchange.usage().into(), prompt }
    }
}

impl<'a> WholeChoice<'a> {
    fn new(exchange: &'a Exchange, index: usize, choice: &'a Choice) -> Self {
        let AnswerRequest { endpoint, sampling, show, .. } = &exchange.request;
        let mut offset = 0;
        let echoed = exchange.echoed(choice);
        let mut lists = sampling.logprobs.map(|_| Logprobs::new(*endpoint, &choice.logprobs, &mut 0));
        let (message, text, prompt) = match endpoint {
            Endpoint::Completion => {
                let text = match &echoed {
                    Some((prompt, _)) => Cow::Owned(format!("{prompt}{}", choice.text)),
                    None => Cow::Borrowed(choice.text.as_str()),
                };
                (None, Some(text), ShownPrompt::new(exchange, choice.prompt))
            }
            _ => (Some(Message::new(choice)), None, ShownPrompt::default()),
        };
        if let (Some((text, tokens)), Some(_)) = (&echoed, &lists) {
            let mut both = TextLogprobs::of_prompt(text, tokens, &mut offset);
            both.append(TextLogprobs::new(&choice.logprobs, &mut offset));
            lists = Some(Logprobs::Text(both));
        }
        Self {
            index,
            message,
            text,
            logprobs: lists,
            finish_reason: finish_word(choice),
            token_ids: show.token_ids.then(|| ids(&choice.logprobs)),
            prompt,
            autoglm: ChoiceExtension::new(choice, exchange.version),
        }
    }
}

fn ids(tokens: &[TokenLogprob]) -> Vec<u32> {
    tokens.iter().map(|token| token.id).collect()
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
    token_ids: Option<Vec<u32>>,
    #[serde(flatten)]
    prompt: ShownPrompt<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    autoglm: Option<ChoiceExtension>,
}

#[derive(Debug, Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[DeltaCall<'a>; 1]>,
}

/// A piece of a call: the first has id and name, the others more of the arguments.
#[derive(Debug, Serialize)]
struct DeltaCall<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: Function<'a>,
}

impl<'a> ChunkChoice<'a> {
    /// The first chunk of a choice: who speaks, and our extension.
    pub(crate) fn first(endpoint: Endpoint, index: usize, autoglm: ChoiceExtension) -> Self {
        let delta = Delta { role: Some("assistant"), content: Some(""), tool_calls: None };
        let mut chunk = Self::blank(endpoint, index, delta);
        chunk.autoglm = Some(autoglm);
        chunk
    }

    /// The prompt of a plain completion, before its answer: its tokens, and its text where it is echoed.
    pub(crate) fn prompt(exchange: &'a Exchange, index: usize, choice: &Choice, offset: &mut usize) -> Self {
        let mut chunk = Self::blank(Endpoint::Completion, index, Delta::default());
        chunk.prompt = ShownPrompt::new(exchange, choice.prompt);
        if let Some((text, tokens)) = exchange.echoed(choice) {
            chunk.text = Some(text);
            let lists = TextLogprobs::of_prompt(text, tokens, offset);
            chunk.logprobs = exchange.request.sampling.logprobs.map(|_| Logprobs::Text(lists));
        }
        chunk
    }

    /// Some more text, with what `tokens` asks to be shown; `offset` as in [`TextLogprobs`].
    pub(crate) fn text(
        endpoint: Endpoint,
        index: usize,
        text: &'a str,
        tokens: TokensOf<'a>,
        offset: &mut usize,
    ) -> Self {
        let mut chunk = Self::blank(endpoint, index, Delta { content: Some(text), ..Delta::default() });
        chunk.text = chunk.text.map(|_| text);
        chunk.logprobs = tokens.logprobs.then(|| Logprobs::new(endpoint, tokens.tokens, offset));
        chunk.token_ids = tokens.ids.then(|| ids(tokens.tokens));
        chunk
    }

    /// A piece of a call, which `choice` has taken in.
    pub(crate) fn call(
        endpoint: Endpoint,
        index: usize,
        choice: &'a Choice,
        piece: &'a ToolCallPiece,
    ) -> Self {
        let name = piece.name.as_deref();
        let id = choice.calls.get(piece.index).filter(|_| name.is_some()).map(|call| call.id.as_str());
        let call = DeltaCall {
            index: piece.index,
            id,
            r#type: id.map(|_| "function"),
            function: Function { name, arguments: &piece.arguments },
        };
        Self::blank(endpoint, index, Delta { tool_calls: Some([call]), ..Delta::default() })
    }

    /// The last chunk of a choice, which ended with `word`.
    pub(crate) fn last(endpoint: Endpoint, index: usize, word: Option<&'static str>) -> Self {
        let mut chunk = Self::blank(endpoint, index, Delta::default());
        chunk.finish_reason = word;
        chunk
    }

    fn blank(endpoint: Endpoint, index: usize, delta: Delta<'a>) -> Self {
        let (delta, text) = match endpoint {
            Endpoint::Completion => (None, Some("")),
            _ => (Some(delta), None),
        };
        Self {
            index,
            delta,
            text,
            logprobs: None,
            finish_reason: None,
            token_ids: None,
            prompt: ShownPrompt::default(),
            autoglm: None,
        }
    }
}

/// The tokens of a piece of text, and what is shown of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokensOf<'a> {
    pub(crate) tokens: &'a [TokenLogprob],
    pub(crate) logprobs: bool,
    pub(crate) ids: bool,
}

/// Appends `value` as JSON. Our own types always serialise; should one not, the log says so.
pub(crate) fn write_json(out: &mut Vec<u8>, value: &impl Serialize) {
    if let Err(error) = serde_json::to_writer(out, value) {
        tracing::error!(%error, "an answer did not serialise");
    }
}
