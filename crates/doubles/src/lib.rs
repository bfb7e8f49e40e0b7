//! What the tests of several crates put in place of the real thing; a dev-dependency and nothing else.
//!
//! [`MemoryStore`] is the store, held to the same contract as the journal by the journal's tests, so that a
//! test over it is a test over any store. [`version()`] fills such a store with something to point at.

mod store;
mod version;

pub use store::MemoryStore;
pub use version::version;
