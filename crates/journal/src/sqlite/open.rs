//! Opening the file: is it ours, is it whole, is it of our format.

use std::path::Path;

use sqlx::{
    ConnectOptions, Connection, SqliteConnection, SqlitePool,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{Config, Fsync, JournalError};

/// Every format that there ever was; the number of the latest is the format's number.
static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// `application_id` of our files, set by the first migration.
const APPLICATION_ID: i64 = 0x6167_6c6d;

/// The log is cut back to this size after a burst; above what it comes to without one, for a commit waits for the cut.
const JOURNAL_SIZE_LIMIT: &str = "268435456"; // 256 MiB

/// Pages that a reading connection keeps, in KiB as SQLite writes it; the system keeps the file as well.
const READERS_CACHE: &str = "-512";

/// Compiled statements that a connection keeps.
const STATEMENTS: usize = 256;

/// Page size that `max_file_mib` is counted in.
const PAGES_PER_MIB: u64 = 256;

/// What [`open`] found out about a file.
enum Found {
    /// Nothing in it yet.
    Fresh,
    /// Ours, of this format.
    Ours(i64),
}

/// Opens `path` for writing, makes it where it is missing, and brings it up to date. Returns the writer's
/// connection and the options to open another.
pub(crate) async fn open(
    path: &Path,
    config: &Config,
) -> Result<(SqliteConnection, SqliteConnectOptions), JournalError> {
    let mut options = options(path, config)
        .create_if_missing(true)
        // `folding` does it, so that no commit waits for it.
        .pragma("wal_autocheckpoint", "0");
    if let Some(mib) = config.max_file_mib {
        options = options.pragma("max_page_count", mib.saturating_mul(PAGES_PER_MIB).to_string());
    }
    let mut db = SqliteConnection::connect_with(&options).await?;
    let found = inspect(&mut db, path).await?;
    if let Found::Ours(format) = found {
        if format > latest() {
            return Err(JournalError::Newer { path: path.into(), found: format, known: latest() });
        }
        check(&mut db, path, config).await?;
    }
    use_wal(&mut db, path, config).await?;
    if !matches!(found, Found::Ours(format) if format == latest()) {
        migrate(&mut db, path).await?;
    }
    Ok((db, options.create_if_missing(false)))
}

/// Checks that `path` is there and of our format, without changing it.
pub(crate) async fn check_readable(path: &Path, config: &Config) -> Result<(), JournalError> {
    let exists = tokio::fs::try_exists(path).await;
    if !exists.map_err(|error| JournalError::CannotOpen { path: path.into(), reason: error.to_string() })? {
        return Err(JournalError::NoFile { path: path.into() });
    }
    let mut db = SqliteConnection::connect_with(&options(path, config).pragma("query_only", "ON")).await?;
    match inspect(&mut db, path).await? {
        Found::Fresh => {
            return Err(JournalError::NotOurs { path: path.into(), reason: "it is empty".into() });
        }
        Found::Ours(found) if found > latest() => {
            return Err(JournalError::Newer { path: path.into(), found, known: latest() });
        }
        Found::Ours(found) if found < latest() => {
            return Err(JournalError::Older { path: path.into(), found, known: latest() });
        }
        Found::Ours(_) => {}
    }
    check(&mut db, path, config).await?;
    Ok(db.close().await?)
}

/// The connections that reads go through, `at_once` of them opened now. Each has a thread, which inherits the priority of
/// the one that asks for it.
pub(crate) async fn readers(path: &Path, config: &Config, at_once: u32) -> Result<SqlitePool, JournalError> {
    let pool = SqlitePoolOptions::new()
        .min_connections(at_once)
        .max_connections(config.readers)
        .acquire_timeout(config.busy_timeout().max(std::time::Duration::from_secs(1)))
        .test_before_acquire(false);
    let options = options(path, config).pragma("query_only", "ON").pragma("cache_size", READERS_CACHE);
    Ok(pool.connect_with(options).await?)
}

fn options(path: &Path, config: &Config) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(config.busy_timeout())
        .foreign_keys(true)
        // In WAL mode only FULL makes a commit wait for the disk: https://www.sqlite.org/pragma.html#pragma_synchronous
        .synchronous(if config.fsync == Fsync::Always {
            SqliteSynchronous::Full
        } else {
            SqliteSynchronous::Normal
        })
        .pragma("journal_size_limit", JOURNAL_SIZE_LIMIT)
        // The writer has one for each number of rows.
        .statement_cache_capacity(STATEMENTS)
        .disable_statement_logging()
}

