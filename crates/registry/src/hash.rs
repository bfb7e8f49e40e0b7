//! The hash that names a version for ever.

use autoglm_domain::{ContentHash, HyperParameters, Result};
use serde_json::Value;

/// First in the canonical bytes; a new form of them gets a new one.
const FORM: &str = "autoglm version 1";

/// Hyper-parameters that came after the form. Where one has its default it is left out of the canonical bytes, so
/// that hashes of versions from before it existed stay what they are.
const CAME_LATER: [&str; 6] = [
    "prompt_noise",
    "use_rslora",
    "layers_to_transform",
    "preference_beta",
    "preference_sft",
    "gradient_checkpointing",
];

/// BLAKE3 over everything that made a version.
///
/// The canonical bytes are six lines, each ended by `\n`: the form, the hashes of adapter, snapshot
/// (`-` where there is none) and parent (the base's where the parent is the base model), the base's hash,
/// and the hyper-parameters as JSON with sorted keys and no spaces (`-` where there are none).
pub fn version_hash(
    adapter: ContentHash,
    snapshot: Option<ContentHash>,
    hyper: Option<&HyperParameters>,
    parent: ContentHash,
    base: ContentHash,
) -> Result<ContentHash> {
    let snapshot = snapshot.map_or_else(|| "-".to_owned(), |hash| hash.to_string());
    let hyper = match hyper {
        Some(hyper) => canonical(&hashed(hyper)?),
        None => "-".to_owned(),
    };
    let bytes = format!("{FORM}\n{adapter}\n{snapshot}\n{parent}\n{base}\n{hyper}\n");
    Ok(ContentHash::of(bytes.as_bytes()))
}

/// What of hyper-parameters is hashed.
fn hashed(hyper: &HyperParameters) -> Result<Value> {
    let (mut value, default) = (to_value(hyper)?, to_value(&HyperParameters::default())?);
    if let Some(map) = value.as_object_mut() {
        map.retain(|key, value| !CAME_LATER.contains(&key.as_str()) || default.get(key) != Some(value));
    }
    Ok(value)
}

/// Hyper-parameters as JSON.
pub(crate) fn to_value(hyper: &HyperParameters) -> Result<Value> {
    serde_json::to_value(hyper)
        .map_err(|error| autoglm_domain::Error::internal(format!("hyper-parameters are not json: {error}")))
}

/// JSON with sorted keys and no spaces, so that equal values have equal bytes.
pub(crate) fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            let inner: Vec<String> = entries
                .iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", inner.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(seed: u8) -> ContentHash {
        ContentHash::of(&[seed])
    }

    #[test]
    fn every_part_changes_the_hash() {
        let hyper = HyperParameters::default();
        let other = HyperParameters { learning_rate: 2e-3, ..HyperParameters::default() };
        let of = |a, s, h, p, b| version_hash(a, s, h, p, b).unwrap();
        let all = [
            of(hash(1), Some(hash(2)), Some(&hyper), hash(3), hash(4)),
            of(hash(9), Some(hash(2)), Some(&hyper), hash(3), hash(4)),
            of(hash(1), Some(hash(9)), Some(&hyper), hash(3), hash(4)),
            of(hash(1), None, Some(&hyper), hash(3), hash(4)),
            of(hash(1), Some(hash(2)), Some(&other), hash(3), hash(4)),
            of(hash(1), Some(hash(2)), None, hash(3), hash(4)),
            of(hash(1), Some(hash(2)), Some(&hyper), hash(9), hash(4)),
            of(hash(1), Some(hash(2)), Some(&hyper), hash(3), hash(9)),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(all[0], of(hash(1), Some(hash(2)), Some(&hyper), hash(3), hash(4)));
    }

    #[test]
    fn the_stored_form_stays_as_it_is() {
        let found = version_hash(hash(1), Some(hash(2)), None, hash(3), hash(4)).unwrap();
        let lines = [hash(1), hash(2), hash(3), hash(4)].map(|hash| hash.to_string()).join("\n");
        assert_eq!(found, ContentHash::of(format!("autoglm version 1\n{lines}\n-\n").as_bytes()));
    }

    #[test]
    fn what_came_later_is_hashed_where_it_is_used() {
        let plain = canonical(&hashed(&HyperParameters::default()).unwrap());
        let start = r#"{"accumulation":1,"alpha":32.0,"batch_tokens":1024,"learning_rate":"#;
        assert!(plain.starts_with(start), "{plain}");
        assert!(plain.contains(r#""passes":3.0,"rank":16,"#), "{plain}");
        let used = HyperParameters { use_rslora: true, prompt_noise: 0.5, ..HyperParameters::default() };
        let used = canonical(&hashed(&used).unwrap());
        assert!(used.contains(r#""passes":3.0,"prompt_noise":0.5,"rank":16,"#), "{used}");
        assert!(used.contains(r#""use_rslora":true"#) && !used.contains("layers_to_transform"), "{used}");
    }

    #[test]
    fn canonical_json_sorts_at_every_depth() {
        let value = serde_json::json!({"b": [{"z": 1, "a": "q\""}], "a": 0.5});
        assert_eq!(canonical(&value), r#"{"a":0.5,"b":[{"a":"q\"","z":1}]}"#);
    }

    proptest! {
        #[test]
        fn the_order_of_keys_does_not_matter(mut keys in proptest::collection::btree_map("[a-z]{1,4}", 0i64..9, 0..8)
            .prop_map(|map| map.into_iter().collect::<Vec<_>>())) {
            let forward: Value = keys.iter().cloned().map(|(k, v)| (k, Value::from(v))).collect::<serde_json::Map<_, _>>().into();
            keys.reverse();
            let backward: Value = keys.into_iter().map(|(k, v)| (k, Value::from(v))).collect::<serde_json::Map<_, _>>().into();
            prop_assert_eq!(canonical(&forward), canonical(&backward));
        }
    }
}
