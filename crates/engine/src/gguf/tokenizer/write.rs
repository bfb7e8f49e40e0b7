//! A tokenizer and a chat template as the keys of a GGUF file.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::{
    ADD_BOS, ADD_EOS, ADD_SPACE, BOS, EOS, EOT, KINDS, MERGES, MODEL, PRE, SCORES, TEMPLATE, TEMPLATE_TOKENS,
    TOKENS, UNKNOWN, pre_tokenizer::Splitting, vocabulary::Kind,
};
use crate::{
    ChatTemplate, EngineError, ModelConfig, Result, Tokenizer,
    gguf::metadata::{Array, Metadata, Scalar, Value},
};

/// Score of a token that no merge makes; all scores of merges are above it.
const UNMERGED: f32 = -1e9;

/// Puts tokenizer and template into `metadata`; `notes` gets what the file cannot say.
///
/// # Errors
/// `Invalid` when GGUF has no form for the tokenizer.
pub(in crate::gguf) fn write(
    metadata: &mut Metadata,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    config: &ModelConfig,
    notes: &mut Vec<String>,
) -> Result<()> {
    let json = tokenizer.to_json()?;
    let parts = Parts::read(&json, config.vocab_size)?;
    if parts.byte_fallback {
        metadata.set(MODEL, Value::text("llama"));
        metadata.set(PRE, Value::text("default"));
        metadata.set(ADD_SPACE, Value::flag(prefix_of_pieces(&json)?));
        metadata.set(SCORES, floats(&parts.scores()));
    } else {
        let (word, prefix_space) = Splitting::recognise(&json).ok_or_else(|| {
            EngineError::Tokenizer("splits text in a way for which GGUF has no word".into())
        })?;
        metadata.set(MODEL, Value::text("gpt2"));
        metadata.set(PRE, Value::text(word));
        metadata.set(ADD_SPACE, Value::flag(prefix_space));
        let merges = parts.merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
        metadata.set(MERGES, Value::Array(Array::Texts(merges)));
    }
    let kinds = parts.kinds.iter().flat_map(|kind| kind.id().to_le_bytes()).collect();
    metadata.set(KINDS, Value::Array(Array::Numbers { kind: Scalar::I32, bytes: kinds }));
    special_tokens(metadata, tokenizer, template, config, &parts, notes)?;
    notes.extend(parts.stripping.map(|token| {
        format!("`{token}` and others take the spaces beside them, which a GGUF file cannot say")
    }));
    metadata.set(TOKENS, Value::Array(Array::Texts(parts.tokens)));
    if let Some(template) = template {
        metadata.set(TEMPLATE, Value::text(template.source()));
    }
    Ok(())
}

/// Says in `metadata` that there is no tokenizer, and which ids begin and end a text all the same.
pub(in crate::gguf) fn write_none(metadata: &mut Metadata, config: &ModelConfig) {
    metadata.set(MODEL, Value::text("no_vocab"));
    ends(metadata, config);
}

/// The ids that the configuration names.
fn ends(metadata: &mut Metadata, config: &ModelConfig) {
    if let Some(id) = config.bos_token_id {
        metadata.set(BOS, Value::u32(id));
    }
    for (id, key) in config.eos_token_ids.iter().zip([EOS, EOT]) {
        metadata.set(key, Value::u32(*id));
    }
}

/// Begin, end and other special tokens.
fn special_tokens(
    metadata: &mut Metadata,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    config: &ModelConfig,
    parts: &Parts,
    notes: &mut Vec<String>,
) -> Result<()> {
    let named = |name: &str| template.and_then(|template| tokenizer.token_id(template.token(name)?));
    for (name, key) in TEMPLATE_TOKENS {
        if let Some(id) = named(name) {
            metadata.set(key, Value::u32(id));
        }
    }
    ends(metadata, config);
    if let Some(id) = parts.unknown.as_deref().and_then(|token| tokenizer.token_id(token)) {
        metadata.set(UNKNOWN, Value::u32(id));
    }
    // What is put around a text shows on one.
    let (bare, whole) = (tokenizer.encode("a", false)?, tokenizer.encode("a", true)?);
    let at = whole.windows(bare.len()).position(|window| window == bare).unwrap_or(0);
    let (before, after) = (&whole[..at], &whole[(at + bare.len()).min(whole.len())..]);
    for (ids, add, key) in [(before, ADD_BOS, BOS), (after, ADD_EOS, EOS)] {
        metadata.set(add, Value::flag(ids.len() == 1));
        match ids {
            [] => {}
            [id] => metadata.set(key, Value::u32(*id)),
            many => {
                notes.push(format!("{} tokens around a plain text, which a GGUF file cannot say", many.len()))
            }
        }
    }
    Ok(())
}

/// What a `tokenizer.json` is made of.
struct Parts {
    tokens: Vec<String>, // as many as the model's vocabulary
    kinds: Vec<Kind>,
    merges: Vec<(String, String)>,
    byte_fallback: bool,
    unknown: Option<String>,
    /// A token that takes the spaces beside it.
    stripping: Option<String>,
}