fn latest() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default()
}

async fn inspect(db: &mut SqliteConnection, path: &Path) -> Result<Found, JournalError> {
    // The tables first: another process may be making them and the mark in one transaction just now, and then
    // whoever has seen the tables sees the mark as well.
    let objects: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(&mut *db).await?;
    let application: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *db).await?;
    if application == APPLICATION_ID {
        let format: Option<i64> =
            sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations").fetch_one(db).await?;
        return Ok(Found::Ours(format.unwrap_or_default()));
    }
    if application == 0 && objects == 0 {
        return Ok(Found::Fresh);
    }
    Err(JournalError::NotOurs { path: path.into(), reason: "it holds another program's tables".into() })
}

/// Reads the whole file once for damage, if it is small enough to do so at every start.
async fn check(db: &mut SqliteConnection, path: &Path, config: &Config) -> Result<(), JournalError> {
    let size = tokio::fs::metadata(path).await.map_or(0, |metadata| metadata.len());
    if size > config.check_below_mib.saturating_mul(1 << 20) {
        return Ok(());
    }
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(db).await?;
    match verdict.as_str() {
        "ok" => Ok(()),
        reason => Err(JournalError::Damaged { what: "the database".into(), reason: reason.into() }),
    }
}

/// Turns on write-ahead logging, which stays on. SQLite does not wait for a lock here, so we do.
async fn use_wal(db: &mut SqliteConnection, path: &Path, config: &Config) -> Result<(), JournalError> {
    let step = std::time::Duration::from_millis(20);
    let mut left = config.busy_timeout();
    let mode: String = loop {
        let answer = sqlx::query_scalar("PRAGMA journal_mode = WAL").fetch_one(&mut *db).await;
        match answer.map_err(JournalError::from) {
            Err(JournalError::Locked) if left >= step => {
                left -= step;
                tokio::time::sleep(step).await;
            }
            answer => break answer?,
        }
    };
    if mode == "wal" {
        return Ok(());
    }
    let reason = "its file system does not support shared memory, which write-ahead logging needs".into();
    Err(JournalError::CannotOpen { path: path.into(), reason })
}

/// Brings the file up to date, all or nothing; of several processes at once, one does it.
async fn migrate(db: &mut SqliteConnection, path: &Path) -> Result<(), JournalError> {
    let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
    let migrated = MIGRATIONS.run_direct(None, &mut *transaction, false).await;
    migrated.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        MigrateError::VersionMissing(found) => {
            JournalError::Newer { path: path.into(), found, known: latest() }
        }
        MigrateError::VersionMismatch(format) => JournalError::NotOurs {
            path: path.into(),
            reason: format!("its format {format} is not the one of this autoglm"),
        },
        other => JournalError::Sql { reason: other.to_string() },
    })?;
    transaction.commit().await?;
    tracing::info!(path = %path.display(), format = latest(), "database brought up to date");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_writer_always_waits_for_the_disk_where_it_is_told_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.sqlite");
        let always = Config { fsync: Fsync::Always, ..Config::default() };
        let (mut first, options) = open(&path, &always).await.unwrap();
        let mut again = SqliteConnection::connect_with(&options).await.unwrap();
        for db in [&mut first, &mut again] {
            let full: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *db).await.unwrap();
            let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *db).await.unwrap();
            let keys: i64 = sqlx::query_scalar("PRAGMA foreign_keys").fetch_one(&mut *db).await.unwrap();
            assert_eq!((full, mode.as_str(), keys), (2, "wal", 1));
        }
        for fsync in [Fsync::Interval, Fsync::Never] {
            let (mut db, _) = open(&path, &Config { fsync, ..Config::default() }).await.unwrap();
            let normal: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut db).await.unwrap();
            assert_eq!(normal, 1);
        }
    }
}
