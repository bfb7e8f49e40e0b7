//! Settings of the broker, the mirror, and what is taken in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{KafkaError, TOPICS};

/// The broker, and the mirror in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `HOST:PORT` of one or more brokers, separated by commas; empty is none. Needs a build with the feature `kafka`.
    pub brokers: String,
    /// Whether the journal is mirrored there; without it the broker is only read from (`kafka.ingest`).
    pub mirror: bool,
    /// Put before the names of the topics.
    pub topic_prefix: String,
    /// Partitions of a topic that is made because it is missing; 0 makes no topics.
    pub partitions: u32,
    /// Copies of such a topic; 0 leaves it to the broker.
    pub replication: u32,
    /// Most events that are on their way at once.
    pub batch: u32,
    /// Longest wait for the broker to acknowledge a message, seconds; it is sent again after a pause then.
    pub timeout_s: u64,
    /// Further settings of librdkafka (`compression.codec`, `sasl.username`, …); never shown. Those that make the mirror
    /// sound cannot be changed. TLS, with the feature `kafka-tls`: `security.protocol = "ssl"` or `"sasl_ssl"`, and
    /// `ssl.ca.location`, a file of the authorities to believe, where the system's do not include the broker's.
    pub options: BTreeMap<String, String>,
    /// Interactions from elsewhere.
    pub ingest: IngestConfig,
}

/// Interactions that are taken from a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestConfig {
    /// The topic; empty is none. Whoever may write to it is believed as a client of the API is.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// Where messages go that nothing can be made of; empty is the topic's name with `.dead-letters`.
    pub dead_letters: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            mirror: true,
            topic_prefix: String::new(),
            partitions: 6,
            replication: 0,
            batch: 1000,
            timeout_s: 10,
            options: BTreeMap::new(),
            ingest: IngestConfig::default(),
        }
    }
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self { topic: String::new(), group: "autoglm".into(), dead_letters: String::new() }
    }
}

/// Settings of librdkafka that are ours.
const OURS: [&str; 9] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "transactional.id",
];

impl Config {
    /// Whether the journal is to be mirrored.
    pub fn is_mirror_on(&self) -> bool {
        !self.brokers.is_empty() && self.mirror
    }

    /// Whether a topic is to be taken in.
    pub fn is_ingest_on(&self) -> bool {
        !self.brokers.is_empty() && !self.ingest.topic.is_empty()
    }

    /// The topic of dead letters.
    pub fn dead_letters(&self) -> String {
        match self.ingest.dead_letters.as_str() {
            "" => format!("{}.dead-letters", self.ingest.topic),
            topic => topic.to_owned(),
        }
    }

    /// Refuses what cannot be.
    ///
    /// # Errors
    /// [`KafkaError::Setting`] names the setting and its limit.
    pub fn validate(&self) -> Result<(), KafkaError> {
        let wrong = |key: &str, reason: String| Err(KafkaError::Setting { key: key.to_owned(), reason });
        if !(1..=100_000).contains(&self.batch) {
            return wrong("batch", format!("is {}; it must be from 1 to 100000", self.batch));
        }
        if !(1..=600).contains(&self.timeout_s) {
            return wrong("timeout_s", format!("is {}; it must be from 1 to 600", self.timeout_s));
        }
        if self.partitions > 10_000 || self.replication > 100 {
            return wrong("partitions", "is at most 10000, and `replication` at most 100".into());
        }
        let protocol = self.options.get("security.protocol").map(|it| it.to_lowercase()).unwrap_or_default();
        if protocol.ends_with("ssl") && cfg!(all(feature = "client", not(feature = "tls"))) {
            let reason = "asks for TLS, which this build has not: build it with `--features kafka-tls`";
            return wrong("options.security.protocol", reason.into());
        }
        if let Some(key) = self.options.keys().find(|key| OURS.contains(&key.as_str())) {
            return wrong(&format!("options.{key}"), "is set by autoglm".into());
        }
        if self.is_ingest_on() && self.is_mirror_on() {
            let mirrored = TOPICS.iter().map(|topic| format!("{}{topic}", self.topic_prefix));
            let taken = [self.ingest.topic.clone(), self.dead_letters()];
            if let Some(loops) = mirrored.into_iter().find(|topic| taken.contains(topic)) {
                return wrong("ingest.topic", format!("`{loops}` is written by the mirror itself"));
            }
        }
        if self.is_ingest_on() && self.dead_letters() == self.ingest.topic {
            return wrong("ingest.dead_letters", "is the topic that is taken in".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let on = || Config { brokers: "127.0.0.1:9092".into(), ..Config::default() };
        let refused = |config: Config| config.validate().unwrap_err().to_string();
        assert_eq!(on().validate(), Ok(()));
        assert!(refused(Config { batch: 0, ..on() }).contains("from 1 to 100000"));
        assert!(refused(Config { timeout_s: 0, ..on() }).contains("from 1 to 600"));
        let acks = Config { options: [("acks".into(), "0".into())].into(), ..on() };
        assert_eq!(refused(acks), "setting `kafka.options.acks` is set by autoglm");
        let ingest = |topic: &str| IngestConfig { topic: topic.into(), ..IngestConfig::default() };
        let looped = Config { ingest: ingest("interactions"), ..on() };
        assert!(refused(looped.clone()).contains("written by the mirror itself"));
        assert_eq!(Config { mirror: false, ..looped.clone() }.validate(), Ok(()));
        assert_eq!(Config { topic_prefix: "here.".into(), ..looped }.validate(), Ok(()));
        let itself = IngestConfig { dead_letters: "in".into(), ..ingest("in") };
        assert!(refused(Config { ingest: itself, ..on() }).contains("taken in"));
        assert_eq!(Config { ingest: ingest("in"), ..on() }.dead_letters(), "in.dead-letters");
    }
}