impl Parts {
    fn read(json: &Json, vocab_size: usize) -> Result<Self> {
        let damaged = |what: &str| EngineError::Tokenizer(format!("{what} has no form in GGUF"));
        let model = &json["model"];
        if model["type"] != "BPE" {
            return Err(damaged(&format!("a model of type {}", model["type"])));
        }
        for key in ["continuing_subword_prefix", "end_of_word_suffix", "dropout"] {
            if !matches!(&model[key], Json::Null) && model[key] != "" {
                return Err(damaged(&format!("`{key}` {}", model[key])));
            }
        }
        let byte_fallback = model["byte_fallback"] == true;
        let mut tokens: Vec<Option<String>> = vec![None; vocab_size];
        let mut kinds = vec![Kind::Unused; vocab_size];
        let mut place = |token: &str, id: &Json, kind: Kind| -> Result<()> {
            let id = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|id| *id < vocab_size);
            let id = id.ok_or_else(|| damaged(&format!("`{token}` beyond {vocab_size} ids")))?;
            (tokens[id], kinds[id]) = (Some(token.to_owned()), kind);
            Ok(())
        };
        let unknown = model["unk_token"].as_str().map(str::to_owned);
        for (token, id) in model["vocab"].as_object().into_iter().flatten() {
            let kind = match token {
                token if byte_fallback && is_byte(token) => Kind::Byte,
                token if Some(token) == unknown.as_ref() => Kind::Unknown,
                _ => Kind::Normal,
            };
            place(token, id, kind)?;
        }
        let mut stripping = None;
        for added in json["added_tokens"].as_array().into_iter().flatten() {
            let token = added["content"].as_str().ok_or_else(|| damaged("an added token without a text"))?;
            let kind = match added["special"] == true {
                true if Some(token) == unknown.as_deref() => Kind::Unknown,
                true => Kind::Control,
                false => Kind::UserDefined,
            };
            place(token, &added["id"], kind)?;
            if added["lstrip"] == true || added["rstrip"] == true {
                stripping.get_or_insert_with(|| token.to_owned());
            }
        }
        let tokens = tokens.into_iter().enumerate();
        let tokens = tokens.map(|(id, token)| token.unwrap_or_else(|| format!("[PAD{id}]"))).collect();
        let merges = model["merges"].as_array().into_iter().flatten().map(merge);
        let merges =
            merges.collect::<Option<_>>().ok_or_else(|| damaged("a merge that is not two tokens"))?;
        Ok(Self { tokens, kinds, merges, byte_fallback, unknown, stripping })
    }

    /// A score for each token, so that the token of an earlier merge has a higher one.
    fn scores(&self) -> Vec<f32> {
        let mut ranks: HashMap<String, usize> = HashMap::new();
        for (rank, (left, right)) in self.merges.iter().enumerate() {
            ranks.entry(format!("{left}{right}")).or_insert(rank);
        }
        let score = |(token, kind): (&String, &Kind)| match (kind, ranks.get(token)) {
            (Kind::Normal, Some(rank)) => -(*rank as f32),
            (Kind::Normal, None) => UNMERGED,
            _ => 0.0,
        };
        self.tokens.iter().zip(&self.kinds).map(score).collect()
    }
}

/// A merge in either of the forms that `tokenizer.json` has had.
fn merge(merge: &Json) -> Option<(String, String)> {
    let (left, right) = match merge {
        Json::String(text) => text.split_once(' ')?,
        Json::Array(pair) => match pair.as_slice() {
            [left, right] => (left.as_str()?, right.as_str()?),
            _ => return None,
        },
        _ => return None,
    };
    Some((left.to_owned(), right.to_owned()))
}

/// Whether a token stands for one byte: `<0x0A>`.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Whether SentencePiece's texts begin with a space that is put there.
fn prefix_of_pieces(json: &Json) -> Result<bool> {
    let steps = match &json["normalizer"] {
        Json::Null => Vec::new(),
        sequence if sequence["type"] == "Sequence" => {
            sequence["normalizers"].as_array().cloned().unwrap_or_default()
        }
        one => vec![one.clone()],
    };
    let splitting = &json["pre_tokenizer"];
    let kinds: Vec<&str> = steps.iter().filter_map(|step| step["type"].as_str()).collect();
    match (kinds.as_slice(), splitting["type"].as_str()) {
        (["Prepend", "Replace"], None) => Ok(true),
        (["Replace"], None) => Ok(false),
        ([], Some("Metaspace")) if splitting["split"] == false => Ok(splitting["prepend_scheme"] != "never"),
        _ => Err(EngineError::Tokenizer(
            "changes text before it is split in a way for which GGUF has no word".into(),
        )),
    }
}

fn floats(values: &[f32]) -> Value {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Value::Array(Array::Numbers { kind: Scalar::F32, bytes })
}
