//! A JSON object being read field by field: every mistake is named by its path, no field is left unread.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::GatewayError;

type Result<T> = std::result::Result<T, GatewayError>;

/// A JSON object of which fields are taken until [`Fields::finish`] finds it empty. `null` is as good as
/// absent, as it is for OpenAI.
#[derive(Debug)]
pub(crate) struct Fields {
    map: Map<String, Value>,
    path: String,
    known: Vec<&'static str>,
}

impl Fields {
    /// The body of a request.
    pub(crate) fn of_body(body: Value) -> Result<Self> {
        match body {
            Value::Object(map) => Ok(Self { map, path: String::new(), known: Vec::new() }),
            other => Err(GatewayError::Refused(format!(
                "the request body is {}, expected an object",
                noun(&other)
            ))),
        }
    }

    /// An object inside a body; `path` is where it stands.
    pub(crate) fn nested(value: Value, path: String) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Self { map, path, known: Vec::new() }),
            other => Err(wrong_type(&path, "an object", &other)),
        }
    }

    /// Where `key` stands in the body.
    pub(crate) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value of `key`, whatever its type.
    pub(crate) fn any(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.map.remove(key).filter(|value| !value.is_null())
    }

    pub(crate) fn string(&mut self, key: &'static str) -> Result<Option<String>> {
        match self.any(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_type(&self.path_of(key), "a string", &other)),
        }
    }

    pub(crate) fn boolean(&mut self, key: &'static str) -> Result<Option<bool>> {
        match self.any(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_type(&self.path_of(key), "a boolean", &other)),
        }
    }

    pub(crate) fn array(&mut self, key: &'static str) -> Result<Option<Vec<Value>>> {
        match self.any(key) {
            None => Ok(None),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(other) => Err(wrong_type(&self.path_of(key), "an array", &other)),
        }
    }

    pub(crate) fn object(&mut self, key: &'static str) -> Result<Option<Self>> {
        let path = self.path_of(key);
        self.any(key).map(|value| Self::nested(value, path)).transpose()
    }

    pub(crate) fn number(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Result<Option<f64>> {
        let Some(value) = self.any(key) else { return Ok(None) };
        let path = self.path_of(key);
        let number = value.as_f64().ok_or_else(|| wrong_type(&path, "a number", &value))?;
        if number < *range.start() {
            let message = format!("`{path}` is {number}, less than the least value {}", range.start());
            return Err(GatewayError::field(path, "decimal_below_min_value", message));
        }
        if number > *range.end() {
            let message = format!("`{path}` is {number}, more than the greatest value {}", range.end());
            return Err(GatewayError::field(path, "decimal_above_max_value", message));
        }
        Ok(Some(number))
    }

    pub(crate) fn integer(&mut self, key: &'static str, range: RangeInclusive<i64>) -> Result<Option<i64>> {
        let Some(value) = self.any(key) else { return Ok(None) };
        let path = self.path_of(key);
        // `5.0` is an integer to JavaScript clients.
        #[allow(clippy::cast_possible_truncation, reason = "the bounds are checked")]
        let integer = value
            .as_i64()
            .or_else(|| value.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9e15).map(|n| n as i64));
        let integer = integer.ok_or_else(|| wrong_type(&path, "an integer", &value))?;
        if integer < *range.start() {
            let message = format!("`{path}` is {integer}, less than the least value {}", range.start());
            return Err(GatewayError::field(path, "integer_below_min_value", message));
        }
        if integer > *range.end() {
            let message = format!("`{path}` is {integer}, more than the greatest value {}", range.end());
            return Err(GatewayError::field(path, "integer_above_max_value", message));
        }
        Ok(Some(integer))
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Result<Option<T>> {
        let Some(text) = self.string(key)? else { return Ok(None) };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(Some(*value));
        }
        let path = self.path_of(key);
        let known: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let message = format!("`{path}` is `{text}`, which is none of {}", known.join(", "));
        Err(GatewayError::value(path, message))
    }

    /// That nothing is left; a field that nobody asked for is refused with the nearest known one.
    pub(crate) fn finish(self) -> Result<()> {
        let Some(key) = self.map.keys().next() else { return Ok(()) };
        let path = self.path_of(key);
        let nearest = self
            .known
            .iter()
            .map(|known| (strsim::damerau_levenshtein(known, key), known))
            .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
            .min();
        let hint = nearest.map(|(_, known)| format!(" (hint: did you mean `{known}`?)")).unwrap_or_default();
        let message = format!("unknown parameter `{path}`{hint}");
        Err(GatewayError::field(path, "unknown_parameter", message))
    }
}

/// A required field that is not there.
pub(crate) fn missing(param: &str) -> GatewayError {
    GatewayError::field(
        param,
        "missing_required_parameter",
        format!("the required parameter `{param}` is missing"),
    )
}

/// A field of the wrong JSON type.
pub(crate) fn wrong_type(param: &str, expected: &str, found: &Value) -> GatewayError {
    let message = format!("`{param}` is {}, expected {expected}", noun(found));
    GatewayError::field(param, "invalid_type", message)
}

fn noun(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a decimal number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::of_body(value).unwrap()
    }

    #[test]
    fn null_is_absent_and_whole_decimals_are_integers() {
        let mut body = fields(json!({"a": null, "b": 5.0, "c": 5.5}));
        assert_eq!(body.string("a"), Ok(None));
        assert_eq!(body.integer("b", 0..=9), Ok(Some(5)));
        let refused = body.integer("c", 0..=9).unwrap_err();
        assert_eq!(refused.to_string(), "`c` is a decimal number, expected an integer");
    }

    #[test]
    fn a_slip_of_the_pen_is_answered_with_the_nearest_field() {
        let mut body = fields(json!({"temprature": 1}));
        assert_eq!(body.number("temperature", 0.0..=2.0), Ok(None));
        assert_eq!(body.any("top_p"), None);
        let refused = body.finish().unwrap_err();
        assert_eq!(refused.to_string(), "unknown parameter `temprature` (hint: did you mean `temperature`?)");
    }

    proptest! {
        #[test]
        fn a_number_comes_through_exactly_when_it_is_in_range(n in -10.0f64..10.0) {
            let taken = fields(json!({"x": n})).number("x", -2.0..=2.0);
            prop_assert_eq!(taken.is_ok(), (-2.0..=2.0).contains(&n));
            if let Ok(value) = taken { prop_assert_eq!(value, Some(n)); }
        }

        #[test]
        fn a_field_that_nobody_reads_is_always_refused(key in "[a-z_]{1,20}") {
            prop_assume!(key != "model");
            let mut body = fields(json!({key.clone(): 1, "model": "m"}));
            prop_assert_eq!(body.string("model"), Ok(Some("m".to_owned())));
            prop_assert!(body.finish().unwrap_err().to_string().contains(&key));
        }
    }
}
