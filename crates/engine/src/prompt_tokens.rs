//! A prompt as its tokens, with how likely the model finds each: what trainers and `echo` ask for.

use autoglm_domain::{PromptScore, PromptToken};

use crate::{Decoder, Result, TextCodec, sampler::Distribution};

/// The tokens of `ids`. With `top` each but the first is scored under `adapter`, with so many alternatives; that
/// is a forward pass of its own.
pub(crate) fn prompt_tokens<D: Decoder>(
    decoder: &D,
    codec: &TextCodec,
    adapter: Option<&D::Adapter>,
    ids: &[u32],
    top: Option<u32>,
) -> Result<Vec<PromptToken>> {
    let name = |id| codec.tokenizer().token_text(id);
    let mut tokens: Vec<PromptToken> =
        ids.iter().map(|&id| PromptToken { token: name(id), id, score: None }).collect();
    if let Some(top) = top {
        decoder.score(ids, adapter, &mut |index, logits| {
            if let Some(token) = tokens.get_mut(index) {
                token.score = Some(score(logits, token.id, top as usize, &name));
            }
        })?;
    }
    Ok(tokens)
}

fn score(logits: &[f32], id: u32, top: usize, name: &dyn Fn(u32) -> String) -> PromptScore {
    let distribution = Distribution::new(logits, top);
    let logit = logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
    let likelier = logits.iter().filter(|other| **other > logit).count();
    PromptScore {
        logprob: distribution.logprob(logit),
        rank: u32::try_from(likelier + 1).unwrap_or(u32::MAX),
        top: distribution.top.into_iter().map(|(id, logprob)| (id, name(id), logprob)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_scored_by_the_softmax_and_ranked_from_one() {
        // Probabilities 0.5, 0.3 and 0.2.
        let logits = [0.2_f32.ln(), 0.5_f32.ln(), 0.3_f32.ln()];
        let scored = score(&logits, 2, 1, &|id| format!("t{id}"));
        assert!((scored.logprob - 0.3_f32.ln()).abs() < 1e-6, "{scored:?}");
        assert_eq!(scored.rank, 2);
        assert_eq!((scored.top[0].0, scored.top[0].1.as_str()), (1, "t1"));
        assert!((scored.top[0].2 - 0.5_f32.ln()).abs() < 1e-6, "{scored:?}");
    }
}
