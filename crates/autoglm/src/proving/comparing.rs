//! Versions against one another on live traffic: what comes in is settled and counted until the best is known.
//!
//! Like a candidate's looks, and between them: while a candidate is on its way no test begins, and the other way round.
//! A process that starts again counts the latest answers in the store once more.

use std::sync::Arc;

use autoglm_domain::{AbState, AbTest, Event, InteractionRecord, Result, Timestamp, VersionNumber};
use autoglm_rollout::{AbAnalysis, AbReport, Observation};

use super::{Inbox, RECORD_MS, observed, settling::Settling};
use crate::{
    learning_loop::champion,
    node::{Parts, residents},
};

/// Latest answers that are counted again after a start.
const COUNTED_AGAIN: usize = 20_000;

/// A running test as it is looked at.
pub(super) struct Comparing {
    test: AbTest,
    analysis: AbAnalysis,
    settling: Settling,
    recorded: Timestamp,
}

/// One look: follows the store, counts what came in, and ends the test once the best is known.
pub(super) async fn look(parts: &Arc<Parts>, view: &mut Option<Comparing>, inbox: Inbox) -> Result<()> {
    let Some(test) = parts.store.ab_tests().await?.into_iter().find(AbTest::is_running) else {
        parts.traffic.clear();
        *view = None;
        return Ok(());
    };
    if champion(parts) != test.champion {
        parts.traffic.clear();
        let reason = format!("{} became champion meanwhile", champion(parts));
        end(
            parts,
            &test,
            AbState::Stopped { ended: parts.clock.now(), stopped_by: "rollout".into() },
            reason,
        )
        .await?;
        return Ok(());
    }
    for arm in &test.arms {
        residents::ensure(parts, arm.version).await?;
    }
    let view = match view {
        Some(same) if same.test.id == test.id => same,
        other => other.insert(Comparing::open(parts, test).await?),
    };
    view.take_in(parts, inbox).await?;
    view.conclude(parts).await
}

impl Comparing {
    async fn open(parts: &Parts, test: AbTest) -> Result<Self> {
        let mut analysis = AbAnalysis::new(&test, &parts.settings.rollout)?;
        if test.found.iter().any(|arm| arm.count > 0) {
            let latest = parts.store.recent_interactions(COUNTED_AGAIN).await?;
            for record in latest.iter().rev().filter(|record| is_of(parts, &test, record)) {
                analysis.push(record.interaction.version, &observed(parts, record));
            }
        }
        tracing::info!(test = %test.id, metric = test.metric, "versions are compared");
        Ok(Self { recorded: test.at, test, analysis, settling: Settling::default() })
    }

    async fn take_in(&mut self, parts: &Parts, inbox: Inbox) -> Result<()> {
        for (version, latency_ms) in inbox.failures {
            self.analysis.push(version, &Observation::of_failure(latency_ms));
        }
        self.settling.hear(inbox.said);
        self.settling.take_in(inbox.answers, parts.clock.now());
        let (test, analysis) = (&self.test, &mut self.analysis);
        let count =
            |record: &InteractionRecord| analysis.push(record.interaction.version, &observed(parts, record));
        self.settling.settle(parts, |record| is_of(parts, test, record), count).await
    }

    /// Splits as the arms stand now, records that now and then, and ends what is over.
    async fn conclude(&mut self, parts: &Parts) -> Result<()> {
        let AbReport { best, is_over, reason, arms } = self.analysis.report();
        let dropped = |arms: &[autoglm_domain::AbArmReport]| -> Vec<VersionNumber> {
            arms.iter().filter(|arm| !arm.is_in).map(|arm| arm.version).collect()
        };
        let has_changed = dropped(&arms) != dropped(&self.test.found);
        let has_grown = arms != self.test.found;
        self.test = AbTest { found: arms, reason: reason.clone(), ..self.test.clone() };
        let now = parts.clock.now();
        if is_over {
            // First the traffic, then the record.
            parts.traffic.clear();
            tracing::info!(test = %self.test.id, ?best, "{reason}");
            return end(parts, &self.test, AbState::Decided { best, ended: now }, reason).await.map(drop);
        }
        parts.traffic.follow_test(&self.test);
        if has_changed || (has_grown && (now.0 - self.recorded.0).abs() >= RECORD_MS) {
            parts.leaders_store.append(vec![Event::AbTest(Box::new(self.test.clone()))]).await?;
            self.recorded = now;
        }
        Ok(())
    }
}

/// Whether an answer is the test's: of one of its arms, to somebody who named none.
fn is_of(parts: &Parts, test: &AbTest, record: &InteractionRecord) -> bool {
    let answer = &record.interaction;
    let named_none = answer.model == "champion" || answer.model == parts.model_name;
    named_none && answer.at >= test.at && test.arms.iter().any(|arm| arm.version == answer.version)
}

/// Puts the end of a test on record.
pub(crate) async fn end(parts: &Parts, test: &AbTest, state: AbState, reason: String) -> Result<AbTest> {
    let ended = AbTest { state, reason, ..test.clone() };
    parts.leaders_store.append(vec![Event::AbTest(Box::new(ended.clone()))]).await?;
    Ok(ended)
}
