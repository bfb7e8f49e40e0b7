//! A candidate on live traffic, as types.
//!
//! ```text
//! OfflineGate ─shadow─▶ Shadow ─canary─▶ Canary ─next_step─▶ Canary … ─promote─▶ Watch ─decide─▶ Decided
//!      └──────canary──────────────────────▲                                      ▲
//!                       Shadow ─promote──────────────────────────────────────────┘
//!
//! Shadow, Canary, Watch ─pause─▶ Paused ─resume─▶ where it was; ─decide─▶ Decided; ─abort─▶ Aborted
//! ```
//!
//! `promote` writes the alias move with the new state, so that from then on the candidate is the champion; a
//! rejection in `Watch` writes the move back with the verdict. A process that starts again finds the rollout
//! where it was ([`OnTraffic::restore`]).

use std::{marker::PhantomData, sync::Arc};

use autoglm_domain::{Event, Live, LiveStage, Rollout, RolloutProgress, RolloutState, Store, Timestamp};

use crate::{
    OfflineGate, RolloutError, Stage, check_transition,
    stage::{Decidable, name},
};

/// Marker: the candidate answers beside the champion, unseen.
#[derive(Debug)]
pub enum Shadow {}

/// Marker: the candidate answers a share of the sessions.
#[derive(Debug)]
pub enum Canary {}

/// Marker: the candidate is champion and is watched.
#[derive(Debug)]
pub enum Watch {}

/// Marker: held where it was.
#[derive(Debug)]
pub enum Paused {}

impl Decidable for Shadow {}
impl Decidable for Canary {}
impl Decidable for Watch {}

/// Marker trait: traffic reaches the candidate.
pub trait OnLive {}
impl OnLive for Shadow {}
impl OnLive for Canary {}
impl OnLive for Watch {}

/// Marker trait: the watch may follow.
pub trait BeforeWatch {}
impl BeforeWatch for Shadow {}
impl BeforeWatch for Canary {}

/// A rollout on live traffic, whichever stage it is in.
#[derive(Debug)]
pub enum OnTraffic {
    /// Beside the champion.
    Shadow(Stage<Shadow>),
    /// A share of the sessions.
    Canary(Stage<Canary>),
    /// Champion, and watched.
    Watch(Stage<Watch>),
    /// Held.
    Paused(Stage<Paused>),
}

impl OnTraffic {
    /// The typed stage of a rollout that was read from `store`. `Conflict` when it is not on live traffic.
    pub fn restore(store: Arc<dyn Store>, rollout: Rollout) -> Result<Self, RolloutError> {
        match &rollout.state {
            RolloutState::Paused { .. } => Ok(Self::Paused(stage(store, rollout))),
            RolloutState::Live(live) => Ok(Self::of(live.stage, store, rollout)),
            other => Err(RolloutError::IllegalTransition { from: name(other), to: "live traffic" }),
        }
    }

    fn of(at: LiveStage, store: Arc<dyn Store>, rollout: Rollout) -> Self {
        match at {
            LiveStage::Shadow => Self::Shadow(stage(store, rollout)),
            LiveStage::Canary { .. } => Self::Canary(stage(store, rollout)),
            LiveStage::Watch => Self::Watch(stage(store, rollout)),
        }
    }

    /// The rollout as it was last recorded.
    pub fn rollout(&self) -> &Rollout {
        match self {
            Self::Shadow(stage) => stage.rollout(),
            Self::Canary(stage) => stage.rollout(),
            Self::Watch(stage) => stage.rollout(),
            Self::Paused(stage) => stage.rollout(),
        }
    }

    /// The same with a look at it, which the next transition records.
    #[must_use]
    pub fn looked_at(self, look: RolloutProgress) -> Self {
        match self {
            Self::Shadow(stage) => Self::Shadow(stage.with_evidence(|it| it.look(look))),
            Self::Canary(stage) => Self::Canary(stage.with_evidence(|it| it.look(look))),
            Self::Watch(stage) => Self::Watch(stage.with_evidence(|it| it.look(look))),
            Self::Paused(stage) => Self::Paused(stage.with_evidence(|it| it.look(look))),
        }
    }
}

