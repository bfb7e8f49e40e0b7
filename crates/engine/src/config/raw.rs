//! From JSON keys to a checked [`ModelConfig`].

use serde_json::{Map, Value};

use super::{Family, ModelConfig, keys, keys::Judgement, rope, window};
use crate::{EngineError, Result};

/// Longest context that is believed.
pub(super) const MAX_CONTEXT: usize = 1 << 24;
const MAX_VOCAB: usize = 1 << 22;
const MAX_WIDTH: usize = 1 << 18;
const MAX_LAYERS: usize = 1024;
const MAX_HEADS: usize = 4096;
const MAX_HEAD_DIM: usize = 1024;

/// Reads and checks a whole configuration.
pub(super) fn read(object: &Map<String, Value>) -> Result<ModelConfig> {
    let family = family(object)?;
    let default_context = match family {
        Family::Llama => 2048,
        Family::Qwen2 | Family::Qwen3 => 32768,
        Family::Mistral | Family::Glm | Family::Glm4 => 131_072,
    };
    let max_position_embeddings = match object.get("max_position_embeddings") {
        None | Some(Value::Null) => default_context,
        Some(_) => positive(object, "max_position_embeddings", MAX_CONTEXT)?,
    };
    refuse_unknown(object)?;
    match object.get("hidden_act") {
        None | Some(Value::Null) => {}
        Some(Value::String(act)) if act == "silu" || act == "swish" => {}
        Some(other) => {
            return Err(EngineError::config(format!("`hidden_act` {other} is not supported, only \"silu\"")));
        }
    }
    let vocab_size = positive(object, "vocab_size", MAX_VOCAB)?;
    let heads = Heads::read(object, family)?;
    let biases = Biases::read(object, family)?;
    let (bos_token_id, eos_token_ids) = end_tokens(object, family, vocab_size)?;
    let num_layers = positive(object, "num_hidden_layers", MAX_LAYERS)?;
    let (sliding_window, windowed_layers) =
        window::read(object, family, num_layers, max_position_embeddings)?;
    let default_eps = if family.is_glm() { 1.5625e-7 } else { 1e-6 };
    Ok(ModelConfig {
        family,
        vocab_size,
        hidden_size: heads.hidden_size,
        intermediate_size: positive(object, "intermediate_size", MAX_WIDTH)?,
        num_layers,
        num_heads: heads.num_heads,
        num_kv_heads: heads.num_kv_heads,
        head_dim: heads.head_dim,
        rms_norm_eps: small(object, "rms_norm_eps", default_eps)?,
        rope: rope::read(object, family, heads.head_dim, max_position_embeddings)?,
        tie_word_embeddings: flag(object, "tie_word_embeddings")?.unwrap_or(false),
        attention_bias: biases.attention,
        attention_out_bias: biases.attention_out,
        mlp_bias: biases.mlp,
        qk_norm: family == Family::Qwen3,
        branch_norms: family == Family::Glm4,
        fused_gate_up: family.is_glm(),
        sliding_window,
        windowed_layers,
        max_position_embeddings,
        bos_token_id,
        eos_token_ids,
        initializer_range: small(object, "initializer_range", 0.02)?,
    })
}

/// Which projections have biases.
struct Biases {
    attention: bool,
    attention_out: bool,
    mlp: bool,
}

impl Biases {
    fn read(object: &Map<String, Value>, family: Family) -> Result<Self> {
        let attention = flag(object, "attention_bias")?;
        let mlp = flag(object, "mlp_bias")?.unwrap_or(false);
        if family == Family::Qwen2 && attention == Some(false) {
            return Err(EngineError::config(
                "`attention_bias` is false, but Qwen2 always has biases on q, k and v",
            ));
        }
        let unsupported = |key: &str| {
            Err(EngineError::config(format!("`{key}` is not supported for {}", family.architecture())))
        };
        if family == Family::Mistral && attention == Some(true) {
            return unsupported("attention_bias");
        }
        if family != Family::Llama && mlp {
            return unsupported("mlp_bias");
        }
        let (attention, attention_out) = match family {
            Family::Qwen2 => (true, false),
            Family::Glm | Family::Glm4 => (attention.unwrap_or(true), false),
            Family::Mistral => (false, false),
            Family::Llama | Family::Qwen3 => {
                let both = attention.unwrap_or(false);
                (both, both)
            }
        };
        Ok(Self { attention, attention_out, mlp })
    }
}

