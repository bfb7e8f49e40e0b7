//! Adapters in a folder that another server reads.

use std::{
    io,
    path::{Path, PathBuf},
};

use autoglm_domain::{Adapter, ContentHash};

/// The files of an adapter in PEFT's format.
const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// The name of an adapter on the upstream: its content's, so that one name never stands for two contents.
pub(crate) fn name(adapter: &Adapter) -> String {
    format!("autoglm-{}", ContentHash::of(&adapter.pack()))
}

/// Writes `adapter` to `dir/name`, whole or not at all. A folder that is there already must hold the same.
pub(crate) fn write(dir: &Path, name: &str, adapter: &Adapter) -> io::Result<PathBuf> {
    let folder = dir.join(name);
    if folder.exists() {
        return verify(&folder, adapter).map(|()| folder);
    }
    let partial = dir.join(format!(".{name}.{}.partial", std::process::id()));
    remove(&partial)?;
    std::fs::create_dir_all(&partial)?;
    std::fs::write(partial.join(CONFIG), &adapter.config)?;
    std::fs::write(partial.join(WEIGHTS), &adapter.weights)?;
    match std::fs::rename(&partial, &folder) {
        Ok(()) => {}
        // Another process was quicker.
        Err(_) if folder.exists() => {
            remove(&partial)?;
            verify(&folder, adapter)?;
        }
        Err(error) => return Err(error),
    }
    Ok(folder)
}

/// Removes the folder; one that is not there is no error.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn verify(folder: &Path, adapter: &Adapter) -> io::Result<()> {
    let there = std::fs::read(folder.join(CONFIG))? == adapter.config
        && std::fs::read(folder.join(WEIGHTS))? == adapter.weights;
    if there {
        return Ok(());
    }
    let reason = "the folder holds something else than its name says; remove it";
    Err(io::Error::new(io::ErrorKind::InvalidData, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(weights: &[u8]) -> Adapter {
        Adapter { config: b"{}".to_vec(), weights: weights.to_vec() }
    }

    #[test]
    fn files_are_written_once_under_their_hash_and_a_changed_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let name = name(&adapter(b"1"));
        assert_eq!(name.len(), "autoglm-".len() + 64);
        assert_ne!(name, super::name(&adapter(b"2")));
        let path = write(folder.path(), &name, &adapter(b"1")).unwrap();
        assert_eq!(std::fs::read(path.join(WEIGHTS)).unwrap(), b"1");
        assert_eq!(write(folder.path(), &name, &adapter(b"1")).unwrap(), path);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing partial stays");
        std::fs::write(path.join(WEIGHTS), b"other").unwrap();
        let refused = write(folder.path(), &name, &adapter(b"1")).unwrap_err();
        assert!(refused.to_string().contains("something else"), "{refused}");
        remove(&path).unwrap();
        remove(&path).unwrap();
    }
}
