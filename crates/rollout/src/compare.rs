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
//!
//! Both rest on means that stay as they are, and keep what they have shown. So that a candidate which gets worse later is
//! seen as well, every metric has alarms beside its sequences ([`Recent`]); and a sequence whose interval has become
//! empty, which only a change of its mean brings about (or, with the probability that it may fail, chance), begins anew
//! from there.

use autoglm_domain::{MetricEvidence, MetricStatus, Preference};

use crate::{
    MeanSequence, PairedSequence, QuantileSequence,
    metric::{Better, Limit, Measure, Metric},
    observation::{Arm, Observation, Sides},
    recent::{Answering, Lately, Recent},
};

/// Of a sequence's error, what it has until it begins anew for the first time; the rest is for all later ones, the `k`-th
/// of which has `1 / (k (k + 1))` of it.
const FIRST_SHARE: f64 = 0.9;

/// A metric with all that came in.
#[derive(Debug, Clone)]
pub(crate) struct Comparison {
    pub(crate) metric: Metric,
    errors: Errors,
    answering: Answering,
    tracker: Tracker,
    recent: Recent,
    /// How often the sequences began anew.
    restarts: u32,
}

/// How probable it may be that a metric says what is not so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Errors {
    /// Each end of its interval, at all times together.
    pub(crate) interval: f64,
    /// Its alarms.
    pub(crate) alarm: f64,
    /// Pairs after which the interval is tightest, where that is known.
    pub(crate) horizon: Option<u64>,
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
    /// Of what comes in as `answering` says.
    pub(crate) fn new(metric: Metric, errors: Errors, answering: Answering) -> Self {
        let alpha = FIRST_SHARE * errors.interval;
        let tracker = match (metric.quantile(), answering, errors.horizon) {
            (Some(p), ..) => {
                let sequence = || Box::new(QuantileSequence::new(p, alpha));
                Tracker::Quantiles { champion: sequence(), candidate: sequence() }
            }
            (None, Answering::Pairs, horizon) => pairs_of(alpha, horizon),
            (None, ..) => {
                let mean = || Box::new(MeanSequence::new(alpha));
                Tracker::Means { champion: mean(), candidate: mean() }
            }
        };
        let recent = Recent::new(&metric, errors.alarm, answering);
        Self { metric, errors, answering, tracker, recent, restarts: 0 }
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
        let pair = match metric.limit {
            Limit::Difference(_) => (metric.scaled(theirs), metric.scaled(ours)),
            Limit::Absolute(limit) => (metric.scaled(limit), metric.scaled(ours)),
            Limit::Ratio(ratio) => {
                let (theirs, ours) = (ratio * theirs.max(0.0), ours.max(0.0));
                let sum = theirs + ours;
                if sum > 0.0 { (theirs / sum, ours / sum) } else { (0.5, 0.5) }
            }
        };
        self.push_shares(pair, (theirs, ours));
    }

    fn push_preference(&mut self, preference: Preference) {
        let sign = preference.sign();
        let pair = ((1.0 - sign) / 2.0, (1.0 + sign) / 2.0);
        self.push_shares(pair, pair);
    }

    /// Takes in a pair as shares, 0 to 1, and as it is to be shown.
    fn push_shares(&mut self, pair: (f64, f64), shown: (f64, f64)) {
        let Tracker::Pairs { sequence, champion, candidate } = &mut self.tracker else { return };
        sequence.push(pair.0, pair.1);
        *champion += shown.0;
        *candidate += shown.1;
        let limit = match self.metric.limit {
            Limit::Difference(limit) => limit / self.metric.width(),
            Limit::Absolute(_) | Limit::Ratio(_) => 0.0,
        };
        self.recent.push_pair(&self.metric, pair.1 - pair.0, limit);
        self.begin_anew_where_empty();
    }

    /// Takes in one answer of one arm. Pairs are not made of such.
    pub(crate) fn push(&mut self, arm: Arm, observation: &Observation) {
        let Some(value) = self.metric.value(observation) else { return };
        let metric = &self.metric;
        // The limit that an answer is held against is what was known before it.
        self.recent.push(metric, arm, value, champions_end(metric, &self.tracker));
        match (&mut self.tracker, arm) {
            (Tracker::Means { champion, .. }, Arm::Champion) => champion.push(metric.scaled(value)),
            (Tracker::Means { candidate, .. }, Arm::Candidate) => candidate.push(metric.scaled(value)),
            (Tracker::Quantiles { champion, .. }, Arm::Champion) => champion.push(value),
            (Tracker::Quantiles { candidate, .. }, Arm::Candidate) => candidate.push(value),
            (Tracker::Pairs { .. }, _) => {}
        }
        self.begin_anew_where_empty();
    }

    /// Where an interval is empty its mean did not stay as it was, and what was shown of it says nothing of now.
    fn begin_anew_where_empty(&mut self) {
        let (champion_is_empty, candidate_is_empty) = match &self.tracker {
            Tracker::Pairs { sequence, .. } => (sequence.is_empty(), sequence.is_empty()),
            Tracker::Means { champion, candidate } => (champion.is_empty(), candidate.is_empty()),
            Tracker::Quantiles { .. } => return,
        };
        if !(champion_is_empty || candidate_is_empty) {
            return;
        }
        self.restarts += 1;
        let turn = f64::from(self.restarts);
        let alpha = (1.0 - FIRST_SHARE) * self.errors.interval / (turn * (turn + 1.0));
        match &mut self.tracker {
            Tracker::Pairs { sequence, .. } => {
                let left = self.errors.horizon.map(|all| all.saturating_sub(sequence.pairs()).max(1));
                self.errors.horizon = left;
                self.tracker = pairs_of(alpha, left);
            }
            Tracker::Means { champion, candidate } => {
                // What both answer is comparable where it was answered at the same time. What the champion answered
                // before the candidate took its place is all there is of it.
                let both = self.answering == Answering::Both;
                if both || champion_is_empty {
                    **champion = MeanSequence::new(alpha);
                }
                if both || candidate_is_empty {
                    **candidate = MeanSequence::new(alpha);
                }
            }
            Tracker::Quantiles { .. } => {}
        }
    }

    /// Once it is beyond its limit since some time: what came in since then.
    pub(crate) fn lately(&self) -> Option<Lately> {
        let (_, _, champion, _) = self.sides();
        self.recent.lately(&self.metric, champion)
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
        match (breached || self.recent.rings(), shown, within) {
            (true, _, _) => MetricStatus::Breached,
            // What was shown once and is not so any more was true of another time.
            (_, true, true) => MetricStatus::Shown,
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
        let shown = |difference: f64| self.metric.of_difference(difference);
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

/// A tracker of pairs, each end of whose interval holds at error probability `alpha`.
fn pairs_of(alpha: f64, horizon: Option<u64>) -> Tracker {
    let sequence = match horizon {
        Some(pairs) => PairedSequence::with_horizon(2.0 * alpha, pairs),
        None => PairedSequence::new(2.0 * alpha),
    };
    Tracker::Pairs { sequence: Box::new(sequence), champion: 0.0, candidate: 0.0 }
}

/// The end of the champion's interval that leaves the candidate most room, in the metric's unit.
fn champions_end(metric: &Metric, tracker: &Tracker) -> Option<f64> {
    match (tracker, metric.better) {
        (Tracker::Pairs { .. }, _) => None,
        (Tracker::Means { champion, .. }, Better::Lower) => Some(metric.unscaled(champion.upper())),
        (Tracker::Means { champion, .. }, Better::Higher) => Some(metric.unscaled(champion.lower())),
        (Tracker::Quantiles { champion, .. }, Better::Lower) => champion.upper(),
        (Tracker::Quantiles { champion, .. }, Better::Higher) => champion.lower(),
    }
}
