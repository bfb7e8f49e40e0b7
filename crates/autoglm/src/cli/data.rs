//! The data directory, opened beside a server or without one.

use std::sync::Arc;

use autoglm_domain::{Result, Store, SystemClock};
use autoglm_registry::{ObjectArtifacts, Registry};

use crate::{database::Database, settings::Settings};

/// Store, artifacts and registry of a data directory.
pub(super) struct Data {
    pub(super) store: Arc<dyn Store>,
    database: Database,
    pub(super) artifacts: Arc<ObjectArtifacts>,
    pub(super) registry: Registry,
}

impl Data {
    /// For looking; a server may be writing.
    pub(super) async fn read(settings: &Settings) -> Result<Self> {
        Self::over(Database::open_read_only(settings).await?, settings).await
    }

    /// For changing; a server may be writing as well. The directory must be one of ours already.
    pub(super) async fn write(settings: &Settings) -> Result<Self> {
        Self::over(Database::open_existing(settings).await?, settings).await
    }

    async fn over(database: Database, settings: &Settings) -> Result<Self> {
        let store = database.store();
        let artifacts = Arc::new(ObjectArtifacts::open(&settings.registry, &settings.store.data_dir)?);
        let registry =
            Registry::open(store.clone(), artifacts.clone(), Arc::new(SystemClock), &settings.registry)
                .await?;
        Ok(Self { store, database, artifacts, registry })
    }

    /// Lets go of the files; an error is that of the last writes.
    pub(super) async fn close(self) -> Result<()> {
        self.database.close().await
    }
}

/// Who gives an order on this machine, for the record.
pub(super) fn who() -> String {
    ["USER", "USERNAME", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()))
        .unwrap_or_else(|| "cli".to_owned())
}
