//! `adapter_config.json`: what of it is understood, and what would change the arithmetic if ignored.

use serde_json::{Map, Value};

use crate::ScanLimits;

/// The largest configuration that is read, bytes; real ones have about a thousand.
const MAX_CONFIG_BYTES: usize = 1 << 20;

/// Keys without influence on what the stored matrices compute.
const HARMLESS: &[&str] = &[
    "task_type",
    "base_model_name_or_path",
    "base_model_class",
    "parent_library",
    "auto_mapping",
    "revision",
    "inference_mode",
    "peft_version",
    "lora_dropout",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "megatron_core",
    "runtime_config",
    "eva_config",
    "corda_config",
    "loftq_config",
    "lora_ga_config",
    "qalora_group_size",
    "ensure_weight_tying",
];

/// What the tensors are checked against.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PeftConfig {
    pub(crate) rank: u64,
    /// `lora_alpha / r`, or `lora_alpha / √r` with `use_rslora`.
    pub(crate) scale: f64,
    /// `None` where the modules are named by a pattern.
    pub(crate) target_modules: Option<Vec<String>>,
    pub(crate) modules_to_save: Vec<String>,
    /// Whether a trained embedding brings the output matrix that the base model ties to it.
    pub(crate) ties_output: bool,
}

/// Reads a configuration. What is wrong with it goes to `findings`; `None` when the tensors cannot be
/// checked against it.
pub(crate) fn read(bytes: &[u8], limits: &ScanLimits, findings: &mut Vec<String>) -> Option<PeftConfig> {
    if bytes.len() > MAX_CONFIG_BYTES {
        findings.push(format!("adapter_config.json has {} bytes, more than {MAX_CONFIG_BYTES}", bytes.len()));
        return None;
    }
    let object = match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(object)) => object,
        Ok(_) => {
            findings.push("adapter_config.json is not an object".into());
            return None;
        }
        Err(error) => {
            findings.push(format!("adapter_config.json is not json: {error}"));
            return None;
        }
    };
    for (key, value) in &object {
        findings.extend(judge(key, value));
    }
    if !object.contains_key("peft_type") {
        findings.push("adapter_config.json has no `peft_type`".into());
    }
    let rank = rank(&object, limits, findings);
    let alpha = alpha(&object, findings);
    let target_modules = modules(&object, "target_modules", findings);
    let modules_to_save = modules(&object, "modules_to_save", findings).unwrap_or_default();
    let rank = rank?;
    #[allow(clippy::cast_precision_loss, reason = "ranks are far below 2^52")]
    let ranks = rank as f64;
    let stabilised = object.get("use_rslora").is_some_and(|value| value == true);
    let scale = alpha? / if stabilised { ranks.sqrt() } else { ranks };
    let ties_output = object.get("ensure_weight_tying").is_some_and(|value| value == true);
    Some(PeftConfig { rank, scale, target_modules, modules_to_save, ties_output })
}

/// What is wrong with a key other than those that [`read`] takes itself.
fn judge(key: &str, value: &Value) -> Option<String> {
    match key {
        "r" | "lora_alpha" | "target_modules" | "modules_to_save" => None,
        "peft_type" if value == "LORA" => None,
        "peft_type" => Some(format!("`peft_type` is {value}: only \"LORA\" is understood")),
        "bias" if value == "none" || value.is_null() => None,
        "bias" => Some(format!("`bias` is {value}: only \"none\" is understood")),
        "use_rslora" if value.is_boolean() => None,
        "init_lora_weights" => init(value),
        _ if HARMLESS.contains(&key) || is_inert(value) => None,
        _ => Some(format!("`{key}` is {}: it changes the arithmetic and is not understood", brief(value))),
    }
}

/// Whether a setting that is not known can be off: null, false, or empty.
fn is_inert(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Ways to start the matrices. Some (`pissa`, `olora`, `loftq`, …) also change the base weights, so that
/// the stored matrices fit only a base that nobody else has.
fn init(value: &Value) -> Option<String> {
    match value {
        Value::Bool(_) | Value::Null => None,
        Value::String(way) if ["gaussian", "eva", "orthogonal"].contains(&way.as_str()) => None,
        other => {
            Some(format!("`init_lora_weights` is {}: it changes the base model's weights", brief(other)))
        }
    }
}

fn rank(object: &Map<String, Value>, limits: &ScanLimits, findings: &mut Vec<String>) -> Option<u64> {
    match object.get("r").and_then(Value::as_u64) {
        Some(rank) if (1..=u64::from(limits.max_rank)).contains(&rank) => Some(rank),
        Some(rank) => {
            findings.push(format!("the rank `r` is {rank}: it must lie between 1 and {}", limits.max_rank));
            None
        }
        None => {
            findings.push("adapter_config.json has no whole number `r`".into());
            None
        }
    }
}

fn alpha(object: &Map<String, Value>, findings: &mut Vec<String>) -> Option<f64> {
    let alpha = object.get("lora_alpha").and_then(Value::as_f64).filter(|alpha| alpha.is_finite());
    if alpha.is_none() {
        findings.push("adapter_config.json has no number `lora_alpha`".into());
    }
    alpha
}

/// A list of module names; `None` where it is null, missing, or a pattern.
fn modules(object: &Map<String, Value>, key: &str, findings: &mut Vec<String>) -> Option<Vec<String>> {
    match object.get(key)? {
        Value::Array(items) => {
            let names: Vec<String> = items.iter().filter_map(Value::as_str).map(String::from).collect();
            if names.len() < items.len() {
                findings.push(format!("`{key}` holds something other than names"));
            }
            Some(names)
        }
        Value::Null => None,
        Value::String(_) if key == "target_modules" => None,
        other => {
            findings.push(format!("`{key}` is {}, not a list of names", brief(other)));
            None
        }
    }
}

/// A value as it fits into a message.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 { text } else { text.chars().take(57).collect::<String>() + "…" }
}
