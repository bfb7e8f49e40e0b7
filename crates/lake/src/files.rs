//! Which files there are, and what is in them.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _, path::Path};

use crate::{
    Cell, Config, FileName, LakeError,
    address::{self, failure},
    counting,
    decode::decode,
    windows,
};

/// A file of the lake that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LakeFile {
    /// Table, day and positions.
    pub name: FileName,
    /// Its size in bytes.
    pub bytes: u64,
}

impl LakeFile {
    /// Whether it stays: no wider file will ever take its place.
    pub fn stays(&self) -> bool {
        let [.., largest] = windows::SIZES;
        self.name.span().len() == largest.unsigned_abs()
    }
}

/// The files of a lake, for readers.
pub struct LakeFiles {
    pub(crate) config: Config,
    /// Opened at the first use, for a folder that cannot be made must not hold up a server.
    objects: OnceLock<Arc<dyn ObjectStore>>,
}

impl LakeFiles {
    /// The lake that `config` names. Nothing is asked of the object store yet.
    ///
    /// # Errors
    /// [`LakeError::Setting`] and [`LakeError::Address`].
    pub fn open(config: &Config) -> Result<Self, LakeError> {
        config.validate()?;
        let objects = match address::open(&config.url, &config.options) {
            Ok(objects) => OnceLock::from(objects),
            Err(LakeError::Refused { .. }) => OnceLock::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { config: config.clone(), objects })
    }

    pub(crate) fn objects(&self) -> Result<&Arc<dyn ObjectStore>, LakeError> {
        if let Some(objects) = self.objects.get() {
            return Ok(objects);
        }
        let opened = address::open(&self.config.url, &self.config.options)?;
        Ok(self.objects.get_or_init(|| opened))
    }

    /// The files that count, in order of their names.
    ///
    /// They are listed twice, for a list is not of one moment: where the first one had passed the place of a wide file before
    /// it was there, and came to those of the small ones after they were gone, the second one has it.
    ///
    /// # Errors
    /// Those of the object store.
    pub async fn list(&self) -> Result<Vec<LakeFile>, LakeError> {
        let mut sizes = self.listed().await?;
        sizes.extend(self.listed().await?);
        let sized = |name: FileName| LakeFile { bytes: sizes.get(&name).copied().unwrap_or_default(), name };
        Ok(counting(sizes.keys().cloned()).into_iter().map(sized).collect())
    }

    async fn listed(&self) -> Result<HashMap<FileName, u64>, LakeError> {
        let root = Path::default();
        let listed = self.objects()?.list(None);
        let metas: Vec<ObjectMeta> = listed.try_collect().await.map_err(|error| failure(&root, error))?;
        Ok(metas.iter().filter_map(|it| Some((name_of(it)?, it.size))).collect())
    }

    /// Bytes of a file.
    ///
    /// # Errors
    /// [`LakeError::Missing`] where a wider file has taken its place since it was listed, and those of the object store.
    pub async fn read(&self, path: &str, range: Range<u64>) -> Result<Bytes, LakeError> {
        let path = Path::from(path);
        self.objects()?.get_range(&path, range).await.map_err(|error| failure(&path, error))
    }

    /// Hands the rows of a table to `each`, in the journal's order; of each row the columns that are asked for.
    ///
    /// # Errors
    /// Those of the object store, and [`LakeError::Encoding`] where a file is not one of ours.
    pub async fn rows(
        &self,
        event: &str,
        columns: &[&'static str],
        mut each: impl FnMut(Vec<Cell>),
    ) -> Result<(), LakeError> {
        let mut files = self.list().await?;
        files.retain(|file| file.name.event == event);
        files.sort_by_key(|file| file.name.first);
        for file in files {
            let path = Path::from(file.name.to_string());
            let object = match self.objects()?.get(&path).await {
                Err(object_store::Error::NotFound { .. }) => {
                    return Err(LakeError::Replaced { path: path.to_string() });
                }
                object => object.map_err(|error| failure(&path, error))?,
            };
            let bytes = object.bytes().await.map_err(|error| failure(&path, error))?;
            decode(bytes, columns, &mut each)?;
        }
        Ok(())
    }
}

pub(crate) fn name_of(meta: &ObjectMeta) -> Option<FileName> {
    meta.location.as_ref().parse().ok()
}
