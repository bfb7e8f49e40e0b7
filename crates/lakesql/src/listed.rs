//! The tables' files as the engine reads them: a list that does not change, and bytes through the port.
//!
//! Files that may be gone soon are read before the engine begins ([`Listed::hold`]), so that the rest of a long query finds
//! what was listed. They are few: the lake's largest files stay.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use object_store_of_datafusion::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};

use crate::{File, Files, Table};

/// Files that are read at once before the engine begins.
const AT_ONCE: usize = 16;

/// An object store of the listed files and no others, for reading alone.
pub(crate) struct Listed {
    files: Arc<dyn Files>,
    metas: BTreeMap<Path, ObjectMeta>,
    /// Whole files.
    held: OnceLock<BTreeMap<Path, Bytes>>,
    failure: Arc<OnceLock<autoglm_domain::Error>>,
}

impl Listed {
    pub(crate) fn new(files: Arc<dyn Files>, tables: &[Table]) -> Self {
        let meta = |file: &File| {
            let location = Path::from(file.path.as_str());
            let meta = ObjectMeta {
                location: location.clone(),
                last_modified: DateTime::<Utc>::UNIX_EPOCH,
                size: file.bytes,
                e_tag: None,
                version: None,
            };
            (location, meta)
        };
        let metas = tables.iter().flat_map(|table| &table.files).map(meta).collect();
        Self { files, metas, held: OnceLock::new(), failure: Arc::default() }
    }

    /// Reads those of the `files` that do not stay, once.
    pub(crate) async fn hold(&self, files: impl Iterator<Item = &File>) -> autoglm_domain::Result<()> {
        let reads = files.filter(|file| !file.stays).map(|file| async {
            let bytes = self.files.read(&file.path, 0..file.bytes).await?;
            Ok::<_, autoglm_domain::Error>((Path::from(file.path.as_str()), bytes))
        });
        let reads: Vec<_> = reads.collect();
        let read: BTreeMap<_, _> = stream::iter(reads).buffer_unordered(AT_ONCE).try_collect().await?;
        self.held.get_or_init(|| read);
        Ok(())
    }

    /// A stretch of a file that is held.
    fn held(&self, location: &Path, range: &Range<u64>) -> Option<Bytes> {
        let bytes = self.held.get()?.get(location)?;
        let end = usize::try_from(range.end).ok()?.min(bytes.len());
        Some(bytes.slice(usize::try_from(range.start).ok()?.min(end)..end))
    }

    /// What the port said at its first failure. The engine passes it on in words of its own, or of a format's.
    pub(crate) fn failure(&self) -> Option<&autoglm_domain::Error> {
        self.failure.get()
    }

    fn meta(&self, location: &Path) -> Result<&ObjectMeta> {
        self.metas.get(location).ok_or_else(|| Error::NotFound {
            path: location.to_string(),
            source: "it is not in the lake's list".into(),
        })
    }

    fn read_only<T>(&self, operation: &str) -> Result<T> {
        Err(Error::NotImplemented { operation: operation.into(), implementer: self.to_string() })
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the lake")
    }
}

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the lake of {} files", self.metas.len())
    }
}

#[async_trait::async_trait]
impl ObjectStore for Listed {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        self.read_only("put")
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.read_only("put")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let meta = self.meta(location)?.clone();
        let range = match &options.range {
            Some(range) => range
                .as_range(meta.size)
                .map_err(|error| Error::Generic { store: "lake", source: Box::new(error) })?,
            None => 0..meta.size,
        };
        let payload: BoxStream<'static, Result<Bytes>> = if options.head {
            stream::empty().boxed()
        } else if let Some(bytes) = self.held(location, &range) {
            stream::once(async { Ok(bytes) }).boxed()
        } else {
            let (files, failure) = (Arc::clone(&self.files), Arc::clone(&self.failure));
            let (path, range) = (location.to_string(), range.clone());
            let read = async move {
                files.read(&path, range).await.map_err(|error| {
                    let source = error.message.clone().into();
                    // The first one stays.
                    drop(failure.set(error));
                    Error::Generic { store: "lake", source }
                })
            };
            read.into_stream().boxed()
        };
        let attributes = Attributes::default();
        Ok(GetResult { payload: GetResultPayload::Stream(payload), meta, range, attributes })
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let refused = self.read_only("delete");
        stream::once(async { refused }).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let below = |meta: &&ObjectMeta| prefix.is_none_or(|prefix| meta.location.prefix_matches(prefix));
        let metas: Vec<_> = self.metas.values().filter(below).cloned().map(Ok).collect();
        stream::iter(metas).boxed()
    }

    /// Folders below `prefix`, and files in it.
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let root = Path::default();
        let prefix = prefix.unwrap_or(&root);
        let (mut objects, mut common_prefixes) = (Vec::new(), Vec::<Path>::new());
        for meta in self.metas.values() {
            let Some(mut parts) = meta.location.prefix_match(prefix) else { continue };
            match (parts.next(), parts.next()) {
                (Some(folder), Some(_)) => {
                    let folder = prefix.clone().join(folder);
                    // In order of their paths, so those of one folder come together.
                    if common_prefixes.last() != Some(&folder) {
                        common_prefixes.push(folder);
                    }
                }
                _ => objects.push(meta.clone()),
            }
        }
        Ok(ListResult { common_prefixes, objects })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        self.read_only("copy")
    }
}
