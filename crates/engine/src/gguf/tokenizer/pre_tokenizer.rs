//! How text is split before bytes are joined, by the words of `tokenizer.ggml.pre`.
//!
//! A word stands for what a family's `tokenizer.json` does; the file itself holds no rule.

use serde_json::{Value, json};

use super::PRE;
use crate::{EngineError, Result, gguf::metadata::Metadata};

/// Llama 3 and GLM-4: up to three digits together.
const THREE_DIGITS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2: single digits.
const ONE_DIGIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral's Tekken: words end where lower case gives way to upper case.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A way to split text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Splitting {
    /// GPT-2's own.
    Gpt2,
    /// GPT-2's with single digits.
    SingleDigits,
    /// Llama 3; a word that is a token needs no merges, and a text begins with the begin token.
    Llama3,
    /// As Llama 3, without its customs.
    ThreeDigits,
    /// Qwen 2, composed characters.
    Qwen2,
    /// As Qwen 2, characters as they come.
    OneDigit,
    /// Mistral's Tekken.
    Tekken,
    /// What llama.cpp falls back to: punctuation apart, GPT-2's words, then digits three by three.
    Default,
}

/// The words; where several mean the same, files are written with the first.
const WORDS: &[(&str, Splitting)] = &[
    ("gpt-2", Splitting::Gpt2),
    ("phi-2", Splitting::Gpt2),
    ("smollm", Splitting::SingleDigits),
    ("starcoder", Splitting::SingleDigits),
    ("refact", Splitting::SingleDigits),
    ("llama-bpe", Splitting::Llama3),
    ("llama3", Splitting::Llama3),
    ("llama-v3", Splitting::Llama3),
    ("falcon3", Splitting::Llama3),
    ("glm4", Splitting::ThreeDigits),
    ("chatglm-bpe", Splitting::ThreeDigits),
    ("smaug-bpe", Splitting::ThreeDigits),
    ("dbrx", Splitting::ThreeDigits),
    ("qwen2", Splitting::Qwen2),
    ("megrez", Splitting::Qwen2),
    ("deepseek-r1-qwen", Splitting::OneDigit),
    ("tekken", Splitting::Tekken),
    ("default", Splitting::Default),
];

impl Splitting {
    /// What the file says.
    ///
    /// # Errors
    /// `Invalid` when it says nothing or a word that is not known.
    pub(super) fn read(metadata: &Metadata) -> Result<Self> {
        let fault = |message| EngineError::Gguf {
            file: metadata.file().to_owned(),
            message,
            hint: Some(format!(
                "known are {}",
                WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")
            )),
        };
        let word = metadata
            .text(PRE)?
            .ok_or_else(|| fault(format!("has no `{PRE}`, so that it is unknown how its texts are split")))?;
        WORDS
            .iter()
            .find(|(known, _)| *known == word)
            .map(|(_, splitting)| *splitting)
            .ok_or_else(|| fault(format!("splits texts by `{PRE}` = `{word}`, which is not known")))
    }

    /// The word for the splitting of a `tokenizer.json`, and whether it puts a space before texts; `None` when
    /// there is none for it.
    pub(super) fn recognise(tokenizer: &Value) -> Option<(&'static str, bool)> {
        let bare = |value: &Value| without_offsets(value.clone());
        let pre_tokenizer = bare(tokenizer.get("pre_tokenizer")?);
        let normalizer = tokenizer.get("normalizer").cloned().unwrap_or_default();
        let ignores = tokenizer.pointer("/model/ignore_merges").is_some_and(|ignores| ignores == true);
        [false, true].into_iter().find_map(|prefix_space| {
            let same = |splitting: &Splitting| {
                bare(&splitting.pre_tokenizer(prefix_space)) == pre_tokenizer
                    && splitting.normalizer() == normalizer
                    && splitting.ignores_merges() == ignores
            };
            WORDS.iter().find(|(_, splitting)| same(splitting)).map(|(word, _)| (*word, prefix_space))
        })
    }

    /// The `pre_tokenizer` of a `tokenizer.json`.
    pub(super) fn pre_tokenizer(self, prefix_space: bool) -> Value {
        let after = |first: Value, words: bool| json!({"type": "Sequence", "pretokenizers": [first, byte_level(prefix_space, words)]});
        match self {
            Self::Gpt2 => byte_level(prefix_space, true),
            Self::SingleDigits => after(json!({"type": "Digits", "individual_digits": true}), true),
            Self::Llama3 | Self::ThreeDigits => after(split(THREE_DIGITS), false),
            Self::Qwen2 | Self::OneDigit => after(split(ONE_DIGIT), false),
            Self::Tekken => after(split(TEKKEN), false),
            Self::Default => {
                let rules = [
                    r"[\p{P}\$\+<=>\^~\|]+",
                    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
                    r"\p{N}+",
                    "[0-9][0-9][0-9]",
                ];
                let mut steps = rules.map(split).to_vec();
                steps.push(byte_level(prefix_space, false));
                json!({"type": "Sequence", "pretokenizers": steps})
            }
        }
    }

    /// The `normalizer` of a `tokenizer.json`.
    pub(super) fn normalizer(self) -> Value {
        if self == Self::Qwen2 { json!({"type": "NFC"}) } else { Value::Null }
    }

    /// Whether a word that is a token is taken whole.
    pub(super) fn ignores_merges(self) -> bool {
        matches!(self, Self::Llama3 | Self::Tekken)
    }

    /// Whether a text begins with the begin token where the file does not say.
    pub(super) fn begins_with_bos(self) -> bool {
        matches!(self, Self::Llama3 | Self::Tekken)
    }
}

fn split(rule: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": rule}, "behavior": "Isolated", "invert": false})
}

/// Bytes as letters; `words` splits as GPT-2 does before that.
pub(super) fn byte_level(prefix_space: bool, words: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": true, "use_regex": words})
}

/// Without what only concerns the places of tokens in a text.
fn without_offsets(mut value: Value) -> Value {
    match &mut value {
        Value::Object(object) => {
            object.remove("trim_offsets");
            object.values_mut().for_each(|inner| *inner = without_offsets(inner.take()));
        }
        Value::Array(values) => values.iter_mut().for_each(|inner| *inner = without_offsets(inner.take())),
        _ => {}
    }
    value
}
