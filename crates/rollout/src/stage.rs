//! How far a candidate is, as types: what is not a method here does not compile.
//!
//! ```text
//! begin ─▶ Scanning ─scanned─▶ OfflineGate ─decide─▶ Decided
//!              │ findings ───────────────────────────▶ Decided (rejected)
//!              └─────────── abort, from either ──────▶ Aborted
//! ```
//!
//! Shadow traffic, canary steps and the watch window will be further marker types between `OfflineGate` and
//! `Decided`. Every transition is durable before it returns; [`check_transition`] is the same table for
//! states that were read back.

use std::{marker::PhantomData, sync::Arc};

use autoglm_domain::{Event, Rollout, RolloutState, Store, Verdict};

use crate::RolloutError;

/// Marker: the adapter is being scanned.
#[derive(Debug)]
pub enum Scanning {}

/// Marker: candidate and champion answer the suites.
#[derive(Debug)]
pub enum OfflineGate {}

/// A rollout in the unfinished state `S`. Transitions consume it.
pub struct Stage<S> {
    rollout: Rollout,
    store: Arc<dyn Store>,
    state: PhantomData<fn() -> S>,
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
    Clean(Stage<OfflineGate>),
    /// Rejected.
    Refused(Decided),
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
                Ok(Scanned::Clean(Stage { rollout, store: self.store, state: PhantomData }))
            }
            Some(verdict) => {
                let state = RolloutState::Decided { verdict: verdict.clone() };
                let rollout = self.record(state, Vec::new()).await?;
                Ok(Scanned::Refused(Decided { rollout, verdict }))
            }
        }
    }
}

impl Stage<OfflineGate> {
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
    /// The rollout as it was last recorded.
    pub fn rollout(&self) -> &Rollout {
        &self.rollout
    }

    /// Stops without a verdict.
    pub async fn abort(self, reason: impl Into<String>) -> Result<Rollout, RolloutError> {
        self.record(RolloutState::Aborted { reason: reason.into() }, Vec::new()).await
    }

    async fn record(&self, state: RolloutState, others: Vec<Event>) -> Result<Rollout, RolloutError> {
        let next = Rollout { state, ..self.rollout.clone() };
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
    use RolloutState::{Aborted, Decided, OfflineGate, Scanning};
    match (from, to) {
        (Scanning, OfflineGate | Decided { .. } | Aborted { .. })
        | (OfflineGate, Decided { .. } | Aborted { .. }) => Ok(()),
        _ => Err(RolloutError::IllegalTransition { from: name(from), to: name(to) }),
    }
}

fn name(state: &RolloutState) -> &'static str {
    match state {
        RolloutState::Scanning => "scanning",
        RolloutState::OfflineGate => "offline_gate",
        RolloutState::Decided { .. } => "decided",
        RolloutState::Aborted { .. } => "aborted",
    }
}

#[cfg(test)]
mod tests {
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
}
