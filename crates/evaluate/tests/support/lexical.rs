//! A stand-in for the engine's embedder: hashed words and character trigrams, unit length.

use autoglm_domain::{Embedder, Result};

/// Length of the vectors.
const DIMENSIONS: usize = 512;

/// Texts that share words and parts of words are close; meaning it does not know.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct LexicalEmbedder;

impl Embedder for LexicalEmbedder {
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        Ok(texts.iter().map(|text| vector(text)).collect())
    }

    fn dimensions(&self) -> usize {
        DIMENSIONS
    }
}

fn vector(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0f32; DIMENSIONS];
    let mut count = |feature: &[u8], weight: f32| {
        // FNV-1a.
        let hash = feature.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        if let Some(slot) = vector.get_mut(hash as usize % DIMENSIONS) {
            *slot += weight;
        }
    };
    for word in text.to_lowercase().split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        count(word.as_bytes(), 1.0);
        let padded: Vec<char> = format!("^{word}$").chars().collect();
        for trigram in padded.windows(3) {
            count(String::from_iter(trigram).as_bytes(), 0.5);
        }
    }
    for x in &mut vector {
        *x = x.sqrt();
    }
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|x| *x /= norm);
    }
    vector
}
