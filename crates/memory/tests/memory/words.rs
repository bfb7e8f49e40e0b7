//! An embedder of words.

use autoglm_domain::{Embedder, Result};

/// Folds words into `0` numbers: the stand-in for a model's embedding.
#[derive(Debug)]
pub(crate) struct Words(pub(crate) usize);

impl Embedder for Words {
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        Ok(texts.iter().map(|text| fold(text, self.0)).collect())
    }
    fn dimensions(&self) -> usize {
        self.0
    }
}

fn fold(text: &str, width: usize) -> Vec<f32> {
    let mut vector = vec![0.0_f32; width];
    for word in text.to_lowercase().split_whitespace() {
        let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        if let Some(slot) = vector.get_mut((hash >> 8) as usize % width.max(1)) {
            *slot += if hash & 1 == 0 { 1.0 } else { -1.0 };
        }
    }
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-9);
    vector.iter().map(|value| value / length).collect()
}
