//! What differs between two versions.

use std::collections::{BTreeMap, BTreeSet};

use autoglm_domain::{ContentHash, ModelVersion, VersionNumber};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Result, hash::to_value};

/// A value in one version and in the other; `None` where it is missing there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// In the first version.
    pub a: Option<Value>,
    /// In the second.
    pub b: Option<Value>,
}

/// How two data-set snapshots differ, in experiences.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotChange {
    /// In the second and not in the first.
    pub added: u64,
    /// In the first and not in the second.
    pub removed: u64,
    /// In both.
    pub common: u64,
}

/// What differs between two versions; the base model counts as one without metrics and data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionDiff {
    /// The first version.
    pub a: VersionNumber,
    /// The second version.
    pub b: VersionNumber,
    /// Whether both have the same adapter.
    pub same_adapter: bool,
    /// Metrics that differ.
    pub metrics: BTreeMap<String, Change>,
    /// Hyper-parameters that differ.
    pub hyper: BTreeMap<String, Change>,
    /// The data they learned from.
    pub snapshot: SnapshotChange,
}

/// The differing entries of two JSON objects.
pub(crate) fn changes(a: &BTreeMap<String, Value>, b: &BTreeMap<String, Value>) -> BTreeMap<String, Change> {
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    keys.into_iter()
        .filter(|key| a.get(*key) != b.get(*key))
        .map(|key| (key.clone(), Change { a: a.get(key).cloned(), b: b.get(key).cloned() }))
        .collect()
}

/// A version's metrics as JSON values.
pub(crate) fn metrics(version: Option<&ModelVersion>) -> BTreeMap<String, Value> {
    let metrics = version.map(|version| &version.metrics).into_iter().flatten();
    metrics.map(|(name, value)| (name.clone(), Value::from(*value))).collect()
}

/// A version's hyper-parameters as JSON values.
pub(crate) fn hyper(version: Option<&ModelVersion>) -> Result<BTreeMap<String, Value>> {
    match version.and_then(|version| version.hyper.as_ref()) {
        Some(hyper) => match to_value(hyper)? {
            Value::Object(map) => Ok(map.into_iter().collect()),
            _ => Ok(BTreeMap::new()),
        },
        None => Ok(BTreeMap::new()),
    }
}

/// One line of a snapshot, as far as it matters here.
#[derive(Deserialize)]
struct SnapshotLine {
    experience: Option<String>,
}

/// The experiences of a snapshot: JSON lines, of which those with a key `experience` count.
pub(crate) fn experiences(hash: ContentHash, bytes: &[u8]) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        let line: SnapshotLine = serde_json::from_slice(line).map_err(|error| {
            let (hash, number) = (hash.short(), at + 1);
            autoglm_domain::Error::internal(format!("line {number} of the snapshot `{hash}`: {error}"))
        })?;
        found.extend(line.experience);
    }
    Ok(found)
}

/// Counts of two sets' difference.
pub(crate) fn snapshot_change(a: &BTreeSet<String>, b: &BTreeSet<String>) -> SnapshotChange {
    SnapshotChange {
        added: b.difference(a).count() as u64,
        removed: a.difference(b).count() as u64,
        common: a.intersection(b).count() as u64,
    }
}
