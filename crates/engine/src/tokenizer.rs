//! Text to token ids and back: `tokenizer.json` in, ids or text out. Also makes new tokenizers.

use std::{collections::HashMap, path::Path};

use tokenizers::{
    AddedToken, DecoderWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, TokenizerBuilder, TokenizerImpl,
    models::bpe::{BPE, BpeTrainer},
    normalizers::NormalizerWrapper,
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
    processors::PostProcessorWrapper,
};

use serde::{Deserialize, de::IgnoredAny};

use crate::{EngineError, Result, gguf};

/// How text is cut before byte pairs are merged: contractions, words with the blank before them, single
/// digits, punctuation, line ends, blanks.
const WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Single bytes; every text can be written with them.
const ALPHABET: usize = 256;

/// A model's tokenizer.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    ids: usize,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. `NotFound` without one, `Invalid` when it is damaged.
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_bytes(&std::fs::read(path).map_err(|error| EngineError::file(path, &error))?)
    }

    /// The tokenizer of a model: of a GGUF file, or `tokenizer.json` of a folder.
    pub fn of_model(path: &Path) -> Result<Self> {
        if path.is_file() { gguf::load_tokenizer(path) } else { Self::load(&path.join("tokenizer.json")) }
    }

    /// Reads the bytes of a `tokenizer.json`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let damaged = |error: &dyn std::fmt::Display| {
            EngineError::Tokenizer(format!("tokenizer.json is damaged: {error}"))
        };
        // The library panics where its decoder's part is no JSON.
        let json: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| damaged(&error))?;
        check_merges(&json)?;
        // What was set for training batches would cut prompts silently.
        inner.with_truncation(None).map_err(failed)?;
        inner.with_padding(None);
        let ids = inner.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1);
        if ids == 0 {
            return Err(EngineError::Tokenizer("tokenizer.json has an empty vocabulary".into()));
        }
        Ok(Self { inner, ids })
    }

    /// The `tokenizer.json`.
    pub(crate) fn to_json(&self) -> Result<serde_json::Value> {
        serde_json::to_value(&self.inner).map_err(failed)
    }

    /// One above the largest id; at most the model's `vocab_size`.
    pub fn vocab_size(&self) -> usize {
        self.ids
    }

    /// The ids of `text`. `add_special` puts in what the tokenizer puts around a text (a begin token, often).
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        Ok(self.inner.encode_fast(text, add_special).map_err(failed)?.get_ids().to_vec())
    }

    /// The text of `ids`, without special tokens. Bytes that are no UTF-8 become `U+FFFD`; unknown ids are
    /// left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(failed)
    }

    /// The id of a token as it is written in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A token as people read it: its text, or its name where it is special.
    pub fn token_text(&self, id: u32) -> String {
        self.inner.decode(&[id], false).unwrap_or_default()
    }

    /// A token as it is written in the vocabulary; `None` where no token has this id.
    pub(crate) fn name(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether `id` was added to the model's vocabulary, and so is written as it is.
    pub(crate) fn is_added(&self, id: u32) -> bool {
        self.inner.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id)
    }

    /// The decoder as `tokenizer.json` writes it.
    pub(crate) fn decoder_json(&self) -> Option<serde_json::Value> {
        serde_json::to_value(self.inner.get_decoder()?).ok()
    }

    /// Whether `id` is a special token, which never shows in the text.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner
            .get_added_vocabulary()
            .get_added_tokens_decoder()
            .get(&id)
            .is_some_and(|token| token.special)
    }
}

