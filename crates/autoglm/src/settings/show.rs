//! The settings that hold, as TOML.

use serde_json::{Map, Value};

use super::{
    database_url::DatabaseUrl,
    schema::{OPEN, SECRET},
    sources::{Read, key},
};

/// The settings as TOML, each value that was given with where it came from.
pub(super) fn toml(read: &Read) -> String {
    let mut text = String::new();
    if let Value::Object(sections) = &read.tree {
        section(read, &[], sections, &mut text);
    }
    text
}

/// The tree without API keys and passwords.
pub(super) fn without_secrets(mut tree: Value) -> Value {
    for secret in SECRET {
        if let Some(keys) = tree.pointer_mut(&format!("/{}", secret.replace('.', "/"))) {
            *keys = Value::String(hidden(keys));
        }
    }
    if let Some(Value::String(url)) = tree.pointer_mut("/store/url") {
        *url = DatabaseUrl::from(url.as_str()).to_string();
    }
    super::schema::plain_numbers(&mut tree);
    tree
}

fn hidden(keys: &Value) -> String {
    format!("{} keys, not shown", keys.as_object().map_or(0, Map::len))
}

fn section(read: &Read, path: &[String], settings: &Map<String, Value>, text: &mut String) {
    let below = |name: &String| [path, std::slice::from_ref(name)].concat();
    let is_section =
        |name: &String, value: &Value| value.is_object() && !OPEN.contains(&below(name).join(".").as_str());
    if !path.is_empty() && settings.iter().any(|(name, value)| !is_section(name, value)) {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("[{}]\n", key(path)));
    }
    for (name, value) in settings.iter().filter(|(name, value)| !is_section(name, value)) {
        let path = below(name);
        let name = key(std::slice::from_ref(name));
        let given = read.given.iter().rev().find(|given| given.path.starts_with(&path));
        let from = given.map(|given| format!("  # {}", given.origin)).unwrap_or_default();
        let line = match value {
            Value::Null => format!("# {name} is not set"),
            value if SECRET.contains(&path.join(".").as_str()) => {
                format!("# {name}: {}{from}", hidden(value))
            }
            Value::String(url) if path.join(".") == "store.url" => {
                let shown = Value::String(DatabaseUrl::from(url.as_str()).to_string());
                format!("{name} = {}{from}", literal(&shown))
            }
            value => format!("{name} = {}{from}", literal(value)),
        };
        text.push_str(&line);
        text.push('\n');
    }
    for (name, value) in settings {
        if let Value::Object(settings) = value
            && is_section(name, value)
        {
            section(read, &below(name), settings, text);
        }
    }
}

/// A value in TOML on one line.
pub(super) fn literal(value: &Value) -> String {
    match value {
        Value::Null => "\"\"".into(),
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        Value::Array(values) => format!("[{}]", values.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Object(map) if map.is_empty() => "{}".into(),
        Value::Object(map) => {
            let entries = map
                .iter()
                .map(|(name, value)| format!("{} = {}", key(std::slice::from_ref(name)), literal(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        scalar => scalar.to_string(),
    }
}
