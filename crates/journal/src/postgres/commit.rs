//! Writing: one transaction a batch, through restarts of the server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use super::{APPENDED, address::Address};
use crate::{
    JournalError,
    db::Db as _,
    writer::{Append, Commit, Outcome, apply_batch},
};

/// Between two tries to reach a server that is away.
const RETRY: Duration = Duration::from_millis(100);
/// Longest that a batch may take; the server is taken for lost then.
const STALL: Duration = Duration::from_secs(60);

/// The writer's side of the server.
pub(super) struct Server {
    connection: Option<PgConnection>,
    address: Arc<Address>,
    term: Arc<AtomicI64>,
    outage: Duration,
}

/// Why a batch was not written, as far as is known.
enum Failure {
    /// It certainly was not.
    Before(JournalError),
    /// The server went away between the order to commit and its answer.
    AtCommit { written: Written, outcomes: Vec<Outcome> },
}

/// What tells a transaction whose end is not known. Its number alone does not: a server that crashed before it wrote the number
/// down gives it to another one.
struct Written {
    transaction: i64,
    /// Position and body of the last event; `None` where there was none.
    last: Option<(i64, String)>,
}

impl<E: Into<JournalError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Before(error.into())
    }
}

impl Server {
    pub(super) fn new(
        connection: PgConnection,
        address: Arc<Address>,
        term: Arc<AtomicI64>,
        outage: Duration,
    ) -> Self {
        Self { connection: Some(connection), address, term, outage }
    }

    async fn connected(&mut self) -> Result<PgConnection, JournalError> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.address.connect().await,
        }
    }

    /// One try. The connection is kept when it goes well and dropped, with its transaction, when it does not.
    async fn attempt(&mut self, appends: &[Append]) -> Result<Vec<Outcome>, Failure> {
        let mut connection = self.connected().await?;
        let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        // Everything below is seen as the last holder of this lock left it.
        let head: Option<(i64, i64, i64)> =
            transaction.row("SELECT last_seq, term, txid_current() FROM head FOR UPDATE", &[]).await?;
        let Some((last, term, id)) = head else {
            return Err(
                JournalError::Damaged { what: "table `head`".into(), reason: "it is empty".into() }.into()
            );
        };
        // 0 is no term: nobody has led yet, or this process does not.
        let leads = term != 0 && term == self.term.load(Ordering::SeqCst);
        let (reached, outcomes) = apply_batch(&mut *transaction, last, leads, appends).await?;
        if reached != last {
            let position = reached.to_string();
            transaction
                .execute(
                    "WITH moved AS (UPDATE head SET last_seq = $1) SELECT pg_notify($2, $3)",
                    &[reached.into(), APPENDED.into(), (&position).into()],
                )
                .await?;
        }
        match transaction.commit().await.map_err(JournalError::from) {
            Ok(()) => {
                self.connection = Some(connection);
                Ok(outcomes)
            }
            Err(error) if error.is_outage() => {
                let last = last_record(appends, &outcomes).map(|json| (reached, json.to_owned()));
                Err(Failure::AtCommit { written: Written { transaction: id, last }, outcomes })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a transaction was committed, asked until `deadline`; `None` when the server does not come back.
    async fn was_committed(&mut self, written: &Written, deadline: Instant) -> Option<bool> {
        loop {
            let asked = async {
                let mut connection = self.connected().await?;
                let asked = connection.row("SELECT txid_status($1)", &[written.transaction.into()]).await;
                let status: Option<(Option<String>,)> = match asked {
                    // The number was not given to anybody yet: lost in a crash.
                    Err(error) if !error.is_outage() => Some((Some("aborted".into()),)),
                    answer => answer?,
                };
                let is_there = match &written.last {
                    Some((seq, json)) => {
                        let found: Option<(String,)> = connection
                            .row("SELECT json FROM events WHERE seq = $1", &[(*seq).into()])
                            .await?;
                        found.is_some_and(|(found,)| found == *json)
                    }
                    None => true,
                };
                self.connection = Some(connection);
                Ok::<_, JournalError>(status.and_then(|(status,)| status).map(|status| (status, is_there)))
            };
            match timeout(STALL, asked).await {
                // What has the number now may be another one, with its own events.
                Ok(Ok(Some((status, is_there)))) if status == "committed" => return Some(is_there),
                Ok(Ok(Some((status, _)))) if status == "aborted" => return Some(false),
                // Still in progress, or the server is still away.
                Ok(Ok(Some(_)) | Err(_)) | Err(_) if Instant::now() < deadline => sleep(RETRY).await,
                _ => return None,
            }
        }
    }
}

/// The body of the last event that `appends` wrote.
fn last_record<'a>(appends: &'a [Append], outcomes: &[Outcome]) -> Option<&'a str> {
    let written = appends.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_ok());
    written.flat_map(|(append, _)| &append.records).last().map(|record| record.json.as_str())
}

impl Commit for Server {
    async fn commit(&mut self, appends: &[Append]) -> Result<Vec<Outcome>, JournalError> {
        let deadline = Instant::now() + self.outage;
        loop {
            let stalled = || JournalError::Lost { reason: format!("no answer within {} s", STALL.as_secs()) };
            let error = match timeout(STALL, self.attempt(appends)).await {
                Ok(Ok(outcomes)) => return Ok(outcomes),
                Ok(Err(Failure::Before(error))) => error,
                Ok(Err(Failure::AtCommit { written, outcomes })) => {
                    match self.was_committed(&written, deadline).await {
                        Some(true) => return Ok(outcomes),
                        Some(false) => continue,
                        None => return Err(JournalError::Unsettled),
                    }
                }
                // It may have stalled at the commit.
                Err(_) => return Err(stalled()),
            };
            if !error.is_outage() || Instant::now() >= deadline {
                return Err(error);
            }
            tracing::debug!(%error, "the server is away; the batch waits");
            sleep(RETRY).await;
        }
    }

    async fn finish(&mut self) -> Result<(), JournalError> {
        if let Some(connection) = self.connection.take() {
            connection.close().await?;
        }
        Ok(())
    }
}
