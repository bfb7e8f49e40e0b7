//! A candidate on live traffic: what comes in is settled, looked at, and decides how far the candidate goes.
//!
//! A pair of the shadow, or an answer of a canary, counts once: when its accuracy was judged, or when
//! [`settle_s`](autoglm_rollout::RolloutPolicy::settle_s) have passed without. A look at the stage's analysis then lets
//! the candidate wait, go on, become champion, or go. A process that starts again finds the pairs in the store;
//! a canary step or a watch begins to count anew.

pub(crate) mod comparing;
mod doors;
mod settling;
mod slices;
mod spent;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use autoglm_domain::{
    Alias, AliasMove, Error, ErrorKind, Event, InteractionId, InteractionRecord, LiveStage, Outcome,
    Preference, Result, Rollout, RolloutProgress, RolloutState, ShadowPair, StageRuling, Timestamp, Verdict,
    VersionNumber,
};
use autoglm_evaluate::record_of_candidate;
use autoglm_rollout::{
    Arm, BeforeWatch, Confirmation, Decidable, Next, Observation, OnInconclusive, OnTraffic, Stage,
    promote_champion,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::{comparing::Comparing, view::View};
pub(crate) use self::{doors::Doors, slices::slices};
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
/// Answers that are read together to be settled.
const SETTLED_AT_ONCE: usize = 64;
/// Answers that wait to be settled; of more, the oldest are settled as they are.
const MOST_OPEN: usize = 20_000;

/// What came in since the last look.
#[derive(Debug, Default)]
pub(crate) struct Proving {
    inbox: Mutex<Inbox>,
    bell: Notify,
    /// Whether a candidate or a test of versions is on live traffic, as far as the last look tells.
    watching: AtomicBool,
    /// Held over a look, and over what a person orders: neither acts on what the other has changed.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Inbox {
    pairs: Vec<ShadowPair>,
    /// Pairs that a judge has been asked about.
    asked: BTreeSet<InteractionId>,
    /// What a judge prefers, or that it has failed.
    preferred: BTreeMap<InteractionId, Option<Preference>>,
    answers: Vec<InteractionId>,
    failures: Vec<(VersionNumber, f64)>,
    said: BTreeSet<InteractionId>,
}

impl Proving {
    /// A candidate came on live traffic.
    pub(crate) fn begun(&self) {
        self.watching.store(true, Ordering::SeqCst);
        self.bell.notify_one();
    }

    /// Whether anybody wants to know what comes in.
    pub(crate) fn is_watching(&self) -> bool {
        self.watching.load(Ordering::SeqCst)
    }

    /// A pair is on record; with `asked` a judge will say something of it.
    pub(crate) fn pair(&self, pair: ShadowPair, asked: bool) {
        let mut inbox = self.inbox.lock();
        if asked {
            inbox.asked.insert(pair.interaction);
        }
        inbox.pairs.push(pair);
    }

    /// What the judge prefers of the pair of `interaction`; `None` where it failed.
    pub(crate) fn preferred(&self, interaction: InteractionId, preference: Option<Preference>) {
        let mut inbox = self.inbox.lock();
        if inbox.preferred.len() < MOST_OPEN {
            inbox.preferred.insert(interaction, preference);
        }
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

    /// A user said something of an answer, or its accuracy was judged.
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

/// Looks at the candidate or the test of versions on live traffic, where there is one, until the task is dropped.
pub(crate) async fn prove_live(parts: Arc<Parts>) {
    let (mut view, mut test) = (None, None);
    loop {
        let pause = if view.is_some() || test.is_some() { LOOK } else { IDLE };
        let _ = tokio::time::timeout(pause, parts.proving.bell.notified()).await;
        let _turn = parts.proving.turn().await;
        if let Err(error) = look(&parts, &mut view, &mut test).await {
            tracing::warn!(%error, "the candidate on live traffic could not be looked at");
        }
        parts.proving.watching.store(view.is_some() || test.is_some(), Ordering::SeqCst);
    }
}

/// One look: follows the store, settles what came in, and acts on the ruling.
async fn look(parts: &Arc<Parts>, view: &mut Option<View>, test: &mut Option<Comparing>) -> Result<()> {
    let on_traffic = parts.rollouts.on_traffic().await?;
    let inbox = std::mem::take(&mut *parts.proving.inbox.lock());
    let Some((on_traffic, live)) =
        on_traffic.and_then(|it| it.rollout().live().copied().map(|live| (it, live)))
    else {
        parts.doors.close();
        *view = None;
        return comparing::look(parts, test, inbox).await;
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
    if matches!(on_traffic, OnTraffic::Paused(_)) && live.stage == LiveStage::Shadow {
        return Ok(());
    }
    let view = match view {
        Some(same) if same.rollout == rollout.id && same.stage == live.stage => same,
        other => other.insert(View::open(parts, &rollout, &live).await?),
    };
    view.take_in(parts, &rollout, inbox).await?;
    let now = parts.clock.now();
    let result = view.analysis.rule(view.spent.look(&live, now));
    let result = parts.doors.hear(&parts.settings.rollout, &rollout, &live, result, now);
    let look = view.look(parts, result, now);
    let on_traffic = match on_traffic {
        // Users hear it all the same: a breach ends it, and nothing else is decided meanwhile.
        OnTraffic::Paused(stage) if look.ruling == StageRuling::Fail => stage.resume(now).await?,
        OnTraffic::Paused(_) => return Ok(()),
        live => live,
    };
    view.record(parts, &look).await?;
    match look.ruling {
        StageRuling::Wait => Ok(()),
        _ => act(parts, on_traffic, look).await,
    }
}

/// Of `events`, the answers whose accuracy is known from now on.
pub(crate) fn judged(events: &[Event]) -> Vec<InteractionId> {
    let judged = |event: &Event| match event {
        Event::Assessment(assessment) if assessment.is_judged() => Some(assessment.interaction),
        _ => None,
    };
    events.iter().filter_map(judged).collect()
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

/// Of `open` that wait, so many of the oldest are waited for no longer.
fn too_many(open: usize) -> usize {
    open.saturating_sub(MOST_OPEN)
}

/// Whether nothing more is waited for.
fn is_over(parts: &Parts, at: Timestamp) -> bool {
    let wait_ms = i64::try_from(parts.settings.rollout.settle_s.saturating_mul(1000)).unwrap_or(i64::MAX);
    // What lies far in the future is from before the clock was set back.
    parts.clock.now().since_ms(at).saturating_abs() >= wait_ms
}

/// Whether an answer counts from now on: everything that was said is assessed, and accuracy was judged or nothing more
/// is waited for, as where it has to make room for others.
fn is_settled(parts: &Parts, record: &InteractionRecord, makes_room: bool) -> bool {
    let seen = record.assessment.as_ref().filter(|it| it.feedback_seen as usize >= record.feedback.len());
    seen.is_some_and(|it| it.is_judged()) || makes_room || is_over(parts, record.interaction.at)
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
async fn act(parts: &Arc<Parts>, at: OnTraffic, look: RolloutProgress) -> Result<()> {
    let (ruling, reason, now) = (look.ruling, look.reason.clone(), look.at);
    let at = at.looked_at(look);
    let rollout = at.rollout().clone();
    tracing::info!(rollout = %rollout.id, candidate = %rollout.candidate, ?ruling, "{reason}");
    let outcome = match (ruling, parts.settings.rollout.on_inconclusive) {
        (StageRuling::Wait, _) => return Ok(()),
        (StageRuling::Succeed, _) => return advance(parts, at, &reason, now).await,
        (StageRuling::Inconclusive, OnInconclusive::Pause) => {
            pause(at, now, "rollout", &reason).await?;
            return Ok(());
        }
        (StageRuling::Inconclusive, OnInconclusive::Inconclusive) => Outcome::Inconclusive,
        (StageRuling::Fail, _) | (StageRuling::Inconclusive, OnInconclusive::Reject) => Outcome::Reject,
    };
    // First the traffic, then the record: no request reaches the candidate while it is written.
    parts.traffic.clear();
    let verdict = verdict(&rollout, outcome, &reason, now);
    let back = AliasMove {
        alias: Alias::champion(),
        from: rollout.candidate,
        to: rollout.champion,
        at: now,
        by: "rollout".into(),
        reason: format!("{}{reason}", AliasMove::ROLLBACK),
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

/// A stage is passed: on to the next one, or a wait for the word that it needs.
async fn advance(parts: &Arc<Parts>, at: OnTraffic, reason: &str, now: Timestamp) -> Result<()> {
    let policy = &parts.settings.rollout;
    match at.rollout().live().and_then(|live| policy.after(&live.stage)) {
        Some(next) if policy.confirm(next) == Confirmation::Person => {
            let next = match next {
                Next::Step(percent) => format!("canary at {percent}%"),
                Next::Promotion => "the promotion".to_owned(),
            };
            let waits = format!("{next} awaits somebody's word; {reason}");
            hold(at, now, "rollout", &waits, true).await.map(drop)
        }
        _ => go_on(parts, at, reason, now).await,
    }
}

/// The next stage.
async fn go_on(parts: &Arc<Parts>, at: OnTraffic, reason: &str, now: Timestamp) -> Result<()> {
    let next = at.rollout().live().and_then(|live| parts.settings.rollout.after(&live.stage));
    match (at, next) {
        (OnTraffic::Shadow(stage), Some(Next::Step(percent))) => {
            parts.traffic.follow(stage.canary(percent, now).await?.rollout());
        }
        (OnTraffic::Canary(stage), Some(Next::Step(percent))) => {
            parts.traffic.follow(stage.next_step(percent, now).await?.rollout());
        }
        (OnTraffic::Shadow(stage), _) => promote(parts, stage, reason, now).await?,
        (OnTraffic::Canary(stage), _) => promote(parts, stage, reason, now).await?,
        (OnTraffic::Watch(stage), _) => {
            let verdict = verdict(stage.rollout(), Outcome::Promote, reason, now);
            decide(parts, stage, verdict, Vec::new()).await?;
        }
        (OnTraffic::Paused(_), _) => {}
    }
    Ok(())
}

/// Somebody's word that a candidate may go on. `Conflict` where it awaits none.
pub(crate) async fn confirm(parts: &Arc<Parts>, at: OnTraffic, by: &str, why: &str) -> Result<Rollout> {
    let (id, candidate) = (at.rollout().id, at.rollout().candidate);
    let stage = match at {
        OnTraffic::Paused(stage) if awaits_word(stage.rollout()) => stage,
        _ => return Err(Error::conflict(format!("{candidate} awaits nobody's word"))),
    };
    let now = parts.clock.now();
    let look = stage.rollout().evidence.live.last().map(|look| look.reason.clone()).unwrap_or_default();
    let said = if why.is_empty() { String::new() } else { format!(" ({why})") };
    let at = stage.resume(now).await?;
    go_on(parts, at, &format!("confirmed by {by}{said}; {look}"), now).await?;
    let rollouts = parts.store.rollouts().await?;
    let rollout = rollouts.into_iter().find(|rollout| rollout.id == id);
    rollout.ok_or_else(|| Error::not_found(format!("{id} is not there any more")))
}

/// Whether a candidate has passed and goes on as soon as somebody says so.
pub(crate) fn awaits_word(rollout: &Rollout) -> bool {
    matches!(rollout.state, RolloutState::Paused { confirm: true, .. })
}

/// The candidate becomes champion: watched where the policy has a window, for good where it has none.
async fn promote<S: Decidable + BeforeWatch>(
    parts: &Arc<Parts>,
    stage: Stage<S>,
    reason: &str,
    now: Timestamp,
) -> Result<()> {
    let verdict = verdict(stage.rollout(), Outcome::Promote, reason, now);
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

/// A verdict on what was found so far.
fn verdict(rollout: &Rollout, outcome: Outcome, reason: &str, at: Timestamp) -> Verdict {
    Verdict { outcome, reason: reason.to_owned(), at, evidence: rollout.evidence.clone() }
}

/// Holds a candidate where it is. `Conflict` where it is held already.
pub(crate) async fn pause(at: OnTraffic, now: Timestamp, by: &str, reason: &str) -> Result<Rollout> {
    hold(at, now, by, reason, false).await
}

async fn hold(at: OnTraffic, now: Timestamp, by: &str, reason: &str, confirm: bool) -> Result<Rollout> {
    let paused = match at {
        OnTraffic::Shadow(stage) => stage.hold(now, by, reason, confirm).await,
        OnTraffic::Canary(stage) => stage.hold(now, by, reason, confirm).await,
        OnTraffic::Watch(stage) => stage.hold(now, by, reason, confirm).await,
        OnTraffic::Paused(stage) => {
            let candidate = stage.rollout().candidate;
            return Err(Error::conflict(format!("{candidate} is paused already")));
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
