//! What an answer to a held-out experience is worth.

use autoglm_domain::Experience;

/// Judges one answer. Pure and quick: it is called between requests.
pub trait Scorer: Send + Sync {
    /// 0 (wrong) to 1 (right); the gate brings anything else into that range, and NaN to 0.
    fn score(&self, experience: &Experience, answer: &str) -> f64;
}

impl<F: Fn(&Experience, &str) -> f64 + Send + Sync> Scorer for F {
    fn score(&self, experience: &Experience, answer: &str) -> f64 {
        self(experience, answer)
    }
}

/// 1 when answer and target are the same words: case, white space and punctuation around words are ignored.
#[derive(Debug, Clone, Copy, Default)]
pub struct NormalisedMatch;

impl Scorer for NormalisedMatch {
    fn score(&self, experience: &Experience, answer: &str) -> f64 {
        f64::from(u8::from(words(&experience.target).eq(words(answer))))
    }
}

/// Lowercased words; a word that is all punctuation stays, so that `+` and `-` differ.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split_whitespace().map(|word| {
        let bare =
            word.trim_matches(|c: char| matches!(c, '.' | ',' | ';' | ':' | '!' | '?' | '"' | '\'' | '`'));
        if bare.is_empty() { word } else { bare }.to_lowercase()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_decide_and_numbers_keep_their_sign() {
        let same = |a: &str, b: &str| words(a).eq(words(b));
        assert!(same("Transfer  money.", "transfer money"));
        assert!(same("`balance`", " balance\n"));
        assert!(!same("transfer money now", "transfer money"));
        assert!(!same("-1", "1"));
        assert!(!same("1.5", "15"));
        assert!(!same("", "balance"));
    }
}
