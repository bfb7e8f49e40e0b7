//! What only Postgres has: a server that goes away, several processes, a leader.

mod database;
mod leading;
mod outages;
mod refusals;
mod sharing;
#[cfg(feature = "tls")]
mod tls;

pub(crate) use database::Database;
