//! The data directory, opened beside a server or without one.

use std::sync::Arc;

use autoglm_domain::{Error, Result, SystemClock};
use autoglm_journal::SqliteStore;
use autoglm_registry::{ObjectArtifacts, Registry};

use crate::settings::Settings;

/// Store, artifacts and registry of a data directory.
pub(super) struct Data {
    pub(super) store: Arc<SqliteStore>,
    pub(super) artifacts: Arc<ObjectArtifacts>,
    pub(super) registry: Registry,
}

impl Data {
    /// For looking; a server may be writing.
    pub(super) async fn read(settings: &Settings) -> Result<Self> {
        let store = SqliteStore::open_read_only(settings.database(), settings.journal.clone()).await?;
        Self::over(store, settings).await
    }

    /// For changing; a server may be writing as well. The directory must be one of ours already.
    pub(super) async fn write(settings: &Settings) -> Result<Self> {
        let path = settings.database();
        if !path.is_file() {
            return Err(Error::not_found(format!("no database at `{}`", path.display()))
                .with_hint("check the data directory; a server makes the file when it first starts"));
        }
        let store = SqliteStore::open(path, settings.journal.clone()).await?;
        Self::over(store, settings).await
    }

    async fn over(store: SqliteStore, settings: &Settings) -> Result<Self> {
        let store = Arc::new(store);
        let artifacts = Arc::new(ObjectArtifacts::open(&settings.registry, &settings.store.data_dir)?);
        let registry =
            Registry::open(store.clone(), artifacts.clone(), Arc::new(SystemClock), &settings.registry)
                .await?;
        Ok(Self { store, artifacts, registry })
    }

    /// Lets go of the files; an error is that of the last writes.
    pub(super) async fn close(self) -> Result<()> {
        Ok(self.store.close().await?)
    }
}

/// Who gives an order on this machine, for the record.
pub(super) fn who() -> String {
    ["USER", "USERNAME", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()))
        .unwrap_or_else(|| "cli".to_owned())
}
