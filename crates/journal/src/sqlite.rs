//! SQLite: one file, one machine.

mod bulk;
mod folding;
pub(crate) mod open;
mod syncing;

use std::{
    collections::HashSet,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use autoglm_domain::{Event, InteractionId};
use sqlx::{Connection, SqliteConnection, SqlitePool, sqlite::SqliteConnectOptions};

use self::{
    folding::Folding,
    syncing::{Syncing, Told},
};
use crate::{
    Config, Fsync, JournalError, SqlStore,
    db::{Db, db_of},
    read, spool,
    store::Engine,
    writer::{Append, Commit, Lane, Outcome, Writer, apply_batch},
};

/// Reading connections from the beginning; more are opened when they are asked for.
const READERS_AT_ONCE: u32 = 2;

db_of!(
    SqliteConnection,
    "BEGIN",
    "SELECT f.interaction_seq, f.seq, e.json FROM json_each($1) one
    JOIN feedback f ON f.interaction_seq = one.value JOIN events e ON e.seq = f.seq ORDER BY f.seq",
    read::interaction_rows!("WHERE i.id IN (SELECT value FROM json_each($1))"),
    read::pair_rows!("WHERE p.id IN (SELECT value FROM json_each($1))")
);

/// The engine of a [`SqliteStore`].
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    /// Where not every commit waits for the disk.
    syncing: Option<Arc<Told>>,
}

impl Engine for Sqlite {
    type Sql = sqlx::Sqlite;

    async fn reached(&self) -> Result<(), JournalError> {
        match &self.syncing {
            Some(syncing) => syncing.reached().await,
            None => Ok(()),
        }
    }
}

/// The store in one SQLite file.
pub type SqliteStore = SqlStore<Sqlite>;

/// How the store is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Health {
    /// Position of the latest event; 0 when there is none.
    pub last_seq: i64,
    /// Size of the database file in bytes.
    pub file_bytes: u64,
    /// Size of its write-ahead log in bytes.
    pub wal_bytes: u64,
    /// Appends that wait for the writer.
    pub queued_appends: usize,
    /// Commits that the disk may not have yet, where they do not wait for it until then.
    pub unsynced_commits: u64,
}

impl SqlStore<Sqlite> {
    /// Opens the file at `path` for reading and writing, makes it where it is missing (its folder must be
    /// there), and brings it up to date. Several processes may do so at once. Needs a tokio runtime, which
    /// the writer lives on.
    ///
    /// [`JournalError::Newer`], [`JournalError::NotOurs`] and [`JournalError::Damaged`] leave the file as it
    /// was.
    pub async fn open(path: impl AsRef<Path>, config: Config) -> Result<Self, JournalError> {
        let path = path.as_ref();
        config.validate()?;
        let at_path = |error: JournalError| error.while_opening(path);
        let (connection, options) = open::open(path, &config).await.map_err(at_path)?;
        let readers =
            open::readers(path, &config, READERS_AT_ONCE.min(config.readers)).await.map_err(at_path)?;
        let folding = Folding::start(options.clone());
        let syncing =
            (config.fsync == Fsync::Interval).then(|| Syncing::start(path, config.fsync_interval()));
        let told = syncing.as_ref().map(Syncing::told);
        let splits = config.fsync != Fsync::Always;
        let file = File {
            connection: Some(connection),
            last: None,
            splits,
            waits: false,
            options,
            folding,
            syncing,
        };
        let spooled = match spool_of(path, &readers).await? {
            Some(files) => {
                let there = there(&readers, &files.left()).await?;
                Some(files.spool(&there, config.queue_appends, config.fsync != Fsync::Always)?)
            }
            None => None,
        };
        let writer = Writer::start(file, &config, spooled);
        Ok(Self::over(Sqlite { path: path.to_path_buf(), syncing: told }, readers, Some(writer), &config))
    }

    /// Opens the file at `path` for reading, also while a server writes to it. Appends are refused with
    /// [`JournalError::ReadOnly`].
    ///
    /// [`JournalError::NoFile`] when it is missing, [`JournalError::Older`] when a server has to bring it up
    /// to date first, and as [`SqliteStore::open`].
    pub async fn open_read_only(path: impl AsRef<Path>, config: Config) -> Result<Self, JournalError> {
        let path = path.as_ref();
        config.validate()?;
        let at_path = |error: JournalError| error.while_opening(path);
        open::check_readable(path, &config).await.map_err(at_path)?;
        let readers = open::readers(path, &config, 0).await.map_err(at_path)?;
        let latest = spool::latest_of_others(path);
        if there(&readers, &latest).await?.len() < latest.len()
            && let Some(left) = spool_of(path, &readers).await?
        {
            // A process that was killed left them, and none has come after it.
            drop(left);
            Self::open(path, config.clone()).await?.close().await?;
        }
        Ok(Self::over(Sqlite { path: path.to_path_buf(), syncing: None }, readers, None, &config))
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.engine().path
    }

