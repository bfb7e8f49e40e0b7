//! The store: what callers hold.

use std::path::{Path, PathBuf};

use autoglm_domain::{
    Alias, AliasMove, Assessment, ErrorPattern, Event, Experience, ExperienceId, InteractionId,
    InteractionRecord, ModelVersion, PairOrder, RecordedEvent, Result, Rollout, RolloutId, RolloutProgress,
    ShadowPair, Store, TrainingRun, TrainingRunId, VersionNumber,
};
use sqlx::SqlitePool;

use crate::{Config, JournalError, open, read, record::Prepared, writer::Writer};

/// The store in one SQLite file. Dropping it writes what was queued, as long as the runtime lives;
/// [`SqliteStore::close`] also waits for that.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    max_append_events: usize,
    readers: SqlitePool,
    /// `None` when opened for reading only.
    writer: Option<Writer>,
}

/// How the store is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Health {
    /// Position of the latest event; 0 when there is none.
    pub last_seq: i64,
    /// Size of the database file in bytes.
    pub file_bytes: u64,
    /// Size of its write-ahead log in bytes.
    pub wal_bytes: u64,
    /// Appends that wait for the writer.
    pub queued_appends: usize,
}

impl SqliteStore {
    /// Opens the file at `path` for reading and writing, makes it where it is missing (its folder must be
    /// there), and brings it up to date. Several processes may do so at once. Needs a tokio runtime, which
    /// the writer lives on.
    ///
    /// [`JournalError::Newer`], [`JournalError::NotOurs`] and [`JournalError::Damaged`] leave the file as it
    /// was.
    pub async fn open(path: impl AsRef<Path>, config: Config) -> std::result::Result<Self, JournalError> {
        let path = path.as_ref();
        config.validate()?;
        let at_path = |error: JournalError| error.while_opening(path);
        let (connection, options) = open::open(path, &config).await.map_err(at_path)?;
        let readers = open::readers(path, &config).await.map_err(at_path)?;
        let writer = Writer::start(connection, options, config.max_batch_appends, config.queue_appends);
        Ok(Self {
            path: path.to_path_buf(),
            max_append_events: config.max_append_events,
            readers,
            writer: Some(writer),
        })
    }

    /// Opens the file at `path` for reading, also while a server writes to it. Appends are refused with
    /// [`JournalError::ReadOnly`].
    ///
    /// [`JournalError::NoFile`] when it is missing, [`JournalError::Older`] when a server has to bring it up
    /// to date first, and as [`SqliteStore::open`].
    pub async fn open_read_only(
        path: impl AsRef<Path>,
        config: Config,
    ) -> std::result::Result<Self, JournalError> {
        let path = path.as_ref();
        config.validate()?;
        let at_path = |error: JournalError| error.while_opening(path);
        open::check_readable(path, &config).await.map_err(at_path)?;
        let readers = open::readers(path, &config).await.map_err(at_path)?;
        Ok(Self {
            path: path.to_path_buf(),
            max_append_events: config.max_append_events,
            readers,
            writer: None,
        })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sizes and positions, for monitoring.
    pub async fn health(&self) -> std::result::Result<Health, JournalError> {
        let mut wal = self.path.clone().into_os_string();
        wal.push("-wal");
        Ok(Health {
            last_seq: sqlx::query_scalar(read::LAST_SEQ).fetch_one(&self.readers).await?,
            file_bytes: size(&self.path).await,
            wal_bytes: size(Path::new(&wal)).await,
            queued_appends: self.writer.as_ref().map_or(0, Writer::queued),
        })
    }

    /// Writes what is queued, moves the write-ahead log into the file and lets go of it. Later calls fail
    /// with [`JournalError::Closed`]; closing again does nothing.
    pub async fn close(&self) -> std::result::Result<(), JournalError> {
        let written = match &self.writer {
            Some(writer) => writer.close().await,
            None => Ok(()),
        };
        self.readers.close().await;
        written
    }
}

/// 0 where there is no such file: SQLite takes the log away when the last connection closes.
async fn size(path: &Path) -> u64 {
    tokio::fs::metadata(path).await.map_or(0, |metadata| metadata.len())
}

#[async_trait::async_trait]
impl Store for SqliteStore {
    /// See [`Store::append`]. Beyond that: `Conflict` for a second assessment with the same id; `NotFound`
    /// when an assessment names an unknown interaction, an amendment an unknown experience, or an
    /// [`AliasMove::to`] an unknown version other than the base; `Invalid` when a number is not finite or
    /// there are more events than `max_append_events`; `Denied` when opened for reading only. An alias that
    /// was never moved points at [`VersionNumber::BASE`].
    async fn append(&self, events: Vec<Event>) -> Result<()> {
        let Some(writer) = &self.writer else {
            return Err(JournalError::ReadOnly.into());
        };
        if events.len() > self.max_append_events {
            let (events, limit) = (events.len(), self.max_append_events);
            return Err(JournalError::TooManyEvents { events, limit }.into());
        }
        if events.is_empty() {
            return Ok(());
        }
        let records = events.into_iter().map(Prepared::new).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(writer.append(records).await?)
    }

