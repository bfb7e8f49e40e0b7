//! Tool calls by name and arguments. The calls of one answer may be carried out in any order, so their order
//! does not count; ids are made up by whoever answers and do not count either.

use autoglm_domain::{ToolCall, ToolDiff};
use serde_json::Value;

use super::structure::is_same;

/// Pairs off equal calls first, then calls of the same function; what is left is missing or added.
pub(super) fn compare(champion: &[ToolCall], candidate: &[ToolCall], tolerance: f64) -> ToolDiff {
    let mut ours: Vec<&ToolCall> = candidate.iter().collect();
    let mut found = ToolDiff::default();
    let mut unmatched = Vec::new();
    for call in champion {
        match ours.iter().position(|other| call.name == other.name && same_arguments(call, other, tolerance))
        {
            Some(at) => {
                ours.remove(at);
                found.same += 1;
            }
            None => unmatched.push(call),
        }
    }
    for call in unmatched {
        match ours.iter().position(|other| call.name == other.name) {
            Some(at) => {
                ours.remove(at);
                found.other_arguments.push(call.name.clone());
            }
            None => found.missing.push(call.name.clone()),
        }
    }
    found.added.extend(ours.into_iter().map(|call| call.name.clone()));
    found
}

fn same_arguments(left: &ToolCall, right: &ToolCall, tolerance: f64) -> bool {
    match (arguments(left), arguments(right)) {
        (Some(left), Some(right)) => is_same(&left, &right, tolerance),
        _ => left.arguments.trim() == right.arguments.trim(),
    }
}

/// The arguments as JSON; none at all are an empty object.
pub(super) fn arguments(call: &ToolCall) -> Option<Value> {
    if call.arguments.trim().is_empty() {
        return Some(Value::Object(serde_json::Map::new()));
    }
    serde_json::from_str(&call.arguments).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(calls: &[(&str, &str)]) -> Vec<ToolCall> {
        let call = |(at, (name, arguments)): (usize, &(&str, &str))| ToolCall {
            id: format!("call_{at}"),
            name: (*name).into(),
            arguments: (*arguments).into(),
        };
        calls.iter().enumerate().map(call).collect()
    }

    #[test]
    fn order_ids_and_spelling_of_arguments_do_not_count() {
        let champion = calls(&[("pay", r#"{"to": "x", "sum": 10}"#), ("log", "")]);
        let candidate = calls(&[("log", "{}"), ("pay", r#"{"sum":10.0,"to":"x"}"#)]);
        let found = compare(&champion, &candidate, 1e-6);
        assert_eq!(found, ToolDiff { same: 2, ..ToolDiff::default() });
        assert!(found.is_same());
    }

    #[test]
    fn equal_calls_are_paired_off_before_calls_of_the_same_function() {
        let champion = calls(&[("f", r#"{"a": 1}"#), ("f", r#"{"a": 2}"#), ("g", "{}")]);
        let candidate = calls(&[("f", r#"{"a": 2}"#), ("f", r#"{"a": 3}"#), ("h", "{}")]);
        let found = compare(&champion, &candidate, 1e-6);
        assert_eq!(found.same, 1);
        assert_eq!(found.other_arguments, ["f"]);
        assert_eq!((found.missing, found.added), (vec!["g".to_owned()], vec!["h".to_owned()]));
    }

    #[test]
    fn arguments_that_are_no_json_are_compared_as_text() {
        let same = |left, right| compare(&calls(&[("f", left)]), &calls(&[("f", right)]), 0.0).is_same();
        assert!(same("{\"a\": ", "{\"a\":"));
        assert!(!same("{\"a\": ", "{\"b\":"));
        assert!(!same("{\"a\": 1}", "{\"a\": 1"));
    }
}
