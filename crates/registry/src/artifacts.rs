//! Artifacts by content hash over any object store; a local folder by default.
//!
//! Bytes come in and are kept under their BLAKE3 as `ab/cdef…`; they come out only if they still hash to
//! that name. A local write goes to a temporary name, is synced, renamed and its folder synced, so a crash
//! leaves either the whole artifact or a leftover that [`ObjectArtifacts::sweep`] removes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use autoglm_domain::{ArtifactStore, ContentHash, Timestamp};
use object_store::{ObjectStore, ObjectStoreExt as _, local::LocalFileSystem, path::Path as ObjectPath};

use crate::{Config, Error, Result};

/// An [`ArtifactStore`] over an object store.
#[derive(Debug, Clone)]
pub struct ObjectArtifacts {
    store: Arc<dyn ObjectStore>,
    folder: Option<PathBuf>,
}

impl ObjectArtifacts {
    /// Artifacts where `config` says, `data_dir` being the data directory. Folders are made.
    pub fn open(config: &Config, data_dir: &Path) -> Result<Self> {
        let address = config.artifacts.as_str();
        let folder = match address.split_once("://") {
            None if address.is_empty() => data_dir.join("artifacts"),
            None => PathBuf::from(address),
            Some(("file", path)) if !path.is_empty() => PathBuf::from(path),
            Some(_) => return Err(Error::ArtifactsAddress(address.to_owned())),
        };
        Self::local(&folder)
    }

    /// Artifacts in a local folder, which is made. Writes are durable when they return.
    pub fn local(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::file(folder))?;
        let store = LocalFileSystem::new_with_prefix(folder)?.with_fsync(true);
        Ok(Self { store: Arc::new(store), folder: Some(folder.to_owned()) })
    }

    /// Artifacts in any other object store. Its `put` must be atomic, as those of S3 and the like are.
    pub fn remote(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, folder: None }
    }

    /// Removes what writes that were cut short before `before` left behind; returns how many files. A temporary file
    /// of a write in progress looks the same, so where several processes write, `before` must be long ago.
    pub async fn sweep(&self, before: Timestamp) -> Result<usize> {
        let Some(folder) = self.folder.clone() else { return Ok(0) };
        let removed = tokio::task::spawn_blocking(move || sweep_folder(&folder, before))
            .await
            .map_err(|error| Error::Storage(error.to_string()))??;
        if removed > 0 {
            tracing::info!(removed, "removed half-written artifacts");
        }
        Ok(removed)
    }

    async fn read(&self, hash: ContentHash) -> Result<Vec<u8>> {
        let object = match self.store.get(&location(hash)).await {
            Ok(object) => object,
            Err(object_store::Error::NotFound { .. }) => return Err(Error::NoArtifact(hash)),
            Err(error) => return Err(error.into()),
        };
        let bytes = object.bytes().await?;
        let found = ContentHash::of(&bytes);
        if found != hash {
            return Err(Error::Damaged { hash, found, bytes: bytes.len() });
        }
        Ok(bytes.into())
    }

    async fn write(&self, bytes: Vec<u8>) -> Result<ContentHash> {
        let hash = ContentHash::of(&bytes);
        match self.read(hash).await {
            Ok(_) => return Ok(hash),
            Err(Error::NoArtifact(_)) => {}
            Err(Error::Damaged { .. }) => tracing::warn!(%hash, "replacing a damaged artifact"),
            Err(error) => return Err(error),
        }
        self.store.put(&location(hash), bytes.into()).await?;
        Ok(hash)
    }
}

#[async_trait::async_trait]
impl ArtifactStore for ObjectArtifacts {
    async fn put(&self, bytes: Vec<u8>) -> autoglm_domain::Result<ContentHash> {
        Ok(self.write(bytes).await?)
    }

    async fn get(&self, hash: ContentHash) -> autoglm_domain::Result<Vec<u8>> {
        Ok(self.read(hash).await?)
    }

    async fn contains(&self, hash: ContentHash) -> autoglm_domain::Result<bool> {
        match self.store.head(&location(hash)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(Error::from(error).into()),
        }
    }
}

/// `ab/cdef…`: 256 folders keep each one small.
fn location(hash: ContentHash) -> ObjectPath {
    let digits = hash.to_string();
    let (folder, file) = digits.split_at(2);
    ObjectPath::from_iter([folder, file])
}

/// A file that `LocalFileSystem` has not renamed yet: its final name, `#`, a number.
fn is_leftover(name: &str) -> bool {
    name.rsplit_once('#')
        .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// When a file was written last, in milliseconds since the Unix epoch.
fn written_at(file: &std::fs::DirEntry) -> std::io::Result<Timestamp> {
    let since = file.metadata()?.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)))
}

