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
use object_store::{
    ObjectStore, ObjectStoreExt as _, PutMode, PutPayload, local::LocalFileSystem, path::Path as ObjectPath,
};

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
            #[cfg(feature = "cloud")]
            Some((scheme, _)) if scheme != "file" => return Self::cloud(address, &[]),
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

    /// Artifacts in a bucket, such as `s3://bucket/prefix`. `options` go before the environment; their names are those
    /// of the environment's variables.
    #[cfg(feature = "cloud")]
    pub fn cloud(address: &str, options: &[(&str, String)]) -> Result<Self> {
        Ok(Self::remote(crate::cloud::open(address, options)?))
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

    /// Creates what is not there, and nothing else: of several writers of the same bytes one writes. What is there is
    /// read, for only then it is known to be whole; damage is written over.
    async fn write(&self, bytes: Vec<u8>) -> Result<ContentHash> {
        let hash = ContentHash::of(&bytes);
        let payload = PutPayload::from(bytes);
        match self.read(hash).await {
            Ok(_) => return Ok(hash),
            Err(Error::NoArtifact(_)) => match self.create(hash, payload.clone()).await? {
                true => return Ok(hash),
                // Somebody else was quicker. A store that shows half of what is being written is none of ours.
                false => match self.read(hash).await {
                    Ok(_) => return Ok(hash),
                    Err(Error::Damaged { .. }) => {}
                    Err(error) => return Err(error),
                },
            },
            Err(Error::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        tracing::warn!(%hash, "replacing a damaged artifact");
        self.store.put(&location(hash), payload).await?;
        Ok(hash)
    }

    /// Whether it was created; not where something is there already.
    async fn create(&self, hash: ContentHash, payload: PutPayload) -> Result<bool> {
        let location = location(hash);
        let created = self.store.put_opts(&location, payload.clone(), PutMode::Create.into()).await;
        match created {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            // A file system without hard links, a bucket that knows no conditions: the same bytes over the same bytes.
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                self.store.put(&location, payload).await?;
                Ok(true)
            }
            Err(error) if self.folder.is_some() => match Error::from(error) {
                full @ Error::DiskFull(_) => Err(full),
                _ => {
                    self.store.put(&location, payload).await?;
                    Ok(true)
                }
            },
            Err(error) => Err(error.into()),
        }
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

    #[tokio::test]
    async fn what_somebody_else_wrote_meanwhile_is_left_as_it_is() {
        let store = Arc::new(InMemory::new());
        let artifacts = ObjectArtifacts::remote(store.clone());
        let hash = ContentHash::of(b"weights");
        assert!(artifacts.create(hash, PutPayload::from_static(b"weights")).await.unwrap());
        let before = store.head(&location(hash)).await.unwrap();
        assert!(!artifacts.create(hash, PutPayload::from_static(b"weights")).await.unwrap());
        assert_eq!(artifacts.put(b"weights".to_vec()).await, Ok(hash));
        assert_eq!(
            store.head(&location(hash)).await.unwrap().e_tag,
            before.e_tag,
            "it was not written again"
        );
    }

    #[test]
    fn an_address_of_another_kind_is_refused_with_a_hint() {
        let address = if cfg!(feature = "cloud") { "ftp://bucket/x" } else { "s3://bucket/x" };
        let config = Config { artifacts: address.into(), ..Config::default() };
        let error = ObjectArtifacts::open(&config, Path::new("/nowhere")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(&format!("`{address}`")), "{error}");
        assert!(error.hint().is_some());
    }
}
