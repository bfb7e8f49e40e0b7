//! The record of what happened: the one source of truth, in SQLite or Postgres.
//!
//! In come [`autoglm_domain::Event`]s, a whole append or nothing, acknowledged when the end of the process cannot lose
//! them; out come the events in order and the state that they add up to. [`SqliteStore`] is the
//! [`autoglm_domain::Store`] of a server on one machine; command-line tools open the same file beside it,
//! with [`SqliteStore::open_read_only`] or for writing. [`PostgresStore`] is the same in a database that several
//! servers share; one of them leads ([`PostgresStore::lead`]), and all hear of what any of them appends
//! ([`PostgresStore::listen`]).
//!
//! How it works: appends are encoded in the caller's task and queued for one writer, which puts everything
//! that waits into one transaction, a savepoint for each append, and commits once (group commit). Each event
//! goes to the append-only table `events` and, in the same transaction, to the projections that reads use.
//! Reads go through a few connections of their own and do not wait for appends that nobody was told of. Answers that a
//! server records are acknowledged before their commit (`spool`), and reads wait for these.
//!
//! What an append must check and what a question gives is written once for both engines, in `apply` and `read`. A new
//! event needs a branch in `apply`, its data in `record`, and a migration for each engine.
//!
//! Only this crate knows SQL.

mod apply;
mod config;
mod db;
mod error;
mod postgres;
mod read;
mod record;
mod spool;
mod sqlite;
mod store;
mod writer;

pub use config::{Config, Fsync};
pub use error::JournalError;
pub use postgres::{Leadership, Listener, Postgres, PostgresStore};
pub use sqlite::{Health, Sqlite, SqliteStore};
pub use store::{Engine, LiveTraffic, SqlStore};
