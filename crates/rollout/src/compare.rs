//! One metric of both versions against its limit.
//!
//! Pairs (shadow): the difference is taken pair by pair, which leaves out what makes requests hard or easy. A
//! *difference* `d` is held against the sequence of `candidate - champion`; an *absolute* limit `a` against that of
//! `candidate - a`. A *ratio* `r` of positive values is held against the mean of
//! `(candidate - r champion) / (candidate + r champion)`, which lies between -1 and 1 whatever the unit, so that no
//! bound on tokens or milliseconds is needed; it is shown as the ratio that a pair with this mean would have.
//!
//! Arms (canary, watch): each version has a sequence of its own at half the error, and the interval of difference
//! or ratio is what both allow. Quantiles always are: the quantile of differences is not the difference of
//! quantiles.

use autoglm_domain::{MetricEvidence, MetricStatus, Preference};

use crate::{
    MeanSequence, PairedSequence, QuantileSequence,
    metric::{Better, Limit, Measure, Metric},
    observation::{Arm, Observation, Sides},
};

/// A metric with all that came in.
#[derive(Debug, Clone)]
pub(crate) struct Comparison {
    pub(crate) metric: Metric,
    tracker: Tracker,
}

#[derive(Debug, Clone)]
enum Tracker {
    Pairs { sequence: Box<PairedSequence>, champion: f64, candidate: f64 },
    Means { champion: Box<MeanSequence>, candidate: Box<MeanSequence> },
    Quantiles { champion: Box<QuantileSequence>, candidate: Box<QuantileSequence> },
}

/// Estimate and interval of what is held against the limit.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    estimate: Option<f64>,
    lower: Option<f64>,
    upper: Option<f64>,
}

impl Comparison {
    /// For pairs. Each end of the interval holds at error probability `alpha`; with a `horizon` it is tightest
    /// after so many pairs.
    pub(crate) fn of_pairs(metric: Metric, alpha: f64, horizon: Option<u64>) -> Self {
        let tracker = match (metric.quantile(), horizon) {
            (Some(p), _) => quantiles(p, alpha),
            (None, Some(pairs)) => pairs_of(PairedSequence::with_horizon(2.0 * alpha, pairs)),
            (None, None) => pairs_of(PairedSequence::new(2.0 * alpha)),
        };
        Self { metric, tracker }
    }

    /// For two arms.
    pub(crate) fn of_arms(metric: Metric, alpha: f64) -> Self {
        let tracker = match metric.quantile() {
            Some(p) => quantiles(p, alpha),
            None => {
                let mean = || Box::new(MeanSequence::new(alpha));
                Tracker::Means { champion: mean(), candidate: mean() }
            }
        };
        Self { metric, tracker }
    }

    /// Takes in a pair, where both sides have a value.
    pub(crate) fn push_pair(&mut self, sides: &Sides) {
        if self.metric.measure == Measure::Judge {
            if let Some(preference) = sides.preference {
                self.push_preference(preference);
            }
            return;
        }
        let values = (self.metric.value(&sides.champion), self.metric.value(&sides.candidate));
        match &mut self.tracker {
            Tracker::Pairs { .. } => {
                if let (Some(champion), Some(candidate)) = values {
                    self.push_values(champion, candidate);
                }
            }
            Tracker::Means { .. } | Tracker::Quantiles { .. } => {
                self.push(Arm::Champion, &sides.champion);
                self.push(Arm::Candidate, &sides.candidate);
            }
        }
    }

    /// Takes in a pair of values in the metric's unit.
    pub(crate) fn push_values(&mut self, theirs: f64, ours: f64) {
        let metric = &self.metric;
        let Tracker::Pairs { sequence, champion, candidate } = &mut self.tracker else { return };
        match metric.limit {
            Limit::Difference(_) => sequence.push(metric.scaled(theirs), metric.scaled(ours)),
            Limit::Absolute(limit) => sequence.push(metric.scaled(limit), metric.scaled(ours)),
            Limit::Ratio(ratio) => {
                let (theirs, ours) = (ratio * theirs.max(0.0), ours.max(0.0));
                let sum = theirs + ours;
                if sum > 0.0 { sequence.push(theirs / sum, ours / sum) } else { sequence.push(0.5, 0.5) }
            }
        }
        *champion += theirs;
        *candidate += ours;
    }

    fn push_preference(&mut self, preference: Preference) {
        let Tracker::Pairs { sequence, champion, candidate } = &mut self.tracker else { return };
        let sign = preference.sign();
        sequence.push((1.0 - sign) / 2.0, (1.0 + sign) / 2.0);
        *champion += (1.0 - sign) / 2.0;
        *candidate += (1.0 + sign) / 2.0;
    }

    /// Takes in one answer of one arm. Pairs are not made of such.
    pub(crate) fn push(&mut self, arm: Arm, observation: &Observation) {
        let Some(value) = self.metric.value(observation) else { return };
        let metric = &self.metric;
        match (&mut self.tracker, arm) {
            (Tracker::Means { champion, .. }, Arm::Champion) => champion.push(metric.scaled(value)),
            (Tracker::Means { candidate, .. }, Arm::Candidate) => candidate.push(metric.scaled(value)),
            (Tracker::Quantiles { champion, .. }, Arm::Champion) => champion.push(value),
            (Tracker::Quantiles { candidate, .. }, Arm::Candidate) => candidate.push(value),
            (Tracker::Pairs { .. }, _) => {}
        }
    }