    /// Sizes and positions, for monitoring.
    pub async fn health(&self) -> Result<Health, JournalError> {
        let path = self.path();
        Ok(Health {
            last_seq: read::last_seq(&mut *self.reader().await?).await?,
            file_bytes: size(path).await,
            wal_bytes: size(&syncing::log_of(path)).await,
            queued_appends: self.queued_appends(),
            unsynced_commits: self.engine().syncing.as_ref().map_or(0, |told| told.unsynced()),
        })
    }
}

/// The file that belongs to the one at `path` and has its name with `ending` after it.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

async fn size(path: &Path) -> u64 {
    tokio::fs::metadata(path).await.map_or(0, |metadata| metadata.len())
}

/// The files of the spool beside the file at `path`. `None` where another process has them, once that has written what it
/// kept by now; and where they cannot be had.
async fn spool_of(path: &Path, readers: &SqlitePool) -> Result<Option<spool::Files>, JournalError> {
    const STEP: Duration = Duration::from_millis(2);
    const STEPS: u32 = 500;
    let mut latest = None;
    for _ in 0..STEPS {
        match spool::Files::open(path) {
            Ok(Some(files)) => return Ok(Some(files)),
            Ok(None) => {
                let latest = latest.get_or_insert_with(|| spool::latest_of_others(path));
                if there(readers, latest).await?.len() == latest.len() {
                    return Ok(None);
                }
                tokio::time::sleep(STEP).await;
            }
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the spool beside the database cannot be opened");
                return Ok(None);
            }
        }
    }
    tracing::warn!("the latest answers are not in the database yet: the process that writes them is slow to");
    Ok(None)
}

/// Which of `ids` the file has.
async fn there(readers: &SqlitePool, ids: &[InteractionId]) -> Result<HashSet<String>, JournalError> {
    const THERE: &str = "SELECT id, seq FROM interactions WHERE id IN (SELECT value FROM json_each($1))";
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let ids = read::list(ids);
    let rows: Vec<(String, i64)> = readers.acquire().await?.rows(THERE, &[(&ids).into()]).await?;
    Ok(rows.into_iter().map(|(id, _)| id).collect())
}

/// The writer's side of the file.
struct File {
    /// Dropped after a failure, for SQLite may have rolled back on its own; the next batch opens another.
    connection: Option<SqliteConnection>,
    /// Position of the last event, unless somebody else has written since, which a row at its position then says.
    last: Option<i64>,
    /// Whether kinds of appends are committed apart, for a commit need not wait for the disk.
    splits: bool,
    /// Whether commits of the connection wait for the disk, where that is told for each.
    waits: bool,
    options: SqliteConnectOptions,
    folding: Folding,
    /// Where not all of them do.
    syncing: Option<Syncing>,
}

impl File {
    async fn connect(&self) -> Result<SqliteConnection, JournalError> {
        SqliteConnection::connect_with(&self.options)
            .await
            .map_err(|error| JournalError::from(error).while_opening(self.options.get_filename()))
    }

    async fn write(&mut self, appends: &[Append]) -> Result<Vec<Outcome>, JournalError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.waits = false;
                self.connect().await?
            }
        };
        self.folding.shorten(&mut connection).await;
        // Whatever fails from here on drops the connection, and with it what was not committed.
        let waits = appends.iter().any(must_be_kept);
        if self.syncing.is_some() && self.waits != waits {
            let wait = if waits { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            connection.execute(wait, &[]).await?;
            self.waits = waits;
        }
        let quick = match self.last.take() {
            Some(last) => bulk::commit(&mut connection, last, appends).await.map(|it| (last, it)),
            None => None,
        };
        if let Some((last, Ok(events))) = quick {
            (self.last, self.connection) = (Some(last + events), Some(connection));
            self.folding.committed();
            return Ok(appends.iter().map(|_| Ok(())).collect());
        }
        match quick {
            // Somebody else may have written since, or one of the rows cannot be.
            Some((_, Err(error))) if bulk::is_refusal(&error) => {
                connection.execute("ROLLBACK", &[]).await?;
            }
            Some((_, Err(error))) => return Err(error),
            _ => {}
        }
        let last = begin(&mut connection).await?;
        // Who holds the data directory's lock leads; there is no other.
        let (last, outcomes) = match bulk::apply(&mut connection, last, appends).await {
            Err(error) if bulk::is_refusal(&error) => {
                connection.execute("ROLLBACK", &[]).await?;
                let last = begin(&mut connection).await?;
                apply_batch(&mut connection, last, true, appends).await?
            }
            applied => applied?,
        };
        connection.execute("COMMIT", &[]).await?;
        (self.last, self.connection) = (Some(last), Some(connection));
        self.folding.committed();
        Ok(outcomes)
    }
}

