//! A real MLflow server as a mirror: what arrives there, what is pushed twice, what is missed while it is away, and
//! what is moved there by hand.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "all of this is test; clippy only knows functions marked as such"
)]

mod server;
mod world;
