//! The tokenizer and the chat template inside a GGUF file, as a `tokenizer.json`.
//!
//! Two kinds are read: byte-level byte pairs with their merges (`gpt2`) and SentencePiece's byte pairs with
//! their scores (`llama`). What neither the file nor its word for the splitting of text (`tokenizer.ggml.pre`)
//! settles is refused: a tokenizer that is nearly right gives a model that is quietly worse.

mod pre_tokenizer;
mod sentencepiece;
mod vocabulary;
mod write;

use std::sync::Arc;

use autoglm_domain::Clock;
use serde_json::{Value, json};

pub(super) use self::write::{write, write_none};
use self::{
    pre_tokenizer::{Splitting, byte_level},
    vocabulary::{Kind, Vocabulary},
};
use super::metadata::Metadata;
use crate::{ChatTemplate, EngineError, Result, Tokenizer};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const KINDS: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const EOT: &str = "tokenizer.ggml.eot_token_id";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";
const TEMPLATE: &str = "tokenizer.chat_template";

/// Special tokens that chat templates name, and where their ids stand.
const TEMPLATE_TOKENS: [(&str, &str); 5] = [
    ("bos_token", BOS),
    ("eos_token", EOS),
    ("unk_token", UNKNOWN),
    ("sep_token", "tokenizer.ggml.seperator_token_id"), // as the format spells it
    ("pad_token", "tokenizer.ggml.padding_token_id"),
];

/// Special tokens that end a turn by their name, which files do not always mark otherwise.
const TURN_ENDS: &[&str] =
    &["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<end_of_turn>"];

/// The tokenizer of a file.
///
/// # Errors
/// `Invalid` when the file has none, its parts contradict each other, or it works in a way that is not known.
pub(crate) fn read(metadata: &Metadata) -> Result<Tokenizer> {
    let bytes = read_json(metadata)?.to_string();
    Tokenizer::from_bytes(bytes.as_bytes()).map_err(|error| match error {
        EngineError::Tokenizer(message) => {
            let message = message
                .trim_start_matches("tokenizer.json is damaged: ")
                .trim_start_matches("tokenizer.json ");
            metadata.error(format!("has a damaged tokenizer: {message}"))
        }
        other => other,
    })
}

/// The `tokenizer.json` of a file.
fn read_json(metadata: &Metadata) -> Result<Value> {
    let model = metadata.text(MODEL)?.ok_or_else(|| metadata.missing(MODEL))?;
    let byte_pairs = match model {
        "gpt2" => true,
        "llama" => false,
        "no_vocab" | "none" => return Err(metadata.error("has no tokenizer")),
        other => {
            return Err(EngineError::Gguf {
                file: metadata.file().to_owned(),
                message: format!("has a tokenizer of the kind `{other}`, which is not read"),
                hint: Some("known are gpt2 (byte pairs) and llama (SentencePiece)".into()),
            });
        }
    };
    let vocabulary = Vocabulary::read(metadata)?;
    let mut object =
        if byte_pairs { gpt2(metadata, &vocabulary)? } else { sentencepiece::read(metadata, &vocabulary)? };
    object["version"] = json!("1.0");
    object["truncation"] = Value::Null;
    object["padding"] = Value::Null;
    object["added_tokens"] = vocabulary.added_tokens();
    let default = !byte_pairs || Splitting::read(metadata)?.begins_with_bos();
    object["post_processor"] = around(metadata, &vocabulary, default)?;
    Ok(object)
}

