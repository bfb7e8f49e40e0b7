//! The fields that say how tokens are drawn; both completion endpoints have them.

use autoglm_domain::Sampling;
use serde_json::Value;

use crate::{
    Config, GatewayError,
    fields::{Fields, wrong_type},
};

type Result<T> = std::result::Result<T, GatewayError>;

/// Most stop strings (OpenAI takes 4).
const MAX_STOPS: usize = 16;

/// Most alternatives a token.
pub(crate) const MAX_LOGPROBS: i64 = 20;

/// Most tokens with a bias, and the largest bias either way.
const MAX_BIASED: usize = 1024;
const MAX_BIAS: f64 = 100.0;

/// Reads temperature, truncations, penalties, seed and stop strings; token limits and log-probabilities
/// differ between the endpoints and are read there.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the ranges are checked")]
pub(crate) fn sampling(fields: &mut Fields, config: &Config) -> Result<Sampling> {
    let float = |value: Option<f64>, default: f32| value.map_or(default, |value| value as f32);
    let none = Sampling::default();
    let sampling = Sampling {
        temperature: float(fields.number("temperature", 0.0..=2.0)?, config.temperature),
        top_p: float(fields.number("top_p", 0.0..=1.0)?, none.top_p),
        // vLLM's clients send -1 for off.
        top_k: fields.integer("top_k", -1..=i64::from(u32::MAX))?.map_or(none.top_k, |k| k.max(0) as u32),
        min_p: float(fields.number("min_p", 0.0..=1.0)?, none.min_p),
        repetition_penalty: float(fields.number("repetition_penalty", 0.01..=10.0)?, none.repetition_penalty),
        frequency_penalty: float(fields.number("frequency_penalty", -2.0..=2.0)?, none.frequency_penalty),
        presence_penalty: float(fields.number("presence_penalty", -2.0..=2.0)?, none.presence_penalty),
        seed: fields.integer("seed", i64::MIN..=i64::MAX)?.map(|seed| seed as u64),
        stop: stop(fields)?,
        logit_bias: logit_bias(fields)?,
        token_ids: fields.boolean("return_token_ids")?.unwrap_or(false),
        prompt_logprobs: prompt_logprobs(fields)?,
        ..none
    };
    if sampling.top_p <= 0.0 {
        return Err(GatewayError::value(
            "top_p",
            "`top_p` is 0, which leaves no token to draw (hint: 1 is off)",
        ));
    }
    Ok(sampling)
}

fn stop(fields: &mut Fields) -> Result<Vec<String>> {
    let stops = match fields.any("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(values)) => values
            .into_iter()
            .enumerate()
            .map(|(i, value)| match value {
                Value::String(text) => Ok(text),
                other => Err(wrong_type(&format!("stop[{i}]"), "a string", &other)),
            })
            .collect::<Result<_>>()?,
        Some(other) => {
            return Err(wrong_type("stop", "a string or an array of strings", &other));
        }
    };
    if stops.len() > MAX_STOPS {
        let message = format!("`stop` has {} strings, more than {MAX_STOPS}", stops.len());
        return Err(GatewayError::value("stop", message));
    }
    if stops.iter().any(String::is_empty) {
        return Err(GatewayError::value(
            "stop",
            "`stop` holds an empty string, at which every answer would end",
        ));
    }
    Ok(stops)
}

/// Reads `logit_bias`: an object from token id to bias.
#[allow(clippy::cast_possible_truncation, reason = "the range is checked")]
fn logit_bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>> {
    let Some(value) = fields.any("logit_bias") else { return Ok(Vec::new()) };
    let Value::Object(map) = value else {
        return Err(wrong_type("logit_bias", "an object from token id to bias", &value));
    };
    if map.len() > MAX_BIASED {
        let message = format!("`logit_bias` names {} tokens, more than {MAX_BIASED}", map.len());
        return Err(GatewayError::value("logit_bias", message));
    }
    map.into_iter()
        .map(|(key, value)| {
            let path = format!("logit_bias.{key}");
            let id = key.parse().map_err(|_| {
                let message = format!("`{key}` is not the id of a token (hint: ids are whole numbers)");
                GatewayError::value("logit_bias", message)
            })?;
            let bias = value.as_f64().ok_or_else(|| wrong_type(&path, "a number", &value))?;
            if bias.abs() > MAX_BIAS {
                let message = format!("`{path}` is {bias}; it must be from -{MAX_BIAS} to {MAX_BIAS}");
                return Err(GatewayError::value(path, message));
            }
            Ok((id, bias as f32))
        })
        .collect()
}

/// Reads `prompt_logprobs`, vLLM's name for scores of the prompt's tokens.
fn prompt_logprobs(fields: &mut Fields) -> Result<Option<u32>> {
    let top = fields.integer("prompt_logprobs", 0..=MAX_LOGPROBS)?;
    Ok(top.and_then(|top| u32::try_from(top).ok()))
}

/// Reads `n`.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
pub(crate) fn choices(fields: &mut Fields, config: &Config) -> Result<usize> {
    let most = i64::try_from(config.max_choices).unwrap_or(i64::MAX);
    Ok(fields.integer("n", 1..=most)?.map_or(1, |n| n as usize))
}

/// Reads a token limit of at least `least`.
pub(crate) fn tokens(fields: &mut Fields, key: &'static str, least: i64) -> Result<Option<u32>> {
    let limit = fields.integer(key, least..=i64::from(u32::MAX))?;
    Ok(limit.and_then(|limit| u32::try_from(limit).ok()))
}
