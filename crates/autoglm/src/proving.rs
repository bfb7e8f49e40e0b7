//! A candidate on live traffic: what comes in is settled, looked at, and decides how far the candidate goes.
//!
//! A pair of the shadow, or an answer of a canary, counts once: when its accuracy was judged, or when
//! [`settle_s`](autoglm_rollout::RolloutPolicy::settle_s) have passed without. A look at the stage's analysis then lets
//! the candidate wait, go on, become champion, or go. A process that starts again finds the pairs in the store;
//! a canary step or a watch begins to count anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use autoglm_domain::{
    Alias, AliasMove, ErrorKind, Event, Evidence, InteractionId, InteractionRecord, LiveStage, Outcome,
    PairOrder, Result, Rollout, RolloutId, RolloutProgress, ShadowPair, StageRuling, Timestamp, Verdict,
    VersionNumber,
};
use autoglm_evaluate::record_of_candidate;
use autoglm_rollout::{
    Arm, BeforeWatch, Decidable, Observation, OnInconclusive, OnTraffic, Stage, StageAnalysis, StageResult,
    promote_champion,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    learning_loop::champion,
    node::{Parts, residents, shadows},
};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// The same while no candidate is on live traffic; one that comes there rings.
const IDLE: Duration = Duration::from_secs(2);
/// Time between two looks on record, as long as they come to the same.
const RECORD_MS: i64 = 10_000;
/// Latest answers among which the champion's are looked for once it answers nobody any more.
const BASELINE: usize = 2_000;
/// Answers that wait to be settled; of more, the oldest are settled as they are.
const MOST_OPEN: usize = 20_000;

/// What came in since the last look.
#[derive(Debug, Default)]
pub(crate) struct Proving {
    inbox: Mutex<Inbox>,
    bell: Notify,
    /// Held over a look, and over what a person orders: neither acts on what the other has changed.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Inbox {
    pairs: Vec<ShadowPair>,
    answers: Vec<InteractionId>,
    failures: Vec<(VersionNumber, f64)>,
    said: BTreeSet<InteractionId>,
}

impl Proving {
    /// A candidate came on live traffic.
    pub(crate) fn begun(&self) {
        self.bell.notify_one();
    }

    /// A pair is on record.
    pub(crate) fn pair(&self, pair: ShadowPair) {
        self.inbox.lock().pairs.push(pair);
    }

    /// A user got an answer.
    pub(crate) fn answered(&self, id: InteractionId) {
        let mut inbox = self.inbox.lock();
        if inbox.answers.len() < MOST_OPEN {
            inbox.answers.push(id);
        }
    }

    /// A user got none.
    pub(crate) fn failed(&self, version: VersionNumber, latency_ms: f64) {
        let mut inbox = self.inbox.lock();
        if inbox.failures.len() < MOST_OPEN {
            inbox.failures.push((version, latency_ms));
        }
        drop(inbox);
        self.bell.notify_one();
    }

    /// A user said something of an answer.
    pub(crate) fn said(&self, id: InteractionId) {
        let mut inbox = self.inbox.lock();
        if inbox.said.len() < MOST_OPEN {
            inbox.said.insert(id);
        }
    }

    /// Waits for a look to end, and holds the next one up.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }
}

/// Looks at the candidate on live traffic, where there is one, until the task is dropped.
pub(crate) async fn prove_live(parts: Arc<Parts>) {
    let mut view = None;
    loop {
        let pause = if view.is_some() { LOOK } else { IDLE };
        let _ = tokio::time::timeout(pause, parts.proving.bell.notified()).await;
        let _turn = parts.proving.turn().await;
        if let Err(error) = look(&parts, &mut view).await {
            tracing::warn!(%error, "the candidate on live traffic could not be looked at");
        }
    }
}

