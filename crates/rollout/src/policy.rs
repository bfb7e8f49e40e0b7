//! What a candidate has to go through, as `[rollout]` says it.

use std::collections::BTreeMap;

use autoglm_domain::LiveStage;
use serde::{Deserialize, Serialize};

use crate::{
    GateConfig, RolloutError,
    compare::{Comparison, Errors},
    metric::{self, Better, Limit, Metric, MetricConfig, MetricRole},
    recent::Answering,
};

/// The way of a candidate: the offline gate, then, with `live`, shadow, canary steps and a watch window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutPolicy {
    /// The offline gate.
    pub gate: GateConfig,
    /// The candidate answers beside the champion.
    pub shadow: ShadowPolicy,
    /// The candidate answers a share of the sessions.
    pub canary: CanaryPolicy,
    /// The candidate is champion and may still lose that.
    pub watch: WatchPolicy,
    /// Whether a candidate that passed the gate proves itself on live traffic before it is promoted. Without, the
    /// gate alone decides.
    pub live: bool,
    /// Most probability of showing a gain that is not there, for each `improve` metric, 0 to 1 (exclusive). All of
    /// them must be shown, so each has the whole of it.
    pub alpha: f64,
    /// Most probability that any guard, at any look of any stage, fails a candidate that keeps every limit.
    pub guard_alpha: f64,
    /// Seconds that an answer is waited for to be judged; then it counts as it is.
    pub settle_s: u64,
    /// How far a route, a cluster or a principal group may fall on its own, 0 to 1; 1 looks at none of them.
    pub slice_tolerance: f64,
    /// What becomes of a candidate when a stage's time or pairs are used up and nothing is decided.
    pub on_inconclusive: OnInconclusive,
    /// What versions are compared by, and the limits.
    pub metrics: BTreeMap<String, MetricConfig>,
}

/// Where a candidate goes that passed a stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// To a canary step of this percentage.
    Step(f64),
    /// To the champion's place.
    Promotion,
}

/// What an undecided stage ends as. There is no value that promotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInconclusive {
    /// With the verdict `inconclusive`: the champion stays, the candidate may try again.
    Inconclusive,
    /// With the verdict `reject`.
    Reject,
    /// Paused, until a person decides.
    Pause,
}

/// Whose word a candidate needs before it goes on to a stage that it may enter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confirmation {
    /// Nobody's.
    #[default]
    Nobody,
    /// A person's: it is paused until somebody confirms it by the API or the command line.
    Person,
}

/// The candidate answers beside the champion, unseen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShadowPolicy {
    /// Share of the sessions whose requests are answered twice, 0 to 1.
    pub share: f64,
    /// Pairs before the stage can be passed; 0 leaves the stage out.
    pub min_pairs: u64,
    /// Pairs at which the stage ends undecided. Gains are shown soonest when this is the number that is wanted.
    pub max_pairs: u64,
    /// Seconds at which the stage ends undecided.
    pub max_s: u64,
    /// A candidate's answer that takes longer has failed, milliseconds.
    pub deadline_ms: u64,
    /// Requests that wait for the candidate at once; more are not shadowed.
    pub queue: usize,
    /// Candidate's answers under way at once.
    pub concurrency: usize,
}

/// The candidate answers a growing share of the sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CanaryPolicy {
    /// Shares in percent, one a step, growing; empty leaves the stage out.
    pub steps: Vec<f64>,
    /// Requests that the candidate must have answered in a step.
    pub min_requests: u64,
    /// Seconds that a step takes at least.
    pub min_s: u64,
    /// Seconds at which a step ends undecided.
    pub max_s: u64,
    /// Whose word each step needs before it begins.
    pub confirm: Confirmation,
}

/// After the promotion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchPolicy {
    /// Seconds in which a breach still brings the previous version back; 0 leaves the watch out.
    pub window_s: u64,
    /// Whose word the promotion before it needs, also where there is no watch.
    pub confirm: Confirmation,
}

impl Default for RolloutPolicy {
    fn default() -> Self {
        Self {
            gate: GateConfig::default(),
            shadow: ShadowPolicy::default(),
            canary: CanaryPolicy::default(),
            watch: WatchPolicy::default(),
            live: false,
            alpha: 0.02,
            guard_alpha: 0.05,
            settle_s: 60,
            slice_tolerance: 0.1,
            on_inconclusive: OnInconclusive::Inconclusive,
            metrics: metric::defaults(),
        }
    }
}

impl Default for ShadowPolicy {
    fn default() -> Self {
        Self {
            share: 0.1,
            min_pairs: 200,
            max_pairs: 2_000,
            max_s: 86_400,
            deadline_ms: 3_000,
            queue: 64,
            concurrency: 4,
        }
    }
}

impl Default for CanaryPolicy {
    fn default() -> Self {
        Self {
            steps: vec![1.0, 5.0, 25.0, 50.0, 100.0],
            min_requests: 50,
            min_s: 60,
            max_s: 86_400,
            confirm: Confirmation::Nobody,
        }
    }
}

