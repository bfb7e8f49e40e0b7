//! Immutable versions and the mutable names that point at them.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{ContentHash, Error, HyperParameters, RolloutId, Timestamp, TrainingRunId};

/// Running number of a version, written `v3`; 0 is the bare base model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionNumber(pub u64);

impl VersionNumber {
    /// The base model without an adapter.
    pub const BASE: Self = Self(0);
}

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl FromStr for VersionNumber {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        text.strip_prefix('v').unwrap_or(text).parse().map(Self).map_err(|_| {
            Error::invalid(format!("`{text}` is not a version")).with_hint("versions are `v1`, `v2`, …")
        })
    }
}

/// A trained adapter with everything that made it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelVersion {
    /// Running number.
    pub number: VersionNumber,
    /// BLAKE3 over adapter, snapshot, hyper-parameters, parent's hash and base.
    pub hash: ContentHash,
    /// When it was registered.
    pub at: Timestamp,
    /// The version that it was trained from.
    pub parent: VersionNumber,
    /// The run that made it; `None` for an imported one.
    pub run: Option<TrainingRunId>,
    /// The base model's hash.
    pub base: ContentHash,
    /// The adapter in PEFT's format, packed.
    pub adapter: ContentHash,
    /// The data-set snapshot, where it was trained here.
    pub snapshot: Option<ContentHash>,
    /// Hyper-parameters, where it was trained here.
    pub hyper: Option<HyperParameters>,
    /// Loss and the like.
    pub metrics: BTreeMap<String, f64>,
    /// The version of autoglm that made it.
    pub code_version: String,
    /// A person's or program's remark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A name that points at a version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Alias(pub String);

impl Alias {
    /// The version that answers users.
    pub fn champion() -> Self {
        Self("champion".into())
    }

    /// The version that is on its way.
    pub fn candidate() -> Self {
        Self("candidate".into())
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One move of an alias: all that a promotion or a rollback is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AliasMove {
    /// Which alias.
    pub alias: Alias,
    /// Where it pointed before.
    pub from: VersionNumber,
    /// Where it points now.
    pub to: VersionNumber,
    /// When.
    pub at: Timestamp,
    /// Who or what moved it: a principal, or `gate`.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The rollout that led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutId>,
}

impl AliasMove {
    /// Begins the reason of every move that is a rollback.
    pub const ROLLBACK: &str = "rollback: ";

    /// Whether it went back.
    pub fn is_rollback(&self) -> bool {
        self.reason.starts_with(Self::ROLLBACK)
    }
}
