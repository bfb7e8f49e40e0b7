//! Takes a candidate the whole way and records every step.

use std::sync::Arc;

use autoglm_domain::{
    AbTest, Alias, AliasMove, Clock, ErrorKind, Event, Evidence, Id, IdSource, LiveStage, Outcome, Rollout,
    RolloutState, Store, Verdict, VersionNumber,
};

use crate::{
    Decided, Gate, OnTraffic, RolloutError, RolloutPolicy, Scanned, Scanning, Stage, Suites, check_transition,
};

/// Starts rollouts, one at a time, and cleans up after a crash.
#[derive(Clone)]
pub struct RolloutRunner {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    /// Where a candidate goes that passed the gate; `None` is to the champion's place.
    first: Option<LiveStage>,
    confirm: Option<Arc<dyn Confirm>>,
    /// Held from the look whether another is on its way until this one is on record.
    beginning: Arc<tokio::sync::Mutex<()>>,
}

/// Port: who else has a say in a candidate that passed the gate.
#[async_trait::async_trait]
pub trait Confirm: Send + Sync {
    /// The verdict that holds in place of `verdict`, which lets the candidate go to `next`, or to the champion's place
    /// where that is `None`: the same, a rejection, or inconclusive where nobody answered in time. Takes as long as it
    /// takes; dropped, it is asked again after [`RolloutRunner::recover`].
    async fn confirm(&self, rollout: &Rollout, next: Option<LiveStage>, verdict: Verdict) -> Verdict;
}

/// How the way through the gate ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Finished {
    /// Passed, with this verdict: the candidate goes on on live traffic.
    OnTraffic(Box<Rollout>, Box<Verdict>),
    /// With a verdict, recorded; a promotion's alias move with it.
    Decided(Box<Decided>),
    /// Without: the champion moved while the gate ran, so that the verdict speaks of a version that no
    /// longer answers users. Start it again.
    Overtaken(Box<Rollout>),
}

/// A rollout that a crash had left unfinished, now aborted.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovered {
    /// As it is recorded now.
    pub rollout: Rollout,
    /// The candidate to start again.
    pub candidate: VersionNumber,
}