/// One stage of one rollout as it is looked at.
struct View {
    rollout: RolloutId,
    stage: LiveStage,
    analysis: StageAnalysis,
    /// By the champion's interaction; those that count already are gone from here and from `answers`.
    pairs: BTreeMap<InteractionId, ShadowPair>,
    /// Since when they wait.
    answers: BTreeMap<InteractionId, Timestamp>,
    /// Of which users said something that may not be assessed yet.
    said: BTreeSet<InteractionId>,
    /// Pairs that count already.
    settled: BTreeSet<InteractionId>,
    recorded: Option<(StageRuling, Timestamp)>,
}

/// One look: follows the store, settles what came in, and acts on the ruling.
async fn look(parts: &Arc<Parts>, view: &mut Option<View>) -> Result<()> {
    let on_traffic = parts.rollouts.on_traffic().await?;
    let inbox = std::mem::take(&mut *parts.proving.inbox.lock());
    let Some((on_traffic, live)) =
        on_traffic.and_then(|it| it.rollout().live().copied().map(|live| (it, live)))
    else {
        parts.traffic.clear();
        *view = None;
        return Ok(());
    };
    let rollout = on_traffic.rollout().clone();
    let answering = if live.stage == LiveStage::Watch { rollout.candidate } else { rollout.champion };
    if champion(parts) != answering {
        parts.traffic.clear();
        abort(on_traffic, format!("{} became champion meanwhile", champion(parts))).await?;
        return Ok(());
    }
    residents::ensure(parts, rollout.candidate).await?;
    parts.traffic.follow(&rollout);
    let on_traffic = match on_traffic {
        OnTraffic::Paused(_) => return Ok(()),
        live => live,
    };
    let view = match view {
        Some(same) if same.rollout == rollout.id && same.stage == live.stage => same,
        other => other.insert(View::open(parts, &rollout, live.stage).await?),
    };
    view.take_in(parts, &rollout, inbox).await?;
    let now = parts.clock.now();
    let result = view.analysis.rule(live.spent_ms(now));
    view.record(parts, &result, now).await?;
    match result.ruling {
        StageRuling::Wait => Ok(()),
        _ => act(parts, on_traffic, &result, now).await,
    }
}

impl View {
    async fn open(parts: &Parts, rollout: &Rollout, stage: LiveStage) -> Result<Self> {
        let mut view = Self {
            rollout: rollout.id,
            stage,
            analysis: StageAnalysis::new(&parts.settings.rollout, stage)?,
            pairs: BTreeMap::new(),
            answers: BTreeMap::new(),
            said: BTreeSet::new(),
            settled: BTreeSet::new(),
            recorded: None,
        };
        if stage == LiveStage::Shadow {
            let most = usize::try_from(parts.settings.rollout.shadow.max_pairs).unwrap_or(usize::MAX);
            for pair in parts.store.shadow_pairs(rollout.id, PairOrder::Oldest, most).await? {
                view.pairs.insert(pair.interaction, pair);
            }
        } else if reaches_everyone(stage) {
            view.remember_champion(parts, rollout).await?;
        }
        tracing::info!(rollout = %rollout.id, candidate = %rollout.candidate, %stage, "a stage begins");
        Ok(view)
    }

    /// No request reaches the champion any more: its side is what it answered last.
    async fn remember_champion(&mut self, parts: &Parts, rollout: &Rollout) -> Result<()> {
        let latest = parts.store.recent_interactions(BASELINE).await?;
        for record in latest.iter().rev().filter(|it| it.interaction.version == rollout.champion) {
            self.analysis.push(Arm::Champion, &observed(parts, record));
        }
        Ok(())
    }

