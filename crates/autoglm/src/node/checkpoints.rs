//! The checkpoint of the training run in progress, as a file in the data directory.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use autoglm_domain::{CheckpointStore, Error, Result, TrainingRunId};

/// Folder in the data directory; it holds one file, named by its run.
const FOLDER: &str = "checkpoint";

/// Keeps checkpoints under a data directory.
#[derive(Debug)]
pub(crate) struct CheckpointFile {
    folder: PathBuf,
}

impl CheckpointFile {
    /// In the data directory `data`; the folder is made with the first checkpoint.
    pub(crate) fn in_data(data: &Path) -> Self {
        Self { folder: data.join(FOLDER) }
    }

    fn path(&self, run: TrainingRunId) -> PathBuf {
        self.folder.join(run.to_string())
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        Error::unavailable(format!("a checkpoint in `{}`: {error}", self.folder.display()))
    }

    /// Removes every file but `keep`.
    fn remove_others(&self, keep: Option<&Path>) -> std::io::Result<()> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if Some(path.as_path()) != keep {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn write(&self, run: TrainingRunId, state: &[u8]) -> std::io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let (path, partial) = (self.path(run), self.folder.join("partial"));
        let mut file = fs::File::create(&partial)?;
        file.write_all(state)?;
        file.sync_all()?;
        fs::rename(&partial, &path)?;
        self.remove_others(Some(&path))
    }
}

impl CheckpointStore for CheckpointFile {
    fn save(&self, run: TrainingRunId, state: &[u8]) -> Result<()> {
        self.write(run, state).map_err(|error| self.failed(&error))
    }

    fn load(&self, run: TrainingRunId) -> Result<Option<Vec<u8>>> {
        match fs::read(self.path(run)) {
            Ok(state) => Ok(Some(state)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn clear(&self) -> Result<()> {
        self.remove_others(None).map_err(|error| self.failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn there_is_one_checkpoint_and_it_is_of_the_run_that_wrote_it() {
        let data = tempfile::tempdir().unwrap();
        let store = CheckpointFile::in_data(data.path());
        let [first, second] = [1, 2].map(|id| TrainingRunId::new(Uuid::from_u128(id)));
        assert_eq!((store.load(first), store.clear()), (Ok(None), Ok(())));
        store.save(first, b"one").unwrap();
        store.save(first, b"two").unwrap();
        assert_eq!((store.load(first), store.load(second)), (Ok(Some(b"two".to_vec())), Ok(None)));
        // A write that was cut short changes nothing, and the next one takes its place.
        fs::write(store.folder.join("partial"), b"thr").unwrap();
        assert_eq!(store.load(first), Ok(Some(b"two".to_vec())));
        store.save(second, b"three").unwrap();
        assert_eq!((store.load(first), store.load(second)), (Ok(None), Ok(Some(b"three".to_vec()))));
        assert_eq!(fs::read_dir(&store.folder).unwrap().count(), 1);
        store.clear().unwrap();
        assert_eq!(store.load(second), Ok(None));
    }
}