impl RolloutRunner {
    /// A runner over its ports.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Self {
        Self { store, clock, ids, first: None, confirm: None, beginning: Arc::default() }
    }

    /// The same, for candidates that go through what `policy` says after the gate.
    #[must_use]
    pub fn with_policy(self, policy: &RolloutPolicy) -> Self {
        let first = match policy.canary.steps.first() {
            _ if !policy.live => None,
            _ if policy.has_shadow() => Some(LiveStage::Shadow),
            first => first.map(|percent| LiveStage::Canary { step: 0, percent: *percent }),
        };
        Self { first, ..self }
    }

    /// The same, that asks `confirm` before a candidate goes further than the gate.
    #[must_use]
    pub fn with_confirmation(self, confirm: Arc<dyn Confirm>) -> Self {
        Self { confirm: Some(confirm), ..self }
    }

    /// Records a new rollout. `Conflict` while another or a test of versions is unfinished, `Invalid` when both are one version.
    pub async fn begin(
        &self,
        candidate: VersionNumber,
        champion: VersionNumber,
    ) -> Result<Stage<Scanning>, RolloutError> {
        if candidate == champion {
            return Err(RolloutError::SameVersion(candidate));
        }
        let _beginning = self.beginning.lock().await;
        if let Some(busy) = self.store.rollouts().await?.into_iter().find(Rollout::is_unfinished) {
            return Err(RolloutError::Busy { rollout: busy.id, candidate: busy.candidate });
        }
        if let Some(test) = self.store.ab_tests().await?.into_iter().find(AbTest::is_running) {
            return Err(RolloutError::Testing(test.id));
        }
        let id = Id::next(self.ids.as_ref());
        let state = RolloutState::Scanning;
        let evidence = Evidence::default();
        let rollout = Rollout { id, at: self.clock.now(), candidate, champion, state, evidence };
        Stage::begin(Arc::clone(&self.store), rollout).await
    }

    /// The way through the gate: scan findings, gate, verdict. With a live policy a candidate that passed is on live
    /// traffic then. `consequences` says what else a verdict writes, in the
    /// same append ([`promote_champion`] moves the alias). When the gate gives no verdict, the rollout is
    /// recorded as aborted and the error returned. Dropping the future leaves it to
    /// [`RolloutRunner::recover`].
    pub async fn run(
        &self,
        stage: Stage<Scanning>,
        gate: Gate<'_>,
        suites: &Suites,
        scan: &[String],
        seed: u64,
        consequences: impl FnOnce(&Rollout, &Verdict) -> Vec<Event> + Send,
    ) -> Result<Finished, RolloutError> {
        let (candidate, champion) = (stage.rollout().candidate, stage.rollout().champion);
        let rejection = if scan.is_empty() {
            None
        } else {
            match gate.run(candidate, champion, suites, scan, seed).await {
                Ok(verdict) => Some(verdict),
                Err(error) => return abort(stage, error).await,
            }
        };
        let stage = match stage.scanned(rejection).await? {
            Scanned::Clean(stage) => *stage,
            Scanned::Refused(decided) => return Ok(Finished::Decided(decided)),
        };
        let verdict = match gate.run(candidate, champion, suites, &[], seed).await {
            Ok(verdict) => verdict,
            Err(error) => return abort(stage, error).await,
        };
        let verdict = match &self.confirm {
            Some(confirm) if verdict.outcome == Outcome::Promote => {
                confirm.confirm(stage.rollout(), self.first, verdict).await
            }
            _ => verdict,
        };
        if verdict.outcome == Outcome::Promote
            && let Some(first) = self.first
        {
            let now = self.clock.now();
            let gate = Evidence { gate: verdict.reason.clone(), ..verdict.evidence.clone() };
            let stage = stage.with_evidence(|evidence| *evidence = gate);
            let rollout = match first {
                LiveStage::Canary { percent, .. } => stage.canary(percent, now).await?.rollout().clone(),
                _ => stage.shadow(now).await?.rollout().clone(),
            };
            return Ok(Finished::OnTraffic(Box::new(rollout), Box::new(verdict)));
        }
        let events = consequences(stage.rollout(), &verdict);
        match stage.decide(verdict, events).await {
            Ok(decided) => Ok(Finished::Decided(Box::new(decided))),
            Err((stage, error)) if error.kind() == ErrorKind::Conflict => {
                let rollout = stage.abort(format!("its verdict came too late: {error}")).await?;
                Ok(Finished::Overtaken(Box::new(rollout)))
            }
            Err((stage, error)) => abort(*stage, error).await,
        }
    }

    /// Run once at start-up, before the first rollout: what a crash left at the scan or at the offline gate
    /// becomes aborted, oldest first, and its candidates are handed back to be started again. Rollouts on live
    /// traffic go on where they were, see [`RolloutRunner::on_traffic`].
    pub async fn recover(&self) -> Result<Vec<Recovered>, RolloutError> {
        let mut recovered = Vec::new();
        let mut events = Vec::new();
        for rollout in self.store.rollouts().await?.into_iter().filter(is_before_traffic) {
            let reason = "the process ended before its verdict".to_owned();
            let next = Rollout { state: RolloutState::Aborted { reason }, ..rollout.clone() };
            check_transition(&rollout.state, &next.state)?;
            events.push(Event::Rollout(Box::new(next.clone())));
            recovered.push(Recovered { candidate: next.candidate, rollout: next });
        }
        if !events.is_empty() {
            self.store.append(events).await?;
        }
        Ok(recovered)
    }

    /// The rollout that is on live traffic, where there is one.
    pub async fn on_traffic(&self) -> Result<Option<OnTraffic>, RolloutError> {
        let rollouts = self.store.rollouts().await?;
        let live = rollouts.into_iter().find(|rollout| rollout.live().is_some());
        live.map(|rollout| OnTraffic::restore(Arc::clone(&self.store), rollout)).transpose()
    }
}

fn is_before_traffic(rollout: &Rollout) -> bool {
    rollout.is_unfinished() && rollout.live().is_none()
}

/// The consequence of a promotion: the champion alias moves from the rollout's champion to its candidate.
/// Nothing for any other outcome. The store refuses the move when the champion has changed meanwhile.
pub fn promote_champion(rollout: &Rollout, verdict: &Verdict) -> Vec<Event> {
    if verdict.outcome != Outcome::Promote {
        return Vec::new();
    }
    vec![Event::AliasMoved(AliasMove {
        alias: Alias::champion(),
        from: rollout.champion,
        to: rollout.candidate,
        at: verdict.at,
        by: "gate".into(),
        reason: verdict.reason.clone(),
        rollout: Some(rollout.id),
    })]
}

/// Records that there is no verdict, and hands the reason on. A store that fails here too leaves the rollout
/// to [`RolloutRunner::recover`]; the first error is the one to know.
async fn abort<S>(stage: Stage<S>, error: RolloutError) -> Result<Finished, RolloutError> {
    if let Err(second) = stage.abort(error.to_string()).await {
        tracing::warn!(%second, "the abort could not be recorded");
    }
    Err(error)
}
