//! What a message looks like.

use autoglm_domain::{RecordedEvent, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{KafkaError, key};

/// The form of envelopes and of what is in them. A field that is added leaves it as it is; one that changes its meaning
/// or goes away raises it.
pub const SCHEMA: u32 = 1;

/// One event as a message's value, in JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Position in the journal, from 1 without gaps: one event, one `seq`, however often it is delivered.
    pub seq: i64,
    /// The event's name.
    pub event: String,
    /// The message's key.
    pub key: String,
    /// When it happened, milliseconds since the Unix epoch.
    pub at: Timestamp,
    /// What happened; null where it is larger than the broker takes.
    pub data: Value,
    /// Its size in bytes, where it is larger than the broker takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out_bytes: Option<u64>,
}

impl Envelope {
    /// The envelope of an event.
    ///
    /// # Errors
    /// [`KafkaError::Encoding`] where it has no JSON.
    pub fn of(recorded: &RecordedEvent) -> Result<Self, KafkaError> {
        let event = &recorded.event;
        let data = event.data().map_err(|error| KafkaError::Encoding { reason: error.to_string() })?;
        Ok(Self {
            schema: SCHEMA,
            seq: recorded.seq,
            event: event.name().to_owned(),
            key: key(event),
            at: event.at(),
            data,
            left_out_bytes: None,
        })
    }

    /// As a message's value.
    ///
    /// # Errors
    /// [`KafkaError::Encoding`] where it has no JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>, KafkaError> {
        serde_json::to_vec(self).map_err(|error| KafkaError::Encoding { reason: error.to_string() })
    }

    /// The same without what happened, which is `bytes` large.
    #[must_use]
    pub fn without_data(self, bytes: usize) -> Self {
        Self { data: Value::Null, left_out_bytes: u64::try_from(bytes).ok(), ..self }
    }
}
