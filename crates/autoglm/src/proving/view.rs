//! One stage of one rollout as it is looked at: what waits to count, and what was counted.

use std::collections::{BTreeMap, BTreeSet};

use autoglm_domain::{
    Event, InteractionId, InteractionRecord, Live, LiveStage, PairOrder, Preference, Result, Rollout,
    RolloutId, RolloutProgress, ShadowPair, ShadowPairId, StageRuling, Timestamp,
};
use autoglm_rollout::{Arm, Observation, StageAnalysis, StageResult};

use super::{
    BASELINE, Inbox, MOST_OPEN, RECORD_MS, SETTLED_AT_ONCE, arm,
    doors::is_passed,
    is_over, is_settled, judge, observed,
    settling::{Settling, records_of},
    spent::Spent,
    too_many,
};
use crate::node::Parts;

/// One stage of one rollout as it is looked at.
pub(super) struct View {
    pub(super) rollout: RolloutId,
    pub(super) stage: LiveStage,
    pub(super) analysis: StageAnalysis,
    pub(super) spent: Spent,
    /// By the champion's interaction, since when they wait to be settled; the store has the rest.
    pairs: BTreeMap<InteractionId, (ShadowPairId, Timestamp)>,
    /// Of those, the ones that a judge has been asked about and has not said anything of.
    asked: BTreeSet<InteractionId>,
    /// What it has said.
    preferred: BTreeMap<InteractionId, Option<Preference>>,
    /// Answers that users got.
    settling: Settling,
    /// Pairs that count already, the latest of them.
    settled: BTreeSet<InteractionId>,
    /// The latest look on record: its ruling, whether the stage waited for somebody's word, and when it was.
    recorded: Option<(StageRuling, bool, Timestamp)>,
}

