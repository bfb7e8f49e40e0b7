//! One answer of a request as it grows; one interaction.

use autoglm_domain::{
    AnswerSource, ChatMessage, FinishReason, InteractionId, TokenLogprob, ToolCall, ToolCallPiece, Usage,
};

/// One answer of a request.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) id: InteractionId,
    /// Which of the request's prompts it answers.
    pub(crate) prompt: usize,
    pub(crate) seed: Option<u64>,
    pub(crate) source: AnswerSource,
    /// The text that the client sees.
    pub(crate) text: String,
    pub(crate) calls: Vec<ToolCall>,
    /// Text and calls as the model wrote them; kept from the first call on.
    written: String,
    pub(crate) logprobs: Vec<TokenLogprob>,
    pub(crate) first_token_ms: Option<f64>,
    pub(crate) end: Option<End>,
    /// Whether it was handed to the store, or is not to be.
    pub(crate) settled: bool,
}

/// How a choice ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct End {
    pub(crate) finish_reason: FinishReason,
    pub(crate) usage: Usage,
    pub(crate) latency_ms: f64,
}

impl Choice {
    /// An answer of which there is nothing yet.
    pub(crate) fn new(id: InteractionId, prompt: usize, seed: Option<u64>, source: AnswerSource) -> Self {
        Self {
            id,
            prompt,
            seed,
            source,
            text: String::new(),
            calls: Vec::new(),
            written: String::new(),
            logprobs: Vec::new(),
            first_token_ms: None,
            end: None,
            settled: false,
        }
    }

    /// Takes in some text, `now_ms` after the request came in.
    pub(crate) fn extend(&mut self, text: &str, logprobs: &[TokenLogprob], now_ms: f64) {
        self.note_first(now_ms);
        self.text.push_str(text);
        if !self.calls.is_empty() {
            self.written.push_str(text);
        }
        self.logprobs.extend_from_slice(logprobs);
    }

    /// Takes in a piece of a call. A call gets its id, a new one, with its first piece.
    pub(crate) fn call(&mut self, piece: &ToolCallPiece, now_ms: f64, new_id: impl FnOnce() -> String) {
        self.note_first(now_ms);
        if self.calls.is_empty() {
            self.written.push_str(&self.text);
        }
        self.written.push_str(&piece.written);
        let before = self.calls.len();
        piece.clone().add_to(&mut self.calls);
        if let Some(call) = self.calls.get_mut(before) {
            call.id = new_id();
        }
    }

    /// What is recorded: the answer as the model wrote it, and as a turn where it calls tools.
    pub(crate) fn take_record(&mut self) -> (String, Option<ChatMessage>) {
        let text = std::mem::take(&mut self.text);
        let tool_calls = std::mem::take(&mut self.calls);
        if tool_calls.is_empty() {
            return (text, None);
        }
        let turn = ChatMessage { tool_calls, ..ChatMessage::assistant(text) };
        (std::mem::take(&mut self.written), Some(turn))
    }

    fn note_first(&mut self, now_ms: f64) {
        if self.first_token_ms.is_none() {
            self.first_token_ms = Some(now_ms);
            metrics::histogram!("autoglm_first_token_seconds").record(now_ms / 1e3);
        }
    }
}
