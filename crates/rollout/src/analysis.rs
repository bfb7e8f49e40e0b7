//! The decision rule of one stage on live traffic: observations in, `Succeed`, `Fail`, `Wait` or `Inconclusive` out,
//! with one sentence that says why. Pure: the same observations in the same order, the same ruling.
//!
//! # When what is decided
//!
//! *Fail*, at any look: a guard is shown to be beyond its limit, an `improve` metric is shown not to reach its own,
//! or (in the shadow) a route, cluster or principal group is shown to have fallen by more than `slice_tolerance`.
//! *Succeed*: the stage has its pairs, requests and time, no guard's estimate is beyond its limit, and every
//! `improve` metric is shown. They are to be shown in the shadow, where the pairing gives the power; without a shadow
//! in the last canary step. Later they guard. *Inconclusive*: the stage's pairs or time are used up before. The
//! watch succeeds when its window ends without a breach. Guards that nothing came in for do not hold a stage up; the
//! sentence names them.
//!
//! # Errors
//!
//! Every interval is a confidence sequence: means and paired differences by betting (Waudby-Smith and Ramdas 2023,
//! see [`crate::PairedSequence`]), quantiles after Howard and Ramdas 2022 (see [`crate::QuantileSequence`]). They
//! hold at all looks at once, so that looking often costs nothing. Beside each stand alarms (see [`crate::Alarm`]) for a
//! candidate that keeps its limit first and breaks it later. Promotion needs *every* `improve` metric to be
//! shown, so each has the whole `alpha` (Berger 1982, intersection-union test): a candidate that lacks one of the
//! gains is promoted with probability at most `alpha`. A failure needs *one* breach, so the error is split: each of
//! `g` guards in each of `s` stages, the slices of the shadow counting as one guard, has `guard_alpha / (g s)`, half
//! for its interval and half for its alarms; the slices share theirs as [`crate::Slices`] says. Each stage begins anew, for traffic drifts and a step's arms are
//! comparable within the step only.
//!
//! # What the numbers rest on
//!
//! Requests are taken to come one after another from traffic whose mean does not follow from what was seen before.
//! Conversations are sticky, so a very long one weighs as much as its requests do. In the watch, and in a step of
//! 100%, no request reaches the champion any more: its side is then what it answered earlier in the rollout, and a
//! change of the traffic since looks like a change of the version.

use autoglm_domain::{LiveStage, MetricEvidence, MetricStatus, ShadowPair, StageRuling};

use crate::{
    RolloutError, RolloutPolicy, Slices,
    compare::{Comparison, Errors},
    metric::MetricRole,
    observation::{Arm, Observation, Sides},
    recent::Answering,
    sentence,
};

/// What a look came to.
#[derive(Debug, Clone, PartialEq)]
pub struct StageResult {
    /// Succeed, fail, wait or inconclusive.
    pub ruling: StageRuling,
    /// Why, in one sentence.
    pub reason: String,
    /// Pairs, or requests that the candidate answered.
    pub observations: u64,
    /// Every metric that is not off.
    pub metrics: Vec<MetricEvidence>,
}

/// Takes in the observations of one stage and rules on them.
#[derive(Debug, Clone)]
pub struct StageAnalysis {
    policy: RolloutPolicy,
    stage: LiveStage,
    comparisons: Vec<Comparison>,
    slices: Option<Slices>,
    champion_requests: u64,
    candidate_requests: u64,
}

impl StageAnalysis {
    /// The analysis of `stage` under `policy`. `Invalid` when the policy is.
    pub fn new(policy: &RolloutPolicy, stage: LiveStage) -> Result<Self, RolloutError> {
        let metrics = policy.metrics()?;
        let of_pairs = stage == LiveStage::Shadow;
        let guards = metrics.len() + 1; // The slices are one.
        let guard_alpha = policy.guard_alpha / (guards * policy.stages().max(1)) as f64;
        let mut comparisons = Vec::with_capacity(metrics.len());
        for metric in metrics {
            let is_gain = metric.role == MetricRole::Improve && is_shown_in(policy, &stage);
            if of_pairs && !metric.is_of_pairs() || !of_pairs && !metric.is_of_arms() {
                continue;
            }
            let half = guard_alpha / 2.0;
            let interval = if is_gain { policy.alpha } else { half };
            // Gains are shown soonest with all the pairs that there can be.
            let horizon = (is_gain && of_pairs).then_some(policy.shadow.max_pairs);
            let errors = Errors { interval, alarm: half, horizon };
            let comparison = Comparison::new(metric, errors, answering(&stage));
            comparisons.push(comparison);
        }
        Ok(Self {
            slices: of_pairs.then(|| Slices::new(guard_alpha, policy.slice_tolerance)),
            policy: policy.clone(),
            stage,
            comparisons,
            champion_requests: 0,
            candidate_requests: 0,
        })
    }

    /// Takes in a pair. In stages other than the shadow it is ignored.
    pub fn push_pair(&mut self, pair: &ShadowPair) {
        if self.stage != LiveStage::Shadow {
            return;
        }
        let sides = Sides::from(pair);
        for comparison in &mut self.comparisons {
            comparison.push_pair(&sides);
        }
        if let Some(slices) = &mut self.slices {
            slices.push(pair);
        }
        self.champion_requests += 1;
        self.candidate_requests += 1;
    }

    /// Takes in one answer of one arm. In the shadow it is ignored.
    pub fn push(&mut self, arm: Arm, observation: &Observation) {
        if self.stage == LiveStage::Shadow {
            return;
        }
        for comparison in &mut self.comparisons {
            comparison.push(arm, observation);
        }
        match arm {
            Arm::Champion => self.champion_requests += 1,
            Arm::Candidate => self.candidate_requests += 1,
        }
    }

