//! How many tokens a text has, where the tokenizer is on another machine.

use std::sync::atomic::{AtomicU32, Ordering};

use autoglm_domain::{GenerationInput, Result};

/// Something that knows the upstream's tokenizer: a local copy of its model.
pub trait CountTokens: Send + Sync {
    /// How many tokens `input` has after the chat template.
    fn count(&self, input: &GenerationInput) -> Result<u32>;
}

/// Tokens that a chat template spends on a turn, roughly.
const TOKENS_A_TURN: u32 = 4;
/// Bytes a token before anything is known: what is usual for English.
const BYTES_A_TOKEN: f32 = 4.0;
/// How much one answer changes the estimate.
const WEIGHT: f32 = 0.05;

/// An estimate from the number of bytes, which follows what the upstream reports of the prompts that it was sent.
#[derive(Debug)]
pub(crate) struct Estimate {
    /// Bytes a token; the bits of a 32-bit number.
    bytes_a_token: AtomicU32,
}

impl Default for Estimate {
    fn default() -> Self {
        Self { bytes_a_token: AtomicU32::new(BYTES_A_TOKEN.to_bits()) }
    }
}

impl Estimate {
    /// Tokens of `input`, estimated.
    pub(crate) fn count(&self, input: &GenerationInput) -> u32 {
        let (bytes, turns) = size(input);
        let tokens = bytes as f32 / f32::from_bits(self.bytes_a_token.load(Ordering::Relaxed));
        // Casts of numbers too large saturate.
        (tokens.ceil() as u32).saturating_add(turns.saturating_mul(TOKENS_A_TURN))
    }

    /// Takes in that `input` had `tokens` tokens.
    pub(crate) fn learn(&self, input_size: (usize, u32), tokens: u32) {
        let (bytes, turns) = input_size;
        let tokens = tokens.saturating_sub(turns.saturating_mul(TOKENS_A_TURN));
        // Short prompts are mostly template and say little.
        if bytes < 64 || tokens < 8 {
            return;
        }
        let seen = (bytes as f32 / tokens as f32).clamp(1.0, 8.0);
        let known = f32::from_bits(self.bytes_a_token.load(Ordering::Relaxed));
        self.bytes_a_token.store((known + WEIGHT * (seen - known)).to_bits(), Ordering::Relaxed);
    }
}

/// Bytes and turns of `input`.
pub(crate) fn size(input: &GenerationInput) -> (usize, u32) {
    match input {
        GenerationInput::Text(text) => (text.len(), 0),
        GenerationInput::Chat(messages) | GenerationInput::ChatWithTools { messages, .. } => {
            let bytes = messages.iter().map(|message| message.content.len()).sum();
            (bytes, u32::try_from(messages.len()).unwrap_or(u32::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use autoglm_domain::ChatMessage;

    use super::*;

    #[test]
    fn it_counts_bytes_and_turns_and_comes_to_what_the_upstream_reports() {
        let estimate = Estimate::default();
        let text = GenerationInput::Text("x".repeat(400));
        assert_eq!(estimate.count(&text), 100);
        let chat = GenerationInput::Chat(vec![ChatMessage::user("x".repeat(40)), ChatMessage::system("")]);
        assert_eq!(estimate.count(&chat), 18);
        for _ in 0..200 {
            estimate.learn(size(&text), 200);
        }
        let learned = estimate.count(&text);
        assert!((198..=202).contains(&learned), "{learned}");
        estimate.learn((10, 1), 90);
        assert_eq!(estimate.count(&text), learned, "a short prompt says nothing");
    }
}
