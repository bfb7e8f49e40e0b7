//! Log-probabilities of given tokens: what a model thinks of a text.

use serde::Serialize;

use crate::{Model, ResidentAdapter, Result, SequenceInput, WantedLogits, kernels::cross_entropy_row};

/// Tokens that are scored at once: enough for full matrix products, few enough that their logits stay small.
pub(crate) const CHUNK: usize = 64;

/// One token with its log-probability after those before it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ScoredToken {
    /// The token.
    pub id: u32,
    /// Natural logarithm of its probability; the first token has none.
    pub logprob: Option<f32>,
}

/// Scores `ids` and returns the logits after each of them as well: `[time, vocab]`.
///
/// # Errors
/// `Request` when a token is not in the vocabulary or there are none; `PromptTooLong` over the context.
pub fn score(
    model: &Model,
    adapter: Option<&ResidentAdapter>,
    ids: &[u32],
) -> Result<(Vec<ScoredToken>, Vec<f32>)> {
    let mut cache = model.new_cache();
    let logits = model.step(&mut [SequenceInput {
        tokens: ids,
        cache: &mut cache,
        adapter,
        logits: WantedLogits::All,
    }])?;
    let vocab = model.config().vocab_size;
    let after = logits.chunks_exact(vocab).map(|row| row.to_vec());
    let mut scored: Vec<ScoredToken> =
        ids.first().map(|&id| ScoredToken { id, logprob: None }).into_iter().collect();
    for (mut row, &id) in after.zip(ids.iter().skip(1)) {
        scored.push(ScoredToken { id, logprob: Some(-cross_entropy_row(&mut row, id as usize, 1.0)) });
    }
    Ok((scored, logits))
}

/// Calls `each` with the index of every token of `ids` but the first and the logits before it, in order. Unlike
/// [`score`] it never holds more than the logits of [`CHUNK`] tokens.
pub(crate) fn score_each(
    model: &Model,
    adapter: Option<&ResidentAdapter>,
    ids: &[u32],
    each: &mut dyn FnMut(usize, &mut [f32]),
) -> Result<()> {
    let vocab = model.config().vocab_size;
    let mut cache = model.new_cache();
    // Nothing follows the last token.
    let fed = ids.get(..ids.len().saturating_sub(1)).unwrap_or_default();
    for (chunk, tokens) in fed.chunks(CHUNK).enumerate() {
        let mut logits = model.step(&mut [SequenceInput {
            tokens,
            cache: &mut cache,
            adapter,
            logits: WantedLogits::All,
        }])?;
        for (index, row) in logits.chunks_exact_mut(vocab).enumerate() {
            each(chunk * CHUNK + index + 1, row);
        }
    }
    Ok(())
}
