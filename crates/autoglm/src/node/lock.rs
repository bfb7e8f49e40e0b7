//! One process at a time runs the loop on a data directory.
//!
//! Two would each take the other's runs and rollouts for what a crash left behind. The lock is the system's, so it
//! goes with the process, however that ends. Commands that look at the directory or move an alias need no lock.

use std::{fs::File, path::Path};

use autoglm_domain::{Error, Result};

/// Name of the locked file.
const NAME: &str = "lock";

/// Held while a node is open.
#[derive(Debug)]
pub(crate) struct DataLock(File);

impl DataLock {
    /// Takes the lock of the directory `data`. `Conflict` while another process has it.
    pub(crate) fn take(data: &Path) -> Result<Self> {
        let path = data.join(NAME);
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(|error| {
            Error::unavailable(format!("`{}` cannot be written: {error}", path.display()))
                .with_hint("choose another data directory with --data-dir")
        })?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(Error::conflict(format!("`{}` is in use by another autoglm", data.display()))
                    .with_hint("stop it, or choose another data directory with --data-dir"))
            }
            Err(std::fs::TryLockError::Error(error)) => {
                // A file system without locks: better to run than to refuse.
                tracing::warn!(%error, path = %path.display(), "the data directory cannot be locked");
                Ok(Self(file))
            }
        }
    }

    /// Lets others have it.
    pub(crate) fn release(&self) {
        if let Err(error) = self.0.unlock() {
            tracing::debug!(%error, "the lock goes with the process");
        }
    }
}

#[cfg(test)]
mod tests {
    use autoglm_domain::ErrorKind;

    use super::*;

    #[test]
    fn a_directory_is_taken_once_until_it_is_released() {
        let folder = tempfile::tempdir().unwrap();
        let lock = DataLock::take(folder.path()).unwrap();
        let refused = DataLock::take(folder.path()).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Conflict);
        assert!(refused.message.ends_with("is in use by another autoglm"), "{refused}");
        lock.release();
        let next = DataLock::take(folder.path()).unwrap();
        drop(next);
        DataLock::take(folder.path()).unwrap();
        let missing = DataLock::take(&folder.path().join("nowhere")).unwrap_err();
        assert_eq!(missing.kind, ErrorKind::Unavailable);
    }
}