/// Byte-level byte pairs.
fn gpt2(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Value> {
    let splitting = Splitting::read(metadata)?;
    let prefix_space = metadata.flag(ADD_SPACE)?.unwrap_or(false);
    let merges =
        metadata.texts(MERGES)?.filter(|merges| !merges.is_empty()).ok_or_else(|| EngineError::Gguf {
            file: metadata.file().to_owned(),
            message: format!("has no `{MERGES}`, without which its tokenizer cannot join bytes"),
            hint: Some("convert the model again with a newer converter".into()),
        })?;
    let mut pairs = Vec::with_capacity(merges.len());
    for (at, merge) in merges.iter().enumerate() {
        let damaged = |what: String| metadata.error(format!("has merge {at}, `{merge}`, {what}"));
        let (left, right) = merge
            .split_once(' ')
            .filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '))
            .ok_or_else(|| damaged("which is not two tokens".into()))?;
        for part in [left.to_owned(), right.to_owned(), format!("{left}{right}")] {
            if vocabulary.id(&part).is_none() {
                return Err(damaged(format!("but no token `{part}`")));
            }
        }
        pairs.push(json!([left, right]));
    }
    let mut decoders = vec![byte_level(prefix_space, true)];
    if prefix_space {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(json!({
        "normalizer": splitting.normalizer(),
        "pre_tokenizer": splitting.pre_tokenizer(prefix_space),
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": splitting.ignores_merges(),
            "vocab": vocabulary.to_json(), "merges": pairs,
        },
    }))
}

/// The post-processor: which tokens are put around a text.
fn around(metadata: &Metadata, vocabulary: &Vocabulary, begins_with_bos: bool) -> Result<Value> {
    let token = |key: &str, wanted: bool| -> Result<Option<&str>> {
        if !wanted {
            return Ok(None);
        }
        let id = metadata.unsigned(key)?.ok_or_else(|| metadata.missing(key))?;
        vocabulary.token(id).map(Some).ok_or_else(|| metadata.error(format!("`{key}` {id} is no token")))
    };
    // Where the begin token is only a custom of the splitting, a file without one has none.
    let add_bos = match metadata.flag(ADD_BOS)? {
        Some(add) => add,
        None => begins_with_bos && metadata.unsigned(BOS)?.is_some(),
    };
    let bos = token(BOS, add_bos)?;
    let eos = token(EOS, metadata.flag(ADD_EOS)?.unwrap_or(false))?;
    if bos.is_none() && eos.is_none() {
        return Ok(Value::Null);
    }
    let special = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let begin = bos.map(special);
    let end = eos.map(special);
    let around =
        |middle: Value| -> Vec<Value> { begin.iter().cloned().chain([middle]).chain(end.clone()).collect() };
    let tokens: serde_json::Map<String, Value> = bos
        .iter()
        .chain(&eos)
        .map(|token| {
            let description = json!({"id": token, "ids": [vocabulary.id(token)], "tokens": [token]});
            ((*token).to_owned(), description)
        })
        .collect();
    let pair = [around(sequence("A")), around(sequence("B"))].concat();
    Ok(json!({
        "type": "TemplateProcessing",
        "single": around(sequence("A")),
        "pair": pair,
        "special_tokens": tokens,
    }))
}

/// Ids of the tokens that end an answer: those that the file names, and special tokens that are called so.
pub(super) fn end_tokens(metadata: &Metadata) -> Result<Vec<u64>> {
    let mut ids = Vec::new();
    for key in [EOS, EOT] {
        ids.extend(metadata.unsigned(key)?);
    }
    if metadata.get(TOKENS).is_some() {
        let vocabulary = Vocabulary::read(metadata)?;
        let named = TURN_ENDS.iter().filter_map(|name| vocabulary.id(name));
        ids.extend(named.filter(|id| vocabulary.kind(*id) == Some(Kind::Control)).map(|id| id as u64));
    }
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(*id));
    Ok(ids)
}

/// The chat template of a file, where it has one.
///
/// # Errors
/// `Invalid` when it is not Jinja.
pub(crate) fn template(metadata: &Metadata, clock: Arc<dyn Clock>) -> Result<Option<ChatTemplate>> {
    let Some(source) = metadata.text(TEMPLATE)? else { return Ok(None) };
    let tokens = metadata.texts(TOKENS)?.unwrap_or(&[]);
    let mut special = Vec::new();
    for (name, key) in TEMPLATE_TOKENS {
        let token = metadata.unsigned(key)?.and_then(|id| tokens.get(usize::try_from(id).ok()?));
        special.extend(token.map(|token| (name.to_owned(), token.clone())));
    }
    ChatTemplate::new(source, special, clock).map(Some)
}
