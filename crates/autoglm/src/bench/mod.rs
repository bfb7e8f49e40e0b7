//! `autoglm bench`: measurements that anyone can make again, each against a whole server of its own.
//!
//! In: settings and the size of a measurement. Out: a report that is printed as a table or as JSON, with the limit
//! that it is held to. Everything that a client could do goes over HTTP to a real server on a free port with an
//! empty data directory ([`Host`]); clients run in the same process, so their work is on the bill too.

mod host;
mod instant;
mod latency;
mod resident;
mod traffic;

pub(crate) mod corrections;
pub(crate) mod engine;
pub(crate) mod gateway;
pub(crate) mod load;
pub(crate) mod perplexity;
pub(crate) mod rollback;
pub(crate) mod rollouts;
pub(crate) mod serving;
pub(crate) mod swap;

pub(crate) use host::Host;
pub(crate) use latency::Latency;