/// Whether the loss of `append` in a power cut would undo what somebody decided or taught, or what a mirror relies on.
fn must_be_kept(append: &Append) -> bool {
    let may_be_lost =
        |event: &Event| matches!(event, Event::Interaction(_) | Event::Assessment(_) | Event::ShadowPair(_));
    append.cursor.is_some() || !append.records.iter().all(|record| may_be_lost(&record.event))
}

/// Begins a transaction that nobody else writes beside; the position of the last event. Both in one round.
async fn begin(connection: &mut SqliteConnection) -> Result<i64, JournalError> {
    const BEGIN: &str = "BEGIN IMMEDIATE; SELECT coalesce(max(seq), 0) FROM events";
    let last: Vec<(i64,)> = connection.rows(BEGIN, &[]).await?;
    Ok(last.first().map_or(0, |last| last.0))
}

impl Commit for File {
    async fn commit(&mut self, appends: &[Append]) -> Result<Vec<Outcome>, JournalError> {
        if let Some(syncing) = &self.syncing {
            syncing.begins();
        }
        let written = self.write(appends).await;
        if let Some(syncing) = &self.syncing {
            // A commit of nothing waits for nothing.
            let wrote = written.as_ref().is_ok_and(|outcomes| outcomes.iter().any(Result::is_ok));
            syncing.done(self.waits && wrote);
        }
        written
    }

    /// Where a commit costs little, what is of one kind is written in one round and does not wait for the rest.
    fn lane(&self, append: &Append) -> Lane {
        match self.splits {
            true => bulk::kind(append) as Lane,
            false => Lane::default(),
        }
    }

    async fn finish(&mut self) -> Result<(), JournalError> {
        self.folding.stop().await;
        self.syncing = None;
        let Some(mut connection) = self.connection.take() else {
            return Ok(());
        };
        // A reader that is still busy keeps part of the log; that part is taken in at the next opening.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await?;
        Ok(connection.close().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::*;

    /// Each statement finds its rows by an index, or walks a table in the order it is asked for.
    #[tokio::test]
    async fn no_question_scans_or_sorts_the_journal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.sqlite");
        let (mut db, _) = open::open(&path, &Config::default()).await.unwrap();
        let whole_tables = [
            EXPERIENCES,
            VERSIONS,
            RUNS,
            ROLLOUTS,
            RECENT,
            PATTERNS,
            ALIASES,
            JUDGED,
            AWAITING,
            LAG,
            CURSORS,
        ];
        let by_key = [
            INTERACTION,
            SqliteConnection::FEEDBACK,
            SqliteConnection::INTERACTIONS_OF,
            SqliteConnection::PAIRS_OF,
            EVENTS,
            EXPERIENCE_EVENTS,
            EXPERIENCE,
            VERSION,
            RUN,
            ALIAS_MOVES,
            PAIR,
            LAST_SEQ,
        ];
        let of_a_rollout = [OLDEST_PAIRS, WORST_PAIRS, MOST_DIFFERENT_PAIRS, PROGRESS];
        for statement in whole_tables.iter().chain(&by_key).chain(&of_a_rollout) {
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(explain).fetch_all(&mut db).await.unwrap();
            let plan: Vec<String> = plan.into_iter().map(|row| row.3).collect();
            let sorts = plan.iter().any(|step| step.contains("TEMP B-TREE"));
            // Feedback of a few interactions is put in order, which no index of the whole table could do.
            assert!(!sorts || *statement == SqliteConnection::FEEDBACK, "{statement}\n{plan:#?}");
            let scans = plan.iter().filter(|step| step.starts_with("SCAN") && !step.contains("VIRTUAL"));
            let scans: Vec<_> = scans.filter(|step| !step.contains("INDEX interactions_")).collect();
            assert!(scans.is_empty() || whole_tables.contains(statement), "{statement}\n{plan:#?}");
        }
        for (statement, index) in [
            (AWAITING, "interactions_awaiting"),
            (LAG, "interactions_awaiting"),
            (JUDGED, "interactions_judged"),
        ] {
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(explain).fetch_all(&mut db).await.unwrap();
            assert!(plan[0].3.contains(index), "{statement}\n{plan:#?}");
        }
    }
}