    /// The ruling after `spent_ms` in the stage.
    pub fn rule(&self, spent_ms: u64) -> StageResult {
        let metrics: Vec<MetricEvidence> = self.comparisons.iter().map(Comparison::evidence).collect();
        let (ruling, reason) = self.decide(&metrics, spent_ms / 1000);
        StageResult { ruling, reason, observations: self.candidate_requests, metrics }
    }

    /// The pairs by route, cluster and principal group; `None` outside the shadow.
    pub fn slices(&self) -> Option<&Slices> {
        self.slices.as_ref()
    }

    fn decide(&self, metrics: &[MetricEvidence], spent_s: u64) -> (StageRuling, String) {
        if let Some(failure) = self.failure(metrics) {
            return (StageRuling::Fail, failure);
        }
        let (most, used_up) = self.end(spent_s);
        match self.missing(metrics, spent_s) {
            None => (StageRuling::Succeed, sentence::passed(self, metrics)),
            Some(missing) if used_up => {
                (StageRuling::Inconclusive, format!("the {} ended {most}: {missing}", self.stage))
            }
            Some(missing) => (StageRuling::Wait, missing),
        }
    }

    /// The breach that ends it, the first in the order of the metrics' names.
    fn failure(&self, metrics: &[MetricEvidence]) -> Option<String> {
        let breached =
            metrics.iter().zip(&self.comparisons).find(|(it, _)| it.status == MetricStatus::Breached);
        if let Some((evidence, comparison)) = breached {
            return Some(sentence::breach(comparison, evidence));
        }
        if self.policy.slice_tolerance >= 1.0 {
            return None;
        }
        self.slices.as_ref()?.fallen().map(|fallen| sentence::fallen(&fallen))
    }

    /// What still has to come for the stage to be passed.
    fn missing(&self, metrics: &[MetricEvidence], spent_s: u64) -> Option<String> {
        let enough = match self.stage {
            LiveStage::Shadow => {
                let least = self.policy.shadow.min_pairs;
                (self.candidate_requests < least)
                    .then(|| format!("{} of {least} pairs are there", self.candidate_requests))
            }
            LiveStage::Canary { .. } => self.too_few_requests(spent_s),
            LiveStage::Watch => {
                let window = self.policy.watch.window_s;
                (spent_s < window).then(|| format!("{spent_s} of {window} s are watched, without a breach"))
            }
        };
        if enough.is_some() || self.stage == LiveStage::Watch {
            return enough;
        }
        let all = || metrics.iter().zip(&self.comparisons);
        let unproven = all().find(|(evidence, comparison)| {
            self.is_gain(comparison) && evidence.status != MetricStatus::Shown
        });
        if let Some((evidence, comparison)) = unproven {
            return Some(sentence::unproven(comparison, evidence));
        }
        let beyond = all().find(|(evidence, comparison)| {
            comparison.metric.role == MetricRole::Guard && evidence.status == MetricStatus::Beyond
        });
        beyond.map(|(evidence, comparison)| sentence::beyond(comparison, evidence))
    }

    fn too_few_requests(&self, spent_s: u64) -> Option<String> {
        let canary = &self.policy.canary;
        for (arm, count) in [("candidate", self.candidate_requests), ("champion", self.champion_requests)] {
            if count < canary.min_requests {
                return Some(format!("the {arm} answered {count} of {} requests", canary.min_requests));
            }
        }
        (spent_s < canary.min_s).then(|| format!("{spent_s} of {} s have passed", canary.min_s))
    }

    /// At what the stage ends, and whether it is there.
    fn end(&self, spent_s: u64) -> (String, bool) {
        match self.stage {
            LiveStage::Shadow => {
                let shadow = &self.policy.shadow;
                if self.candidate_requests >= shadow.max_pairs {
                    return (format!("after {} pairs", self.candidate_requests), true);
                }
                (
                    format!("after {} s with {} pairs", shadow.max_s, self.candidate_requests),
                    spent_s >= shadow.max_s,
                )
            }
            LiveStage::Canary { .. } => {
                let most = self.policy.canary.max_s;
                (format!("after {most} s"), spent_s >= most)
            }
            LiveStage::Watch => (String::new(), false),
        }
    }

    pub(crate) fn stage(&self) -> LiveStage {
        self.stage
    }

    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.champion_requests, self.candidate_requests)
    }

    pub(crate) fn is_gain(&self, comparison: &Comparison) -> bool {
        comparison.metric.role == MetricRole::Improve && is_shown_in(&self.policy, &self.stage)
    }

    pub(crate) fn comparisons(&self) -> &[Comparison] {
        &self.comparisons
    }
}

/// Whether gains have to be shown in `stage`: in the shadow, or without one in the last canary step.
fn is_shown_in(policy: &RolloutPolicy, stage: &LiveStage) -> bool {
    match stage {
        LiveStage::Shadow => true,
        LiveStage::Canary { step, .. } => {
            !policy.has_shadow() && *step as usize + 1 >= policy.canary.steps.len()
        }
        LiveStage::Watch => false,
    }
}

/// Who answers in `stage`.
fn answering(stage: &LiveStage) -> Answering {
    match stage {
        LiveStage::Shadow => Answering::Pairs,
        LiveStage::Canary { percent, .. } if *percent < 100.0 => Answering::Both,
        LiveStage::Canary { .. } | LiveStage::Watch => Answering::Candidate,
    }
}
