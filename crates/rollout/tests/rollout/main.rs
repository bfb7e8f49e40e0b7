//! What the gate promises: coverage of its intervals, power of its rule, and what it does with an engine and
//! a store.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod bad_candidates;
mod changes;
mod coverage;
mod fakes;
mod gate;
mod live;
mod power;
mod runner;
mod scenario;
