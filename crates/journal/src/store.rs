//! The store: what callers hold, whatever the engine.

use std::sync::Arc;

use autoglm_domain::{
    AbTest, Alias, AliasMove, Assessment, Cursor, Cursors, ErrorPattern, Event, Experience, ExperienceId,
    Interaction, InteractionId, InteractionRecord, ModelVersion, PairOrder, RecordedEvent, Result, Rollout,
    RolloutId, RolloutProgress, ShadowPair, ShadowPairId, Store, TrainingRun, TrainingRunId, VersionNumber,
};
use serde::de::DeserializeOwned;
use sqlx::{Database, Pool, pool::PoolConnection};

use crate::{
    Config, JournalError,
    db::{Arg, Db},
    read,
    record::Prepared,
    writer::{Append, Writer},
};

/// A database engine that a store lies in: [`crate::Sqlite`] or [`crate::Postgres`].
pub trait Engine: Send + Sync + std::fmt::Debug + 'static {
    /// Its driver.
    type Sql: Database<Connection: Db>;

    /// Waits until the disk has everything that can be read by now, as far as commits do not wait for it themselves.
    fn reached(&self) -> impl Future<Output = std::result::Result<(), JournalError>> + Send {
        std::future::ready(Ok(()))
    }
}

/// The store in one database. Dropping it writes what was queued, as long as the runtime lives;
/// [`SqlStore::close`] also waits for that.
///
/// Clones are the same store.
#[derive(Debug)]
pub struct SqlStore<E: Engine> {
    shared: Arc<Shared<E>>,
    as_leader: bool,
}

impl<E: Engine> Clone for SqlStore<E> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), as_leader: self.as_leader }
    }
}

#[derive(Debug)]
struct Shared<E: Engine> {
    engine: E,
    max_append_events: usize,
    readers: Pool<E::Sql>,
    /// `None` when opened for reading only.
    writer: Option<Writer>,
}

impl<E: Engine> SqlStore<E> {
    pub(crate) fn over(engine: E, readers: Pool<E::Sql>, writer: Option<Writer>, config: &Config) -> Self {
        let shared = Shared { engine, max_append_events: config.max_append_events, readers, writer };
        Self { shared: Arc::new(shared), as_leader: false }
    }

    pub(crate) fn engine(&self) -> &E {
        &self.shared.engine
    }

    pub(crate) fn readers(&self) -> &Pool<E::Sql> {
        &self.shared.readers
    }

    /// Appends that wait for the writer.
    pub fn queued_appends(&self) -> usize {
        self.shared.writer.as_ref().map_or(0, Writer::queued)
    }

    /// The same store for what only the leader may write: its appends are refused with
    /// [`JournalError::NotLeading`] unless this process leads at the moment of the commit. Over SQLite whoever
    /// writes leads.
    #[must_use]
    pub fn as_leader(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), as_leader: true }
    }

    /// Writes what is queued and lets go of the database. Later calls fail with [`JournalError::Closed`]; closing
    /// again does nothing. SQLite's write-ahead log is moved into the file.
    pub async fn close(&self) -> std::result::Result<(), JournalError> {
        let written = match &self.shared.writer {
            Some(writer) => writer.close().await,
            None => Ok(()),
        };
        self.shared.readers.close().await;
        written
    }

    /// Waits until reads see what was recorded before; false where they cannot for now.
    async fn settled(&self) -> bool {
        match &self.shared.writer {
            Some(writer) => writer.settled().await,
            None => true,
        }
    }

    pub(crate) async fn reader(&self) -> std::result::Result<PoolConnection<E::Sql>, JournalError> {
        self.settled().await;
        let readers = &self.shared.readers;
        readers.acquire().await.map_err(|error| match JournalError::from(error) {
            JournalError::ReadersBusy if readers.size() == 0 => {
                JournalError::Lost { reason: "no connection for reading could be made".into() }
            }
            other => other,
        })
    }
}

