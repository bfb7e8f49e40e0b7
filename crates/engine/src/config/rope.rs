//! The rotary position embedding's part of the configuration.

use serde_json::{Map, Value, json};

use super::{
    Family,
    raw::{number, optional, positive, unsupported},
};
use crate::{EngineError, Result};

/// Rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base of the wavelengths.
    pub theta: f64,
    /// How it is stretched beyond the length of pretraining.
    pub scaling: RopeScaling,
    /// The share of each head, from its first value, that is rotated; the rest passes as it is.
    pub partial_rotary_factor: f64,
    /// Whether a pair that is rotated together lies side by side (`2i`, `2i + 1`), as in GLM and Cohere; else
    /// its halves lie half the rotated width apart, as in Llama.
    pub interleaved: bool,
}

impl RopeConfig {
    /// The whole of each head rotated, halves apart.
    pub fn whole(theta: f64, scaling: RopeScaling) -> Self {
        Self { theta, scaling, partial_rotary_factor: 1.0, interleaved: false }
    }
}

/// Ways to stretch the rotary embedding; the frequencies are [`crate::rope_frequencies`]'s.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// As pretrained.
    None,
    /// Positions divided by `factor`.
    Linear {
        /// Stretch.
        factor: f64,
    },
    /// NTK-aware; changes nothing within `max_position_embeddings`, which is as far as this engine goes.
    Dynamic {
        /// Stretch.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, those between blended.
    Llama3 {
        /// Stretch.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are stretched.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Length of pretraining.
        original_max_position_embeddings: usize,
    },
    /// Each frequency divided by a factor of its own, as a GGUF file may hold them.
    Factors(
        /// One for each frequency, `[rotary_dim / 2]`; positive.
        Vec<f32>,
    ),
    /// YaRN (Peng et al. 2023): blended by rotations over the pretraining length, attention rescaled.
    Yarn {
        /// Stretch.
        factor: f64,
        /// Dimensions with more rotations than this are kept.
        beta_fast: f64,
        /// Dimensions with fewer rotations than this are stretched.
        beta_slow: f64,
        /// Multiplies the rotation's cosines and sines.
        attention_factor: f64,
        /// Length of pretraining.
        original_max_position_embeddings: usize,
        /// Whether the ends of the blend are rounded to whole dimensions.
        truncate: bool,
    },
}

const ROPE_KEYS: &[&str] = &[
    "rope_type",
    "type",
    "rope_theta",
    "partial_rotary_factor",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
    "beta_fast",
    "beta_slow",
    "attention_factor",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "factors",
];

/// Reads `rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (transformers 4) from a
/// whole configuration. `context` is its `max_position_embeddings`.
pub(super) fn read(
    object: &Map<String, Value>,
    family: Family,
    head_dim: usize,
    context: usize,
) -> Result<RopeConfig> {
    let table = |key: &str| match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(table)) => Ok(Some(table)),
        Some(_) => Err(EngineError::config(format!("`{key}` is not an object"))),
    };
    let (old, new) = (table("rope_scaling")?, table("rope_parameters")?);
    if let (Some(old), Some(new)) = (old, new)
        && old != new
    {
        return Err(EngineError::config("`rope_scaling` and `rope_parameters` contradict each other"));
    }
    let empty = Map::new();
    let table = new.or(old).unwrap_or(&empty);
    if let Some(key) = table.keys().find(|key| !ROPE_KEYS.contains(&key.as_str())) {
        return Err(EngineError::Config {
            message: format!("unknown key `{key}` among the rope parameters"),
            hint: Some("it may change the arithmetic; this engine does not know it".into()),
        });
    }
    let theta = in_either(table, object, "rope_theta")?.unwrap_or(10_000.0);
    if !(theta > 1.0 && theta.is_finite()) {
        return Err(EngineError::config(format!("`rope_theta` is {theta}; it must be above 1")));
    }
    let original = match optional(object, "original_max_position_embeddings")? {
        Some(_) => positive(object, "original_max_position_embeddings", super::raw::MAX_CONTEXT)?,
        None if table.contains_key("original_max_position_embeddings") => {
            positive(table, "original_max_position_embeddings", super::raw::MAX_CONTEXT)?
        }
        None => context,
    };
    let scaling = read_scaling(table, original, context)?;
    let partial_rotary_factor = read_share(table, object, family, head_dim)?;
    let frequencies = (head_dim as f64 * partial_rotary_factor) as usize / 2;
    if let RopeScaling::Factors(factors) = &scaling
        && factors.len() != frequencies
    {
        let count = factors.len();
        return Err(EngineError::config(format!(
            "there are {count} `factors` for {frequencies} frequencies"
        )));
    }
    Ok(RopeConfig { theta, scaling, partial_rotary_factor, interleaved: family.is_glm() })
}

/// A number that transformers 4 put beside the rope parameters and transformers 5 puts among them.
fn in_either(table: &Map<String, Value>, object: &Map<String, Value>, key: &str) -> Result<Option<f64>> {
    let (inner, outer) = (optional(table, key)?, optional(object, key)?);
    match (inner, outer) {
        (Some(inner), Some(outer)) if inner != outer => {
            Err(EngineError::config(format!("`{key}` is {outer} and {inner} at once")))
        }
        _ => Ok(inner.or(outer)),
    }
}

