//! Settings of the store.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::JournalError;

/// Settings of a store. The defaults work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Most appends that share one commit. More of them wait for the next one.
    pub max_batch_appends: usize,
    /// Most appends that wait for the writer; at this many, further callers wait for room.
    pub queue_appends: usize,
    /// Most events in one append; a larger one is refused as invalid.
    pub max_append_events: usize,
    /// Which commits wait until the disk has them (SQLite). `always`: all. `interval`: all but those of answers, their
    /// assessments and pairs of a shadow, which the disk has within `fsync_interval_ms`. `never`: none. What did not wait
    /// outlives the end of the process, however sudden, but not a power cut.
    pub fsync: Fsync,
    /// How long the disk may lag behind, in milliseconds, where `fsync` is `interval`.
    pub fsync_interval_ms: u64,
    /// Connections for reading.
    pub readers: u32,
    /// How long to wait for another process that is writing.
    pub busy_timeout_ms: u64,
    /// How long an append waits for a Postgres server that went away, as in a restart.
    pub outage_ms: u64,
    /// A file of at most this size is checked for damage when it is opened; 0 turns the check off.
    pub check_below_mib: u64,
    /// Largest size of the file, after which appends are refused as unavailable; `None` is no limit.
    pub max_file_mib: Option<u64>,
}

/// Which commits wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fsync {
    /// All of them.
    Always,
    /// Those that hold more than answers, assessments and pairs of a shadow; the disk has the others soon after.
    Interval,
    /// None; the system writes when it sees fit.
    Never,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_batch_appends: 256,
            queue_appends: 1024,
            max_append_events: 10_000,
            fsync: Fsync::Interval,
            fsync_interval_ms: 100,
            readers: 4,
            busy_timeout_ms: 5_000,
            outage_ms: 10_000,
            check_below_mib: 64,
            max_file_mib: None,
        }
    }
}

impl Config {
    /// `Invalid` when a setting that must be positive is 0.
    pub(crate) fn validate(&self) -> Result<(), JournalError> {
        let positive = [
            ("max_batch_appends", self.max_batch_appends != 0),
            ("queue_appends", self.queue_appends != 0),
            ("max_append_events", self.max_append_events != 0),
            ("readers", self.readers != 0),
            ("max_file_mib", self.max_file_mib != Some(0)),
        ];
        match positive.into_iter().find(|(_, positive)| !positive) {
            Some((setting, _)) => Err(JournalError::Setting { setting }),
            None => Ok(()),
        }
    }

    pub(crate) fn fsync_interval(&self) -> Duration {
        Duration::from_millis(self.fsync_interval_ms)
    }

    pub(crate) fn outage(&self) -> Duration {
        Duration::from_millis(self.outage_ms)
    }

    pub(crate) fn busy_timeout(&self) -> Duration {
        Duration::from_millis(self.busy_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_of_zero_is_named() {
        assert_eq!(Config::default().validate(), Ok(()));
        let zero = Config { readers: 0, ..Config::default() };
        assert_eq!(zero.validate(), Err(JournalError::Setting { setting: "readers" }));
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        let config: Config = serde_json::from_str(r#"{"readers": 2}"#).unwrap();
        assert_eq!(config, Config { readers: 2, ..Config::default() });
        assert!(serde_json::from_str::<Config>(r#"{"reader": 2}"#).is_err());
    }
}
