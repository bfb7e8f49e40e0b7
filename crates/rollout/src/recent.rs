//! The alarms of one metric: whether the candidate is beyond its limit since some time, however long it was within it.
//!
//! What an alarm is fed with depends on who answers:
//!
//! * **Pairs**: the difference of each pair, as the metric's own sequence takes it.
//! * **Both versions, each its own requests**: as soon as both have answered since the last time, the mean of what either
//!   has answered since. A change of the traffic that both feel leaves the difference as it is.
//! * **The candidate alone**, with what the champion answered before, or with an absolute limit: each answer, held against
//!   the limit that follows from the champion's worse end.
//!
//! Ratios and quantiles are not linear, so that where both versions answer two alarms have to ring: that of the candidate
//! against the champion's worse end, which is right while the traffic stays as it is, and that of both against one another,
//! which a change that both feel does not ring. Of a quantile at `p` the alarms hear how often answers are larger than
//! what it may be, which the candidate's may in a share of `1 - p`.

use crate::{
    alarm::Alarm,
    metric::{Better, Limit, Metric},
    observation::Arm,
};

/// Who answers while a metric is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answering {
    /// Both versions, the same requests.
    Pairs,
    /// Both versions, each its own requests.
    Both,
    /// The candidate; the champion has answered before.
    Candidate,
}

/// The alarms of one metric.
#[derive(Debug, Clone)]
pub(crate) struct Recent {
    /// The candidate against a limit for itself.
    level: Option<Alarm>,
    /// Both against one another.
    against: Option<Alarm>,
    champion: Waiting,
    candidate: Waiting,
}

/// Values of one version that wait for one of the other.
#[derive(Debug, Clone, Copy, Default)]
struct Waiting {
    count: u64,
    sum: f64,
}

impl Waiting {
    fn push(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
    }

    /// Their mean, and none waits any more.
    fn take(&mut self) -> f64 {
        let mean = self.sum / self.count.max(1) as f64;
        *self = Self::default();
        mean
    }
}

/// Since when it goes badly, and how badly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Lately {
    /// Answers, or pairs of them.
    pub(crate) count: u64,
    /// What is held against the limit, over them; `None` of a quantile.
    pub(crate) estimate: Option<f64>,
}

impl Recent {
    /// Alarms that ring falsely with probability at most `alpha`, all together.
    pub(crate) fn new(metric: &Metric, alpha: f64, answering: Answering) -> Self {
        let is_linear = metric.quantile().is_none();
        let is_difference = matches!(metric.limit, Limit::Difference(_));
        let (level, against) = match (metric.limit, answering) {
            (_, Answering::Pairs) if is_linear => (false, true),
            (Limit::Absolute(_), _) | (_, Answering::Candidate) => (true, false),
            _ => (!(is_linear && is_difference), true),
        };
        let alarm = |wanted: bool| wanted.then(|| Alarm::new(alpha));
        Self {
            level: alarm(level),
            against: alarm(against),
            champion: Waiting::default(),
            candidate: Waiting::default(),
        }
    }

    /// Takes in the difference of a pair, -1 to 1, that may be `limit` where lower is better and has to be where higher
    /// is.
    pub(crate) fn push_pair(&mut self, metric: &Metric, difference: f64, limit: f64) {
        if let Some(alarm) = &mut self.against {
            let sign = worse(metric);
            alarm.push((1.0 + sign * difference) / 2.0, (1.0 + sign * limit) / 2.0);
        }
    }

    /// Takes in an answer's value; the worse end of the champion's is `champion`, where there is one.
    pub(crate) fn push(&mut self, metric: &Metric, arm: Arm, value: f64, champion: Option<f64>) {
        let most = match (metric.limit, champion) {
            (Limit::Absolute(limit), _) => Some(limit),
            (Limit::Difference(limit), Some(end)) => Some(end + limit),
            (Limit::Ratio(limit), Some(end)) => Some(end * limit),
            (_, None) => None,
        };
        if let (Some(alarm), Arm::Candidate, Some(most)) = (&mut self.level, arm, most) {
            match metric.quantile() {
                Some(p) => alarm.push(exceeds(value, most), 1.0 - p),
                None if metric.better == Better::Lower => {
                    alarm.push(metric.scaled(value), metric.scaled(most));
                }
                None => alarm.push(1.0 - metric.scaled(value), 1.0 - metric.scaled(most)),
            }
        }
        if self.against.is_none() {
            return;
        }
        let said = match (metric.quantile(), metric.limit, arm) {
            (Some(_), _, Arm::Candidate) => most.map(|most| exceeds(value, most)),
            (Some(_), _, Arm::Champion) => champion.map(|end| exceeds(value, end)),
            (None, Limit::Ratio(limit), Arm::Champion) => Some(limit * value.max(0.0)),
            (None, Limit::Ratio(_), Arm::Candidate) => Some(value.max(0.0)),
            (None, ..) => Some(metric.scaled(value)),
        };
        let Some(said) = said else { return };
        match arm {
            Arm::Champion => self.champion.push(said),
            Arm::Candidate => self.candidate.push(said),
        }
        if self.champion.count > 0 && self.candidate.count > 0 {
            self.compare(metric);
        }
    }

    /// Both have answered.
    fn compare(&mut self, metric: &Metric) {
        let (theirs, ours) = (self.champion.take(), self.candidate.take());
        let (difference, limit) = match (metric.quantile(), metric.limit) {
            (Some(_), _) => (ours - theirs, 0.0),
            (None, Limit::Difference(limit)) => (ours - theirs, limit / metric.width()),
            // As of pairs.
            _ if ours + theirs > 0.0 => ((ours - theirs) / (ours + theirs), 0.0),
            _ => (0.0, 0.0),
        };
        self.push_pair(metric, difference, limit);
    }

    /// Whether the candidate is shown to be beyond its limit.
    pub(crate) fn rings(&self) -> bool {
        let mut alarms = self.level.iter().chain(&self.against).peekable();
        alarms.peek().is_some() && alarms.all(Alarm::rings)
    }

    /// Once it rings: what came in since the change. `champion` is its mean so far.
    pub(crate) fn lately(&self, metric: &Metric, champion: Option<f64>) -> Option<Lately> {
        if !self.rings() {
            return None;
        }
        let sign = worse(metric);
        if let Some(since) = self.level.as_ref().and_then(Alarm::since) {
            let share = if sign > 0.0 { since.mean() } else { 1.0 - since.mean() };
            let value = metric.unscaled(share);
            let estimate = match metric.limit {
                Limit::Absolute(_) => Some(value),
                Limit::Difference(_) => champion.map(|champion| value - champion),
                Limit::Ratio(_) => champion.map(|champion| value / champion).filter(|it| it.is_finite()),
            };
            return Some(Lately {
                count: since.count,
                estimate: estimate.filter(|_| metric.quantile().is_none()),
            });
        }
        let since = self.against.as_ref().and_then(Alarm::since)?;
        let difference = sign * (2.0 * since.mean() - 1.0);
        Some(Lately { count: since.count, estimate: metric.of_difference(difference) })
    }
}

/// The sign of what is worse.
fn worse(metric: &Metric) -> f64 {
    if metric.better == Better::Lower { 1.0 } else { -1.0 }
}

fn exceeds(value: f64, most: f64) -> f64 {
    f64::from(u8::from(value > most))
}
