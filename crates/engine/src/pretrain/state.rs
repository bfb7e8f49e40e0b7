//! The state of an interrupted pretraining, beside the model that it left.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::Path,
};

use crate::{EngineError, Result};

const NAME: &str = "pretrain.state";

/// What [`save`] wrote to `folder`.
pub(super) fn load(folder: &Path) -> Result<Vec<u8>> {
    let path = folder.join(NAME);
    fs::read(&path).map_err(|error| EngineError::file(&path, &error))
}

/// Writes `state` to `folder`, all of it or nothing.
pub(super) fn save(folder: &Path, state: &[u8]) -> Result<()> {
    let (path, partial) = (folder.join(NAME), folder.join(format!(".{NAME}.partial")));
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(&partial)?;
        file.write_all(state)?;
        file.sync_all()?;
        fs::rename(&partial, &path)
    };
    write().map_err(|error| EngineError::file(&path, &error))
}

/// Removes it: the pretraining is done.
pub(super) fn remove(folder: &Path) -> Result<()> {
    let path = folder.join(NAME);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(EngineError::file(&path, &error)),
        _ => Ok(()),
    }
}
