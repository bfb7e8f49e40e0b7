//! Verifiers: programs that decide whether an answer is right.
//!
//! In: an answer with a reference, or with a constraint of the request. Out: a [`Check`].

use serde_json::{Map, Value};

use crate::{accuracy::AccuracyConfig, dimension::Subject, format, number, pattern_source, text::normalise};

/// What a verifier found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Right; the verifier's name.
    Passed(&'static str),
    /// Wrong; the verifier's name and a finding.
    Failed(&'static str, String),
    /// This verifier cannot tell.
    Undecided,
}

/// Most bytes of a JSON schema.
const SCHEMA_LIMIT: usize = 64 * 1024;
/// Most bytes of an answer that a schema is applied to.
const INSTANCE_LIMIT: usize = 1 << 20;

/// Whether `answer` says the same as `reference`: exactly, in normal form, as a number, or as JSON. Numbers and
/// JSON objects that differ are wrong however similar they look; other differences are `Undecided`.
pub fn equality(answer: &str, reference: &str, tolerance: Option<f64>, config: &AccuracyConfig) -> Check {
    if answer.trim() == reference.trim() {
        return Check::Passed("exact_match");
    }
    let normal = normalise(reference, config.ignore_articles);
    if !normal.is_empty() && normal == normalise(answer, config.ignore_articles) {
        return Check::Passed("normalised_match");
    }
    // `3 apples` and `7 eleven` are labels, `3 km` is a number.
    let measured = |quantity: &number::Quantity| quantity.unit.as_deref().is_none_or(number::is_base_unit);
    if let Some(wanted) = number::parse(reference).filter(measured) {
        return numeric(answer, &wanted, tolerance, config.numeric_tolerance);
    }
    if let Some(wanted) = structure(reference) {
        return match structure(answer) {
            Some(given) if same_json(&wanted, &given) => Check::Passed("json_match"),
            Some(given) => Check::Failed("json_match", json_difference(&wanted, &given)),
            None => Check::Failed("json_match", "the reference is JSON, the answer is not".into()),
        };
    }
    Check::Undecided
}

/// A whole answer that is a number, or the last number of a longer one (`… so the answer is 42.`).
fn numeric(answer: &str, wanted: &number::Quantity, tolerance: Option<f64>, default: f64) -> Check {
    let given = match number::parse(answer) {
        Some(given) => Some(given),
        None => number::find_all(answer).pop().map(|found| number::Quantity {
            // In running text the next word need not be a unit.
            unit: found.unit.filter(|unit| wanted.unit.as_ref() == Some(unit)),
            ..found
        }),
    };
    match given {
        Some(given) if number::agree(wanted, &given, tolerance, default) => Check::Passed("numeric"),
        Some(_) => Check::Failed("numeric", "the answer states another number than the reference".into()),
        None => Check::Failed("numeric", "the reference is a number, the answer states none".into()),
    }
}

/// The JSON object or array that a text is.
fn structure(text: &str) -> Option<Value> {
    let head = text.trim_start();
    if !head.starts_with(['{', '[', '`']) {
        return None;
    }
    format::json(text).ok().filter(|value| value.is_object() || value.is_array())
}

/// Equal whatever the order of keys and the way that numbers are written. Both are at most 128 deep.
fn same_json(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(l, r)| same_json(l, r))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, l)| right.get(key).is_some_and(|r| same_json(l, r)))
        }
        (left, right) => left == right,
    }
}

fn json_difference(wanted: &Value, given: &Value) -> String {
    let empty = Map::new();
    let (wanted_keys, given_keys) =
        (wanted.as_object().unwrap_or(&empty), given.as_object().unwrap_or(&empty));
    let differing = wanted_keys
        .iter()
        .filter(|(key, value)| given_keys.get(*key).is_none_or(|other| !same_json(value, other)))
        .count();
    let extra = given_keys.keys().filter(|key| !wanted_keys.contains_key(*key)).count();
    if wanted.is_object() && given.is_object() {
        format!("{differing} of {} keys differ from the reference, {extra} are too many", wanted_keys.len())
    } else {
        "the answer is other JSON than the reference".into()
    }
}

/// What the request's metadata demands of any answer: `json_schema` and `regex`. A constraint that is itself
/// broken is reported as undecided, with a log line, and never held against the answer.
pub(crate) fn constraints(subject: &Subject<'_>, regex_limit: usize) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(schema) = subject.metadata("json_schema") {
        checks.push(json_schema(subject.answer, schema));
    }
    if let Some(source) = subject.metadata("regex") {
        checks.push(match pattern_source::compile(source, "metadata.regex", false, regex_limit) {
            Ok(regex) if regex.is_match(subject.answer.trim()) => Check::Passed("regex"),
            Ok(_) => Check::Failed("regex", "the answer does not match the regular expression".into()),
            Err(error) => {
                tracing::debug!(%error, "a request's regular expression is not usable");
                Check::Undecided
            }
        });
    }
    checks
}

/// Whether `answer` is JSON that satisfies `schema`. References to other documents are not followed.
pub fn json_schema(answer: &str, schema: &str) -> Check {
    const BY: &str = "json_schema";
    if schema.len() > SCHEMA_LIMIT || answer.len() > INSTANCE_LIMIT {
        return Check::Undecided;
    }
    let Ok(schema) = serde_json::from_str::<Value>(schema) else { return Check::Undecided };
    let options = jsonschema::PatternOptions::regex()
        .size_limit(pattern_source::COMPILED_LIMIT)
        .dfa_size_limit(pattern_source::COMPILED_LIMIT);
    let validator = match jsonschema::options().offline().with_pattern_options(options).build(&schema) {
        Ok(validator) => validator,
        Err(error) => {
            tracing::debug!(%error, "a request's JSON schema is not usable");
            return Check::Undecided;
        }
    };
    match format::json(answer) {
        Err(reason) => Check::Failed(BY, reason),
        Ok(instance) => match validator.iter_errors(&instance).next() {
            None => Check::Passed(BY),
            Some(error) => Check::Failed(
                BY,
                format!(
                    "the answer breaks the JSON schema at `{}`",
                    crate::text::excerpt(&error.instance_path().to_string(), 80)
                ),
            ),
        },
    }
}
