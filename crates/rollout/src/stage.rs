//! How far a candidate is, as types: what is not a method here does not compile.
//!
//! ```text
//! begin ─▶ Scanning ─scanned─▶ OfflineGate ─decide─▶ Decided
//!              │ findings          │ shadow, canary
//!              ▼                   ▼
//!           Decided        live traffic (see `live`) ─decide─▶ Decided
//!
//!           abort, from every unfinished state ──────────────▶ Aborted
//! ```
//!
//! Every transition is durable before it returns; [`check_transition`] is the same table for states that were
//! read back.

use std::{marker::PhantomData, sync::Arc};

use autoglm_domain::{Event, Evidence, LiveStage, Rollout, RolloutState, Store, Verdict};

use crate::RolloutError;

/// Marker: the adapter is being scanned.
#[derive(Debug)]
pub enum Scanning {}

/// Marker: candidate and champion answer the suites.
#[derive(Debug)]
pub enum OfflineGate {}

/// A rollout in the unfinished state `S`. Transitions consume it.
pub struct Stage<S> {
    pub(crate) rollout: Rollout,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) state: PhantomData<fn() -> S>,
}

impl<S> std::fmt::Debug for Stage<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Stage").field(&self.rollout).finish()
    }
}

/// A rollout with its verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    /// As it was recorded.
    pub rollout: Rollout,
    /// Its verdict.
    pub verdict: Verdict,
}

/// What the scan led to.
#[derive(Debug)]
pub enum Scanned {
    /// Nothing found: on to the gate.
    Clean(Box<Stage<OfflineGate>>),
    /// Rejected.
    Refused(Box<Decided>),
}

impl Stage<Scanning> {
    /// Records the beginning.
    pub(crate) async fn begin(store: Arc<dyn Store>, rollout: Rollout) -> Result<Self, RolloutError> {
        store.append(vec![Event::Rollout(Box::new(rollout.clone()))]).await?;
        Ok(Self { rollout, store, state: PhantomData })
    }

    /// The scan is over: without a verdict on to the gate, with one (a rejection) to the end.
    pub async fn scanned(self, rejection: Option<Verdict>) -> Result<Scanned, RolloutError> {
        match rejection {
            None => {
                let rollout = self.record(RolloutState::OfflineGate, Vec::new()).await?;
                Ok(Scanned::Clean(Box::new(Stage { rollout, store: self.store, state: PhantomData })))
            }
            Some(verdict) => {
                let state = RolloutState::Decided { verdict: verdict.clone() };
                let rollout = self.record(state, Vec::new()).await?;
                Ok(Scanned::Refused(Box::new(Decided { rollout, verdict })))
            }
        }
    }
}

/// Marker trait: a verdict may be given in this state.
pub trait Decidable {}
impl Decidable for OfflineGate {}

impl<S: Decidable> Stage<S> {
    /// Records the verdict together with `consequences` (the alias move of a promotion): all or nothing, so
    /// that no crash can come between. On `Conflict` nothing was recorded and the stage comes back.
    pub async fn decide(
        self,
        verdict: Verdict,
        consequences: Vec<Event>,
    ) -> Result<Decided, (Box<Self>, RolloutError)> {
        let state = RolloutState::Decided { verdict: verdict.clone() };
        match self.record(state, consequences).await {
            Ok(rollout) => Ok(Decided { rollout, verdict }),
            Err(error) => Err((Box::new(self), error)),
        }
    }
}

impl<S> Stage<S> {
    /// The rollout as it was last recorded, with what was found since.
    pub fn rollout(&self) -> &Rollout {
        &self.rollout
    }

    /// The same with more evidence, which the next transition records.
    #[must_use]
    pub fn with_evidence(mut self, add: impl FnOnce(&mut Evidence)) -> Self {
        add(&mut self.rollout.evidence);
        self
    }

    /// Stops without a verdict.
    pub async fn abort(self, reason: impl Into<String>) -> Result<Rollout, RolloutError> {
        self.record(RolloutState::Aborted { reason: reason.into() }, Vec::new()).await
    }

    pub(crate) async fn record(
        &self,
        state: RolloutState,
        others: Vec<Event>,
    ) -> Result<Rollout, RolloutError> {
        let mut next = Rollout { state, ..self.rollout.clone() };
        if matches!(next.state, RolloutState::Decided { .. }) {
            // The verdict carries it from now on.
            next.evidence = Evidence::default();
        }
        let mut events = vec![Event::Rollout(Box::new(next.clone()))];
        events.extend(others);
        self.store.append(events).await?;
        tracing::info!(rollout = %next.id, candidate = %next.candidate, state = name(&next.state), "rollout");
        Ok(next)
    }
}

