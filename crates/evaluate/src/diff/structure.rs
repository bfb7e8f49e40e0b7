//! JSON by path.
//!
//! Objects are compared by key, whatever the order; arrays by place, because order in them means something.
//! Documents nest at most 128 deep (the parser refuses more), so that walking them needs no limit of its own.

use autoglm_domain::{PathDifference, StructureDiff};
use serde_json::{Map, Value};

use crate::text::excerpt;

use super::{DiffConfig, differ::document};

/// Characters of a value that are kept with a difference.
const VALUE_CHARS: usize = 60;

/// The two texts as JSON documents, or `None` where one of them is none.
pub(super) fn compare(champion: &str, candidate: &str, config: &DiffConfig) -> Option<StructureDiff> {
    let (champion, candidate) = (document(champion)?, document(candidate)?);
    let mut walk = Walk { config, found: StructureDiff::default() };
    walk.visit(&mut String::new(), Some(&champion), Some(&candidate));
    Some(walk.found)
}

/// Equal whatever the order of keys, numbers within `tolerance`.
pub(super) fn is_same(left: &Value, right: &Value, tolerance: f64) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            left == right
                || left.as_f64().zip(right.as_f64()).is_some_and(|(left, right)| {
                    (left - right).abs() <= tolerance * left.abs().max(right.abs())
                })
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(l, r)| is_same(l, r, tolerance))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, l)| right.get(key).is_some_and(|r| is_same(l, r, tolerance)))
        }
        (left, right) => left == right,
    }
}

struct Walk<'a> {
    config: &'a DiffConfig,
    found: StructureDiff,
}

impl Walk<'_> {
    fn visit(&mut self, path: &mut String, champion: Option<&Value>, candidate: Option<&Value>) {
        match (champion, candidate) {
            (Some(Value::Object(left)), Some(Value::Object(right)))
                if !(left.is_empty() && right.is_empty()) =>
            {
                self.objects(path, left, right);
            }
            (Some(Value::Array(left)), Some(Value::Array(right)))
                if !(left.is_empty() && right.is_empty()) =>
            {
                for at in 0..left.len().max(right.len()) {
                    self.step(path, &at.to_string(), left.get(at), right.get(at));
                }
            }
            (Some(left), Some(right)) => {
                let same = is_same(left, right, self.config.numeric_tolerance);
                self.leaf(path, Some(left), Some(right), same, leaves(left).max(leaves(right)));
            }
            (Some(one), None) | (None, Some(one)) => {
                self.leaf(path, champion, candidate, false, leaves(one));
            }
            (None, None) => {}
        }
    }

    fn objects(&mut self, path: &mut String, left: &Map<String, Value>, right: &Map<String, Value>) {
        for (key, value) in left {
            self.step(path, key, Some(value), right.get(key));
        }
        for (key, value) in right.iter().filter(|(key, _)| !left.contains_key(*key)) {
            self.step(path, key, None, Some(value));
        }
    }

    fn step(&mut self, path: &mut String, key: &str, left: Option<&Value>, right: Option<&Value>) {
        let length = path.len();
        path.push('/');
        path.push_str(&key.replace('~', "~0").replace('/', "~1")); // RFC 6901, section 3
        self.visit(path, left, right);
        path.truncate(length);
    }

    fn leaf(
        &mut self,
        path: &str,
        champion: Option<&Value>,
        candidate: Option<&Value>,
        same: bool,
        leaves: u32,
    ) {
        self.found.paths = self.found.paths.saturating_add(leaves);
        if same {
            return;
        }
        self.found.differing = self.found.differing.saturating_add(leaves);
        if self.found.differences.len() < self.config.max_differences {
            let shown = |value: Option<&Value>| value.map(|it| excerpt(&it.to_string(), VALUE_CHARS));
            self.found.differences.push(PathDifference {
                path: path.to_owned(),
                champion: shown(champion),
                candidate: shown(candidate),
            });
        }
    }
}

/// How many leaves a value has; an empty object or array is one.
fn leaves(value: &Value) -> u32 {
    let sum = match value {
        Value::Array(items) => items.iter().map(leaves).sum(),
        Value::Object(items) => items.values().map(leaves).sum(),
        _ => 1,
    };
    u32::max(sum, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(champion: &str, candidate: &str) -> Option<(u32, u32, Vec<String>)> {
        let found =
            compare(champion, candidate, &DiffConfig { max_differences: 3, ..DiffConfig::default() })?;
        let shown = |value: Option<String>| value.unwrap_or_else(|| "-".into());
        let lines = found.differences.into_iter();
        let lines = lines.map(|it| format!("{} {} {}", it.path, shown(it.champion), shown(it.candidate)));
        Some((found.paths, found.differing, lines.collect()))
    }

    #[test]
    fn order_of_keys_form_of_numbers_and_fences_make_no_difference() {
        let fenced = "```json\n{\"b\": 2.0, \"a\": [1, {}]}\n```";
        assert_eq!(diff("{\"a\": [1, {}], \"b\": 2}", fenced), Some((3, 0, vec![])));
        assert_eq!(diff("[1000000.0]", "[1000000.5]"), Some((1, 0, vec![])));
        assert_eq!(diff("[0]", "[0.001]"), Some((1, 1, vec!["/0 0 0.001".into()])));
    }

    #[test]
    fn differences_are_named_by_path_and_counted_by_leaf() {
        let champion = r#"{"a": {"x/y": 1, "z": [1, 2]}, "b": "t", "~": null}"#;
        let candidate = r#"{"a": {"x/y": 2, "z": [1]}, "c": {"d": 1, "e": 2}, "~": null}"#;
        let lines = vec!["/a/x~1y 1 2".into(), "/a/z/1 2 -".into(), "/b \"t\" -".into()];
        // Leaves: x/y, z/0, z/1, b, ~, c/d, c/e; all differ but z/0 and ~.
        assert_eq!(diff(champion, candidate), Some((7, 5, lines)));
        assert_eq!(diff("{\"a\": 1}", "[1]").map(|it| (it.0, it.1)), Some((1, 1)));
    }

    #[test]
    fn what_is_no_document_is_not_compared() {
        assert_eq!(diff("{\"a\": 1}", "a is 1"), None);
        assert_eq!(diff("1", "1"), None);
        assert_eq!(diff("{\"a\": 1", "{\"a\": 1}"), None);
    }
}