impl<E: Engine> SqlStore<E> {
    /// Position of the latest event; 0 when there is none.
    pub async fn last_seq(&self) -> std::result::Result<i64, JournalError> {
        read::last_seq(&mut *self.reader().await?).await
    }

    /// Which events there are after position `after` and up to `upto`: their names, without their bodies.
    pub async fn names_between(
        &self,
        after: i64,
        upto: i64,
    ) -> std::result::Result<Vec<String>, JournalError> {
        let mut reader = self.reader().await?;
        let names: Vec<(String, i64)> = reader.rows(read::NAMES, &[after.into(), upto.into()]).await?;
        Ok(names.into_iter().map(|(name, _)| name).collect())
    }

    /// Up to `limit` of the events after position `after` and up to `upto` that make or amend experiences, in order.
    pub async fn experience_events_between(
        &self,
        after: i64,
        upto: i64,
        limit: usize,
    ) -> std::result::Result<Vec<RecordedEvent>, JournalError> {
        let args = [after.into(), upto.into(), read::limit(limit)];
        read::events(&mut *self.reader().await?, read::EXPERIENCE_EVENTS, &args).await
    }

    /// What came of live traffic after position `after` and up to `upto`, in order: answers, answers that somebody said
    /// something of, and pairs as they were first recorded.
    pub async fn traffic_between(
        &self,
        after: i64,
        upto: i64,
    ) -> std::result::Result<LiveTraffic, JournalError> {
        let mut reader = self.reader().await?;
        let args = [after.into(), upto.into()];
        let answered = ids(reader.rows(read::ANSWERED, &args).await?)?;
        let said = ids(reader.rows(read::SAID, &args).await?)?;
        let pairs = read::bodies(&mut *reader, read::NEW_PAIRS, &args).await?;
        Ok(LiveTraffic { answered, said, pairs })
    }

    /// The append of `events` and who writes it; `None` of none.
    fn prepared(&self, events: Vec<Event>) -> std::result::Result<Option<(&Writer, Append)>, JournalError> {
        let writer = self.shared.writer.as_ref().ok_or(JournalError::ReadOnly)?;
        let limit = self.shared.max_append_events;
        if events.len() > limit {
            return Err(JournalError::TooManyEvents { events: events.len(), limit });
        }
        if events.is_empty() {
            return Ok(None);
        }
        let records = events.into_iter().map(Prepared::new).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Some((writer, Append { records, cursor: None, as_leader: self.as_leader })))
    }

    async fn interactions(
        &self,
        statement: &'static str,
        arg: Arg<'_>,
    ) -> std::result::Result<Vec<InteractionRecord>, JournalError> {
        self.settled().await;
        let mut moment =
            self.shared.readers.begin_with(<<E::Sql as Database>::Connection as Db>::MOMENT).await?;
        let records = read::interactions(&mut *moment, statement, &[arg]).await?;
        moment.rollback().await?;
        Ok(records)
    }

    async fn all<T: DeserializeOwned>(
        &self,
        statement: &'static str,
    ) -> std::result::Result<Vec<T>, JournalError> {
        read::bodies(&mut *self.reader().await?, statement, &[]).await
    }

    async fn latest_of<T: DeserializeOwned>(
        &self,
        statement: &'static str,
        rollout: RolloutId,
        limit: usize,
    ) -> std::result::Result<Vec<T>, JournalError> {
        let key = rollout.to_string();
        read::bodies(&mut *self.reader().await?, statement, &[(&key).into(), read::limit(limit)]).await
    }

    async fn one<T: DeserializeOwned>(
        &self,
        statement: &'static str,
        key: Arg<'_>,
        missing: impl FnOnce() -> JournalError,
    ) -> std::result::Result<T, JournalError> {
        read::body(&mut *self.reader().await?, statement, &[key]).await?.ok_or_else(missing)
    }
}