/// The token that begins a text and those that end it, checked against the vocabulary.
fn end_tokens(
    object: &Map<String, Value>,
    family: Family,
    vocab_size: usize,
) -> Result<(Option<u32>, Vec<u32>)> {
    // What the configuration classes of transformers fill in; a vocabulary without them has none.
    let (bos, eos): (Option<u32>, &[u32]) = match family {
        Family::Llama | Family::Mistral => (Some(1), &[2]),
        Family::Qwen2 | Family::Qwen3 => (None, &[]),
        Family::Glm | Family::Glm4 => (None, &[151_329, 151_336, 151_338]),
    };
    let known = |id: &u32| (*id as usize) < vocab_size;
    let bos_token_id = match object.get("bos_token_id") {
        None => bos.filter(known),
        Some(_) => token_ids(object, "bos_token_id")?.first().copied(),
    };
    let eos_token_ids = match object.get("eos_token_id") {
        None => eos.iter().copied().filter(known).collect(),
        Some(Value::Null) if family.is_glm() => eos.iter().copied().filter(known).collect(),
        Some(_) => token_ids(object, "eos_token_id")?,
    };
    match eos_token_ids.iter().chain(&bos_token_id).find(|id| !known(id)) {
        Some(id) => Err(EngineError::config(format!("token {id} is outside the vocabulary of {vocab_size}"))),
        None => Ok((bos_token_id, eos_token_ids)),
    }
}

/// From `model_type`, with which `architectures`, where given, must agree.
fn family(object: &Map<String, Value>) -> Result<Family> {
    let architecture = match object.get("architectures") {
        Some(Value::Array(names)) => names.first().and_then(Value::as_str),
        _ => None,
    };
    let model_type = object.get("model_type").and_then(Value::as_str);
    let by_type = model_type.map(|name| Family::ALL.into_iter().find(|family| family.model_type() == name));
    let by_architecture =
        architecture.map(|name| Family::ALL.into_iter().find(|family| family.architecture() == name));
    let unsupported = |name: &str| EngineError::Config {
        message: format!("architecture `{name}` is not supported"),
        hint: Some(format!("known are {}", Family::ALL.map(Family::architecture).join(", "))),
    };
    match (by_architecture, by_type) {
        (Some(None), _) => Err(unsupported(architecture.unwrap_or_default())),
        (_, Some(None)) => Err(unsupported(model_type.unwrap_or_default())),
        (Some(Some(a)), Some(Some(b))) if a != b => Err(EngineError::config(format!(
            "`architectures` says {} and `model_type` says {}",
            a.architecture(),
            b.model_type()
        ))),
        (Some(Some(family)), _) | (None, Some(Some(family))) => Ok(family),
        (None, None) => Err(EngineError::config("neither `architectures` nor `model_type` is there")),
    }
}

/// A key that is known and whose value changes the arithmetic in a way that is not computed here.
pub(super) fn unsupported(key: &str) -> EngineError {
    EngineError::Config {
        message: format!("`{key}` changes the arithmetic and is not supported"),
        hint: Some("serve this model through an upstream that knows it".into()),
    }
}

fn refuse_unknown(object: &Map<String, Value>) -> Result<()> {
    for (key, value) in object {
        match keys::judge(key, value) {
            Judgement::Fine => {}
            Judgement::Unsupported => return Err(unsupported(key)),
            Judgement::Unknown(nearest) => {
                return Err(EngineError::Config {
                    message: format!("unknown key `{key}`"),
                    hint: Some(match nearest {
                        Some(known) => format!("did you mean `{known}`?"),
                        None => "it may change the arithmetic; remove it if it does not".into(),
                    }),
                });
            }
        }
    }
    Ok(())
}

