//! Folds the log into the file beside the writer.
//!
//! Left to itself, SQLite folds within the commit that makes the log long, and every append behind it waits for the
//! disk some more times. Here a connection of its own does it while commits go on. What it cannot do under load is let
//! the log begin anew, for by the time that it is through the log has grown. Where the log is long the writer is
//! therefore asked to fold what little is left, between two commits; the next commit then begins the log anew. Both wait
//! for the disk, so they are rare: a page that many commits have written is then folded once.
//! See <https://www.sqlite.org/wal.html#ckpt>.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{sync::Notify, task::JoinHandle};

use crate::JournalError;

/// Pages in the log, and not in the file yet, at which they are folded in.
const FOLD_AT: i64 = 4096;
/// Pages in the log from which it is to begin anew: 128 MiB.
const LONG: i64 = 32_768;
/// Least time between two looks at the log.
const PACE: Duration = Duration::from_millis(100);

/// The task that folds, and what it and the writer tell each other.
#[derive(Debug)]
pub(super) struct Folding {
    told: Arc<Told>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Told {
    committed: Notify,
    is_long: AtomicBool,
    stop: Notify,
}

impl Told {
    /// Waits for `event`; false where it is to stop instead.
    async fn goes_on(&self, event: impl Future<Output = ()>) -> bool {
        tokio::select! {
            () = self.stop.notified() => false,
            () = event => true,
        }
    }
}

impl Folding {
    /// Starts the task, with a connection that `options` open.
    pub(super) fn start(options: SqliteConnectOptions) -> Self {
        let told = Arc::new(Told::default());
        Self { told: Arc::clone(&told), task: tokio::spawn(run(options, told)) }
    }

    /// Something was written.
    pub(super) fn committed(&self) {
        self.told.committed.notify_one();
    }

    /// Before a commit: folds the rest where the log is long.
    pub(super) async fn shorten(&self, db: &mut SqliteConnection) {
        if self.told.is_long.swap(false, Ordering::Relaxed) {
            // What is not folded now is later; the task tells of what stands in its way.
            let _ = fold(db).await;
        }
    }

    /// Ends it; nobody else folds from then on.
    pub(super) async fn stop(&mut self) {
        self.told.stop.notify_one();
        // It does not fail, and what it was at is then done.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Folding {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(options: SqliteConnectOptions, told: Arc<Told>) {
    let (mut connection, mut failing) = (None, false);
    while told.goes_on(told.committed.notified()).await {
        let result = async {
            let db = match &mut connection {
                Some(db) => db,
                none => none.insert(SqliteConnection::connect_with(&options).await?),
            };
            look(db, &told).await
        };
        match result.await {
            Ok(()) => failing = false,
            Err(error) => {
                connection = None;
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "the log of the database is not folded in and grows");
                }
            }
        }
        if !told.goes_on(tokio::time::sleep(PACE)).await {
            break;
        }
    }
    if let Some(db) = connection {
        let _ = db.close().await;
    }
}

async fn look(db: &mut SqliteConnection, told: &Told) -> Result<(), JournalError> {
    // Says how long it is, and does nothing.
    let log = checkpoint(db, "PRAGMA wal_checkpoint(NOOP)").await?;
    if log.pages - log.folded < FOLD_AT && log.pages < LONG {
        return Ok(());
    }
    let log = fold(db).await?;
    if log.pages >= LONG {
        // It has grown by what was written meanwhile: once more, so that the writer has little left to do.
        fold(db).await?;
        told.is_long.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// The log as it is.
struct Log {
    pages: i64,
    /// Those of them that are in the file too.
    folded: i64,
}

/// Folds what no reader needs as it was. Waits for nobody, and nobody waits for it.
async fn fold(db: &mut SqliteConnection) -> Result<Log, JournalError> {
    checkpoint(db, "PRAGMA wal_checkpoint(PASSIVE)").await
}

async fn checkpoint(db: &mut SqliteConnection, pragma: &'static str) -> Result<Log, JournalError> {
    let (_busy, pages, folded): (i64, i64, i64) = sqlx::query_as(pragma).fetch_one(db).await?;
    Ok(Log { pages, folded })
}
