//! What only Postgres has: a server that goes away, several processes, a leader.

mod database;
mod leading;
mod outages;
mod refusals;
mod sharing;

pub(crate) use database::Database;
