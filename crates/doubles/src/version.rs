//! A version to point at.

use std::collections::BTreeMap;

use autoglm_domain::{ContentHash, ModelVersion, Timestamp, VersionNumber};

/// A version without anything of interest: an import over the base model.
pub fn version(number: u64) -> ModelVersion {
    let hash = ContentHash::of(&number.to_le_bytes());
    ModelVersion {
        number: VersionNumber(number),
        hash,
        at: Timestamp(0),
        parent: VersionNumber::BASE,
        run: None,
        base: hash,
        adapter: hash,
        snapshot: None,
        hyper: None,
        metrics: BTreeMap::new(),
        code_version: "test".into(),
        note: None,
    }
}
