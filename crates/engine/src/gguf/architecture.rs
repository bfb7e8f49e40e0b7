//! The shape of a model from the metadata of a GGUF file.
//!
//! The metadata are put into the words of `config.json`, so that one reader checks both. A key of the
//! architecture that is not known here is refused: it may change the arithmetic.

use std::io::{Read, Seek};

use serde_json::{Map, Value, json};

use super::{
    file::GgufFile,
    metadata::{Metadata, Value as Stored},
    names::ROPE_FACTORS,
};
use crate::{EngineError, Family, ModelConfig, Result, RopeScaling, rope_frequencies};

/// Architectures by the word of `general.architecture`. Mistral goes by the word of Llama.
const ARCHITECTURES: [(&str, Family); 6] = [
    ("llama", Family::Llama),
    ("llama", Family::Mistral),
    ("qwen2", Family::Qwen2),
    ("qwen3", Family::Qwen3),
    ("chatglm", Family::Glm),
    ("glm4", Family::Glm4),
];

/// Keys under the architecture's name that are read.
const READ: &[&str] = &[
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.sliding_window",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
];

/// Keys without influence on the logits.
const HARMLESS: &[&str] = &["rope.scaling.finetuned", "tensor_data_layout"];

/// Keys that change nothing as long as they hold this number (a boolean counts as 0 or 1).
const NEUTRAL: &[(&str, f64)] = &[
    ("attention.causal", 1.0),
    ("attention.clamp_kqv", 0.0),
    ("attention.max_alibi_bias", 0.0),
    ("embedding_scale", 1.0),
    ("expert_count", 0.0),
    ("expert_used_count", 0.0),
    ("logit_scale", 1.0),
    ("residual_scale", 1.0),
    ("rope.scaling.yarn_ext_factor", 1.0),
    ("rope.scaling.yarn_log_multiplier", 0.0),
    ("use_parallel_residual", 0.0),
];

/// Llama 3.1 and later, whose converters keep the factors and drop what they came from.
const LLAMA3: (f64, f64, u64) = (1.0, 4.0, 8192);

/// Reads the architecture of `file`.
///
/// # Errors
/// `Invalid`, naming the key, when something is missing, out of proportion or not computed here.
pub(super) fn read<R: Read + Seek>(file: &mut GgufFile<R>) -> Result<ModelConfig> {
    let metadata = file.metadata().clone();
    let named = |error: EngineError| match error {
        EngineError::Config { message, hint } => EngineError::Gguf {
            file: metadata.file().to_owned(),
            message: format!("describes a model that is not computed: {message}"),
            hint,
        },
        other => other,
    };
    let mut object = words(file, &metadata)?;
    let plain = ModelConfig::from_json(&Value::Object(object.clone()).to_string()).map_err(named)?;
    if !file.tensors().contains_key(ROPE_FACTORS) {
        return Ok(plain);
    }
    if plain.rope.scaling != RopeScaling::None {
        return Err(metadata.error(format!("has a rope scaling and `{ROPE_FACTORS}` at once")));
    }
    let factors = file.values(ROPE_FACTORS)?;
    object.insert("rope_scaling".into(), scaling_of(&plain, &factors));
    ModelConfig::from_json(&Value::Object(object).to_string()).map_err(named)
}

