//! Messages as readers see them, and a real broker.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on says so and stops"
)]

mod page;

#[cfg(feature = "client")]
mod broker;
#[cfg(feature = "client")]
mod faults;
#[cfg(feature = "client")]
mod ingest;
#[cfg(feature = "client")]
mod reader;
#[cfg(feature = "tls")]
mod tls;
