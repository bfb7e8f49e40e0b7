//! Kafka: the journal as messages in six topics, and interactions from elsewhere taken from one.
//!
//! Out go [`Envelope`]s, through `KafkaMirror`: a message for each event, keyed so that what belongs together keeps its
//! order, recognisable by its `seq` where it comes twice. In come messages through `Ingest`: what [`read`] can make
//! something of is appended to the journal once, the rest goes to a topic of dead letters with the reason.
//! `docs/events.md` is the reference for readers and writers.
//!
//! Only this crate knows Kafka. Without the feature `client` there are the settings and the messages, and no broker.

mod config;
mod envelope;
mod error;
mod ingest_message;
mod topic;

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod ingest;
#[cfg(feature = "client")]
mod mirror;

pub use config::{Config, IngestConfig};
pub use envelope::{Envelope, SCHEMA};
pub use error::KafkaError;
pub use ingest_message::{MAX_BYTES, Place, read};
pub use topic::{TOPICS, Topic, key, topic};

#[cfg(feature = "client")]
pub use ingest::Ingest;
#[cfg(feature = "client")]
pub use mirror::KafkaMirror;
