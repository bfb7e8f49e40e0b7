//! The store as its callers see it.
//!
//! `contract` is the suite that every implementation of the port runs; `model` holds ours to the naive one of
//! `autoglm_doubles` with random events.

#[cfg(test)]
mod contract;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod model;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod spool;
#[cfg(test)]
mod writing;
