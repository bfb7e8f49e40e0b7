//! Hooks against receivers that are down, slow, broken, or say no.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "all of this is test; clippy only knows functions marked as such"
)]

mod asking;
mod following;
mod receiver;