#[async_trait::async_trait]
impl<E: Engine> Store for SqlStore<E> {
    /// See [`Store::append`]. Beyond that: `Conflict` for a second assessment with the same id; `NotFound`
    /// when an assessment names an unknown interaction, an amendment an unknown experience, or an
    /// [`AliasMove::to`] an unknown version other than the base; `Invalid` when a number is not finite or
    /// there are more events than `max_append_events`; `Denied` when opened for reading only. An alias that
    /// was never moved points at [`VersionNumber::BASE`].
    async fn append(&self, events: Vec<Event>) -> Result<()> {
        match self.prepared(events)? {
            Some((writer, append)) => Ok(writer.append(append).await?),
            None => Ok(()),
        }
    }

    /// See [`Store::record`], and [`SqlStore::append`] for what is refused at once.
    async fn record(&self, answers: Vec<Interaction>) -> Result<()> {
        let events = answers.into_iter().map(|answer| Event::Interaction(Box::new(answer))).collect();
        match self.prepared(events)? {
            Some((writer, append)) => Ok(writer.keep(append).await?),
            None => Ok(()),
        }
    }

    async fn events_after(&self, seq: i64, limit: usize) -> Result<Vec<RecordedEvent>> {
        let args = [seq.into(), read::limit(limit)];
        let events = read::events(&mut *self.reader().await?, read::EVENTS, &args).await?;
        // They may go to another system from here.
        self.shared.engine.reached().await?;
        Ok(events)
    }

    async fn interaction(&self, id: InteractionId) -> Result<InteractionRecord> {
        let found = self.interactions(read::INTERACTION, (&id.to_string()).into()).await?.pop();
        match found {
            Some(found) => Ok(found),
            None if !self.settled().await => Err(JournalError::Behind.into()),
            None => Err(missing("interaction", id).into()),
        }
    }

    async fn interactions_of(&self, ids: &[InteractionId]) -> Result<Vec<InteractionRecord>> {
        let statement = <<E::Sql as Database>::Connection as Db>::INTERACTIONS_OF;
        Ok(self.interactions(statement, (&read::list(ids)).into()).await?)
    }

    async fn recent_interactions(&self, limit: usize) -> Result<Vec<InteractionRecord>> {
        Ok(self.interactions(read::RECENT, read::limit(limit)).await?)
    }

    async fn awaiting_assessment(&self, limit: usize) -> Result<Vec<InteractionRecord>> {
        Ok(self.interactions(read::AWAITING, read::limit(limit)).await?)
    }

    async fn assessment_lag(&self) -> Result<u64> {
        let lag: Option<(i64,)> = self.reader().await?.row(read::LAG, &[]).await?;
        Ok(lag.unwrap_or_default().0.unsigned_abs())
    }

    async fn recent_assessments(&self, limit: usize) -> Result<Vec<Assessment>> {
        Ok(read::bodies(&mut *self.reader().await?, read::JUDGED, &[read::limit(limit)]).await?)
    }

    async fn experiences(&self) -> Result<Vec<Experience>> {
        Ok(read::experiences(&mut *self.reader().await?, read::EXPERIENCES, &[]).await?)
    }

    async fn experience(&self, id: ExperienceId) -> Result<Experience> {
        let key = id.to_string();
        let found = read::experiences(&mut *self.reader().await?, read::EXPERIENCE, &[(&key).into()]).await?;
        Ok(found.into_iter().next().ok_or_else(|| missing("experience", id))?)
    }

    async fn patterns(&self) -> Result<Vec<ErrorPattern>> {
        Ok(read::patterns(&mut *self.reader().await?).await?)
    }

    async fn versions(&self) -> Result<Vec<ModelVersion>> {
        Ok(self.all(read::VERSIONS).await?)
    }

    async fn version(&self, number: VersionNumber) -> Result<ModelVersion> {
        // No version has a number beyond a database's integers, and -1 is none either.
        let key = i64::try_from(number.0).unwrap_or(-1);
        Ok(self.one(read::VERSION, key.into(), || missing("version", number)).await?)
    }

    async fn runs(&self) -> Result<Vec<TrainingRun>> {
        Ok(self.all(read::RUNS).await?)
    }

