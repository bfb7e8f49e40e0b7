//! Text to lexical features: word stems, pairs of neighbouring stems, and character n-grams inside words.
//!
//! Comes in: a text. Goes out: hashed features with weights, each once. What the weights are worth was
//! measured in `docs/experiments/0001-recall.md`.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// A feature's name, hashed (64-bit FNV-1a: stable over versions and machines).
pub(crate) type Feature = u64;

/// A table by feature. Names are hashes already, so they are only mixed, not hashed again.
pub(crate) type FeatureMap = HashMap<Feature, u32, BuildHasherDefault<Mixed>>;

/// See [`FeatureMap`].
#[derive(Debug, Default)]
pub(crate) struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }
    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

/// Texts are read up to here; a longer one is known by its beginning and its end.
const MAX_WORDS: usize = 400;
const WORD_WEIGHT: f32 = 1.0;
const PAIR_WEIGHT: f32 = 1.0;
const GRAM_WEIGHT: f32 = 0.25;
const GRAM_LENGTHS: std::ops::RangeInclusive<usize> = 3..=4;

/// The features of `text`, sorted by name, every one once.
pub(crate) fn features(text: &str) -> Vec<(Feature, f32)> {
    let words = words(text);
    let stems: Vec<&str> = words.iter().map(|word| stem(word)).collect();
    let mut found = Vec::with_capacity(words.len() * 12);
    for stem in &stems {
        found.push((name(b'w', &[stem]), WORD_WEIGHT));
    }
    if !stems.is_empty() {
        let firsts = std::iter::once("^").chain(stems.iter().copied());
        let seconds = stems.iter().copied().chain(std::iter::once("$"));
        for (first, second) in firsts.zip(seconds) {
            found.push((name(b'b', &[first, second]), PAIR_WEIGHT));
        }
    }
    for word in &words {
        let marked = format!("<{word}>");
        let ends: Vec<usize> = marked.char_indices().map(|(at, _)| at).chain([marked.len()]).collect();
        for length in GRAM_LENGTHS {
            for (start, end) in ends.iter().zip(ends.iter().skip(length)) {
                if let Some(gram) = marked.get(*start..*end) {
                    found.push((name(b'c', &[gram]), GRAM_WEIGHT));
                }
            }
        }
    }
    found.sort_unstable_by_key(|(feature, _)| *feature);
    found.dedup_by_key(|(feature, _)| *feature);
    found
}

/// Divides `features` by their length, so that long and short texts weigh the same.
pub(crate) fn unit(features: &mut [(Feature, f32)]) {
    let length = features.iter().map(|(_, weight)| weight * weight).sum::<f32>().sqrt();
    if length > 0.0 {
        features.iter_mut().for_each(|(_, weight)| *weight /= length);
    }
}

fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let all: Vec<String> = lower
        .split(|c: char| !(c.is_alphanumeric() || c == '\'' || c == '\u{2019}'))
        .map(|word| word.replace(['\'', '\u{2019}'], ""))
        .filter(|word| !word.is_empty())
        .collect();
    if all.is_empty() {
        // Signs alone are still told apart.
        return lower.split_whitespace().take(MAX_WORDS).map(str::to_owned).collect();
    }
    if all.len() <= MAX_WORDS {
        return all;
    }
    let half = MAX_WORDS / 2;
    let skip = all.len() - half;
    let (head, tail) = (all.iter().take(half), all.iter().skip(skip));
    head.chain(tail).cloned().collect()
}

/// A word without the commonest English endings. Other languages are served by the character n-grams.
fn stem(word: &str) -> &str {
    const ENDINGS: [(&str, usize); 7] =
        [("ings", 7), ("ing", 6), ("ied", 5), ("ed", 5), ("es", 5), ("s", 4), ("ly", 6)];
    if !word.is_ascii() || word.ends_with("ss") {
        return word;
    }
    let ending = ENDINGS.iter().find(|(ending, least)| word.len() >= *least && word.ends_with(ending));
    let base = ending.and_then(|(ending, _)| word.strip_suffix(ending)).unwrap_or(word);
    match base.as_bytes() {
        // `stopped`, `planning`: the doubled consonant goes, except where it belongs to the word (`calling`).
        [.., a, b] if ending.is_some() && a == b && base.len() > 3 && !b"lsz".contains(b) => {
            base.get(..base.len() - 1).unwrap_or(base)
        }
        [.., b'e' | b'y' | b'i'] if base.len() > 3 => base.get(..base.len() - 1).unwrap_or(base),
        _ => base,
    }
}

fn name(kind: u8, parts: &[&str]) -> Feature {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = step(0xcbf2_9ce4_8422_2325, kind);
    for part in parts {
        hash = part.bytes().fold(hash, step);
        hash = step(hash, 0);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_fall_and_short_words_stay() {
        for (word, expected) in [
            ("transfers", "transfer"),
            ("transferring", "transfer"),
            ("calling", "call"),
            ("cities", "cit"),
            ("balance", "balanc"),
            ("balances", "balanc"),
            ("is", "is"),
            ("pass", "pass"),
            ("größen", "größen"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
    }

    #[test]
    fn inflections_share_features_and_signs_alone_are_told_apart() {
        let shared = |a: &str, b: &str| {
            let other = features(b);
            features(a).iter().filter(|(name, _)| other.iter().any(|(o, _)| o == name)).count()
        };
        assert!(shared("transfer money", "transferring money") > shared("transfer money", "send cash"));
        assert_eq!(shared("???", "!!!"), 0);
        assert!(!features("???").is_empty());
        assert!(features("").is_empty());
    }

    #[test]
    fn a_long_text_is_cut_to_its_ends() {
        let text = (0..100_000).map(|n| format!("w{n} ")).collect::<String>();
        assert!(features(&text).len() < MAX_WORDS * 12);
    }
}