/// The metadata as `config.json` would say it, without the factors.
fn words<R: Read + Seek>(file: &GgufFile<R>, metadata: &Metadata) -> Result<Map<String, Value>> {
    check_kind(metadata)?;
    let (architecture, family) = architecture(metadata)?;
    let keys = Keys { metadata, architecture };
    keys.refuse_unknown()?;
    let there = |name: &str| file.tensors().contains_key(name);
    let embedding = file.tensors().get("token_embd.weight").map(|info| info.shape.as_slice());
    let vocab_size = match embedding {
        Some([rows, _]) => json!(rows),
        _ => return Err(metadata.error("has no matrix `token_embd.weight`")),
    };
    let mut object = Map::new();
    let mut set = |key: &str, value: Value| drop(object.insert(key.to_owned(), value));
    set("vocab_size", vocab_size);
    let context = keys.must("context_length")?;
    set("max_position_embeddings", json!(context));
    let hidden = keys.must("embedding_length")?;
    set("hidden_size", json!(hidden));
    set("num_hidden_layers", json!(keys.must("block_count")?));
    set("intermediate_size", json!(keys.must("feed_forward_length")?));
    let heads = keys.must("attention.head_count")?;
    set("num_attention_heads", json!(heads));
    set("num_key_value_heads", json!(keys.unsigned("attention.head_count_kv")?.unwrap_or(heads)));
    let epsilon = keys.number("attention.layer_norm_rms_epsilon")?;
    set("rms_norm_eps", json!(epsilon.ok_or_else(|| keys.missing("attention.layer_norm_rms_epsilon"))?));
    let head_dim = keys.head_dim(hidden, heads)?;
    set("head_dim", json!(head_dim));
    if let Some(share) = keys.rotated_share(family, head_dim)? {
        set("partial_rotary_factor", json!(share));
    }
    set("rope_theta", json!(keys.number("rope.freq_base")?.unwrap_or(10_000.0)));
    if let Some(scaling) = keys.scaling()? {
        set("rope_scaling", scaling);
    }
    let window = keys.unsigned("attention.sliding_window")?.filter(|window| (1..context).contains(window));
    let family = match (family, window) {
        (Family::Llama, Some(window)) => {
            set("sliding_window", json!(window));
            Family::Mistral
        }
        (_, Some(_)) => return Err(keys.unsupported("attention.sliding_window")),
        (family, None) => family,
    };
    set("model_type", json!(family.model_type()));
    set("tie_word_embeddings", json!(!there("output.weight")));
    if !matches!(family, Family::Qwen2 | Family::Mistral) {
        set("attention_bias", json!(there("blk.0.attn_q.bias")));
    }
    if there("blk.0.ffn_up.bias") {
        set("mlp_bias", json!(true));
    }
    set("bos_token_id", json!(metadata.unsigned("tokenizer.ggml.bos_token_id")?));
    set("eos_token_id", json!(super::tokenizer::end_tokens(metadata)?));
    Ok(object)
}

/// Refuses files that hold something else than a whole model.
fn check_kind(metadata: &Metadata) -> Result<()> {
    if let Some(kind) = metadata.text("general.type")?
        && kind != "model"
    {
        return Err(metadata.error(format!("holds a `{kind}`, not a model")));
    }
    match metadata.unsigned("split.count")? {
        Some(count) if count > 1 => Err(EngineError::Gguf {
            file: metadata.file().to_owned(),
            message: format!("is one of {count} parts of a model"),
            hint: Some("join them with `llama-gguf-split --merge`".into()),
        }),
        _ => Ok(()),
    }
}

fn architecture(metadata: &Metadata) -> Result<(&'static str, Family)> {
    let name =
        metadata.text("general.architecture")?.ok_or_else(|| metadata.missing("general.architecture"))?;
    ARCHITECTURES.into_iter().find(|(known, _)| *known == name).ok_or_else(|| {
        let mut known: Vec<_> = ARCHITECTURES.map(|(known, _)| known).into();
        known.dedup();
        EngineError::Gguf {
            file: metadata.file().to_owned(),
            message: format!("has the architecture `{name}`, which is not computed"),
            hint: Some(format!("known are {}", known.join(", "))),
        }
    })
}

