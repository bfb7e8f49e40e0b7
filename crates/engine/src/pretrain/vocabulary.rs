//! The tokenizer of a pretrained model: byte-level BPE with the marks of the chat template.

use std::path::Path;

use tokenizers::{
    AddedToken, Tokenizer,
    decoders::{byte_level::ByteLevel as ByteLevelDecoder, sequence::Sequence, strip::Strip},
    models::{
        TrainerWrapper,
        bpe::{BPE, BpeTrainerBuilder},
    },
    pre_tokenizers::byte_level::ByteLevel,
};

use super::corpus::Corpus;
use crate::{EngineError, Result};

/// The marks, in the order of their ids from 0: padding, end of a turn, and the speakers.
pub(super) const SPECIAL_TOKENS: [&str; 5] =
    ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"];

/// A tokenizer with the ids of its marks.
pub(super) struct Vocabulary {
    pub(super) tokenizer: Tokenizer,
    pub(super) end: u32,
    user: u32,
    assistant: u32,
}

fn broken(error: impl std::fmt::Display) -> EngineError {
    EngineError::Tokenizer(error.to_string())
}

/// Trains a tokenizer of `size` tokens. Every text begins with a space for it, so that a word has one form
/// wherever it stands.
pub(super) fn train(text: &Corpus, size: usize) -> Result<Vocabulary> {
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(true, true, true)));
    let decoders = vec![ByteLevelDecoder::new(true, true, true).into(), Strip::new(' ', 1, 0).into()];
    tokenizer.with_decoder(Some(Sequence::new(decoders)));
    let trainer = BpeTrainerBuilder::new()
        .vocab_size(size)
        .show_progress(false)
        .special_tokens(SPECIAL_TOKENS.map(|mark| AddedToken::from(mark, true)).to_vec())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut trainer = TrainerWrapper::from(trainer);
    tokenizer.train(&mut trainer, text.paragraphs.iter()).map_err(broken)?;
    Vocabulary::new(tokenizer)
}

/// Reads the tokenizer of a model folder.
pub(super) fn load(folder: &Path) -> Result<Vocabulary> {
    Vocabulary::new(Tokenizer::from_file(folder.join("tokenizer.json")).map_err(broken)?)
}

impl Vocabulary {
    fn new(tokenizer: Tokenizer) -> Result<Self> {
        let id = |mark: &str| {
            tokenizer.token_to_id(mark).ok_or_else(|| broken(format!("the vocabulary lacks `{mark}`")))
        };
        let (end, user, assistant) = (id(SPECIAL_TOKENS[1])?, id(SPECIAL_TOKENS[2])?, id(SPECIAL_TOKENS[3])?);
        Ok(Self { tokenizer, end, user, assistant })
    }

    pub(super) fn size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// All paragraphs as one run of tokens, each ended by the end mark.
    pub(super) fn encode_documents(&self, paragraphs: &[String]) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        for part in paragraphs.chunks(1024) {
            let texts: Vec<&str> = part.iter().map(String::as_str).collect();
            for encoding in self.tokenizer.encode_batch_fast(texts, false).map_err(broken)? {
                tokens.extend_from_slice(encoding.get_ids());
                tokens.push(self.end);
            }
        }
        Ok(tokens)
    }

    /// `<|user|> asked <|assistant|> answer <|end|>` for each pair.
    pub(super) fn encode_conversations(&self, pairs: &[(String, String)]) -> Result<Vec<Vec<u32>>> {
        let mut conversations = Vec::with_capacity(pairs.len());
        for part in pairs.chunks(2048) {
            let asked: Vec<&str> = part.iter().map(|(asked, _)| asked.as_str()).collect();
            let answers: Vec<&str> = part.iter().map(|(_, answer)| answer.as_str()).collect();
            let asked = self.tokenizer.encode_batch_fast(asked, false).map_err(broken)?;
            let answers = self.tokenizer.encode_batch_fast(answers, false).map_err(broken)?;
            for (asked, answer) in asked.iter().zip(&answers) {
                let mut tokens = vec![self.user];
                tokens.extend_from_slice(asked.get_ids());
                tokens.push(self.assistant);
                tokens.extend_from_slice(answer.get_ids());
                tokens.push(self.end);
                conversations.push(tokens);
            }
        }
        Ok(conversations)
    }
}