    /// Takes in what came, and settles what can be settled.
    async fn take_in(&mut self, parts: &Parts, rollout: &Rollout, inbox: Inbox) -> Result<()> {
        self.said.extend(inbox.said);
        while self.said.len() > MOST_OPEN {
            self.said.pop_first(); // The oldest: ids are in the order of time.
        }
        if self.stage == LiveStage::Shadow {
            let fresh =
                |pair: &ShadowPair| pair.rollout == rollout.id && !self.settled.contains(&pair.interaction);
            let pairs: Vec<_> = inbox.pairs.into_iter().filter(fresh).collect();
            self.pairs.extend(pairs.into_iter().map(|pair| (pair.interaction, pair)));
            return self.settle_pairs(parts).await;
        }
        for (version, latency_ms) in inbox.failures {
            if let Some(arm) = arm(rollout, version) {
                self.analysis.push(arm, &Observation::of_failure(latency_ms));
            }
        }
        let now = parts.clock.now();
        self.answers.extend(inbox.answers.into_iter().map(|id| (id, now)));
        self.settle_answers(parts, rollout).await
    }

    /// Gives pairs to the analysis, oldest first, each once its champion's answer is settled.
    async fn settle_pairs(&mut self, parts: &Parts) -> Result<()> {
        let due: Vec<InteractionId> = self
            .pairs
            .iter()
            .filter(|(id, pair)| self.said.contains(id) || is_over(parts, pair.at, self.pairs.len()))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let record = parts.store.interaction(id).await?;
            let Some(pair) = self.pairs.get(&id) else { continue };
            if !is_settled(parts, &record, self.pairs.len()) {
                continue;
            }
            let judged = judge(parts, pair.clone(), &record).await?;
            parts.store.append(vec![Event::ShadowPair(Box::new(judged.clone()))]).await?;
            self.pairs.remove(&id);
            self.said.remove(&id);
            self.settled.insert(id);
            self.analysis.push_pair(&judged);
        }
        Ok(())
    }

    /// The same for answers that users got, of both versions. Others are none of this rollout's.
    async fn settle_answers(&mut self, parts: &Parts, rollout: &Rollout) -> Result<()> {
        let open = self.answers.len();
        let due: Vec<InteractionId> = self
            .answers
            .iter()
            .filter(|(id, since)| self.said.contains(id) || is_over(parts, **since, open))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let record = match parts.store.interaction(id).await {
                Err(error) if error.kind == ErrorKind::NotFound => None,
                record => Some(record?),
            };
            let counted = record.and_then(|it| arm(rollout, it.interaction.version).map(|arm| (arm, it)));
            if counted.as_ref().is_some_and(|(_, record)| !is_settled(parts, record, open)) {
                continue;
            }
            self.answers.remove(&id);
            self.said.remove(&id);
            if let Some((arm, record)) = counted {
                self.analysis.push(arm, &observed(parts, &record));
            }
        }
        Ok(())
    }

    /// Puts a look on record: each that comes to something else, and one now and then.
    async fn record(&mut self, parts: &Parts, result: &StageResult, now: Timestamp) -> Result<()> {
        let same = self.recorded.is_some_and(|(ruling, at)| {
            ruling == result.ruling && now.0.saturating_sub(at.0) < RECORD_MS && now.0 >= at.0
        });
        if same {
            return Ok(());
        }
        let progress = RolloutProgress {
            rollout: self.rollout,
            at: now,
            stage: self.stage,
            ruling: result.ruling,
            reason: result.reason.clone(),
            observations: result.observations,
            metrics: result.metrics.clone(),
        };
        parts.store.append(vec![Event::RolloutProgress(Box::new(progress))]).await?;
        self.recorded = Some((result.ruling, now));
        Ok(())
    }
}

/// Whether the champion of before answers nobody in this stage.
fn reaches_everyone(stage: LiveStage) -> bool {
    match stage {
        LiveStage::Shadow => false,
        LiveStage::Canary { percent, .. } => percent >= 100.0,
        LiveStage::Watch => true,
    }
}

/// An answer that a user got, as the analysis takes it.
fn observed(parts: &Parts, record: &InteractionRecord) -> Observation {
    let answer = &record.interaction;
    let traits = parts.differ.traits(answer, &answer.answer, shadows::calls(answer));
    Observation::of_record(record, traits)
}

