//! Closeness of two texts as the cosine of their embeddings, and the grade that it earns.

use autoglm_domain::{Embedder, Error, Label, Result};
use serde::{Deserialize, Serialize};

/// Where similarity earns which score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grades {
    /// Above this cosine an answer is `high_accuracy`.
    pub high_similarity: f64,
    /// Above this cosine an answer is `needs_refinement`; at or below it, `revise_logic`.
    pub refine_similarity: f64,
    /// Score of `high_accuracy`.
    pub high_score: f64,
    /// Score of `needs_refinement`.
    pub refine_score: f64,
    /// Score of `revise_logic`.
    pub revise_score: f64,
}

impl Default for Grades {
    fn default() -> Self {
        Self {
            high_similarity: 0.85,
            refine_similarity: 0.6,
            high_score: 90.0,
            refine_score: 70.0,
            revise_score: 40.0,
        }
    }
}

impl Grades {
    /// The label that a cosine earns; NaN earns the lowest.
    pub fn label(&self, similarity: f64) -> Label {
        if similarity > self.high_similarity {
            Label::HighAccuracy
        } else if similarity > self.refine_similarity {
            Label::NeedsRefinement
        } else {
            Label::ReviseLogic
        }
    }

    /// The score of a label.
    pub fn score(&self, label: Label) -> f64 {
        match label {
            Label::HighAccuracy => self.high_score,
            Label::NeedsRefinement => self.refine_score,
            Label::ReviseLogic => self.revise_score,
        }
    }

    /// The label of a score that came from elsewhere: the highest whose score it reaches.
    pub fn label_of_score(&self, score: f64) -> Label {
        if score >= self.high_score {
            Label::HighAccuracy
        } else if score >= self.refine_score {
            Label::NeedsRefinement
        } else {
            Label::ReviseLogic
        }
    }
}

/// Cosine of two vectors, -1 to 1. 0 when they differ in length, one is zero, or a number is not finite.
pub fn cosine(left: &[f32], right: &[f32]) -> f64 {
    if left.len() != right.len() {
        return 0.0;
    }
    let (mut dot, mut left_norm, mut right_norm) = (0.0f64, 0.0f64, 0.0f64);
    for (l, r) in left.iter().zip(right) {
        let (l, r) = (f64::from(*l), f64::from(*r));
        dot += l * r;
        left_norm += l * l;
        right_norm += r * r;
    }
    let cosine = dot / (left_norm.sqrt() * right_norm.sqrt());
    if cosine.is_finite() { cosine.clamp(-1.0, 1.0) } else { 0.0 }
}

/// Cosine of the embeddings of two texts. Errors are the embedder's, or `Internal` when it gives too few.
pub fn similarity(embedder: &dyn Embedder, left: &str, right: &str) -> Result<f64> {
    let vectors = embedder.embed(&[left, right])?;
    match vectors.as_slice() {
        [left, right] => Ok(cosine(left, right)),
        other => Err(Error::internal(format!("the embedder gave {} vectors for 2 texts", other.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_thresholds_are_exclusive() {
        let grades = Grades::default();
        for (similarity, label, score) in [
            (1.0, Label::HighAccuracy, 90.0),
            (0.850_000_1, Label::HighAccuracy, 90.0),
            (0.85, Label::NeedsRefinement, 70.0),
            (0.600_000_1, Label::NeedsRefinement, 70.0),
            (0.6, Label::ReviseLogic, 40.0),
            (-1.0, Label::ReviseLogic, 40.0),
            (f64::NAN, Label::ReviseLogic, 40.0),
        ] {
            assert_eq!(grades.label(similarity), label, "{similarity}");
            assert_eq!(grades.score(grades.label(similarity)), score, "{similarity}");
        }
    }

    #[test]
    fn cosine_of_bad_vectors_is_zero() {
        assert_eq!(cosine(&[1.0, 0.0], &[1.0]), 0.0);
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), 0.0);
        assert_eq!(cosine(&[f32::NAN, 0.0], &[1.0, 0.0]), 0.0);
        assert_eq!(cosine(&[f32::INFINITY, 0.0], &[1.0, 0.0]), 0.0);
        assert_eq!(cosine(&[], &[]), 0.0);
        assert!((cosine(&[3.0, 4.0], &[4.0, 3.0]) - 0.96).abs() < 1e-12);
    }
}
