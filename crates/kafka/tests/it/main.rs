//! Messages as readers see them, and a real broker.

mod page;

#[cfg(feature = "client")]
mod broker;
#[cfg(feature = "client")]
mod ingest;
#[cfg(feature = "client")]
mod reader;