impl View {
    pub(super) async fn open(parts: &Parts, rollout: &Rollout, live: &Live) -> Result<Self> {
        let stage = live.stage;
        let mut view = Self {
            rollout: rollout.id,
            stage,
            analysis: StageAnalysis::new(&parts.settings.rollout, stage)?,
            spent: Spent::new(live, parts.clock.now()),
            pairs: BTreeMap::new(),
            asked: BTreeSet::new(),
            preferred: BTreeMap::new(),
            settling: Settling::default(),
            settled: BTreeSet::new(),
            recorded: None,
        };
        if stage == LiveStage::Shadow {
            let most = usize::try_from(parts.settings.rollout.shadow.max_pairs).unwrap_or(usize::MAX);
            for pair in parts.store.shadow_pairs(rollout.id, PairOrder::Oldest, most).await? {
                view.pairs.insert(pair.interaction, (pair.id, pair.at));
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
    pub(super) async fn take_in(&mut self, parts: &Parts, rollout: &Rollout, inbox: Inbox) -> Result<()> {
        self.settling.hear(inbox.said);
        if self.stage == LiveStage::Shadow {
            let fresh =
                |pair: &ShadowPair| pair.rollout == rollout.id && !self.settled.contains(&pair.interaction);
            let pairs: Vec<_> = inbox.pairs.into_iter().filter(fresh).collect();
            self.pairs.extend(pairs.into_iter().map(|pair| (pair.interaction, (pair.id, pair.at))));
            self.asked.extend(inbox.asked);
            self.preferred.extend(inbox.preferred);
            self.preferred.retain(|id, _| self.pairs.contains_key(id));
            return self.settle_pairs(parts).await;
        }
        for (version, latency_ms) in inbox.failures {
            if let Some(arm) = arm(rollout, version) {
                self.analysis.push(arm, &Observation::of_failure(latency_ms));
            }
        }
        self.settling.take_in(inbox.answers, parts.clock.now());
        let analysis = &mut self.analysis;
        // Answers of other versions are none of this rollout's.
        let is_ours = |record: &InteractionRecord| arm(rollout, record.interaction.version).is_some();
        let count = |record: &InteractionRecord| {
            if let Some(arm) = arm(rollout, record.interaction.version) {
                analysis.push(arm, &observed(parts, record));
            }
        };
        self.settling.settle(parts, is_ours, count).await
    }

    /// Gives pairs to the analysis, oldest first, each once its champion's answer is settled.
    async fn settle_pairs(&mut self, parts: &Parts) -> Result<()> {
        let too_many = too_many(self.pairs.len());
        let due: Vec<(InteractionId, ShadowPairId, bool)> = self
            .pairs
            .iter()
            .enumerate()
            .filter(|(place, (id, (_, since)))| {
                let heard = self.settling.said.contains(id) || self.preferred.contains_key(id);
                let awaited = self.asked.contains(id) && !self.preferred.contains_key(id);
                (heard && !awaited) || *place < too_many || is_over(parts, *since)
            })
            .map(|(place, (id, (pair, _)))| (*id, *pair, place < too_many))
            .collect();
        for some in due.chunks(SETTLED_AT_ONCE) {
            let records = records_of(parts, some.iter().map(|(id, ..)| *id)).await?;
            let settled: Vec<ShadowPairId> = some
                .iter()
                .filter(|(id, _, makes_room)| {
                    records.get(id).is_some_and(|record| is_settled(parts, record, *makes_room))
                })
                .map(|(_, pair, _)| *pair)
                .collect();
            let mut judged = Vec::with_capacity(settled.len());
            let mut pairs = parts.store.shadow_pairs_of(&settled).await?;
            pairs.sort_by_key(|pair| pair.interaction);
            for pair in pairs {
                let Some(record) = records.get(&pair.interaction) else { continue };
                let id = pair.interaction;
                let mut pair = judge(parts, pair, record).await?;
                pair.preference = self.preferred.get(&id).copied().flatten().or(pair.preference);
                judged.push(pair);
            }
            let events = judged.iter().map(|pair| Event::ShadowPair(Box::new(pair.clone()))).collect();
            parts.store.append(events).await?;
            judged.into_iter().for_each(|pair| self.count(parts, pair));
        }
        Ok(())
    }

    /// A pair is settled and on record: it counts.
    fn count(&mut self, parts: &Parts, mut pair: ShadowPair) {
        let id = pair.interaction;
        self.pairs.remove(&id);
        self.settling.said.remove(&id);
        self.asked.remove(&id);
        self.preferred.remove(&id);
        self.settled.insert(id);
        // One that is told twice is told twice at once, and ids are in the order of time.
        while self.settled.len() > MOST_OPEN {
            self.settled.pop_first();
        }
        if !parts.judging.is_trusted() {
            pair.preference = None; // On record, and without weight.
        }
        self.analysis.push_pair(&pair);
    }

    /// A look that came to `result`.
    pub(super) fn look(&self, parts: &Parts, result: StageResult, now: Timestamp) -> RolloutProgress {
        RolloutProgress {
            rollout: self.rollout,
            at: now,
            stage: self.stage,
            ruling: result.ruling,
            reason: result.reason,
            observations: result.observations,
            metrics: result.metrics,
            judge: parts.judging.standing().filter(|_| self.stage == LiveStage::Shadow),
        }
    }

    /// Puts a look on record: each that comes to something else, and one now and then.
    pub(super) async fn record(&mut self, parts: &Parts, look: &RolloutProgress) -> Result<()> {
        let waits = look.ruling == StageRuling::Wait && is_passed(&look.reason);
        let same = self.recorded.is_some_and(|(ruling, waited, at)| {
            let recent = look.at.0.saturating_sub(at.0) < RECORD_MS && look.at.0 >= at.0;
            ruling == look.ruling && waited == waits && recent
        });
        if same {
            return Ok(());
        }
        parts.store.append(vec![Event::RolloutProgress(Box::new(look.clone()))]).await?;
        self.recorded = Some((look.ruling, waits, look.at));
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