/// Whose answers these are; `None` for versions that have no part in it.
fn arm(rollout: &Rollout, version: VersionNumber) -> Option<Arm> {
    match version {
        version if version == rollout.candidate => Some(Arm::Candidate),
        version if version == rollout.champion => Some(Arm::Champion),
        _ => None,
    }
}

/// Whether nothing more is waited for, of `open` that wait.
fn is_over(parts: &Parts, at: Timestamp, open: usize) -> bool {
    let wait_ms = i64::try_from(parts.settings.rollout.settle_s.saturating_mul(1000)).unwrap_or(i64::MAX);
    open > MOST_OPEN || parts.clock.now().0.saturating_sub(at.0) >= wait_ms
}

/// Whether an answer counts from now on: everything that was said is assessed, and accuracy was judged or nothing more
/// is waited for.
fn is_settled(parts: &Parts, record: &InteractionRecord, open: usize) -> bool {
    let seen = record.assessment.as_ref().filter(|it| it.feedback_seen as usize >= record.feedback.len());
    seen.is_some_and(|it| it.is_judged()) || is_over(parts, record.interaction.at, open)
}

/// The pair with the scores of both answers, the candidate's by what was said of the champion's where that speaks of
/// it too.
async fn judge(parts: &Parts, mut pair: ShadowPair, record: &InteractionRecord) -> Result<ShadowPair> {
    if let Some(assessment) = &record.assessment {
        pair.champion.scores.clone_from(&assessment.scores);
        pair.champion.overall = Some(assessment.overall);
    }
    if pair.candidate.error.is_none() {
        let assessment = parts.evaluator.assess(&record_of_candidate(record, &pair.candidate)).await?;
        pair.candidate.scores = assessment.scores;
        pair.candidate.overall = Some(assessment.overall);
    }
    Ok(pair)
}

/// Lets the candidate go on, or go.
async fn act(parts: &Arc<Parts>, at: OnTraffic, result: &StageResult, now: Timestamp) -> Result<()> {
    let rollout = at.rollout().clone();
    tracing::info!(
        rollout = %rollout.id, candidate = %rollout.candidate, ruling = ?result.ruling, "{}", result.reason
    );
    let outcome = match (result.ruling, parts.settings.rollout.on_inconclusive) {
        (StageRuling::Wait, _) => return Ok(()),
        (StageRuling::Succeed, _) => return advance(parts, at, &result.reason, now).await,
        (StageRuling::Inconclusive, OnInconclusive::Pause) => {
            pause(at, now, "rollout", &result.reason).await?;
            return Ok(());
        }
        (StageRuling::Inconclusive, OnInconclusive::Inconclusive) => Outcome::Inconclusive,
        (StageRuling::Fail, _) | (StageRuling::Inconclusive, OnInconclusive::Reject) => Outcome::Reject,
    };
    // First the traffic, then the record: no request reaches the candidate while it is written.
    parts.traffic.clear();
    let verdict = verdict(outcome, &result.reason, now);
    let back = AliasMove {
        alias: Alias::champion(),
        from: rollout.candidate,
        to: rollout.champion,
        at: now,
        by: "rollout".into(),
        reason: result.reason.clone(),
        rollout: Some(rollout.id),
    };
    match at {
        OnTraffic::Shadow(stage) => decide(parts, stage, verdict, Vec::new()).await,
        OnTraffic::Canary(stage) => decide(parts, stage, verdict, Vec::new()).await,
        OnTraffic::Watch(stage) => decide(parts, stage, verdict, vec![Event::AliasMoved(back)]).await,
        OnTraffic::Paused(_) => Ok(()),
    }?;
    if champion(parts) != rollout.candidate {
        autoglm_domain::AdapterHost::unload(&*parts.engine, rollout.candidate);
    }
    Ok(())
}

