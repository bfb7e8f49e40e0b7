//! Opening the database: is it ours, is it of our format; and making it so.

use sqlx::{
    Connection as _, PgConnection,
    migrate::{MigrateError, Migrator},
};

use super::address::Address;
use crate::{JournalError, db::Db as _};

/// Every format that there ever was; the number of the latest is the format's number.
static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// What [`inspect`] found out about a database.
enum Found {
    /// Nothing of us in it yet.
    Fresh,
    /// Ours, of this format.
    Ours(i64),
}

/// Opens the database for writing and brings it up to date. Returns the writer's connection.
pub(super) async fn open(address: &Address) -> Result<PgConnection, JournalError> {
    let mut db = address.connect().await?;
    check_server(&mut db, address).await?;
    match inspect(&mut db, address).await? {
        Found::Ours(found) if found > latest() => return Err(newer(address, found)),
        Found::Ours(found) if found == latest() => {}
        Found::Ours(_) | Found::Fresh => migrate(&mut db, address).await?,
    }
    Ok(db)
}

/// Checks that the database is of our format, without changing it.
pub(super) async fn check_readable(address: &Address) -> Result<(), JournalError> {
    let mut db = address.connect().await?;
    match inspect(&mut db, address).await? {
        Found::Fresh => return Err(JournalError::NoTables { at: address.place().to_owned() }),
        Found::Ours(found) if found > latest() => return Err(newer(address, found)),
        Found::Ours(found) if found < latest() => {
            let path = address.place().into();
            return Err(JournalError::Older { path, found, known: latest() });
        }
        Found::Ours(_) => {}
    }
    Ok(db.close().await?)
}

fn latest() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default()
}

fn newer(address: &Address, found: i64) -> JournalError {
    JournalError::Newer { path: address.place().into(), found, known: latest() }
}

/// What is wrong with the server for our purposes, if anything is.
async fn check_server(db: &mut PgConnection, address: &Address) -> Result<(), JournalError> {
    let facts: (String, bool, String) = sqlx::query_as(
        "SELECT current_setting('server_encoding'), pg_is_in_recovery(), current_setting('fsync')",
    )
    .fetch_one(db)
    .await?;
    let (encoding, standby, fsync) = facts;
    if encoding != "UTF8" {
        let reason = format!("its encoding is {encoding}, and UTF8 is needed");
        return Err(JournalError::CannotOpen { path: address.place().into(), reason });
    }
    if standby {
        return Err(JournalError::NotWritable { reason: format!("`{}` is a standby", address.place()) });
    }
    if fsync == "off" {
        tracing::warn!(
            at = address.place(),
            "Postgres runs with fsync = off: a power cut may lose what was acknowledged"
        );
    }
    Ok(())
}

async fn inspect(db: &mut PgConnection, address: &Address) -> Result<Found, JournalError> {
    let (objects,): (i64,) = sqlx::query_as(
        "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'autoglm'",
    )
    .fetch_one(&mut *db)
    .await?;
    if objects == 0 {
        return Ok(Found::Fresh);
    }
    // The tables and their list of formats are made in one transaction, so whoever sees one sees the other.
    let (ours,): (bool,) = sqlx::query_as(
        "SELECT to_regclass('autoglm.head') IS NOT NULL AND to_regclass('autoglm._sqlx_migrations') IS NOT NULL",
    )
    .fetch_one(&mut *db)
    .await?;
    if !ours {
        let reason = "its schema `autoglm` holds another program's tables".into();
        return Err(JournalError::NotOurs { path: address.place().into(), reason });
    }
    let format: Option<(Option<i64>,)> = db.row("SELECT max(version) FROM _sqlx_migrations", &[]).await?;
    Ok(Found::Ours(format.unwrap_or_default().0.unwrap_or_default()))
}

/// Brings the database up to date, all or nothing; of several processes at once, one does it.
async fn migrate(db: &mut PgConnection, address: &Address) -> Result<(), JournalError> {
    let mut transaction = db.begin().await?;
    transaction.execute("SET LOCAL lock_timeout = 0", &[]).await?;
    sqlx::query("SELECT pg_advisory_xact_lock(1634167917, 0)").execute(&mut *transaction).await?;
    // `IF NOT EXISTS` would ask for the right to make schemas even where an administrator has made ours.
    let schema: Option<(i64,)> =
        transaction.row("SELECT 1::bigint FROM pg_namespace WHERE nspname = 'autoglm'", &[]).await?;
    if schema.is_none() {
        transaction.execute("CREATE SCHEMA autoglm", &[]).await?;
    }
    let migrated = MIGRATIONS.run_direct(None, &mut *transaction, false).await;
    migrated.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        MigrateError::VersionMissing(found) => newer(address, found),
        MigrateError::VersionMismatch(format) => JournalError::NotOurs {
            path: address.place().into(),
            reason: format!("its format {format} is not the one of this autoglm"),
        },
        other => JournalError::Sql { reason: other.to_string() },
    })?;
    transaction.commit().await?;
    tracing::info!(at = address.place(), format = latest(), "database brought up to date");
    Ok(())
}