    async fn events_after(&self, seq: i64, limit: usize) -> Result<Vec<RecordedEvent>> {
        Ok(read::events_after(&self.readers, seq, read::limit(limit)).await?)
    }

    async fn interaction(&self, id: InteractionId) -> Result<InteractionRecord> {
        let query = sqlx::query_as(read::INTERACTION).bind(id.to_string());
        let found = read::interactions(&self.readers, query).await?.pop();
        Ok(found.ok_or_else(|| missing("interaction", id))?)
    }

    async fn recent_interactions(&self, limit: usize) -> Result<Vec<InteractionRecord>> {
        let query = sqlx::query_as(read::RECENT).bind(read::limit(limit));
        Ok(read::interactions(&self.readers, query).await?)
    }

    async fn awaiting_assessment(&self, limit: usize) -> Result<Vec<InteractionRecord>> {
        let query = sqlx::query_as(read::AWAITING).bind(read::limit(limit));
        Ok(read::interactions(&self.readers, query).await?)
    }

    async fn assessment_lag(&self) -> Result<u64> {
        let lag: i64 =
            sqlx::query_scalar(read::LAG).fetch_one(&self.readers).await.map_err(JournalError::from)?;
        Ok(lag.unsigned_abs())
    }

    async fn recent_assessments(&self, limit: usize) -> Result<Vec<Assessment>> {
        let query = sqlx::query_as(read::JUDGED).bind(read::limit(limit));
        Ok(read::bodies(&self.readers, query).await?)
    }

    async fn experiences(&self) -> Result<Vec<Experience>> {
        Ok(read::experiences(&self.readers, sqlx::query_as(read::EXPERIENCES)).await?)
    }

    async fn experience(&self, id: ExperienceId) -> Result<Experience> {
        let query = sqlx::query_as(read::EXPERIENCE).bind(id.to_string());
        let found = read::experiences(&self.readers, query).await?.pop();
        Ok(found.ok_or_else(|| missing("experience", id))?)
    }

    async fn patterns(&self) -> Result<Vec<ErrorPattern>> {
        Ok(read::patterns(&self.readers).await?)
    }

    async fn versions(&self) -> Result<Vec<ModelVersion>> {
        Ok(read::versions(&self.readers).await?)
    }

    async fn version(&self, number: VersionNumber) -> Result<ModelVersion> {
        // No version has a number beyond SQLite's integers, and -1 is none either.
        let query = sqlx::query_as(read::VERSION).bind(i64::try_from(number.0).unwrap_or(-1));
        let found = read::body(&self.readers, query).await?;
        Ok(found.ok_or_else(|| missing("version", number))?)
    }

    async fn runs(&self) -> Result<Vec<TrainingRun>> {
        Ok(read::runs(&self.readers).await?)
    }

    async fn run(&self, id: TrainingRunId) -> Result<TrainingRun> {
        let query = sqlx::query_as(read::RUN).bind(id.to_string());
        let found = read::body(&self.readers, query).await?;
        Ok(found.ok_or_else(|| missing("training run", id))?)
    }

    async fn rollouts(&self) -> Result<Vec<Rollout>> {
        Ok(read::rollouts(&self.readers).await?)
    }

    async fn shadow_pairs(
        &self,
        rollout: RolloutId,
        order: PairOrder,
        limit: usize,
    ) -> Result<Vec<ShadowPair>> {
        Ok(read::shadow_pairs(&self.readers, rollout, order, read::limit(limit)).await?)
    }

    async fn rollout_progress(&self, rollout: RolloutId, limit: usize) -> Result<Vec<RolloutProgress>> {
        Ok(read::rollout_progress(&self.readers, rollout, read::limit(limit)).await?)
    }

    async fn aliases(&self) -> Result<Vec<(Alias, VersionNumber)>> {
        Ok(read::aliases(&self.readers).await?)
    }

    async fn alias_history(&self, alias: &Alias) -> Result<Vec<AliasMove>> {
        Ok(read::alias_history(&self.readers, alias).await?)
    }
}

fn missing(noun: &'static str, id: impl ToString) -> JournalError {
    JournalError::Missing { noun, id: id.to_string() }
}
