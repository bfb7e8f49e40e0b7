//! What the tests of several crates put in place of the real thing; a dev-dependency and nothing else.
//!
//! [`MemoryStore`] is the store, held to the same contract as the journal by the journal's tests, so that a
//! test over it is a test over any store. [`version()`] fills such a store with something to point at.
//! [`samples`] are events to put into one. [`PostgresServer`], [`KafkaBroker`], [`S3Server`] and [`MlflowServer`] are the
//! real ones, for the tests that need them.

#[cfg(unix)]
#[allow(clippy::expect_used, reason = "a test that has no server cannot go on")]
mod bucket;
#[cfg(unix)]
mod kafka;
#[cfg(unix)]
#[allow(clippy::expect_used, reason = "a test that has no server cannot go on")]
mod keeper;
#[cfg(unix)]
#[allow(clippy::expect_used, reason = "a test that has no server cannot go on")]
mod mlflow;
#[cfg(unix)]
#[allow(clippy::expect_used, reason = "a test that has no server cannot go on")]
mod postgres;
pub mod samples;
mod store;
mod version;

#[cfg(unix)]
pub use bucket::{S3Server, lake_python, run_python};
#[cfg(unix)]
pub use kafka::KafkaBroker;
#[cfg(unix)]
pub use mlflow::MlflowServer;
#[cfg(unix)]
pub use postgres::PostgresServer;
pub use store::MemoryStore;
pub use version::version;