impl Default for WatchPolicy {
    fn default() -> Self {
        Self { window_s: 3_600, confirm: Confirmation::Nobody }
    }
}

impl RolloutPolicy {
    /// `Invalid` naming the first setting that makes no sense, and why a policy could never come to an end.
    pub fn check(&self) -> Result<(), RolloutError> {
        self.gate.check()?;
        probability("alpha", self.alpha)?;
        probability("guard_alpha", self.guard_alpha)?;
        if !(self.slice_tolerance > 0.0 && self.slice_tolerance <= 1.0) {
            return Err(setting("slice_tolerance", self.slice_tolerance, "it must be above 0 and at most 1"));
        }
        if !(0.0..=1.0).contains(&self.shadow.share) {
            return Err(setting("shadow.share", self.shadow.share, "it must be within 0 and 1"));
        }
        for (name, value) in [
            ("shadow.deadline_ms", self.shadow.deadline_ms),
            ("shadow.queue", self.shadow.queue as u64),
            ("shadow.concurrency", self.shadow.concurrency as u64),
        ] {
            if value == 0 {
                return Err(setting(name, value, "it must be at least 1"));
            }
        }
        self.check_steps()?;
        self.check_end()
    }

    fn check_steps(&self) -> Result<(), RolloutError> {
        let mut before = 0.0;
        for percent in &self.canary.steps {
            if !(*percent > before && *percent <= 100.0) {
                let limit = "steps must grow, from above 0 to at most 100";
                return Err(setting("canary.steps", percent, limit));
            }
            before = *percent;
        }
        Ok(())
    }

    /// Whether every stage can be passed by the best candidate there is.
    fn check_end(&self) -> Result<(), RolloutError> {
        let metrics = self.metrics()?;
        if !self.live {
            return Ok(());
        }
        let never = |reason: String| Err(RolloutError::NeverEnds { reason });
        if !self.has_shadow() && self.canary.steps.is_empty() {
            return never("there is neither a shadow nor a canary step that a candidate could pass".into());
        }
        if self.has_shadow() {
            let shadow = &self.shadow;
            if shadow.share <= 0.0 {
                return never("`shadow.share` is 0, so that there is never a pair".into());
            }
            if shadow.max_pairs < shadow.min_pairs {
                return never(format!(
                    "the shadow ends at {} pairs (`max_pairs`) and is passed from {} on (`min_pairs`)",
                    shadow.max_pairs, shadow.min_pairs
                ));
            }
            if shadow.max_s == 0 {
                return never("`shadow.max_s` is 0, so that the shadow ends as it begins".into());
            }
        }
        if !self.canary.steps.is_empty() && self.canary.max_s <= self.canary.min_s {
            return never(format!(
                "a canary step ends after {} s (`max_s`) and is passed from {} s on (`min_s`)",
                self.canary.max_s, self.canary.min_s
            ));
        }
        metrics
            .iter()
            .filter(|metric| metric.role == MetricRole::Improve)
            .try_for_each(|it| self.can_be_shown(it))
    }

    /// Whether the best that pairs can say shows the metric within the shadow's pairs.
    fn can_be_shown(&self, metric: &Metric) -> Result<(), RolloutError> {
        let never = |why: String| Err(RolloutError::NeverEnds { reason: format!("`{}` {why}", metric.name) });
        if !self.has_shadow() {
            return match metric.is_of_arms() {
                true => Ok(()),
                false => never("compares two answers to one request, and there is no shadow".into()),
            };
        }
        if !metric.is_of_pairs() {
            return never("must be shown to improve, but users see no answer of a shadow".into());
        }
        if metric.quantile().is_some() {
            // The best values there are: no time at all against any.
            let possible = match (metric.limit, metric.better) {
                (Limit::Ratio(limit) | Limit::Absolute(limit), Better::Lower) => limit > 0.0,
                _ => true,
            };
            return if possible { Ok(()) } else { never("has a limit below every value".into()) };
        }
        let errors = Errors { interval: self.alpha, alarm: self.alpha, horizon: Some(self.shadow.max_pairs) };
        let mut best = Comparison::new(metric.clone(), errors, Answering::Pairs);
        let (least, most) = metric.range;
        let (theirs, ours) = match metric.better {
            Better::Higher => (least, most),
            Better::Lower => (most, least),
        };
        for _ in 0..self.shadow.max_pairs {
            best.push_values(theirs, ours);
            if best.status() == autoglm_domain::MetricStatus::Shown {
                return Ok(());
            }
        }
        never(format!(
            "must be shown to be {} {}, which {} pairs (`shadow.max_pairs`) never show, however good the candidate",
            if metric.better == Better::Higher { "above" } else { "below" },
            metric.limit.value(),
            self.shadow.max_pairs
        ))
    }

    /// What comes after `stage` once it is passed; `None` after the watch.
    pub fn after(&self, stage: &LiveStage) -> Option<Next> {
        let step = match stage {
            LiveStage::Shadow => 0,
            LiveStage::Canary { step, .. } => *step as usize + 1,
            LiveStage::Watch => return None,
        };
        Some(self.canary.steps.get(step).map_or(Next::Promotion, |percent| Next::Step(*percent)))
    }

