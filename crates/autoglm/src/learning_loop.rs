//! The loop: what is answered is assessed, what is verified is remembered, what is remembered is learned, what
//! was learned is proven, and only what was proven answers.
//!
//! Two tasks run it beside serving. One assesses and remembers as feedback comes in; the other trains when a
//! trigger fires and puts the result through the gate. Both sleep until a bell rings or a moment has passed,
//! and both go on after a restart from what the store says.

use std::{sync::Arc, time::Duration};

use autoglm_domain::{AbTest, Alias, ModelVersion, Result, Rollout, TrainingRun, Trigger, VersionNumber};

use crate::{assessed, consolidate::Consolidation, node::Parts, proving, signals::Working};

/// How many answers are assessed at a time.
const ASSESS_BATCH: usize = 128;
/// Least time from one batch that is not full to the next, so that answers under load are not assessed one by one.
const GATHER: Duration = Duration::from_millis(20);
/// Longest sleep of the loop without a bell.
const TICK: Duration = Duration::from_millis(500);

/// Assesses and remembers until the task is dropped.
pub(crate) async fn assess_and_remember(parts: Arc<Parts>) {
    let mut patterns = parts.evaluator.patterns(parts.store.patterns().await.unwrap_or_default());
    loop {
        let next = tokio::time::Instant::now() + GATHER;
        let batch = match parts.evaluator.assess_pending(&*parts.store, &patterns, ASSESS_BATCH).await {
            Ok(batch) => batch,
            Err(error) => {
                tracing::warn!(%error, "assessing has to wait");
                tokio::time::sleep(TICK).await;
                continue;
            }
        };
        if batch.events.is_empty() {
            let _ = tokio::time::timeout(TICK, parts.signals.recorded.notified()).await;
            continue;
        }
        let is_full = batch.events.len() >= ASSESS_BATCH;
        // Remembered first: if the process ends in between, the answers are assessed again and remembering them
        // again changes nothing.
        let judged = proving::judged(&batch.events);
        match async {
            assessed::remember(&parts, &batch.events).await?;
            assessed::record(&parts, batch.events).await
        }
        .await
        {
            Ok(()) => {
                patterns = batch.patterns;
                judged.into_iter().for_each(|id| parts.proving.said(id));
                if !is_full {
                    tokio::time::sleep_until(next).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "assessments could not be recorded and will be made again");
                tokio::time::sleep(TICK).await;
            }
        }
    }
}

/// Trains when a trigger fires, and lets the gate judge what came out, until the task is dropped. A run that was cut
/// short goes first.
pub(crate) async fn learn(parts: Arc<Parts>, unfinished: Option<(TrainingRun, Working)>) {
    if let Some((run, _working)) = unfinished
        && let Err(error) = learn_on(&parts, run).await
    {
        tracing::warn!(%error, "a run that was cut short came to nothing");
    }
    let mut observer = autoglm_train::Observer::new(&parts.settings.train.triggers, parts.clock.now());
    loop {
        let _ = tokio::time::timeout(TICK, parts.signals.requested.notified()).await;
        let working = parts.signals.work();
        let wanted = parts.signals.take_request();
        match due(&parts, &mut observer, wanted).await {
            Ok(Some(trigger)) => {
                if let Err(error) = learn_once(&parts, trigger).await {
                    tracing::warn!(%error, "nothing was learned");
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the triggers could not be observed"),
        }
        drop(working);
    }
}

/// One turn: plan, run, register, begin, judge, and promote or not.
async fn learn_once(parts: &Arc<Parts>, trigger: Trigger) -> Result<()> {
    let consolidation = Consolidation::plan(parts, trigger).await?;
    let version: ModelVersion = consolidation.run(parts).await?;
    consolidation.prove(parts, version.number).await?;
    Ok(())
}

/// The rest of a turn that the end of the last process cut short.
async fn learn_on(parts: &Arc<Parts>, run: TrainingRun) -> Result<()> {
    if let Some((consolidation, version)) = Consolidation::resume(parts, run).await? {
        consolidation.prove(parts, version.number).await?;
    }
    Ok(())
}

async fn due(
    parts: &Parts,
    observer: &mut autoglm_train::Observer,
    requested: bool,
) -> Result<Option<Trigger>> {
    let config = parts.triggers.config();
    let experiences_at: Vec<_> =
        parts.memory.training_pool().iter().map(|experience| experience.at).collect();
    let observation = observer.observe(autoglm_train::Seen {
        now: parts.clock.now(),
        requested,
        assessments: &parts.store.recent_assessments(config.score_window).await?,
        runs: &parts.store.runs().await?,
        patterns: &parts.store.patterns().await?,
        experiences_at: &experiences_at,
    });
    let Some(trigger) = parts.triggers.due(&observation) else { return Ok(None) };
    // While a candidate is on its way, or versions are compared, what the next run starts from is being decided.
    let deciding = parts.store.rollouts().await?.iter().any(Rollout::is_unfinished)
        || parts.store.ab_tests().await?.iter().any(AbTest::is_running);
    Ok((!deciding).then_some(trigger))
}

/// The version that answers users.
pub(crate) fn champion(parts: &Parts) -> VersionNumber {
    parts.registry.aliases().current(&Alias::champion())
}