/// `partial_rotary_factor`, of which only GLM computes any other than 1.
fn read_share(
    table: &Map<String, Value>,
    object: &Map<String, Value>,
    family: Family,
    head_dim: usize,
) -> Result<f64> {
    let given = in_either(table, object, "partial_rotary_factor")?;
    if !family.is_glm() {
        return match given {
            None | Some(1.0) => Ok(1.0),
            Some(_) => Err(unsupported("partial_rotary_factor")),
        };
    }
    let share = given.unwrap_or(0.5);
    if !(share > 0.0 && share <= 1.0) {
        return Err(EngineError::config(format!(
            "`partial_rotary_factor` is {share}; it must be above 0 and at most 1"
        )));
    }
    let rotated = (head_dim as f64 * share) as usize;
    if rotated == 0 || !rotated.is_multiple_of(2) {
        return Err(EngineError::config(format!(
            "`partial_rotary_factor` {share} rotates {rotated} of {head_dim} values of a head; it must be an even number"
        )));
    }
    Ok(share)
}

fn read_scaling(table: &Map<String, Value>, original: usize, context: usize) -> Result<RopeScaling> {
    let kind = match table.get("rope_type").or_else(|| table.get("type")) {
        None | Some(Value::Null) => "default",
        Some(Value::String(kind)) => kind.as_str(),
        Some(other) => return Err(EngineError::config(format!("`rope_type` {other} is not a string"))),
    };
    let factor = || match number(table, "factor")? {
        factor if factor >= 1.0 && factor.is_finite() => Ok(factor),
        factor => Err(EngineError::config(format!("rope `factor` is {factor}; it must be at least 1"))),
    };
    match kind {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: factor()? }),
        "dynamic" => Ok(RopeScaling::Dynamic { factor: factor()? }),
        "llama3" => {
            let (low, high) = (number(table, "low_freq_factor")?, number(table, "high_freq_factor")?);
            if !(low > 0.0 && high > low && high.is_finite()) {
                return Err(EngineError::config(format!(
                    "`high_freq_factor` {high} must be above `low_freq_factor` {low}, both positive"
                )));
            }
            Ok(RopeScaling::Llama3 {
                factor: factor()?,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            })
        }
        "yarn" => read_yarn(table, original, context),
        "factors" => read_factors(table),
        other => Err(EngineError::Config {
            message: format!("rope type `{other}` is not supported"),
            hint: Some("known are default, linear, dynamic, llama3 and yarn".into()),
        }),
    }
}

/// `rope_type` `factors` is this engine's own word, for what GGUF files hold.
fn read_factors(table: &Map<String, Value>) -> Result<RopeScaling> {
    let factor = |value: &Value| {
        value
            .as_f64()
            .map(|value| value as f32)
            .filter(|value| *value > 0.0 && value.is_finite())
            .ok_or_else(|| EngineError::config(format!("`factors` holds {value}; each must be positive")))
    };
    let values = table.get("factors").and_then(Value::as_array);
    let values = values.ok_or_else(|| EngineError::config("`factors` is not a list"))?;
    values.iter().map(factor).collect::<Result<_>>().map(RopeScaling::Factors)
}

fn read_yarn(table: &Map<String, Value>, original: usize, context: usize) -> Result<RopeScaling> {
    let factor = optional(table, "factor")?.unwrap_or(context as f64 / original as f64);
    if !(factor > 0.0 && factor.is_finite()) {
        return Err(EngineError::config(format!("rope `factor` is {factor}; it must be positive")));
    }
    let mscale = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    let non_zero = |key| Ok::<_, EngineError>(optional(table, key)?.filter(|value| *value != 0.0));
    let attention_factor = match optional(table, "attention_factor")? {
        Some(given) => given,
        None => match (non_zero("mscale")?, non_zero("mscale_all_dim")?) {
            (Some(scale), Some(all)) => mscale(scale) / mscale(all),
            _ => mscale(1.0),
        },
    };
    let beta_fast = non_zero("beta_fast")?.unwrap_or(32.0);
    let beta_slow = non_zero("beta_slow")?.unwrap_or(1.0);
    if !(beta_slow > 0.0 && beta_fast >= beta_slow && attention_factor > 0.0) {
        return Err(EngineError::config("yarn needs `beta_fast` >= `beta_slow` > 0 and a positive scale"));
    }
    let truncate = match table.get("truncate") {
        None | Some(Value::Null) => true,
        Some(Value::Bool(truncate)) => *truncate,
        Some(other) => return Err(EngineError::config(format!("`truncate` {other} is not a boolean"))),
    };
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast,
        beta_slow,
        attention_factor,
        original_max_position_embeddings: original,
        truncate,
    })
}

impl RopeScaling {
    /// The `rope_scaling` of transformers 4; `null` without scaling.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            Self::Dynamic { factor } => json!({"rope_type": "dynamic", "factor": factor}),
            Self::Factors(factors) => json!({"rope_type": "factors", "factors": factors}),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                json!({
                    "rope_type": "llama3",
                    "factor": factor,
                    "low_freq_factor": low_freq_factor,
                    "high_freq_factor": high_freq_factor,
                    "original_max_position_embeddings": original_max_position_embeddings,
                })
            }
            Self::Yarn {
                factor,
                beta_fast,
                beta_slow,
                attention_factor,
                original_max_position_embeddings,
                truncate,
            } => json!({
                "rope_type": "yarn",
                "factor": factor,
                "beta_fast": beta_fast,
                "beta_slow": beta_slow,
                "attention_factor": attention_factor,
                "original_max_position_embeddings": original_max_position_embeddings,
                "truncate": truncate,
            }),
        }
    }
}
