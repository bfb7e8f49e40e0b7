//! Settings of the lake.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::LakeError;

/// Settings of the lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the files go: a folder, or `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`; empty is
    /// nowhere. Needs a build with the feature `lake`.
    pub url: String,
    /// Longest that an event waits for others to share its file, seconds.
    pub flush_s: u64,
    /// Options of the object store by their names there (`aws_region`, `aws_endpoint`, `google_service_account`,
    /// `azure_storage_account_name`, …). They go before the environment's `AWS_…`, `GOOGLE_…` and `AZURE_…`, and are
    /// never shown.
    pub options: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self { url: String::new(), flush_s: 10, options: BTreeMap::new() }
    }
}

impl Config {
    /// Whether there is to be a lake.
    pub fn is_on(&self) -> bool {
        !self.url.is_empty()
    }

    /// Refuses what cannot be.
    ///
    /// # Errors
    /// [`LakeError::Setting`] names the setting and its limit.
    pub fn validate(&self) -> Result<(), LakeError> {
        if !(1..=3600).contains(&self.flush_s) {
            let reason = format!("is {}; it must be from 1 to 3600", self.flush_s);
            return Err(LakeError::Setting { key: "flush_s", reason });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_that_cannot_be_is_refused() {
        assert_eq!(Config::default().validate(), Ok(()));
        let refused = Config { flush_s: 0, ..Config::default() }.validate().unwrap_err();
        assert_eq!(refused.to_string(), "setting `lake.flush_s` is 0; it must be from 1 to 3600");
    }
}