/// `Conflict` unless a candidate may go from `from` to `to`: the transitions of this module, for states that
/// were read from the store or come from outside.
pub fn check_transition(from: &RolloutState, to: &RolloutState) -> Result<(), RolloutError> {
    use RolloutState::{Aborted, Decided, Live, OfflineGate, Paused, Scanning};
    let legal = match (from, to) {
        (Scanning, OfflineGate) => true,
        (Scanning | OfflineGate | Live(_) | Paused { .. }, Aborted { .. })
        | (Scanning | OfflineGate | Live(_), Decided { .. }) => true,
        (OfflineGate, Live(next)) => may_begin_with(&next.stage),
        (Live(before), Live(next)) => may_follow(&before.stage, &next.stage),
        (Live(before), Paused { live, .. }) | (Paused { live, .. }, Live(before)) => {
            before.stage == live.stage
        }
        _ => false,
    };
    if legal { Ok(()) } else { Err(RolloutError::IllegalTransition { from: name(from), to: name(to) }) }
}

/// What the first stage on live traffic may be: nobody is promoted there without having answered anything.
fn may_begin_with(stage: &LiveStage) -> bool {
    matches!(stage, LiveStage::Shadow | LiveStage::Canary { step: 0, .. })
}

/// Steps go one by one, and only forward.
fn may_follow(before: &LiveStage, next: &LiveStage) -> bool {
    match (before, next) {
        (LiveStage::Shadow, LiveStage::Canary { step, .. }) => *step == 0,
        (LiveStage::Canary { step, .. }, LiveStage::Canary { step: next, .. }) => *next == step + 1,
        (LiveStage::Shadow | LiveStage::Canary { .. }, LiveStage::Watch) => true,
        _ => false,
    }
}

pub(crate) fn name(state: &RolloutState) -> &'static str {
    match state {
        RolloutState::Scanning => "scanning",
        RolloutState::OfflineGate => "offline_gate",
        RolloutState::Live(live) => match live.stage {
            LiveStage::Shadow => "shadow",
            LiveStage::Canary { .. } => "canary",
            LiveStage::Watch => "watch",
        },
        RolloutState::Paused { .. } => "paused",
        RolloutState::Decided { .. } => "decided",
        RolloutState::Aborted { .. } => "aborted",
    }
}

#[cfg(test)]
mod tests {
    use autoglm_domain::{Live, Timestamp};

    use super::*;

    #[test]
    fn finished_rollouts_stay_finished_and_none_goes_back() {
        let aborted = RolloutState::Aborted { reason: "x".into() };
        assert_eq!(check_transition(&RolloutState::Scanning, &RolloutState::OfflineGate), Ok(()));
        assert_eq!(check_transition(&RolloutState::OfflineGate, &aborted), Ok(()));
        let back = check_transition(&RolloutState::OfflineGate, &RolloutState::Scanning).unwrap_err();
        assert_eq!(back.to_string(), "a rollout cannot go from offline_gate to scanning");
        assert_eq!(back.kind(), autoglm_domain::ErrorKind::Conflict);
        assert!(check_transition(&aborted, &RolloutState::OfflineGate).is_err());
        assert!(check_transition(&aborted, &aborted).is_err());
    }

    #[test]
    fn live_stages_go_one_by_one_and_a_pause_leads_back_to_where_it_was() {
        let live = |stage| RolloutState::Live(Live::begin(stage, Timestamp(1)));
        let canary = |step| live(LiveStage::Canary { step, percent: 1.0 });
        let paused = RolloutState::Paused {
            live: Live::begin(LiveStage::Canary { step: 1, percent: 1.0 }, Timestamp(1)),
            since: Timestamp(2),
            by: "ada".into(),
            reason: "a look".into(),
            confirm: false,
        };
        let (shadow, watch) = (live(LiveStage::Shadow), live(LiveStage::Watch));
        let gate = RolloutState::OfflineGate;
        for (from, to) in [
            (&gate, &shadow),
            (&gate, &canary(0)),
            (&shadow, &canary(0)),
            (&shadow, &watch),
            (&canary(0), &canary(1)),
            (&canary(1), &watch),
            (&canary(1), &paused),
            (&paused, &canary(1)),
        ] {
            assert_eq!(check_transition(from, to), Ok(()), "{from:?} to {to:?}");
        }
        for (from, to) in [
            (&gate, &watch),
            (&gate, &canary(1)),
            (&RolloutState::Scanning, &shadow),
            (&shadow, &canary(1)),
            (&shadow, &shadow),
            (&canary(0), &canary(2)),
            (&canary(1), &canary(0)),
            (&canary(0), &shadow),
            (&watch, &canary(0)),
            (&paused, &canary(2)),
            (&paused, &watch),
            (&watch, &paused),
        ] {
            assert!(check_transition(from, to).is_err(), "{from:?} to {to:?}");
        }
    }
}