/// The keys under the architecture's name.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'static str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn missing(&self, name: &str) -> EngineError {
        self.metadata.missing(&self.key(name))
    }

    fn unsigned(&self, name: &str) -> Result<Option<u64>> {
        self.metadata.unsigned(&self.key(name))
    }

    fn must(&self, name: &str) -> Result<u64> {
        self.unsigned(name)?.ok_or_else(|| self.missing(name))
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        self.metadata.number(&self.key(name))
    }

    /// A key that is known and whose value is not computed.
    fn unsupported(&self, name: &str) -> EngineError {
        EngineError::Gguf {
            file: self.metadata.file().to_owned(),
            message: format!("sets `{}`, which changes the arithmetic and is not supported", self.key(name)),
            hint: Some("serve this model through an upstream that knows it".into()),
        }
    }

    fn refuse_unknown(&self) -> Result<()> {
        let prefix = self.key("");
        for (key, _) in self.metadata.iter() {
            let Some(name) = key.strip_prefix(&prefix) else { continue };
            if READ.contains(&name) || HARMLESS.contains(&name) {
                continue;
            }
            let Some((_, neutral)) = NEUTRAL.iter().find(|(known, _)| *known == name) else {
                return Err(EngineError::Gguf {
                    file: self.metadata.file().to_owned(),
                    message: format!("has the unknown key `{key}`, which may change the arithmetic"),
                    hint: Some("serve this model through an upstream that knows it".into()),
                });
            };
            let found = match self.metadata.flag(key) {
                Ok(flag) => flag.map(|flag| f64::from(u8::from(flag))),
                Err(_) => self.metadata.number(key)?,
            };
            if found != Some(*neutral) {
                return Err(self.unsupported(name));
            }
        }
        Ok(())
    }

    /// The width of a head, on which keys and values must agree.
    fn head_dim(&self, hidden: u64, heads: u64) -> Result<u64> {
        let (key, value) = (self.unsigned("attention.key_length")?, self.unsigned("attention.value_length")?);
        match (key, value) {
            (Some(key), Some(value)) if key != value => Err(self
                .metadata
                .error(format!("has keys of {key} and values of {value}; they must be alike"))),
            (Some(width), _) | (None, Some(width)) => Ok(width),
            (None, None) if heads > 0 && hidden.is_multiple_of(heads) => Ok(hidden / heads),
            (None, None) => Err(self
                .metadata
                .error(format!("has {heads} heads for a width of {hidden}, no multiple of that"))),
        }
    }

    /// The `partial_rotary_factor` of the families that rotate a part of each head; the others rotate all of it.
    fn rotated_share(&self, family: Family, head_dim: u64) -> Result<Option<f64>> {
        let rotated = self.unsigned("rope.dimension_count")?;
        match rotated {
            Some(rotated) if family.is_glm() && rotated < head_dim => {
                // Rounded down when it is multiplied with the width again.
                let share = rotated as f64 / head_dim as f64;
                let exact = (head_dim as f64 * share) as u64 == rotated;
                Ok(Some(if exact { share } else { (rotated as f64 + 0.5) / head_dim as f64 }))
            }
            Some(rotated) if rotated != head_dim => Err(self.metadata.error(format!(
                "has heads of {head_dim}, but `{}` is {rotated}",
                self.key("rope.dimension_count")
            ))),
            _ => Ok(family.is_glm().then_some(1.0)),
        }
    }

    /// The `rope_scaling` of `config.json`.
    fn scaling(&self) -> Result<Option<Value>> {
        let kind = self.metadata.text(&self.key("rope.scaling.type"))?;
        let old = self.number("rope.scale_linear")?.filter(|factor| *factor != 1.0);
        let factor = self.number("rope.scaling.factor")?.filter(|factor| *factor != 0.0);
        let kind = match (kind, old) {
            (None, Some(_)) => "linear",
            (None, None) if factor.is_none_or(|factor| factor == 1.0) => "none",
            // Without a word for it llama.cpp stretches linearly.
            (None, None) => "linear",
            (Some(kind), _) => kind,
        };
        let missing = || self.missing("rope.scaling.factor");
        match kind {
            "none" => Ok(None),
            "linear" => {
                let factor = factor.or(old).ok_or_else(missing)?;
                Ok(Some(json!({"rope_type": "linear", "factor": factor})))
            }
            "yarn" => self.yarn(factor.ok_or_else(missing)?).map(Some),
            other => {
                Err(self.metadata.error(format!("has the rope scaling `{other}`, which is not computed")))
            }
        }
    }

    fn yarn(&self, factor: f64) -> Result<Value> {
        let mut object = json!({"rope_type": "yarn", "factor": factor});
        if let Some(length) = self.unsigned("rope.scaling.original_context_length")? {
            object["original_max_position_embeddings"] = json!(length);
        }
        // What the file holds multiplies the scale that YaRN itself prescribes, 0.1 ln(factor) + 1.
        let given = match self.number("rope.scaling.attn_factor")? {
            Some(given) => Some(given),
            None => self.number("rope.scaling.yarn_attn_factor")?,
        };
        if let Some(given) = given.filter(|given| *given != 1.0) {
            object["attention_factor"] = json!(given * (0.1 * factor.ln() + 1.0));
        }
        for (name, key) in
            [("rope.scaling.yarn_beta_fast", "beta_fast"), ("rope.scaling.yarn_beta_slow", "beta_slow")]
        {
            if let Some(beta) = self.number(name)? {
                object[key] = json!(beta);
            }
        }
        Ok(object)
    }
}

