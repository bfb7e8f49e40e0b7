//! What only Postgres has: a server that goes away, several processes, a leader.

mod database;

pub(crate) use database::Database;
