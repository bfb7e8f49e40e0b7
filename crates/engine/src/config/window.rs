//! The sliding window's part of the configuration: how far back which blocks look.

use serde_json::{Map, Value, json};

use super::{
    Family, ModelConfig,
    raw::{MAX_CONTEXT, flag, positive, unsupported},
};
use crate::{EngineError, Result};

/// What transformers takes where `sliding_window` is not there.
const DEFAULT_WINDOW: usize = 4096;
/// What transformers takes where `max_window_layers` is not there.
const DEFAULT_FULL_LAYERS: usize = 28;

/// The width of the window, and for each of `num_layers` blocks whether it looks through it. A window that is as
/// long as the `context` is never felt and counts as none.
pub(super) fn read(
    object: &Map<String, Value>,
    family: Family,
    num_layers: usize,
    context: usize,
) -> Result<(Option<usize>, Vec<bool>)> {
    let felt = |width: &usize| *width < context;
    let kinds = layer_types(object, num_layers)?;
    let (width, windowed) = match family {
        Family::Mistral => {
            let width = width(object)?.filter(felt);
            if width.is_some() && flag(object, "use_sliding_window")? == Some(false) {
                return Err(EngineError::config(
                    "`use_sliding_window` is off and `sliding_window` is set, which Mistral heeds alone",
                ));
            }
            (width, vec![width.is_some(); num_layers])
        }
        Family::Qwen2 | Family::Qwen3 => {
            let on = flag(object, "use_sliding_window")?.unwrap_or(false);
            let width = if on { width(object)? } else { None };
            let full = match object.get("max_window_layers") {
                None | Some(Value::Null) => DEFAULT_FULL_LAYERS,
                Some(Value::Number(number)) if number.as_u64() == Some(0) => 0,
                Some(_) => positive(object, "max_window_layers", MAX_CONTEXT)?,
            };
            if width.is_none() && kinds.iter().flatten().any(|sliding| *sliding) {
                return Err(EngineError::config(
                    "`layer_types` names sliding_attention, but no `sliding_window` is switched on",
                ));
            }
            let by_depth = || (0..num_layers).map(|layer| width.is_some() && layer >= full).collect();
            (width.filter(felt), kinds.clone().unwrap_or_else(by_depth))
        }
        Family::Llama | Family::Glm | Family::Glm4 => {
            if flag(object, "use_sliding_window")? == Some(true) {
                return Err(unsupported("use_sliding_window"));
            }
            let given = object.get("sliding_window").is_some_and(|value| !value.is_null());
            // These have no switch: a window that is given would be meant, unless it is said to be off.
            if given
                && flag(object, "use_sliding_window")?.is_none()
                && width(object)?.as_ref().is_some_and(felt)
            {
                return Err(unsupported("sliding_window"));
            }
            (None, vec![false; num_layers])
        }
    };
    // Only Qwen chooses block by block.
    let chooses = matches!(family, Family::Qwen2 | Family::Qwen3);
    if !chooses && kinds.is_some_and(|kinds| kinds != windowed) {
        return Err(unsupported("layer_types"));
    }
    if width.is_some() && windowed.contains(&true) { Ok((width, windowed)) } else { Ok((None, Vec::new())) }
}

fn width(object: &Map<String, Value>) -> Result<Option<usize>> {
    match object.get("sliding_window") {
        None => Ok(Some(DEFAULT_WINDOW)),
        Some(Value::Null) => Ok(None),
        Some(_) => positive(object, "sliding_window", MAX_CONTEXT).map(Some),
    }
}

/// For each block whether `layer_types` says that it slides; `None` where the key is not there.
fn layer_types(object: &Map<String, Value>, num_layers: usize) -> Result<Option<Vec<bool>>> {
    let kinds = match object.get("layer_types") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(kinds)) => kinds,
        Some(other) => return Err(EngineError::config(format!("`layer_types` {other} is not a list"))),
    };
    if kinds.len() != num_layers {
        return Err(EngineError::config(format!(
            "`layer_types` has {} entries for {num_layers} layers",
            kinds.len()
        )));
    }
    let sliding = |kind: &Value| match kind.as_str() {
        Some("full_attention") => Ok(false),
        Some("sliding_attention") => Ok(true),
        _ => Err(EngineError::Config {
            message: format!("layer type {kind} is not supported"),
            hint: Some("known are full_attention and sliding_attention".into()),
        }),
    };
    kinds.iter().map(sliding).collect::<Result<_>>().map(Some)
}

/// Adds the keys that [`read`] reads the same windows from.
pub(super) fn write(map: &mut Map<String, Value>, config: &ModelConfig) {
    match config.family {
        Family::Mistral => {
            map.insert("sliding_window".into(), json!(config.sliding_window));
        }
        Family::Qwen2 | Family::Qwen3 => {
            map.insert("use_sliding_window".into(), json!(config.sliding_window.is_some()));
            if config.sliding_window.is_some() {
                let kinds = config
                    .windowed_layers
                    .iter()
                    .map(|windowed| if *windowed { "sliding_attention" } else { "full_attention" });
                map.insert("sliding_window".into(), json!(config.sliding_window));
                map.insert("layer_types".into(), kinds.collect());
            }
        }
        Family::Llama | Family::Glm | Family::Glm4 => {}
    }
}
