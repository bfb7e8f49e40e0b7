//! The store as its callers see it.
//!
//! `contract` is the suite that every implementation of the port runs; `memory` is the naive one that the
//! suite, and `model` with random events, hold ours to.

#[cfg(test)]
mod contract;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod model;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod writing;