fn sweep_folder(folder: &Path, before: Timestamp) -> Result<usize> {
    let mut removed = 0;
    for shard in std::fs::read_dir(folder).map_err(Error::file(folder))? {
        let shard = shard.map_err(Error::file(folder))?.path();
        if !shard.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&shard).map_err(Error::file(&shard))? {
            let file = file.map_err(Error::file(&shard))?;
            let leftover = file.file_name().to_str().is_some_and(is_leftover);
            // One that is gone by now was being written.
            if leftover && written_at(&file).is_ok_and(|at| at <= before) {
                std::fs::remove_file(file.path()).map_err(Error::file(&file.path()))?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use autoglm_domain::ErrorKind;
    use object_store::memory::InMemory;

    use super::*;

    /// Contract: every [`ArtifactStore`] passes it when empty.
    async fn check_contract(store: &dyn ArtifactStore) {
        let hash = ContentHash::of(b"weights");
        assert_eq!(store.get(hash).await.unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(store.contains(hash).await, Ok(false));
        assert_eq!(store.put(b"weights".to_vec()).await, Ok(hash));
        assert_eq!(store.put(b"weights".to_vec()).await, Ok(hash));
        assert_eq!(store.contains(hash).await, Ok(true));
        assert_eq!(store.get(hash).await, Ok(b"weights".to_vec()));
        let empty = store.put(Vec::new()).await.unwrap();
        assert_eq!(store.get(empty).await, Ok(Vec::new()));
    }

    #[tokio::test]
    async fn a_folder_and_an_object_store_keep_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        check_contract(&ObjectArtifacts::local(folder.path()).unwrap()).await;
        check_contract(&ObjectArtifacts::remote(Arc::new(InMemory::new()))).await;
    }

    #[tokio::test]
    async fn damage_is_found_on_read_and_repaired_by_storing_again() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = ObjectArtifacts::local(folder.path()).unwrap();
        let hash = artifacts.put(b"weights".to_vec()).await.unwrap();
        let digits = hash.to_string();
        let file = folder.path().join(&digits[..2]).join(&digits[2..]);
        for damage in [b"weightz".as_slice(), b"weig", b""] {
            std::fs::write(&file, damage).unwrap();
            let error = artifacts.get(hash).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Internal);
            assert!(error.message.contains("is damaged"), "{}", error.message);
            assert!(error.hint.is_some());
            assert_eq!(artifacts.put(b"weights".to_vec()).await, Ok(hash));
            assert_eq!(artifacts.get(hash).await, Ok(b"weights".to_vec()));
        }
    }

    #[tokio::test]
    async fn leftovers_are_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = ObjectArtifacts::local(folder.path()).unwrap();
        let hash = artifacts.put(b"weights".to_vec()).await.unwrap();
        let digits = hash.to_string();
        let shard = folder.path().join(&digits[..2]);
        assert_eq!(std::fs::read_dir(&shard).unwrap().count(), 1, "no temporary file stays behind");
        std::fs::write(shard.join(format!("{}#1", &digits[2..])), b"wei").unwrap();
        std::fs::write(shard.join("ffff#12"), b"").unwrap();
        // Nothing is that old: another process may be writing them.
        assert_eq!(artifacts.sweep(Timestamp(1_000_000)).await.unwrap(), 0);
        assert_eq!(artifacts.sweep(Timestamp(i64::MAX)).await.unwrap(), 2);
        assert_eq!(artifacts.sweep(Timestamp(i64::MAX)).await.unwrap(), 0);
        assert_eq!(artifacts.get(hash).await, Ok(b"weights".to_vec()));
    }

    #[tokio::test]
    async fn many_writers_of_the_same_bytes_agree() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = ObjectArtifacts::local(folder.path()).unwrap();
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let artifacts = artifacts.clone();
                tokio::spawn(async move { artifacts.put(vec![7; 100_000]).await })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), Ok(ContentHash::of(&[7; 100_000])));
        }
        assert_eq!(artifacts.sweep(Timestamp(i64::MAX)).await.unwrap(), 0);
    }

    #[test]
    fn an_address_of_another_kind_is_refused_with_a_hint() {
        let config = Config { artifacts: "s3://bucket/x".into(), ..Config::default() };
        let error = ObjectArtifacts::open(&config, Path::new("/nowhere")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("`s3://bucket/x`"));
        assert!(error.hint().is_some());
    }
}
