//! Texts to vectors, by the base model: the same text has the same vector whatever version answers.

use std::sync::Arc;

use autoglm_domain::{Embedder, Error};

use crate::{EngineError, Model, Result, TextCodec, kernels::dot};

/// Mean of the embedding rows of a text's tokens, each weighed by how much its token says, of unit length.
///
/// A token's weight is `a / (a + p)` with `p` its probability (Arora et al. 2017, "smooth inverse frequency",
/// a = 1e-3); as a model folder says nothing of frequencies, `p` is the model's own for the token at the start
/// of a text.
pub struct ModelEmbedder {
    model: Arc<Model>,
    codec: TextCodec,
    weights: Vec<f32>, // [vocab]
    mean: Vec<f32>,    // [hidden]
}

impl std::fmt::Debug for ModelEmbedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelEmbedder").field("dimensions", &self.mean.len()).finish_non_exhaustive()
    }
}

/// Smoothing of the token weights.
const SMOOTHING: f32 = 1e-3;

impl ModelEmbedder {
    /// An embedder over the base weights of `model`.
    pub fn new(model: Arc<Model>, codec: TextCodec) -> Result<Self> {
        let start = codec.eos_token_ids().first().copied().or(model.config().bos_token_id).unwrap_or(0);
        let (_, mut logits) = crate::score(&model, None, &[start])?;
        crate::kernels::softmax_in_place(&mut logits);
        let weights = logits.iter().map(|p| SMOOTHING / (SMOOTHING + p)).collect();
        let mean = common_direction(&model);
        Ok(Self { model, codec, weights, mean })
    }

    fn one(&self, text: &str) -> Result<Vec<f32>> {
        let mut ids = self.codec.tokenizer().encode(text, false)?;
        ids.truncate(self.model.config().max_position_embeddings);
        let hidden = self.model.config().hidden_size;
        let (mut sum, mut row) = (vec![0.0; hidden], vec![0.0; hidden]);
        if !ids.is_empty() {
            let table = &self.model.weights().embed.matrix;
            for &id in &ids {
                let weight = self.weights.get(id as usize).copied().unwrap_or(1.0);
                if id as usize >= table.shape().0 {
                    return Err(EngineError::Tokenizer(format!("token {id} has no embedding")));
                }
                table.row(id as usize, &mut row);
                for ((sum, value), mean) in sum.iter_mut().zip(&row).zip(&self.mean) {
                    *sum += weight * (value - mean);
                }
            }
        }
        let length = dot(&sum, &sum).sqrt();
        if length > 0.0 {
            sum.iter_mut().for_each(|value| *value /= length);
        } else if let Some(first) = sum.first_mut() {
            *first = 1.0;
        }
        Ok(sum)
    }
}

/// The mean row of the embedding table: what all tokens share says nothing of any.
fn common_direction(model: &Model) -> Vec<f32> {
    let hidden = model.config().hidden_size;
    let mut mean = vec![0.0; hidden];
    for row in model.weights().embed.matrix.to_rows().chunks_exact(hidden) {
        crate::kernels::add_assign(&mut mean, row);
    }
    let rows = model.config().vocab_size as f32;
    mean.iter_mut().for_each(|value| *value /= rows);
    mean
}

impl Embedder for ModelEmbedder {
    fn embed(&self, texts: &[&str]) -> autoglm_domain::Result<Vec<Vec<f32>>> {
        texts.iter().map(|text| self.one(text).map_err(Error::from)).collect()
    }

    fn dimensions(&self) -> usize {
        self.mean.len()
    }
}