    async fn run(&self, id: TrainingRunId) -> Result<TrainingRun> {
        let key = id.to_string();
        Ok(self.one(read::RUN, (&key).into(), || missing("training run", id)).await?)
    }

    async fn rollouts(&self) -> Result<Vec<Rollout>> {
        Ok(self.all(read::ROLLOUTS).await?)
    }

    async fn shadow_pair(&self, id: ShadowPairId) -> Result<ShadowPair> {
        let key = id.to_string();
        Ok(self.one(read::PAIR, (&key).into(), || missing("pair", id)).await?)
    }

    async fn shadow_pairs_of(&self, ids: &[ShadowPairId]) -> Result<Vec<ShadowPair>> {
        let statement = <<E::Sql as Database>::Connection as Db>::PAIRS_OF;
        Ok(read::bodies(&mut *self.reader().await?, statement, &[(&read::list(ids)).into()]).await?)
    }

    async fn shadow_pairs(
        &self,
        rollout: RolloutId,
        order: PairOrder,
        limit: usize,
    ) -> Result<Vec<ShadowPair>> {
        let statement = match order {
            PairOrder::Oldest => read::OLDEST_PAIRS,
            PairOrder::Worst => read::WORST_PAIRS,
            PairOrder::MostDifferent => read::MOST_DIFFERENT_PAIRS,
        };
        Ok(self.latest_of(statement, rollout, limit).await?)
    }

    async fn rollout_progress(&self, rollout: RolloutId, limit: usize) -> Result<Vec<RolloutProgress>> {
        Ok(self.latest_of(read::PROGRESS, rollout, limit).await?)
    }

    async fn ab_tests(&self) -> Result<Vec<AbTest>> {
        Ok(self.all(read::AB_TESTS).await?)
    }

    async fn aliases(&self) -> Result<Vec<(Alias, VersionNumber)>> {
        Ok(read::aliases(&mut *self.reader().await?).await?)
    }

    async fn alias_history(&self, alias: &Alias) -> Result<Vec<AliasMove>> {
        let moves = read::bodies(&mut *self.reader().await?, read::ALIAS_MOVES, &[(&alias.0).into()]).await;
        Ok(moves?)
    }
}

#[async_trait::async_trait]
impl<E: Engine> Cursors for SqlStore<E> {
    async fn last_seq(&self) -> Result<i64> {
        Ok(read::last_seq(&mut *self.reader().await?).await?)
    }

    async fn cursors(&self) -> Result<Vec<(String, Cursor)>> {
        Ok(read::cursors(&mut *self.reader().await?).await?)
    }

    /// See [`Cursors::set_cursor`]. Beyond that: `Denied` when opened for reading only, `Conflict` when only the leader
    /// may write and this process does not lead.
    async fn set_cursor(&self, mirror: &str, cursor: Cursor) -> Result<()> {
        let Some(writer) = &self.shared.writer else {
            return Err(JournalError::ReadOnly.into());
        };
        let cursor = Some((mirror.to_owned(), cursor));
        Ok(writer.append(Append { records: Vec::new(), cursor, as_leader: self.as_leader }).await?)
    }
}

/// What came of live traffic between two positions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LiveTraffic {
    /// Requests that were answered.
    pub answered: Vec<InteractionId>,
    /// Answers that somebody said something of.
    pub said: Vec<InteractionId>,
    /// Pairs of a champion's and a candidate's answer.
    pub pairs: Vec<ShadowPair>,
}

fn ids(rows: Vec<(String, i64)>) -> std::result::Result<Vec<InteractionId>, JournalError> {
    let id = |(id, seq): (String, i64)| {
        id.parse().map_err(|error: autoglm_domain::Error| JournalError::Damaged {
            what: format!("event {seq}"),
            reason: error.message,
        })
    };
    rows.into_iter().map(id).collect()
}

fn missing(noun: &'static str, id: impl ToString) -> JournalError {
    JournalError::Missing { noun, id: id.to_string() }
}
