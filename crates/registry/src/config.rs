//! Settings of the registry.

use serde::{Deserialize, Serialize};

/// Where artifacts lie and what an adapter may look like.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder of the artifacts, or a `file://` address; in a build with the feature `cloud` also a bucket, such as
    /// `s3://bucket/prefix`, with credentials from the environment. Empty is `artifacts` in the data directory.
    pub artifacts: String,
    /// Who commits versions that are exported to a git repository, `name <address>`; empty is what git's own settings
    /// say.
    pub git_author: String,
    /// Limits that an adapter must keep.
    pub scan: ScanLimits,
}

/// Limits that an adapter must keep to be registered or to answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScanLimits {
    /// Largest size of the weights, bytes.
    pub max_bytes: u64,
    /// Largest safetensors header, bytes; the header is parsed, so an absurd one costs memory.
    pub max_header_bytes: u64,
    /// Most tensors.
    pub max_tensors: usize,
    /// Largest rank.
    pub max_rank: u32,
    /// Largest magnitude of any number.
    pub max_abs: f64,
    /// Largest bound of a delta's norm: scale times the Frobenius norms of its two matrices.
    pub max_delta_norm: f64,
}

impl Default for ScanLimits {
    fn default() -> Self {
        Self {
            max_bytes: 4 << 30,
            max_header_bytes: 8 << 20,
            max_tensors: 20_000,
            max_rank: 1024,
            max_abs: 1e4,
            max_delta_norm: 1e5,
        }
    }
}
