//! The real executable as a server: killed at any moment, fed with what is wrong, talked to by the official
//! client, asked where its answers come from.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on says so and stops; one that is left out says why"
)]

mod adapters;
mod bad_files;
mod bad_requests;
mod client;
mod disk;
mod kill;
mod ledger;
mod postgres;
mod resume;
mod rollouts;
mod server;
mod trace;
mod upstream;
mod upstream_training;
mod words;