impl Stage<OfflineGate> {
    /// The gate is passed: the candidate answers beside the champion.
    pub async fn shadow(self, now: Timestamp) -> Result<Stage<Shadow>, RolloutError> {
        self.enter(LiveStage::Shadow, now, Vec::new()).await.map_err(|(_, error)| error)
    }

    /// The gate is passed and the policy has no shadow: the first step at once.
    pub async fn canary(self, percent: f64, now: Timestamp) -> Result<Stage<Canary>, RolloutError> {
        self.enter(LiveStage::Canary { step: 0, percent }, now, Vec::new()).await.map_err(|(_, error)| error)
    }
}

impl Stage<Shadow> {
    /// The shadow is passed: the first step.
    pub async fn canary(self, percent: f64, now: Timestamp) -> Result<Stage<Canary>, RolloutError> {
        self.enter(LiveStage::Canary { step: 0, percent }, now, Vec::new()).await.map_err(|(_, error)| error)
    }
}

impl Stage<Canary> {
    /// The step is passed: the next one.
    pub async fn next_step(self, percent: f64, now: Timestamp) -> Result<Self, RolloutError> {
        let step = match self.rollout.live().map(|live| live.stage) {
            Some(LiveStage::Canary { step, .. }) => step + 1,
            _ => 0, // Refused below: the type and the record would have to disagree.
        };
        self.enter(LiveStage::Canary { step, percent }, now, Vec::new()).await.map_err(|(_, error)| error)
    }
}

impl<S: BeforeWatch> Stage<S> {
    /// The last step is passed, or the shadow where the policy has no steps: the watch begins, in one append with
    /// `consequences` (the alias move). On `Conflict` nothing was recorded and the stage comes back.
    pub async fn promote(
        self,
        now: Timestamp,
        consequences: Vec<Event>,
    ) -> Result<Stage<Watch>, (Box<Self>, RolloutError)> {
        self.enter(LiveStage::Watch, now, consequences).await
    }
}

impl<S: OnLive> Stage<S> {
    /// Holds the candidate where it is; the time in the stage stands still. With `confirm` it has passed, and goes on
    /// as soon as somebody says so.
    pub async fn hold(
        self,
        now: Timestamp,
        by: impl Into<String>,
        reason: impl Into<String>,
        confirm: bool,
    ) -> Result<Stage<Paused>, RolloutError> {
        let Some(live) = self.rollout.live() else {
            return Err(RolloutError::IllegalTransition { from: name(&self.rollout.state), to: "paused" });
        };
        let live = Live { spent_ms: live.spent_ms(now), since: now, stage: live.stage };
        let (by, reason) = (by.into(), reason.into());
        let state = RolloutState::Paused { live, since: now, by, reason, confirm };
        check_transition(&self.rollout.state, &state)?;
        let rollout = self.record(state, Vec::new()).await?;
        Ok(stage(self.store, rollout))
    }
}

impl Stage<Paused> {
    /// Lets it go on where it was.
    pub async fn resume(self, now: Timestamp) -> Result<OnTraffic, RolloutError> {
        let Some(live) = self.rollout.live() else {
            return Err(RolloutError::IllegalTransition { from: name(&self.rollout.state), to: "live" });
        };
        let live = Live { since: now, ..*live };
        let state = RolloutState::Live(live);
        check_transition(&self.rollout.state, &state)?;
        let rollout = self.record(state, Vec::new()).await?;
        Ok(OnTraffic::of(live.stage, self.store, rollout))
    }
}

impl<S> Stage<S> {
    async fn enter<T>(
        self,
        next: LiveStage,
        now: Timestamp,
        consequences: Vec<Event>,
    ) -> Result<Stage<T>, (Box<Self>, RolloutError)> {
        let state = RolloutState::Live(Live::begin(next, now));
        if let Err(error) = check_transition(&self.rollout.state, &state) {
            return Err((Box::new(self), error));
        }
        match self.record(state, consequences).await {
            Ok(rollout) => Ok(stage(self.store, rollout)),
            Err(error) => Err((Box::new(self), error)),
        }
    }
}

fn stage<S>(store: Arc<dyn Store>, rollout: Rollout) -> Stage<S> {
    Stage { rollout, store, state: PhantomData }
}
