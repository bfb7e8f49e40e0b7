//! The gateway over doubles of its ports: every body and error that a client sees, what is recorded when,
//! and what happens when a client goes away.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "all of this is test; clippy only knows functions marked as such"
)]

mod bodies;
mod client;
mod doubles;
mod endings;
mod errors;
mod harness;
mod recording;
mod responses;
mod streams;
mod tools;
mod webhooks;
