//! What the tests of several crates put in place of the real thing; a dev-dependency and nothing else.
//!
//! [`MemoryStore`] is the store, held to the same contract as the journal by the journal's tests, so that a
//! test over it is a test over any store. [`version()`] fills such a store with something to point at.
//! [`samples`] are events to put into one. [`PostgresServer`], [`KafkaBroker`], [`S3Server`] and [`MlflowServer`] are the
//! real ones, for the tests that need them, and `SmallDisk` is one that is soon full.

#[cfg(unix)]
#[allow(clippy::expect_used, reason = "a test that has no server cannot go on")]
mod bucket;
#[cfg(target_os = "linux")]
#[allow(clippy::expect_used, reason = "a test that has no disk cannot go on")]
mod disk;
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
#[cfg(feature = "tls")]
#[allow(clippy::expect_used, reason = "a test that has no certificate cannot go on")]
mod tls;
mod version;

#[cfg(unix)]
pub use bucket::{S3Server, lake_python, run_python};
#[cfg(target_os = "linux")]
pub use disk::SmallDisk;
#[cfg(unix)]
pub use kafka::KafkaBroker;
#[cfg(unix)]
pub use mlflow::MlflowServer;
#[cfg(unix)]
pub use postgres::PostgresServer;
pub use store::MemoryStore;
#[cfg(feature = "tls")]
pub use tls::{Certificate, TlsFront};
pub use version::version;
