//! placeholder
mod store;