/// The attention's shape.
struct Heads {
    hidden_size: usize,
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
}

impl Heads {
    fn read(object: &Map<String, Value>, family: Family) -> Result<Self> {
        let hidden_size = positive(object, "hidden_size", MAX_WIDTH)?;
        let num_heads = positive(object, "num_attention_heads", MAX_HEADS)?;
        let num_kv_heads = match object.get("num_key_value_heads") {
            None if family == Family::Llama => num_heads,
            Some(Value::Null) if !family.is_glm() => num_heads,
            _ => positive(object, "num_key_value_heads", MAX_HEADS)?,
        };
        if !num_heads.is_multiple_of(num_kv_heads) {
            return Err(EngineError::config(format!(
                "`num_attention_heads` {num_heads} is not a multiple of `num_key_value_heads` {num_kv_heads}"
            )));
        }
        let head_dim = match object.get("head_dim") {
            None if family == Family::Qwen3 || family.is_glm() => 128,
            None | Some(Value::Null) if hidden_size.is_multiple_of(num_heads) => hidden_size / num_heads,
            None | Some(Value::Null) => {
                return Err(EngineError::config(format!(
                    "`hidden_size` {hidden_size} is not a multiple of `num_attention_heads` {num_heads}"
                )));
            }
            Some(_) => positive(object, "head_dim", MAX_HEAD_DIM)?,
        };
        if !head_dim.is_multiple_of(2) || head_dim > MAX_HEAD_DIM {
            return Err(EngineError::config(format!(
                "a head of {head_dim} cannot be rotated; it must be even and at most {MAX_HEAD_DIM}"
            )));
        }
        Ok(Self { hidden_size, num_heads, num_kv_heads, head_dim })
    }
}

/// A whole number from 1 to `limit`.
pub(super) fn positive(object: &Map<String, Value>, key: &str, limit: usize) -> Result<usize> {
    let value = object.get(key).ok_or_else(|| EngineError::config(format!("`{key}` is missing")))?;
    value
        .as_u64()
        .and_then(|value| usize::try_from(value).ok())
        .filter(|value| (1..=limit).contains(value))
        .ok_or_else(|| EngineError::config(format!("`{key}` is {value}; it must be from 1 to {limit}")))
}

/// A number that must be there.
pub(super) fn number(object: &Map<String, Value>, key: &str) -> Result<f64> {
    optional(object, key)?.ok_or_else(|| EngineError::config(format!("`{key}` is missing")))
}

/// A number that may be absent or `null`.
pub(super) fn optional(object: &Map<String, Value>, key: &str) -> Result<Option<f64>> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) => Ok(Some(number)),
            None => Err(EngineError::config(format!("`{key}` {value} is not a number"))),
        },
    }
}

/// A number above 0 and below 1, or `default` where it is absent.
fn small(object: &Map<String, Value>, key: &str, default: f64) -> Result<f32> {
    match optional(object, key)?.unwrap_or(default) {
        // What is 0 or 1 as a float of 32 bits is so everywhere else.
        value if (value as f32) > 0.0 && (value as f32) < 1.0 => Ok(value as f32),
        value => Err(EngineError::config(format!("`{key}` is {value}; it must be between 0 and 1"))),
    }
}

pub(super) fn flag(object: &Map<String, Value>, key: &str) -> Result<Option<bool>> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => Err(EngineError::config(format!("`{key}` {other} is not a boolean"))),
    }
}

/// Token ids under `key`: none, one, or a list.
pub(super) fn token_ids(object: &Map<String, Value>, key: &str) -> Result<Vec<u32>> {
    let one = |value: &Value| {
        value
            .as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| EngineError::config(format!("`{key}` holds {value}, which is not a token id")))
    };
    match object.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(values)) => values.iter().map(one).collect(),
        Some(value) => Ok(vec![one(value)?]),
    }
}
