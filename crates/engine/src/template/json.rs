//! The `tojson` filter as transformers defines it: Python's `json.dumps` without escaping for HTML.

use minijinja::{
    Error, ErrorKind, Value,
    value::{Kwargs, ValueKind},
};

/// Deepest nesting that is written.
const MAX_DEPTH: usize = 64;

/// `value | tojson` or `value | tojson(indent=2)`.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // `ensure_ascii=false` is how it is written anyway; other options are refused, not ignored.
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut text = String::new();
    write(value, indent.map(|indent| indent.min(16)), 0, &mut text)?;
    Ok(Value::from_safe_string(text))
}

fn write(value: &Value, indent: Option<usize>, depth: usize, text: &mut String) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::new(ErrorKind::InvalidOperation, "the value is nested too deeply for JSON"));
    }
    match value.kind() {
        ValueKind::Map => {
            let keys: Vec<Value> = value.try_iter()?.collect();
            let entries = keys.into_iter().map(|key| {
                let item = value.get_item(&key)?;
                Ok((Some(key), item))
            });
            block(('{', '}'), entries.collect::<Result<_, Error>>()?, indent, depth, text)
        }
        ValueKind::Seq | ValueKind::Iterable => {
            block(('[', ']'), value.try_iter()?.map(|item| (None, item)).collect(), indent, depth, text)
        }
        ValueKind::Undefined => {
            Err(Error::new(ErrorKind::UndefinedError, "an undefined value cannot be written as JSON"))
        }
        _ => scalar(value, text),
    }
}

/// An object or a list with Python's separators.
fn block(
    (open, close): (char, char),
    entries: Vec<(Option<Value>, Value)>,
    indent: Option<usize>,
    depth: usize,
    text: &mut String,
) -> Result<(), Error> {
    let new_line = |depth: usize, text: &mut String| {
        if let Some(indent) = indent {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    text.push(open);
    let empty = entries.is_empty();
    for (number, (key, item)) in entries.into_iter().enumerate() {
        if number > 0 {
            text.push_str(if indent.is_some() { "," } else { ", " });
        }
        new_line(depth + 1, text);
        if let Some(key) = key {
            scalar(&Value::from(key.to_string()), text)?;
            text.push_str(": ");
        }
        write(&item, indent, depth + 1, text)?;
    }
    if !empty {
        new_line(depth, text);
    }
    text.push(close);
    Ok(())
}

fn scalar(value: &Value, text: &mut String) -> Result<(), Error> {
    match (value.kind(), value.as_str()) {
        (_, Some(string)) => {
            let json = serde_json::to_string(string)
                .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
            text.push_str(&json);
        }
        (ValueKind::None, _) => text.push_str("null"),
        (ValueKind::Bool, _) => text.push_str(if value.is_true() { "true" } else { "false" }),
        // As Python writes it: `2.0` for a float without a fraction.
        (ValueKind::Number, _) => text.push_str(&value.to_string()),
        (kind, _) => {
            let message = format!("a value of type {kind} cannot be written as JSON");
            return Err(Error::new(ErrorKind::BadSerialization, message));
        }
    }
    Ok(())
}
