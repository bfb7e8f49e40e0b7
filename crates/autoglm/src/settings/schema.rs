//! Which keys there are, told from the defaults, and what a value of each looks like.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::Settings;

/// Tables whose keys are the user's own.
pub(super) const OPEN: [&str; 9] = [
    "server.keys",
    "evaluate.weights",
    "evaluate.veto_below",
    "evaluate.accuracy.feedback.metrics",
    "rollout.metrics",
    "webhook.hooks",
    "webhook.gates",
    "kafka.options",
    "lake.options",
];

/// The tables that are never printed, for they may hold keys.
pub(super) const SECRET: [&str; 3] = ["server.keys", "kafka.options", "lake.options"];

/// Similarity from which a key is near enough to be suggested.
const NEAR: f64 = 0.8;

/// The defaults as a tree. A setting without a default is null.
pub(super) static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    let mut tree = serde_json::to_value(Settings::default()).unwrap_or(Value::Null);
    plain_numbers(&mut tree);
    if let Some(server) = tree.pointer_mut("/server").and_then(Value::as_object_mut) {
        server.insert("keys".into(), Value::Object(Map::new()));
    }
    tree
});

/// What a key is.
#[derive(Debug, PartialEq)]
pub(super) enum Key<'a> {
    /// A table of settings.
    Section(&'a Map<String, Value>),
    /// A table whose keys are the user's own.
    Open,
    /// An entry of such a table.
    Entry,
    /// A setting with its default.
    Setting(&'a Value),
    /// Nothing.
    Unknown,
}

/// What the key `path` is.
pub(super) fn lookup(path: &[String]) -> Key<'static> {
    let mut at: &'static Value = &DEFAULTS;
    for depth in 0..path.len() {
        let (before, rest) = path.split_at(depth);
        if is_open(before) {
            return Key::Entry;
        }
        match rest.first().and_then(|name| at.get(name)) {
            Some(below) => at = below,
            None => return Key::Unknown,
        }
    }
    match at {
        _ if is_open(path) => Key::Open,
        Value::Object(section) => Key::Section(section),
        setting => Key::Setting(setting),
    }
}

fn is_open(path: &[String]) -> bool {
    OPEN.contains(&path.join(".").as_str())
}

/// Every setting with its default, in order; open tables count as one.
pub(super) fn settings() -> Vec<(String, &'static Value)> {
    fn walk(at: &'static Value, path: &str, found: &mut Vec<(String, &'static Value)>) {
        match at {
            Value::Object(section) if !OPEN.contains(&path) => {
                for (name, below) in section {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    walk(below, &path, found);
                }
            }
            setting => found.push((path.to_owned(), setting)),
        }
    }
    let mut found = Vec::new();
    walk(&DEFAULTS, "", &mut found);
    found
}

/// The key that was probably meant by `key`.
pub(super) fn nearest(key: &str) -> Option<String> {
    let split = |key: &str| match key.rsplit_once('.') {
        Some((section, name)) => (section.to_owned(), name.to_owned()),
        None => (String::new(), key.to_owned()),
    };
    let (section, name) = split(key);
    let near = |known: &str| {
        let (known_section, known_name) = split(known);
        let by_name = strsim::jaro_winkler(&name, &known_name);
        // In one section the section's name would make everything alike; elsewhere the name must fit better.
        if section == known_section { by_name } else { strsim::jaro_winkler(key, known).max(by_name * 0.95) }
    };
    let best = settings().into_iter().map(|(known, _)| (near(&known), known));
    let best = best.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(near, _)| *near >= NEAR).map(|(_, known)| known)
}

/// What a value of a setting should be, where `value` is not of the kind of the default.
pub(super) fn mismatch(default: &Value, value: &Value) -> Option<&'static str> {
    let (fits, expected) = match default {
        Value::Null => (!value.is_object(), "not a table"),
        Value::Bool(_) => (value.is_boolean(), "not `true` or `false`"),
        Value::Number(number) if number.is_f64() => (value.is_number(), "not a number"),
        // No setting counts below 0.
        Value::Number(_) => (value.is_u64(), "not a whole number from 0 on"),
        Value::String(_) => (value.is_string(), "not text"),
        Value::Array(_) => (value.is_array(), "not a list"),
        Value::Object(_) => (value.is_object(), "not a table"),
    };
    (!fits).then_some(expected)
}

/// The value that `text` means, given in the environment or by a flag, where no TOML types it.
pub(super) fn value_of_text(key: &Key<'_>, text: &str) -> Result<Value, &'static str> {
    let toml = || {
        let table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
        (table.len() == 1).then(|| table.get("value").and_then(json)).flatten()
    };
    let literal = || Value::String(text.to_owned());
    match key {
        Key::Setting(Value::String(_)) => Ok(literal()),
        Key::Setting(Value::Null) | Key::Entry => Ok(toml().unwrap_or_else(literal)),
        Key::Setting(Value::Bool(_)) => toml().filter(Value::is_boolean).ok_or("not `true` or `false`"),
        Key::Setting(Value::Number(_)) => toml().filter(Value::is_number).ok_or("not a number"),
        Key::Setting(Value::Array(_)) => {
            toml().filter(Value::is_array).ok_or("not a list such as `[\"a\", \"b\"]`")
        }
        _ => toml().filter(Value::is_object).ok_or("not a table such as `{ a = 1 }`"),
    }
}

/// A TOML value as JSON; `None` where there is none for it (an infinite number).
pub(super) fn json(value: &toml::Value) -> Option<Value> {
    Some(match value {
        toml::Value::String(text) => Value::String(text.clone()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) => Value::Number(serde_json::Number::from_f64(*number)?),
        toml::Value::Boolean(yes) => Value::Bool(*yes),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Array(values) => Value::Array(values.iter().map(json).collect::<Option<_>>()?),
        toml::Value::Table(table) => Value::Object(
            table.iter().map(|(key, value)| Some((key.clone(), json(value)?))).collect::<Option<_>>()?,
        ),
    })
}

/// Writes 32-bit numbers as people would: 0.15, not 0.15000000596046448.
pub(crate) fn plain_numbers(tree: &mut Value) {
    match tree {
        Value::Number(number) if number.is_f64() => {
            let wide = number.as_f64().unwrap_or_default();
            #[allow(
                clippy::cast_possible_truncation,
                reason = "whether it is a 32-bit number is the question"
            )]
            let narrow = wide as f32;
            if f64::from(narrow) == wide
                && let Some(plain) = narrow.to_string().parse().ok().and_then(serde_json::Number::from_f64)
            {
                *number = plain;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(plain_numbers),
        Value::Object(map) => map.values_mut().for_each(plain_numbers),
        _ => {}
    }
}
