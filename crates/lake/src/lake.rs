//! Writing batches.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use autoglm_domain::{ContentHash, Mirror, RecordedEvent, Span, Store};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{ObjectMeta, ObjectStore as _, ObjectStoreExt as _, path::Path};
use serde::{Deserialize, Serialize};

use crate::{
    Config, FileName, LakeError, LakeFiles,
    address::{self, failure},
    encode::Encoder,
    files::name_of,
    table, windows,
};

/// Says whose lake it is. Readers of `event=*` do not see it.
const DESCRIPTION: &str = "_lake.json";
/// The form of names and columns that this code writes.
const FORMAT: u64 = 1;
/// Events that are read from the journal at a time.
const PAGE: usize = 1024;

/// Whose lake it is.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Description {
    /// Of names and columns.
    format: u64,
    /// Hash of the journal's first event, by which it is recognised.
    journal: ContentHash,
}

/// The lake: a mirror that writes it.
pub struct Lake {
    files: LakeFiles,
    journal: Arc<dyn Store>,
    /// Whether the description was found to be ours.
    is_ours: AtomicBool,
}

impl Lake {
    /// The lake that `config` names, of what is in `journal`. Nothing is asked of the object store yet.
    ///
    /// # Errors
    /// [`LakeError::Setting`] and [`LakeError::Address`].
    pub fn open(config: &Config, journal: Arc<dyn Store>) -> Result<Self, LakeError> {
        Ok(Self { files: LakeFiles::open(config)?, journal, is_ours: AtomicBool::new(false) })
    }

    /// Its files.
    pub fn files(&self) -> &LakeFiles {
        &self.files
    }

    async fn write(&self, batch: Span) -> Result<(), LakeError> {
        self.check_ours().await?;
        let span = windows::covered(batch);
        let files = self.encode(span).await?;
        for (name, bytes) in &files {
            let path = Path::from(name.to_string());
            self.files
                .objects()?
                .put(&path, bytes.clone().into())
                .await
                .map_err(|error| failure(&path, error))?;
        }
        // Only a window takes the place of others.
        if span != batch || windows::SIZES.iter().any(|size| span.len() == size.unsigned_abs()) {
            for (name, _) in &files {
                self.remove_covered(name).await?;
            }
        }
        tracing::debug!(after = span.after, upto = span.upto, files = files.len(), "written to the lake");
        Ok(())
    }

    /// The files of a stretch of the journal.
    async fn encode(&self, span: Span) -> Result<Vec<(FileName, Bytes)>, LakeError> {
        let mut files = BTreeMap::<FileName, Encoder>::new();
        let mut pages = span.pages(&*self.journal, PAGE);
        while let Some(page) = pages.next().await? {
            files = apart(move || take_in(files, span, &page)).await?;
        }
        let finish = |(name, encoder): (FileName, Encoder)| Ok((name, encoder.finish()?));
        apart(move || files.into_iter().map(finish).collect()).await
    }

    /// Deletes the files that `wide` covers.
    async fn remove_covered(&self, wide: &FileName) -> Result<(), LakeError> {
        let folder = Path::from(wide.folder());
        let covered = |meta: &ObjectMeta| {
            let Some(name) = name_of(meta) else { return false };
            name != *wide && wide.span().holds(name.span())
        };
        let listed = self.files.objects()?.list(Some(&folder));
        let metas: Vec<ObjectMeta> = listed.try_collect().await.map_err(|error| failure(&folder, error))?;
        let paths: Vec<_> = metas.into_iter().filter(covered).map(|meta| Ok(meta.location)).collect();
        let mut deleted = self.files.objects()?.delete_stream(futures::stream::iter(paths).boxed());
        while let Some(one) = deleted.next().await {
            match one {
                // Somebody was quicker.
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failure(&folder, error)),
            }
        }
        Ok(())
    }

    /// Makes sure that the lake is this journal's: an empty one becomes it.
    async fn check_ours(&self) -> Result<(), LakeError> {
        if self.is_ours.load(Ordering::Relaxed) {
            return Ok(());
        }
        let path = Path::from(DESCRIPTION);
        let first = self.journal.events_after(0, 1).await?;
        let first =
            serde_json::to_vec(&first).map_err(|error| LakeError::Encoding { reason: error.to_string() })?;
        let ours = Description { format: FORMAT, journal: ContentHash::of(&first) };
        let there = match self.files.objects()?.get(&path).await {
            Ok(object) => Some(object.bytes().await.map_err(|error| failure(&path, error))?),
            Err(object_store::Error::NotFound { .. }) => None,
            Err(error) => return Err(failure(&path, error)),
        };
        match there {
            None => {
                let text = serde_json::to_vec_pretty(&ours);
                let text = text.map_err(|error| LakeError::Encoding { reason: error.to_string() })?;
                self.files.objects()?.put(&path, text.into()).await.map_err(|error| failure(&path, error))?;
            }
            Some(bytes) => {
                let url = || address::shown(&self.files.config.url);
                let found: Description =
                    serde_json::from_slice(&bytes).map_err(|_| LakeError::Foreign { url: url() })?;
                if found.format > FORMAT {
                    return Err(LakeError::Newer { url: url(), found: found.format, known: FORMAT });
                }
                if found.journal != ours.journal {
                    return Err(LakeError::Foreign { url: url() });
                }
            }
        }
        self.is_ours.store(true, Ordering::Relaxed);
        Ok(())
    }
}

#[async_trait::async_trait]
impl Mirror for Lake {
    fn name(&self) -> &'static str {
        "lake"
    }

    fn pace(&self) -> Duration {
        Duration::from_secs(self.files.config.flush_s)
    }

    fn batch_end(&self, after: i64, last: i64) -> i64 {
        windows::batch_end(after, last)
    }

    /// See [`Mirror::deliver`]. Written again, the files are the same.
    async fn deliver(&self, span: Span) -> autoglm_domain::Result<()> {
        Ok(self.write(span).await?)
    }
}

/// Puts a page of events into the files that they belong to.
fn take_in(
    mut files: BTreeMap<FileName, Encoder>,
    span: Span,
    page: &[RecordedEvent],
) -> Result<BTreeMap<FileName, Encoder>, LakeError> {
    let mut rows = BTreeMap::<FileName, Vec<&RecordedEvent>>::new();
    for recorded in page {
        let event = &recorded.event;
        rows.entry(FileName::new(event.name(), &FileName::date(event.at()), span))
            .or_default()
            .push(recorded);
    }
    for (name, rows) in rows {
        let encoder = match files.get_mut(&name) {
            Some(encoder) => encoder,
            None => {
                let table = table(&name.event).ok_or_else(|| LakeError::Encoding {
                    reason: format!("no table for `{}`", name.event),
                })?;
                files.entry(name).or_insert(Encoder::new(table)?)
            }
        };
        encoder.push(&rows)?;
    }
    Ok(files)
}

/// Encodes on a thread that nobody waits for.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LakeError> + Send + 'static,
) -> Result<T, LakeError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| LakeError::Encoding { reason: error.to_string() })?
}
