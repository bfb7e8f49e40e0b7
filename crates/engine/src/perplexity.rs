//! How well a model foresees a text: the mean surprise of its tokens in sliding windows.

use serde::Serialize;

use crate::{EngineError, Model, Result, Tokenizer, kernels::cross_entropy_row, score::score_each};

/// What a text's tokens cost a model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Perplexity {
    /// Tokens that were foreseen: all but the first.
    pub tokens: usize,
    /// Bytes of the text.
    pub bytes: usize,
    /// Tokens of a window.
    pub window: usize,
    /// Tokens from one window to the next.
    pub stride: usize,
    /// Mean negative logarithm of a token's probability.
    pub nats_per_token: f64,
    /// The same sum, a byte of text: what models of different tokenizers can be compared by.
    pub nats_per_byte: f64,
    /// `exp(nats_per_token)`
    pub perplexity: f64,
}

/// Slides a window over `text`. Each window foresees the tokens that the one before did not reach, so that all
/// but those of the first have at least `window - stride` tokens before them. `progress` hears of tokens done
/// and of all.
///
/// # Errors
/// `Request` when the window is not from 2 to the context, the stride not from 1 to below the window, or the text
/// has fewer than two tokens.
pub fn perplexity(
    model: &Model,
    tokenizer: &Tokenizer,
    text: &str,
    window: usize,
    stride: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Perplexity> {
    let context = model.config().max_position_embeddings;
    if !(2..=context).contains(&window) || !(1..window).contains(&stride) {
        return Err(EngineError::Request(format!(
            "a window of {window} tokens moved by {stride} is not possible in a context of {context}"
        )));
    }
    let ids = tokenizer.encode(text, true)?;
    if ids.len() < 2 {
        return Err(EngineError::Request("the text has no token to foresee".into()));
    }
    let (mut nats, mut done, mut start) = (0.0, 1, 0);
    while done < ids.len() {
        let end = ids.len().min(start + window);
        let (window, mut sum) = (&ids[start..end], 0.0);
        score_each(model, None, window, &mut |at, logits| {
            if at >= done - start {
                sum += f64::from(cross_entropy_row(logits, window[at] as usize, 1.0));
            }
        })?;
        nats += sum;
        done = end;
        start += stride;
        progress(done, ids.len());
    }
    let tokens = ids.len() - 1;
    let nats_per_token = nats / tokens as f64;
    Ok(Perplexity {
        tokens,
        bytes: text.len(),
        window,
        stride,
        nats_per_token,
        nats_per_byte: nats / text.len() as f64,
        perplexity: nats_per_token.exp(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ModelConfig, score, tokenizer::tests::small};

    fn model() -> Model {
        let json = r#"{"model_type": "llama", "vocab_size": 290, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}"#;
        Model::random(ModelConfig::from_json(json).unwrap(), 3).unwrap()
    }

    #[test]
    fn one_window_is_the_score_and_more_see_only_what_they_hold() {
        let (model, tokenizer) = (model(), small());
        let text = "the cat sat on the mat, the hat is on the cat";
        let ids = tokenizer.encode(text, true).unwrap();
        let logprobs = |ids: &[u32]| -> Vec<f64> {
            let (scored, _) = score(&model, None, ids).unwrap();
            scored.iter().map(|token| f64::from(token.logprob.unwrap_or(0.0))).collect()
        };
        let measure = |window, stride| {
            perplexity(&model, &tokenizer, text, window, stride, &mut |_, _| {}).unwrap().nats_per_token
        };
        let count = (ids.len() - 1) as f64;
        assert!((measure(64, 32) + logprobs(&ids).iter().sum::<f64>() / count).abs() < 1e-9);
        // Windows 0..8, 5..13, 10..18, …, of which each gives its last tokens.
        let mut sum = logprobs(&ids[..8]).iter().sum::<f64>();
        let mut start = 5;
        while start + 3 < ids.len() {
            let end = ids.len().min(start + 8);
            sum += logprobs(&ids[start..end])[3..].iter().sum::<f64>();
            start += 5;
        }
        assert!((measure(8, 5) + sum / count).abs() < 1e-9);
    }

    #[test]
    fn windows_that_cannot_be_are_refused() {
        let (model, tokenizer) = (model(), small());
        for (text, window, stride) in [("the cat", 65, 8), ("the cat", 8, 8), ("the cat", 8, 0), ("", 8, 4)] {
            let result = perplexity(&model, &tokenizer, text, window, stride, &mut |_, _| {});
            assert!(matches!(result, Err(EngineError::Request(_))), "{text} {window} {stride}");
        }
    }
}