/// Refuses a byte-pair encoding whose merges were lost. It would load and cut every text into its letters, which the
/// model has hardly ever seen: nothing fails, and the answers are poor.
///
/// Each token of several characters comes of a merge, but for added ones and the names of bytes (`<0x0A>`). A
/// quarter may lack theirs, for some tokenizers keep tokens that are looked up whole.
fn check_merges(json: &serde_json::Value) -> Result<()> {
    #[derive(Deserialize)]
    struct Parts {
        model: Model,
        #[serde(default)]
        added_tokens: Vec<IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Model {
        #[serde(default)]
        vocab: IgnoredOr<HashMap<String, IgnoredAny>>,
        #[serde(default)]
        merges: IgnoredOr<Vec<IgnoredAny>>,
    }
    /// Other models have other shapes under these names.
    #[derive(Deserialize, Default)]
    #[serde(untagged)]
    enum IgnoredOr<T> {
        This(T),
        Other(IgnoredAny),
        #[default]
        Missing,
    }
    let parts = Parts::deserialize(json)
        .map_err(|error| EngineError::Tokenizer(format!("tokenizer.json is damaged: {error}")))?;
    let (IgnoredOr::This(vocab), IgnoredOr::This(merges)) = (parts.model.vocab, parts.model.merges) else {
        return Ok(());
    };
    let joined =
        vocab.keys().filter(|token| token.chars().nth(1).is_some() && !token.starts_with("<0x")).count();
    let joined = joined.saturating_sub(parts.added_tokens.len());
    if merges.len() < joined / 4 * 3 {
        return Err(EngineError::Tokenizer(format!(
            "tokenizer.json has {} merges for {joined} tokens of several characters; its merges are missing",
            merges.len()
        )));
    }
    Ok(())
}

/// Learns a byte-level byte-pair encoding from `texts` and returns its `tokenizer.json`.
///
/// `special_tokens` get the ids from 0 on; then come the 256 bytes, then the merges. The result has
/// `vocab_size` tokens, or fewer where the texts give no more merges. The same texts give the same bytes.
/// `Invalid` when `vocab_size` leaves no merge or there is no text.
pub fn train_bpe<I, S>(texts: I, vocab_size: usize, special_tokens: &[&str]) -> Result<String>
where
    I: Iterator<Item = S> + Send,
    S: AsRef<str> + Send,
{
    let least = ALPHABET + special_tokens.len() + 1;
    if vocab_size < least {
        return Err(EngineError::Tokenizer(format!(
            "a vocabulary of {vocab_size} is too small; {ALPHABET} bytes and {} special tokens need {least}",
            special_tokens.len()
        )));
    }
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(special_tokens.iter().map(|token| AddedToken::from(*token, true)).collect())
        .build();
    let words = Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Isolated, false)
        .map_err(failed)?;
    let bytes = ByteLevel::new(false, false, false);
    let mut tokenizer: TokenizerImpl<
        BPE,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    > = TokenizerBuilder::default()
        .with_model(BPE::default())
        .with_normalizer(None)
        .with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(Sequence::new(vec![
            PreTokenizerWrapper::Split(words),
            PreTokenizerWrapper::ByteLevel(bytes),
        ]))))
        .with_post_processor(None)
        .with_decoder(Some(DecoderWrapper::ByteLevel(bytes)))
        .build()
        .map_err(failed)?;
    tokenizer.train(&mut trainer, texts).map_err(failed)?;
    if tokenizer.get_vocab_size(true) < least {
        return Err(EngineError::Tokenizer("the texts hold no pair of bytes that repeats".into()));
    }
    tokenizer.to_string(false).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> EngineError {
    EngineError::Tokenizer(error.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// A small byte-level tokenizer with `<s>` 0 and `</s>` 1.
    pub(crate) fn small() -> Tokenizer {
        let texts = ["the cat sat on the mat", "the hat is on the cat", "Grüße aus Köln, Grüße aus Bonn"];
        let json = train_bpe(texts.iter(), 290, &["<s>", "</s>"]).unwrap();
        Tokenizer::from_bytes(json.as_bytes()).unwrap()
    }

    #[test]
    fn training_fills_the_vocabulary_in_order_and_repeats_to_the_byte() {
        let texts: Vec<String> = (0..200).map(|n| format!("item {n} costs {} euros", n * 7)).collect();
        let json = train_bpe(texts.iter(), 300, &["<s>", "</s>", "<|user|>"]).unwrap();
        assert_eq!(json, train_bpe(texts.iter(), 300, &["<s>", "</s>", "<|user|>"]).unwrap());
        let tokenizer = Tokenizer::from_bytes(json.as_bytes()).unwrap();
        // 12 merges make the words; there is nothing more to merge.
        assert_eq!(tokenizer.vocab_size(), 271);
        let cut = train_bpe(texts.iter(), 265, &["<s>", "</s>", "<|user|>"]).unwrap();
        assert_eq!(Tokenizer::from_bytes(cut.as_bytes()).unwrap().vocab_size(), 265);
        assert_eq!(tokenizer.token_id("<|user|>"), Some(2));
        assert!(tokenizer.is_special(2) && !tokenizer.is_special(3));
        // Digits stay single, so that numbers are compositional.
        assert_eq!(tokenizer.encode("777", false).unwrap().len(), 3);
        // A frequent word is one token with its blank.
        assert_eq!(tokenizer.encode(" costs", false).unwrap().len(), 1);
    }

    #[test]
    fn special_tokens_are_recognised_in_text_and_left_out_of_it() {
        let tokenizer = small();
        let ids = tokenizer.encode("<s>the cat</s>", false).unwrap();
        assert_eq!((ids[0], ids[ids.len() - 1]), (0, 1));
        assert_eq!(tokenizer.decode(&ids).unwrap(), "the cat");
        assert_eq!(tokenizer.token_text(1), "</s>");
    }

    #[test]
    fn what_cannot_be_a_tokenizer_is_refused() {
        let error = Tokenizer::from_bytes(b"{\"version\": \"1.0\"").unwrap_err();
        assert!(error.to_string().starts_with("tokenizer: tokenizer.json is damaged"), "{error}");
        let error = train_bpe(["abc"].iter(), 256, &["<s>"]).unwrap_err();
        assert!(error.to_string().contains("a vocabulary of 256 is too small"), "{error}");
        assert!(train_bpe(std::iter::empty::<&str>(), 300, &[]).is_err());
        assert!(matches!(
            Tokenizer::load(Path::new("/nowhere/tokenizer.json")),
            Err(EngineError::File { missing: true, .. })
        ));
    }

    /// The tokenizer of [`small`] with a change.
    fn changed(change: impl FnOnce(&mut Value)) -> Result<Tokenizer> {
        let mut json: Value = serde_json::from_str(&small().inner.to_string(false).unwrap()).unwrap();
        change(&mut json);
        Tokenizer::from_bytes(json.to_string().as_bytes())
    }

    #[test]
    fn merges_that_are_missing_or_damaged_are_named() {
        let merges = |json: &mut Value| -> Vec<Value> { json["model"]["merges"].as_array().unwrap().clone() };
        assert!(changed(|_| ()).is_ok());
        // Most of them may be all there are.
        assert!(changed(|json| json["model"]["merges"] = merges(json)[2..].into()).is_ok());
        for (change, message) in [
            (json!([]), "has 0 merges for"),
            (json!(null), "is damaged"),
            (json!([["t"]]), "is damaged"),
            (json!([["zz", "q"]]), "Token `zz` out of vocabulary"),
            (json!([["q", "z"]]), "Token `qz` out of vocabulary"),
            (json!("t h"), "is damaged"),
        ] {
            let error = changed(|json| json["model"]["merges"] = change).unwrap_err().to_string();
            assert!(error.starts_with("tokenizer: tokenizer.json ") && error.contains(message), "{error}");
        }
        let error = changed(|json| json["model"]["merges"] = merges(json)[..5].into()).unwrap_err();
        assert!(error.to_string().ends_with("its merges are missing"), "{error}");
        let error =
            changed(|json| drop(json["model"].as_object_mut().unwrap().remove("merges"))).unwrap_err();
        assert!(error.to_string().contains("Missing vocab/merges"), "{error}");
    }

    #[test]
    fn ids_that_no_vocabulary_has_are_refused() {
        for id in [json!(-1), json!(1u64 << 40), json!("7"), json!(1.5)] {
            let error = changed(|json| json["model"]["vocab"]["zebra"] = id.clone()).unwrap_err();
            assert!(error.to_string().contains("is damaged"), "{id}: {error}");
        }
        // An absurd one reserves nothing; the model's configuration decides whether there can be such an id.
        let tokenizer = changed(|json| json["model"]["vocab"]["zebra"] = json!(4_000_000_000u32)).unwrap();
        assert_eq!(tokenizer.vocab_size(), 4_000_000_001);
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in "\\PC{0,40}") {
            let tokenizer = small();
            let ids = tokenizer.encode(&text, false).unwrap();
            prop_assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
            prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        }
    }
}
