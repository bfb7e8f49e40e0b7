//! The store that the settings name: a file in the data directory, or a Postgres database.

use std::sync::Arc;

use autoglm_domain::{Cursors, Error, Result, Store};
use autoglm_journal::{PostgresStore, SqliteStore};

use crate::settings::Settings;

/// An open store, and what only one of its engines can do.
#[derive(Debug, Clone)]
pub(crate) enum Database {
    /// A file that one process runs the loop on.
    Sqlite(SqliteStore),
    /// A database that several processes share.
    Postgres(PostgresStore),
}

impl Database {
    /// For a server: made where it is not there yet, and brought up to date.
    pub(crate) async fn open(settings: &Settings) -> Result<Self> {
        let journal = settings.journal.clone();
        Ok(match settings.store.url.as_str() {
            "" => Self::Sqlite(SqliteStore::open(settings.database(), journal).await?),
            url => Self::Postgres(PostgresStore::connect(url, journal).await?),
        })
    }

    /// For a command that changes something; servers may be writing as well. It must be one of ours already.
    pub(crate) async fn open_existing(settings: &Settings) -> Result<Self> {
        if settings.store.url.is_empty() {
            let path = settings.database();
            if !path.is_file() {
                return Err(Error::not_found(format!("no database at `{}`", path.display()))
                    .with_hint("check the data directory; a server makes the file when it first starts"));
            }
        } else {
            Self::open_read_only(settings).await?.close().await?;
        }
        Self::open(settings).await
    }

    /// For a command that looks; servers may be writing.
    pub(crate) async fn open_read_only(settings: &Settings) -> Result<Self> {
        let journal = settings.journal.clone();
        Ok(match settings.store.url.as_str() {
            "" => Self::Sqlite(SqliteStore::open_read_only(settings.database(), journal).await?),
            url => Self::Postgres(PostgresStore::connect_read_only(url, journal).await?),
        })
    }

    /// The store.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(store) => Arc::new(store.clone()),
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }

    /// The store for what only the leader may write.
    pub(crate) fn leaders_store(&self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(store) => Arc::new(store.as_leader()),
            Self::Postgres(store) => Arc::new(store.as_leader()),
        }
    }

    /// How far the mirrors are, for looking.
    pub(crate) fn cursors(&self) -> Arc<dyn Cursors> {
        match self {
            Self::Sqlite(store) => Arc::new(store.clone()),
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }

    /// The same for the leader, who feeds the mirrors.
    pub(crate) fn leaders_cursors(&self) -> Arc<dyn Cursors> {
        match self {
            Self::Sqlite(store) => Arc::new(store.as_leader()),
            Self::Postgres(store) => Arc::new(store.as_leader()),
        }
    }

    /// The store where several processes may share it.
    pub(crate) fn shared(&self) -> Option<&PostgresStore> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(store) => Some(store),
        }
    }

    /// Writes what is queued and lets go; an error is that of the last writes.
    pub(crate) async fn close(&self) -> Result<()> {
        Ok(match self {
            Self::Sqlite(store) => store.close().await,
            Self::Postgres(store) => store.close().await,
        }?)
    }
}