/// The next stage.
async fn advance(parts: &Arc<Parts>, at: OnTraffic, reason: &str, now: Timestamp) -> Result<()> {
    let steps = &parts.settings.rollout.canary.steps;
    match at {
        OnTraffic::Shadow(stage) => match steps.first() {
            Some(percent) => parts.traffic.follow(stage.canary(*percent, now).await?.rollout()),
            None => promote(parts, stage, reason, now).await?,
        },
        OnTraffic::Canary(stage) => {
            let done = match stage.rollout().live().map(|live| live.stage) {
                Some(LiveStage::Canary { step, .. }) => step as usize,
                _ => steps.len(),
            };
            match steps.get(done + 1) {
                Some(percent) => parts.traffic.follow(stage.next_step(*percent, now).await?.rollout()),
                None => promote(parts, stage, reason, now).await?,
            }
        }
        OnTraffic::Watch(stage) => {
            decide(parts, stage, verdict(Outcome::Promote, reason, now), Vec::new()).await?;
        }
        OnTraffic::Paused(_) => {}
    }
    Ok(())
}

/// The candidate becomes champion: watched where the policy has a window, for good where it has none.
async fn promote<S: Decidable + BeforeWatch>(
    parts: &Arc<Parts>,
    stage: Stage<S>,
    reason: &str,
    now: Timestamp,
) -> Result<()> {
    let verdict = verdict(Outcome::Promote, reason, now);
    let moves = promote_champion(stage.rollout(), &verdict);
    if parts.settings.rollout.watch.window_s == 0 {
        return decide(parts, stage, verdict, moves).await;
    }
    match stage.promote(now, moves).await {
        Ok(_) => parts.residents.follow(parts).await?,
        Err((stage, error)) if error.kind() == ErrorKind::Conflict => {
            parts.traffic.clear();
            stage.abort(format!("its promotion came too late: {error}")).await?;
        }
        Err((_, error)) => return Err(error.into()),
    }
    parts.traffic.clear();
    Ok(())
}

/// Ends the rollout, and serves what the aliases say from then on.
async fn decide<S: Decidable>(
    parts: &Arc<Parts>,
    stage: Stage<S>,
    verdict: Verdict,
    moves: Vec<Event>,
) -> Result<()> {
    match stage.decide(verdict, moves).await {
        Ok(_) => {}
        Err((stage, error)) if error.kind() == ErrorKind::Conflict => {
            stage.abort(format!("its verdict came too late: {error}")).await?;
        }
        Err((_, error)) => return Err(error.into()),
    }
    parts.residents.follow(parts).await?;
    parts.traffic.clear();
    Ok(())
}

fn verdict(outcome: Outcome, reason: &str, at: Timestamp) -> Verdict {
    Verdict { outcome, reason: reason.to_owned(), at, evidence: Evidence::default() }
}

/// Holds a candidate where it is. `Conflict` where it is held already.
pub(crate) async fn pause(at: OnTraffic, now: Timestamp, by: &str, reason: &str) -> Result<Rollout> {
    let paused = match at {
        OnTraffic::Shadow(stage) => stage.pause(now, by, reason).await,
        OnTraffic::Canary(stage) => stage.pause(now, by, reason).await,
        OnTraffic::Watch(stage) => stage.pause(now, by, reason).await,
        OnTraffic::Paused(stage) => {
            let candidate = stage.rollout().candidate;
            return Err(autoglm_domain::Error::conflict(format!("{candidate} is paused already")));
        }
    };
    Ok(paused?.rollout().clone())
}

/// Stops without a verdict.
pub(crate) async fn abort(at: OnTraffic, reason: String) -> Result<Rollout> {
    let aborted = match at {
        OnTraffic::Shadow(stage) => stage.abort(reason).await,
        OnTraffic::Canary(stage) => stage.abort(reason).await,
        OnTraffic::Watch(stage) => stage.abort(reason).await,
        OnTraffic::Paused(stage) => stage.abort(reason).await,
    };
    Ok(aborted?)
}

#[cfg(test)]
mod tests;
