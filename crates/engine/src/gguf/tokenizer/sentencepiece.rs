//! SentencePiece's byte pairs: tokens with scores instead of merges.

use serde_json::{Value, json};

use super::{
    ADD_SPACE, SCORES, UNKNOWN,
    vocabulary::{Kind, Vocabulary},
};
use crate::{Result, gguf::metadata::Metadata};

/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";
/// Longest token that is taken apart, in characters; SentencePiece itself makes none above 16 by default.
const LONGEST: usize = 256;

/// The parts of a `tokenizer.json` that differ from byte-level byte pairs.
pub(super) fn read(metadata: &Metadata, vocabulary: &Vocabulary<'_>) -> Result<Value> {
    let scores = metadata.numbers(SCORES)?.ok_or_else(|| metadata.missing(SCORES))?;
    let tokens = vocabulary.len();
    if scores.len() != tokens {
        return Err(metadata.error(format!("has {tokens} tokens, but {} scores", scores.len())));
    }
    if let Some(at) = scores.iter().position(|score| !score.is_finite()) {
        return Err(metadata.error(format!("has the score {} for token {at}", scores[at])));
    }
    if metadata.get("tokenizer.ggml.precompiled_charsmap").is_some() {
        return Err(
            metadata.error("rewrites characters by `tokenizer.ggml.precompiled_charsmap`, which is not read")
        );
    }
    let unknown = metadata.unsigned(UNKNOWN)?.and_then(|id| vocabulary.token(id));
    let prefix_space = metadata.flag(ADD_SPACE)?.unwrap_or(true);
    let mut normalizers = Vec::new();
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix_space {
        normalizers.push(json!({"type": "Prepend", "prepend": SPACE}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    normalizers.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE}));
    Ok(json!({
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary.to_json(), "merges": merges(metadata, vocabulary, &scores)?,
        },
    }))
}

/// Every way to make a token of two others, the token with the highest score first: SentencePiece joins the two
/// neighbours whose token has the highest score. Several ways to one token keep the order in which transformers
/// puts them.
fn merges(metadata: &Metadata, vocabulary: &Vocabulary<'_>, scores: &[f64]) -> Result<Vec<Value>> {
    let mut found: Vec<(f64, &str, &str)> = Vec::new();
    for (id, token, kind) in vocabulary.iter() {
        if kind != Kind::Normal {
            continue;
        }
        let length = token.chars().count();
        if length > LONGEST {
            return Err(
                metadata.error(format!("has the token {id} of {length} characters; {LONGEST} is the limit"))
            );
        }
        let mut ways: Vec<_> = token
            .char_indices()
            .skip(1)
            .map(|(at, _)| token.split_at(at))
            .filter_map(|(left, right)| Some((vocabulary.id(left)?, vocabulary.id(right)?, left, right)))
            .collect();
        ways.sort_unstable_by_key(|(left, right, ..)| (*left, *right));
        found.extend(ways.into_iter().map(|(_, _, left, right)| (scores[id], left, right)));
    }
    let lengths = |left: &str, right: &str| (left.chars().count(), right.chars().count());
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| lengths(b.1, b.2).cmp(&lengths(a.1, a.2))));
    Ok(found.into_iter().map(|(_, left, right)| json!([left, right])).collect())
}