    /// How it stands.
    pub(crate) fn status(&self) -> MetricStatus {
        self.status_of(&self.held())
    }

    fn status_of(&self, held: &Held) -> MetricStatus {
        let limit = self.metric.limit.value();
        let Some(estimate) = held.estimate else { return MetricStatus::Open };
        let (shown, breached, within) = match self.metric.better {
            Better::Lower => (
                held.upper.is_some_and(|upper| upper < limit),
                held.lower.is_some_and(|lower| lower > limit),
                estimate <= limit,
            ),
            Better::Higher => (
                held.lower.is_some_and(|lower| lower > limit),
                held.upper.is_some_and(|upper| upper < limit),
                estimate >= limit,
            ),
        };
        match (breached, shown, within) {
            (true, _, _) => MetricStatus::Breached,
            (_, true, _) => MetricStatus::Shown,
            (_, _, true) => MetricStatus::Within,
            _ => MetricStatus::Beyond,
        }
    }

    /// All of it, as a look records it.
    pub(crate) fn evidence(&self) -> MetricEvidence {
        let held = self.held();
        let (champion_count, candidate_count, champion, candidate) = self.sides();
        MetricEvidence {
            metric: self.metric.name.clone(),
            champion_count,
            candidate_count,
            champion,
            candidate,
            estimate: held.estimate,
            lower: held.lower,
            upper: held.upper,
            limit: self.metric.limit.value(),
            status: self.status_of(&held),
        }
    }

    /// Counts and estimates of champion and candidate.
    fn sides(&self) -> (u64, u64, Option<f64>, Option<f64>) {
        match &self.tracker {
            Tracker::Pairs { sequence, champion, candidate } => {
                let pairs = sequence.pairs();
                let mean = |sum: f64| (pairs > 0).then(|| sum / pairs as f64);
                (pairs, pairs, mean(*champion), mean(*candidate))
            }
            Tracker::Means { champion, candidate } => {
                let mean = |side: &MeanSequence| side.mean().map(|share| self.metric.unscaled(share));
                (champion.count(), candidate.count(), mean(champion), mean(candidate))
            }
            Tracker::Quantiles { champion, candidate } => {
                (champion.count(), candidate.count(), champion.estimate(), candidate.estimate())
            }
        }
    }

    fn held(&self) -> Held {
        match &self.tracker {
            Tracker::Pairs { sequence, .. } => self.held_pairs(sequence),
            Tracker::Means { champion, candidate } => {
                let ends = |side: &MeanSequence| Held {
                    estimate: side.mean().map(|share| self.metric.unscaled(share)),
                    lower: Some(self.metric.unscaled(side.lower())),
                    upper: Some(self.metric.unscaled(side.upper())),
                };
                self.held_arms(ends(champion), ends(candidate))
            }
            Tracker::Quantiles { champion, candidate } => {
                let ends = |side: &QuantileSequence| Held {
                    estimate: side.estimate(),
                    lower: side.lower(),
                    upper: side.upper(),
                };
                self.held_arms(ends(champion), ends(candidate))
            }
        }
    }

    fn held_pairs(&self, sequence: &PairedSequence) -> Held {
        if sequence.pairs() == 0 {
            return Held::default();
        }
        let width = match self.metric.measure {
            Measure::Judge => 1.0,
            _ => self.metric.range.1 - self.metric.range.0,
        };
        let shown = |difference: f64| match self.metric.limit {
            Limit::Difference(_) => Some(difference * width),
            Limit::Absolute(limit) => Some(limit + difference * width),
            // (x - r y) / (x + r y) = D  <=>  x / y = r (1 + D) / (1 - D)
            Limit::Ratio(ratio) => {
                (difference < 1.0).then(|| ratio * (1.0 + difference) / (1.0 - difference))
            }
        };
        let estimate = shown(sequence.difference()).or(Some(f64::MAX));
        Held { estimate, lower: shown(sequence.lower()), upper: shown(sequence.upper()) }
    }

    fn held_arms(&self, champion: Held, candidate: Held) -> Held {
        let both = |ours: Option<f64>, theirs: Option<f64>, of: fn(f64, f64) -> f64| {
            ours.zip(theirs).map(|(ours, theirs)| of(ours, theirs)).filter(|value| value.is_finite())
        };
        match self.metric.limit {
            Limit::Absolute(_) => candidate,
            Limit::Difference(_) => {
                let minus = |ours: f64, theirs: f64| ours - theirs;
                Held {
                    estimate: both(candidate.estimate, champion.estimate, minus),
                    lower: both(candidate.lower, champion.upper, minus),
                    upper: both(candidate.upper, champion.lower, minus),
                }
            }
            Limit::Ratio(_) => {
                let over = |ours: f64, theirs: f64| ours / theirs;
                Held {
                    estimate: both(candidate.estimate, champion.estimate, over),
                    lower: both(candidate.lower, champion.upper, over),
                    upper: both(candidate.upper, champion.lower, over),
                }
            }
        }
    }
}

fn pairs_of(sequence: PairedSequence) -> Tracker {
    Tracker::Pairs { sequence: Box::new(sequence), champion: 0.0, candidate: 0.0 }
}

fn quantiles(p: f64, alpha: f64) -> Tracker {
    let sequence = || Box::new(QuantileSequence::new(p, alpha));
    Tracker::Quantiles { champion: sequence(), candidate: sequence() }
}
