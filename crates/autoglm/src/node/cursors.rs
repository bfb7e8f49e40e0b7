//! How far followers of the journal are, one small file each in the data directory.

use std::{io::Write as _, path::PathBuf};

use autoglm_domain::{Error, Result};
use autoglm_webhook::Cursors;

use crate::database::Database;

/// Files in one folder.
pub(super) struct CursorFiles {
    pub(super) folder: PathBuf,
    pub(super) database: Database,
}

#[async_trait::async_trait]
impl Cursors for CursorFiles {
    async fn last_seq(&self) -> Result<i64> {
        Ok(match &self.database {
            Database::Sqlite(store) => store.last_seq().await,
            Database::Postgres(store) => store.last_seq().await,
        }?)
    }

    async fn load(&self, follower: &str) -> Result<Option<i64>> {
        let path = self.folder.join(follower);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::unavailable(format!("`{}`: {error}", path.display()))),
        };
        let seq = text.trim().parse().map_err(|_| {
            Error::internal(format!("`{}` holds no position of the journal", path.display()))
                .with_hint("remove it, and its follower begins with what happens from then on")
        })?;
        Ok(Some(seq))
    }

    /// To a temporary name, synced and renamed: whole or not at all.
    async fn save(&self, follower: &str, seq: i64) -> Result<()> {
        let path = self.folder.join(follower);
        let staging = self.folder.join(format!("{follower}.partial"));
        let write = || {
            std::fs::create_dir_all(&self.folder)?;
            let mut file = std::fs::File::create(&staging)?;
            file.write_all(seq.to_string().as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&staging, &path)
        };
        write().map_err(|error: std::io::Error| {
            Error::unavailable(format!("`{}` cannot be written: {error}", path.display()))
        })
    }
}
