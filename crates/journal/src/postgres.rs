//! Postgres: one database that several processes share.
//!
//! Everything lies in the schema `autoglm`. Positions are given under a lock on the one row of `head` that is kept
//! until the commit, so that followers of several writers never pass an event over; the same row holds the leader's
//! term, so that what an earlier leader still writes is refused in the transaction that would write it.

mod address;
mod commit;
mod leadership;
mod listener;
mod open;
mod orders;

pub use leadership::Leadership;
pub use listener::Listener;

use std::sync::{Arc, atomic::AtomicI64};

use autoglm_domain::VersionNumber;
use sqlx::PgConnection;

use self::{address::Address, commit::Server};
use crate::{Config, JournalError, SqlStore, db::db_of, read, store::Engine, writer::Writer};

db_of!(
    PgConnection,
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "SELECT f.interaction_seq, f.seq, e.json FROM json_array_elements_text($1::text::json) one
    JOIN feedback f ON f.interaction_seq = one.value::bigint JOIN events e ON e.seq = f.seq ORDER BY f.seq",
    read::interaction_rows!("WHERE i.id IN (SELECT json_array_elements_text($1::text::json))"),
    read::pair_rows!("WHERE p.id IN (SELECT json_array_elements_text($1::text::json))")
);

/// Notified with the latest position at each commit.
const APPENDED: &str = "autoglm_appended";
/// Notified when a version failed to answer a request: its number and the milliseconds until then.
const FAILED: &str = "autoglm_failed";
/// Notified when somebody wants a training run of whoever leads.
const TRAIN: &str = "autoglm_train";
/// Notified with an order to whoever leads: its id and text.
const ORDER: &str = "autoglm_order";
/// Notified with the answer to it: its id and text.
const ANSWER: &str = "autoglm_answer";

/// The engine of a [`PostgresStore`].
#[derive(Debug)]
pub struct Postgres {
    address: Arc<Address>,
    /// The term in which this process leads; 0 when it does not.
    term: Arc<AtomicI64>,
}

impl Engine for Postgres {
    type Sql = sqlx::Postgres;
}

/// The store in a Postgres database, which several processes may have open at once.
pub type PostgresStore = SqlStore<Postgres>;

impl SqlStore<Postgres> {
    /// Opens the database at `url` (`postgres://USER@HOST:PORT/DATABASE`) for reading and writing, and brings it up to
    /// date. The database must be there; the tables in it are made. Needs a tokio runtime, which the writer lives on.
    ///
    /// # Errors
    /// [`JournalError::Address`], [`JournalError::Unreachable`], [`JournalError::Untrusted`], [`JournalError::LoginRefused`],
    /// [`JournalError::NoDatabase`], [`JournalError::Newer`], [`JournalError::NotOurs`]: each leaves the database as it
    /// was.
    pub async fn connect(url: &str, config: Config) -> Result<Self, JournalError> {
        config.validate()?;
        let address = Arc::new(Address::parse(url, &config)?);
        let connection = open::open(&address).await.map_err(|error| address.named(error))?;
        let readers = address.readers(&config).await.map_err(|error| address.named(error))?;
        let term = Arc::new(AtomicI64::new(0));
        let server = Server::new(connection, Arc::clone(&address), Arc::clone(&term), config.outage());
        let writer = Writer::start(server, &config, None);
        Ok(Self::over(Postgres { address, term }, readers, Some(writer), &config))
    }

    /// Opens the database at `url` for reading, beside any number of servers. Appends are refused with
    /// [`JournalError::ReadOnly`].
    ///
    /// # Errors
    /// [`JournalError::NoTables`] before the first server has made them, [`JournalError::Older`] when a server has to
    /// bring them up to date first, and as [`PostgresStore::connect`].
    pub async fn connect_read_only(url: &str, config: Config) -> Result<Self, JournalError> {
        config.validate()?;
        let address = Arc::new(Address::parse(url, &config)?);
        open::check_readable(&address).await.map_err(|error| address.named(error))?;
        let readers = address.readers(&config).await.map_err(|error| address.named(error))?;
        Ok(Self::over(Postgres { address, term: Arc::default() }, readers, None, &config))
    }

    /// Waits until this process leads. Of all processes that have the database open, one leads at a time.
    pub async fn lead(&self) -> Leadership {
        let Postgres { address, term } = self.engine();
        Leadership::win(address, term).await
    }

    /// Hears of what any process appends, from now on.
    pub fn listen(&self) -> Listener {
        Listener::start(Arc::clone(&self.engine().address))
    }

    /// Asks whoever leads for a training run.
    ///
    /// # Errors
    /// Those of the connection. That nobody leads just now is none.
    pub async fn order_training(&self) -> Result<(), JournalError> {
        sqlx::query("SELECT pg_notify($1, '')").bind(TRAIN).execute(self.readers()).await?;
        Ok(())
    }

    /// Tells whoever leads that `version` failed to answer a request, `latency_ms` after it came in.
    ///
    /// # Errors
    /// Those of the connection. That nobody leads just now is none.
    pub async fn tell_failure(&self, version: VersionNumber, latency_ms: f64) -> Result<(), JournalError> {
        let told = format!("{} {latency_ms}", version.0);
        sqlx::query("SELECT pg_notify($1, $2)").bind(FAILED).bind(told).execute(self.readers()).await?;
        Ok(())
    }

    /// Host, port and database, without user and password.
    pub fn place(&self) -> &str {
        self.engine().address.place()
    }
}
