//! Tool calls: how a model is shown tools, how it writes calls, and how they are read back.
//!
//! Every family has a convention of its own, which its chat template shows: [`ToolStyle::of`] finds it there.
//! Where a template knows nothing of tools they are described in the system prompt, in the form that Hermes
//! models brought up. Calls are read as text comes ([`ToolReader`]) and, where they are required, enforced by a
//! grammar.

mod grammar;
mod read;
mod show;

use std::sync::Arc;

use autoglm_domain::{GenerationEvent, TokenLogprob, Toolbox};
use serde::{Deserialize, Serialize};

pub(crate) use grammar::grammar;
pub(crate) use read::ToolReader;
pub(crate) use show::{adapt, messages_value, tools_value};

/// How a family writes tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolStyle {
    /// `<tool_call>{"name": …, "arguments": …}</tool_call>`: Hermes, Qwen2.5, Qwen3.
    Hermes,
    /// `{"name": …, "parameters": …}` as the whole answer, perhaps after `<|python_tag|>`: Llama 3.
    Llama,
    /// `[TOOL_CALLS] [{"name": …, "arguments": …}]`: Mistral.
    Mistral,
    /// `[TOOL_CALLS]name[ARGS]{…}`: Mistral since 2025.
    MistralArgs,
    /// `name`, a line break and the arguments as JSON: GLM-4.
    Glm,
    /// `<tool_call>name` with `<arg_key>` and `<arg_value>`: GLM-4.5.
    GlmTags,
}

impl ToolStyle {
    /// The style that a chat template shows earlier calls in; Hermes' where it shows none.
    pub fn of(template: &str) -> Self {
        let has = |marker: &str| template.contains(marker);
        if has("<arg_key>") {
            Self::GlmTags
        } else if has("[TOOL_CALLS]") {
            if has("[ARGS]") { Self::MistralArgs } else { Self::Mistral }
        } else if has("<tool_call>") {
            Self::Hermes
        } else if has("<|python_tag|>") || has("ipython") {
            Self::Llama
        } else if has("<|observation|>") {
            Self::Glm
        } else {
            Self::Hermes
        }
    }

    /// What begins calls, where something does.
    pub(crate) fn marker(self) -> Option<&'static str> {
        match self {
            Self::Hermes | Self::GlmTags => Some("<tool_call>"),
            Self::Mistral | Self::MistralArgs => Some("[TOOL_CALLS]"),
            Self::Llama => Some("<|python_tag|>"),
            Self::Glm => None,
        }
    }

    /// Markers that must show in the text even where the tokenizer has them as special tokens.
    pub(crate) fn markers(self) -> &'static [&'static str] {
        match self {
            Self::Hermes => &["<tool_call>", "</tool_call>"],
            Self::GlmTags => {
                &["<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"]
            }
            Self::Mistral => &["[TOOL_CALLS]"],
            Self::MistralArgs => &["[TOOL_CALLS]", "[ARGS]"],
            Self::Llama => &["<|python_tag|>"],
            Self::Glm => &[],
        }
    }

    /// The key of a call's arguments.
    fn arguments_key(self) -> &'static str {
        if self == Self::Llama { "parameters" } else { "arguments" }
    }
}

/// Turns a generation's text into text and tool calls.
#[derive(Debug)]
pub(crate) struct ToolStream {
    reader: ToolReader,
}

impl ToolStream {
    pub(crate) fn new(style: ToolStyle, toolbox: &Arc<Toolbox>) -> Self {
        Self { reader: ToolReader::new(style, Arc::clone(toolbox)) }
    }

    /// The events that one of the engine's becomes. Log-probabilities go with text, which may be empty.
    pub(crate) fn take(&mut self, event: GenerationEvent) -> Vec<GenerationEvent> {
        match event {
            GenerationEvent::Text { text, logprobs } => {
                let pieces = self.reader.push(&text);
                with_logprobs(pieces, logprobs)
            }
            GenerationEvent::Done { .. } => {
                let mut events = self.reader.finish();
                events.push(event);
                events
            }
            other => vec![other],
        }
    }
}

fn with_logprobs(mut events: Vec<GenerationEvent>, tokens: Vec<TokenLogprob>) -> Vec<GenerationEvent> {
    if tokens.is_empty() {
        return events;
    }
    match events.first_mut() {
        Some(GenerationEvent::Text { logprobs, .. }) => *logprobs = tokens,
        _ => events.insert(0, GenerationEvent::Text { text: String::new(), logprobs: tokens }),
    }
    events
}

#[cfg(test)]
mod tests;
