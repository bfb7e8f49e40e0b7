//! What the tests of several crates put in place of the real thing; a dev-dependency and nothing else.
//!
//! [`MemoryStore`] is the store, held to the same contract as the journal by the journal's tests, so that a
//! test over it is a test over any store. [`version()`] fills such a store with something to point at.
//! [`PostgresServer`] is the real one, for the tests that need it.

#[cfg(unix)]
#[allow(clippy::expect_used, reason = "a test that has no server cannot go on")]
mod postgres;
mod store;
mod version;

#[cfg(unix)]
pub use postgres::PostgresServer;
pub use store::MemoryStore;
pub use version::version;