/// The scaling that gives these factors: Llama 3's where they are its, else the factors themselves.
fn scaling_of(plain: &ModelConfig, factors: &[f32]) -> Value {
    let (low, high, original) = LLAMA3;
    let factor = factors.iter().copied().fold(1.0, f32::max);
    let mut guess = plain.clone();
    guess.rope.scaling = RopeScaling::Llama3 {
        factor: f64::from(factor),
        low_freq_factor: low,
        high_freq_factor: high,
        original_max_position_embeddings: original as usize,
    };
    let (unscaled, _) = rope_frequencies(plain);
    let (scaled, _) = rope_frequencies(&guess);
    let near = |((unscaled, scaled), factor): ((&f32, &f32), &f32)| {
        (unscaled / scaled - factor).abs() <= 1e-5 * factor
    };
    if factors.len() == scaled.len() && unscaled.iter().zip(&scaled).zip(factors).all(near) {
        json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": original,
        })
    } else {
        json!({"rope_type": "factors", "factors": factors})
    }
}

/// Puts a configuration into the metadata of a file; `notes` gets what llama.cpp makes of it otherwise.
///
/// # Errors
/// `Invalid` when GGUF has no way to say it.
pub(super) fn write(metadata: &mut Metadata, config: &ModelConfig, notes: &mut Vec<String>) -> Result<()> {
    let (word, _) = ARCHITECTURES
        .into_iter()
        .find(|(_, family)| *family == config.family)
        .ok_or_else(|| EngineError::Internal(format!("{:?} has no word in GGUF", config.family)))?;
    metadata.set("general.architecture", Stored::text(word));
    let mut set = |key: &str, value: Stored| metadata.set(format!("{word}.{key}"), value);
    let whole = |value: usize| Stored::u32(u32::try_from(value).unwrap_or(u32::MAX));
    set("context_length", whole(config.max_position_embeddings));
    set("embedding_length", whole(config.hidden_size));
    set("block_count", whole(config.num_layers));
    set("feed_forward_length", whole(config.intermediate_size));
    set("vocab_size", whole(config.vocab_size));
    set("attention.head_count", whole(config.num_heads));
    set("attention.head_count_kv", whole(config.num_kv_heads));
    set("attention.key_length", whole(config.head_dim));
    set("attention.value_length", whole(config.head_dim));
    set("attention.layer_norm_rms_epsilon", Stored::f32(config.rms_norm_eps));
    set("rope.dimension_count", whole(config.rotary_dim()));
    match (config.sliding_window, config.family) {
        (None, _) => {}
        (Some(window), Family::Mistral) => {
            set("attention.sliding_window", whole(window));
            notes.push(format!("llama.cpp knows no window of a `{word}`: it sees beyond {window} tokens"));
        }
        (Some(_), _) => {
            return Err(EngineError::config("GGUF cannot say which blocks have a sliding window"));
        }
    }
    set("rope.freq_base", Stored::f32(config.rope.theta as f32));
    match &config.rope.scaling {
        // A dynamic scaling changes nothing within the context; factors are a tensor.
        RopeScaling::None
        | RopeScaling::Dynamic { .. }
        | RopeScaling::Llama3 { .. }
        | RopeScaling::Factors(_) => {}
        RopeScaling::Linear { factor } => {
            set("rope.scaling.type", Stored::text("linear"));
            set("rope.scaling.factor", Stored::f32(*factor as f32));
        }
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            attention_factor,
            original_max_position_embeddings,
            truncate,
        } => {
            if !truncate {
                return Err(EngineError::config("GGUF cannot say that YaRN's `truncate` is false"));
            }
            set("rope.scaling.type", Stored::text("yarn"));
            set("rope.scaling.factor", Stored::f32(*factor as f32));
            set("rope.scaling.original_context_length", whole(*original_max_position_embeddings));
            set("rope.scaling.yarn_beta_fast", Stored::f32(*beta_fast as f32));
            set("rope.scaling.yarn_beta_slow", Stored::f32(*beta_slow as f32));
            let relative = attention_factor / (0.1 * factor.ln() + 1.0);
            if (relative - 1.0).abs() > 1e-6 {
                set("rope.scaling.attn_factor", Stored::f32(relative as f32));
            }
        }
    }
    Ok(())
}

/// What each frequency is divided by, where GGUF keeps it in a tensor.
pub(super) fn factors(config: &ModelConfig) -> Option<Vec<f32>> {
    match &config.rope.scaling {
        RopeScaling::Factors(factors) => Some(factors.clone()),
        RopeScaling::Llama3 { .. } => {
            let mut plain = config.clone();
            plain.rope.scaling = RopeScaling::None;
            let (unscaled, scaled) = (rope_frequencies(&plain).0, rope_frequencies(config).0);
            Some(unscaled.iter().zip(&scaled).map(|(unscaled, scaled)| unscaled / scaled).collect())
        }
        _ => None,
    }
}
