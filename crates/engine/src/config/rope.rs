//! The rotary position embedding's part of the configuration.

use serde_json::{Map, Value, json};

use super::raw::{number, optional, positive};
use crate::{EngineError, Result};

/// Rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base of the wavelengths.
    pub theta: f64,
    /// How it is stretched beyond the length of pretraining.
    pub scaling: RopeScaling,
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
];

/// Reads `rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (transformers 4) from a
/// whole configuration. `context` is its `max_position_embeddings`.
pub(super) fn read(object: &Map<String, Value>, context: usize) -> Result<RopeConfig> {
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
    if optional(table, "partial_rotary_factor")?.is_some_and(|share| share != 1.0) {
        return Err(EngineError::config("`partial_rotary_factor` other than 1 is not supported"));
    }
    let (inner, outer) = (optional(table, "rope_theta")?, optional(object, "rope_theta")?);
    if let (Some(inner), Some(outer)) = (inner, outer)
        && inner != outer
    {
        return Err(EngineError::config(format!("`rope_theta` is {outer} and {inner} at once")));
    }
    let theta = inner.or(outer).unwrap_or(10_000.0);
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
    Ok(RopeConfig { theta, scaling: read_scaling(table, original, context)? })
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
        other => Err(EngineError::Config {
            message: format!("rope type `{other}` is not supported"),
            hint: Some("known are default, linear, dynamic, llama3 and yarn".into()),
        }),
    }
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
