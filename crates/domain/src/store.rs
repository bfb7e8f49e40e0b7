//! Port: the store, the one source of truth.

use crate::{
    AbTest, Alias, AliasMove, Assessment, ErrorPattern, Event, Experience, ExperienceId, Feedback,
    Interaction, InteractionId, ModelVersion, PairOrder, RecordedEvent, Result, Rollout, RolloutId,
    RolloutProgress, ShadowPair, ShadowPairId, TrainingRun, TrainingRunId, VersionNumber, if_found,
};

/// An interaction with all that was said and found of it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct InteractionRecord {
    /// The request and its answer.
    pub interaction: Interaction,
    /// Everything that was said of it, oldest first.
    pub feedback: Vec<Feedback>,
    /// The latest assessment.
    pub assessment: Option<Assessment>,
}

/// Port: the store. One write, many reads; reads see every append that returned before they began.
#[async_trait::async_trait]
pub trait Store: Send + Sync {
    /// Writes all of `events` or none: when this returns `Ok`, the end of this process cannot lose them. Nor can a power
    /// cut, but that a store may be set to let the latest answers, assessments and pairs go with it.
    ///
    /// `Conflict` when an interaction, feedback, version number or experience with the same id is already
    /// there, an [`AliasMove::from`] is not where the alias points, or a rollout or a test of versions has ended already; `NotFound` when feedback names an
    /// unknown interaction; `Unavailable` when the disk is full or the database is locked.
    async fn append(&self, events: Vec<Event>) -> Result<()>;

    /// Writes `answers`, all or none, whose ids nobody has had before: when this returns `Ok`, the end of this process
    /// cannot lose them, and reads of it see them. Unlike [`Store::append`] it need not wait until other processes see
    /// them too, and so does not tell of an id that is there already.
    ///
    /// `Unavailable` when the disk is full or the database is locked, as soon as that is known.
    async fn record(&self, answers: Vec<Interaction>) -> Result<()> {
        self.append(answers.into_iter().map(|answer| Event::Interaction(Box::new(answer))).collect()).await
    }

    /// Up to `limit` events after position `seq`, in order.
    async fn events_after(&self, seq: i64, limit: usize) -> Result<Vec<RecordedEvent>>;

    /// One interaction with feedback and latest assessment. `NotFound` when there is none.
    async fn interaction(&self, id: InteractionId) -> Result<InteractionRecord>;

    /// Those of `ids` that are there, each as [`Store::interaction`] gives it, in no certain order.
    async fn interactions_of(&self, ids: &[InteractionId]) -> Result<Vec<InteractionRecord>> {
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            found.extend(if_found(self.interaction(*id).await)?);
        }
        Ok(found)
    }

    /// The latest `limit` interactions, newest first.
    async fn recent_interactions(&self, limit: usize) -> Result<Vec<InteractionRecord>>;

    /// Up to `limit` interactions that have no assessment, or more feedback than the latest one took into
    /// account ([`Assessment::feedback_seen`]): those that somebody spoke of first, for what was corrected is to be
    /// learned soon, and of each kind the oldest first. So feedback that comes in while an assessment is being made
    /// is never passed over.
    async fn awaiting_assessment(&self, limit: usize) -> Result<Vec<InteractionRecord>>;

    /// How many interactions [`Store::awaiting_assessment`] would give without a limit.
    async fn assessment_lag(&self) -> Result<u64>;

    /// Of the interactions whose latest assessment judged accuracy by something outside the model
    /// ([`Assessment::is_judged`]), the last `limit` of these assessments, newest first.
    async fn recent_assessments(&self, limit: usize) -> Result<Vec<Assessment>>;

    /// Every experience with its amendments applied, oldest first.
    async fn experiences(&self) -> Result<Vec<Experience>>;

    /// One experience. `NotFound` when there is none.
    async fn experience(&self, id: ExperienceId) -> Result<Experience>;

    /// Every pattern, largest first.
    async fn patterns(&self) -> Result<Vec<ErrorPattern>>;

    /// Every version, oldest first.
    async fn versions(&self) -> Result<Vec<ModelVersion>>;

    /// One version. `NotFound` when there is none.
    async fn version(&self, number: VersionNumber) -> Result<ModelVersion>;

    /// Every run, oldest first.
    async fn runs(&self) -> Result<Vec<TrainingRun>>;

    /// One run. `NotFound` when there is none.
    async fn run(&self, id: TrainingRunId) -> Result<TrainingRun>;

    /// Every rollout, oldest first.
    async fn rollouts(&self) -> Result<Vec<Rollout>>;

    /// One pair as it was last recorded. `NotFound` when there is none.
    async fn shadow_pair(&self, id: ShadowPairId) -> Result<ShadowPair>;

    /// Those of `ids` that are there, each as [`Store::shadow_pair`] gives it, in no certain order.
    async fn shadow_pairs_of(&self, ids: &[ShadowPairId]) -> Result<Vec<ShadowPair>> {
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            found.extend(if_found(self.shadow_pair(*id).await)?);
        }
        Ok(found)
    }

    /// Up to `limit` pairs of `rollout` as they were last recorded, in `order`; of equal ones the older first.
    /// None for a rollout that is not there.
    async fn shadow_pairs(
        &self,
        rollout: RolloutId,
        order: PairOrder,
        limit: usize,
    ) -> Result<Vec<ShadowPair>>;

    /// The latest `limit` looks at `rollout`, newest first.
    async fn rollout_progress(&self, rollout: RolloutId, limit: usize) -> Result<Vec<RolloutProgress>>;

    /// Every test of versions, oldest first.
    async fn ab_tests(&self) -> Result<Vec<AbTest>>;

    /// Where every alias points.
    async fn aliases(&self) -> Result<Vec<(Alias, VersionNumber)>>;

    /// Every move of `alias`, oldest first.
    async fn alias_history(&self, alias: &Alias) -> Result<Vec<AliasMove>>;
}