    /// Whose word `next` needs.
    pub fn confirm(&self, next: Next) -> Confirmation {
        match next {
            Next::Step(_) => self.canary.confirm,
            Next::Promotion => self.watch.confirm,
        }
    }

    /// Whether there is a shadow stage.
    pub fn has_shadow(&self) -> bool {
        self.shadow.min_pairs > 0
    }

    /// Stages in which guards are looked at.
    pub(crate) fn stages(&self) -> usize {
        usize::from(self.has_shadow()) + self.canary.steps.len() + usize::from(self.watch.window_s > 0)
    }

    /// The metrics that are not off, by name.
    pub(crate) fn metrics(&self) -> Result<Vec<Metric>, RolloutError> {
        let on = self.metrics.iter().filter(|(_, config)| config.role != MetricRole::Off);
        on.map(|(name, config)| Metric::new(name, config)).collect()
    }
}

fn probability(name: &'static str, value: f64) -> Result<(), RolloutError> {
    if value > 0.0 && value < 0.5 {
        return Ok(());
    }
    Err(setting(name, value, "it must be above 0 and below 0.5"))
}

fn setting(name: &'static str, value: impl ToString, limit: &'static str) -> RolloutError {
    RolloutError::Policy { name, value: value.to_string(), limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut RolloutPolicy)) -> String {
        let mut policy = RolloutPolicy { live: true, ..RolloutPolicy::default() };
        change(&mut policy);
        policy.check().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_can_be_passed() {
        assert_eq!(RolloutPolicy { live: true, ..RolloutPolicy::default() }.check(), Ok(()));
    }

    #[test]
    fn a_policy_that_can_never_finish_is_refused_with_its_reason() {
        let neither = refused(|it| {
            it.shadow.min_pairs = 0;
            it.canary.steps.clear();
        });
        assert_eq!(
            neither,
            "the rollout policy can never finish: there is neither a shadow nor a canary step that a candidate could pass"
        );
        assert!(refused(|it| it.shadow.share = 0.0).contains("never a pair"));
        assert!(refused(|it| it.shadow.max_pairs = 100).contains("ends at 100 pairs"));
        assert!(refused(|it| it.canary.max_s = 60).contains("ends after 60 s"));
        let unreachable = refused(|it| {
            it.metrics.insert("accuracy".into(), MetricConfig::improve(99.9));
        });
        assert!(unreachable.contains("`accuracy` must be shown to be above 99.9"), "{unreachable}");
        let few = refused(|it| {
            it.shadow.min_pairs = 3;
            it.shadow.max_pairs = 5;
        });
        assert!(few.contains("5 pairs (`shadow.max_pairs`) never show"), "{few}");
        let unseen = refused(|it| {
            it.metrics.insert("thumb_down_rate".into(), MetricConfig::improve(0.0));
        });
        assert!(unseen.contains("users see no answer of a shadow"), "{unseen}");
        let no_pairs = refused(|it| {
            it.shadow.min_pairs = 0;
            it.metrics.insert("judge".into(), MetricConfig::improve(0.0));
        });
        assert!(no_pairs.contains("there is no shadow"), "{no_pairs}");
    }

    #[test]
    fn after_the_shadow_come_the_steps_and_then_the_promotion() {
        let mut policy = RolloutPolicy::default();
        policy.canary.steps = vec![5.0, 50.0];
        policy.canary.confirm = Confirmation::Person;
        let canary = |step, percent| LiveStage::Canary { step, percent };
        assert_eq!(policy.after(&LiveStage::Shadow), Some(Next::Step(5.0)));
        assert_eq!(policy.after(&canary(0, 5.0)), Some(Next::Step(50.0)));
        assert_eq!(policy.after(&canary(1, 50.0)), Some(Next::Promotion));
        assert_eq!(policy.after(&LiveStage::Watch), None);
        assert_eq!(policy.confirm(Next::Step(5.0)), Confirmation::Person);
        assert_eq!(policy.confirm(Next::Promotion), Confirmation::Nobody);
        policy.canary.steps.clear();
        assert_eq!(policy.after(&LiveStage::Shadow), Some(Next::Promotion));
    }

    #[test]
    fn senseless_settings_are_named() {
        assert_eq!(
            refused(|it| it.canary.steps = vec![5.0, 5.0]),
            "rollout setting `canary.steps` is 5, steps must grow, from above 0 to at most 100"
        );
        assert!(refused(|it| it.alpha = 0.5).contains("`alpha` is 0.5"));
        assert!(refused(|it| it.shadow.queue = 0).contains("`shadow.queue` is 0"));
        assert!(refused(|it| it.gate.alpha = 0.0).contains("gate setting `alpha`"));
        let promotes = serde_json::from_str::<OnInconclusive>("\"promote\"").unwrap_err().to_string();
        assert!(promotes.contains("unknown variant `promote`"), "{promotes}");
    }
}
