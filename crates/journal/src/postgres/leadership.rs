//! Who leads: of all processes on one database, the one that does the loop's own duties.
//!
//! The leader holds a session's advisory lock on a connection of its own: the server frees it when that connection
//! ends, however it ends. Whoever gets the lock begins a new term in `head`; what only the leader may write
//! ([`crate::SqlStore::as_leader`]) is checked against the term in the transaction that writes it, so an earlier
//! leader that has not noticed yet changes nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use sqlx::PgConnection;
use tokio::time::{sleep, timeout};

use super::address::Address;
use crate::{JournalError, db::Db as _};

/// Between two tries to become the leader. A lock that is waited for in the server would keep a transaction open.
const CANVASS: Duration = Duration::from_millis(250);
/// Between two looks whether this process still leads.
const PULSE: Duration = Duration::from_millis(500);
/// Longest wait for an answer to that.
const PULSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The lock's key beside ours is the table's number, so that two databases or schemas never share it.
const TRY_LOCK: &str = "SELECT 1::bigint WHERE pg_try_advisory_lock(1634167917, ('head'::regclass::oid::bigint & 2147483647)::int4)";

/// Leading, until it is lost or dropped.
#[derive(Debug)]
pub struct Leadership {
    connection: PgConnection,
    mine: i64,
    last_seq: i64,
    term: Arc<AtomicI64>,
}

impl Leadership {
    /// Waits until this process leads.
    pub(super) async fn win(address: &Address, term: &Arc<AtomicI64>) -> Self {
        let mut connection = None;
        let mut told = None;
        loop {
            match Self::canvass(address, &mut connection).await {
                Ok(Some((mine, last_seq, connection))) => {
                    term.store(mine, Ordering::SeqCst);
                    tracing::info!(term = mine, "this process leads the loop");
                    return Self { connection, mine, last_seq, term: Arc::clone(term) };
                }
                Ok(None) => told = None,
                Err(error) => {
                    connection = None;
                    if told.as_ref() != Some(&error) {
                        tracing::warn!(%error, "who leads the loop cannot be found out");
                    }
                    told = Some(error);
                }
            }
            sleep(CANVASS).await;
        }
    }

    /// One try: the new term and the latest position before it.
    async fn canvass(
        address: &Address,
        kept: &mut Option<PgConnection>,
    ) -> Result<Option<(i64, i64, PgConnection)>, JournalError> {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => address.connect().await?,
        };
        let won: Option<(i64,)> = connection.row(TRY_LOCK, &[]).await?;
        if won.is_none() {
            *kept = Some(connection);
            return Ok(None);
        }
        // A failure from here on drops the connection, and the lock with it.
        let begun: Option<(i64, i64)> =
            connection.row("UPDATE head SET term = term + 1 RETURNING term, last_seq", &[]).await?;
        Ok(begun.map(|(mine, last_seq)| (mine, last_seq, connection)))
    }

    /// Number of this term; each is one larger than the last.
    pub fn term(&self) -> i64 {
        self.mine
    }

    /// The latest position when the term began: up to there, earlier leaders may have written.
    pub fn last_seq(&self) -> i64 {
        self.last_seq
    }

    /// Waits until this process no longer leads, and says why. From then on what only the leader may write is refused.
    pub async fn lost(&mut self) -> JournalError {
        loop {
            sleep(PULSE).await;
            let pulse = self.connection.row::<(i64,)>("SELECT term FROM head", &[]);
            let why = match timeout(PULSE_TIMEOUT, pulse).await {
                Ok(Ok(Some((term,)))) if term == self.mine => continue,
                Ok(Ok(_)) => JournalError::NotLeading,
                Ok(Err(error)) => error,
                Err(_) => {
                    JournalError::Lost { reason: format!("no answer within {} s", PULSE_TIMEOUT.as_secs()) }
                }
            };
            self.step_down();
            return why;
        }
    }

    /// Lets another process lead at once.
    pub async fn resign(mut self) -> Result<(), JournalError> {
        self.step_down();
        let key = "SELECT pg_advisory_unlock_all()";
        self.connection.execute(key, &[]).await.map(drop)
    }

    fn step_down(&self) {
        // Another term of this process may have begun.
        let _ = self.term.compare_exchange(self.mine, 0, Ordering::SeqCst, Ordering::SeqCst);
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.step_down();
    }
}

impl std::fmt::Display for Leadership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "term {}", self.mine)
    }
}
