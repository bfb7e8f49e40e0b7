//! Which texts are most like a question, by their words: no model is needed to read a trace.

use std::collections::{HashMap, HashSet};

/// Likeness of each text to `question`: cosine of their sets of words, each weighed by how rare it is among the
/// texts. `[texts]`, 0 to 1.
pub(super) fn likeness(question: &str, texts: &[&str]) -> Vec<f64> {
    let bags: Vec<HashSet<String>> = texts.iter().map(|text| words(text)).collect();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for word in bags.iter().flatten() {
        *counts.entry(word).or_default() += 1;
    }
    let asked = words(question);
    // Squared weight of a word: (1 + ln(n / count))², and for one that no text has, as if one had it.
    let square = |word: &str| {
        let count = counts.get(word).copied().unwrap_or(1) as f64;
        (1.0 + ((texts.len().max(1) as f64) / count).ln()).powi(2)
    };
    let length = |bag: &HashSet<String>| bag.iter().map(|word| square(word)).sum::<f64>().sqrt();
    let own = length(&asked);
    let like = |bag: &HashSet<String>| {
        let common: f64 = bag.intersection(&asked).map(|word| square(word)).sum();
        let scale = own * length(bag);
        if scale > 0.0 { common / scale } else { 0.0 }
    };
    bags.iter().map(like).collect()
}

fn words(text: &str) -> HashSet<String> {
    let parts = text.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty());
    parts.map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_words_in_common_count_more() {
        let texts = ["what is the weather", "what is my balance", "What is my BALANCE?", ""];
        let like = likeness("what is my balance", &texts);
        assert!((like[1] - 1.0).abs() < 1e-12, "{like:?}");
        assert!((like[2] - 1.0).abs() < 1e-12, "{like:?}");
        assert!(like[0] > 0.0 && like[0] < 0.4, "{like:?}");
        assert_eq!(like[3], 0.0);
        assert_eq!(likeness("", &["a"]), [0.0]);
    }
}
