//! Tests of two or more versions against one another on live traffic.
//!
//! In come one answer after another with its arm; out goes which arm is best, once that is known, at any look.
//! Each of `K` arms has a confidence sequence for its mean at `alpha / K` ([`MeanSequence`]), so that all of them
//! hold at all times together with probability `1 - alpha`. An arm is out once its upper end is below the best lower
//! end; the best is known when one is left, or when the others can be better by no more than `indifference`.
//!
//! With [`Allocation::Fixed`] every arm keeps its share until then. With [`Allocation::Bandit`] arms that are out
//! get no more sessions: successive elimination (Even-Dar, Mannor and Mansour 2006, "Action elimination and stopping
//! conditions for the multi-armed bandit and reinforcement learning problems", algorithm 3) with these sequences in
//! place of its intervals, which keeps the probability of dropping the best arm at `alpha`. It is taken rather than
//! LUCB or Thompson sampling because conversations must not change their version: a session goes to the arm of the
//! highest `-weight / ln(place of session and arm)` among those that are in (weighted rendezvous hashing, after
//! Thaler and Ravishankar 1998), so that only the sessions of an arm that is dropped move, and no table of sessions
//! has to be kept.

use autoglm_domain::VersionNumber;
use serde::{Deserialize, Serialize};

use crate::{
    MeanSequence, MetricConfig, RolloutError,
    metric::{Better, Metric},
    observation::Observation,
    sticky,
};

/// How sessions are shared out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allocation {
    /// By the arms' shares, to the end.
    #[default]
    Fixed,
    /// By the arms' shares among those that may still be best.
    Bandit,
}

/// One version of a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmConfig {
    /// The version.
    pub version: VersionNumber,
    /// Its share of the sessions, in relation to the others'.
    pub share: f64,
}

/// A test of versions against one another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AbConfig {
    /// The versions; at least two.
    pub arms: Vec<ArmConfig>,
    /// How sessions are shared out.
    pub allocation: Allocation,
    /// What they are compared by: a score, a rate, `tokens`, or an expression's name. No quantile.
    pub metric: String,
    /// The expression, where the metric is one; its limits are not looked at.
    pub expression: MetricConfig,
    /// Most probability of naming an arm that is not best, 0 to 1 (exclusive).
    pub alpha: f64,
    /// Arms this close are as good as one another, in the metric's unit.
    pub indifference: f64,
    /// Answers that every arm must have given before one is named.
    pub min_requests: u64,
    /// Answers, all arms together, at which the test ends undecided.
    pub max_requests: u64,
}

impl Default for AbConfig {
    fn default() -> Self {
        Self {
            arms: Vec::new(),
            allocation: Allocation::Fixed,
            metric: "accuracy".into(),
            expression: MetricConfig::default(),
            alpha: 0.05,
            indifference: 0.0,
            min_requests: 100,
            max_requests: 100_000,
        }
    }
}

/// One arm so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmReport {
    /// The version.
    pub version: VersionNumber,
    /// Answers with a value.
    pub count: u64,
    /// Their mean.
    pub mean: Option<f64>,
    /// Lower end of its confidence sequence.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// Whether it may still be best.
    pub is_in: bool,
}

/// A test so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AbReport {
    /// The best version, once it is known.
    pub best: Option<VersionNumber>,
    /// Whether the test is over, decided or not.
    pub is_over: bool,
    /// Why, in one sentence.
    pub reason: String,
    /// The arms, in the order of the configuration.
    pub arms: Vec<ArmReport>,
}

#[derive(Debug, Clone)]
struct ArmState {
    config: ArmConfig,
    mean: MeanSequence,
    /// Once out, out for good: the sequence's ends only close in.
    is_in: bool,
}

/// A running test. Deterministic: the same answers in the same order, the same report.
#[derive(Debug, Clone)]
pub struct AbTest {
    config: AbConfig,
    metric: Metric,
    arms: Vec<ArmState>,
}

impl AbTest {
    /// A test by `config`. `Invalid` when it has fewer than two arms, an arm twice or without a share, a metric
    /// that is no mean, or could never end.
    pub fn new(config: AbConfig) -> Result<Self, RolloutError> {
        let wrong = |name, value: String, limit| Err(RolloutError::Policy { name, value, limit });
        if config.arms.len() < 2 {
            return wrong("ab.arms", config.arms.len().to_string(), "at least two versions are compared");
        }
        for (at, arm) in config.arms.iter().enumerate() {
            if !(arm.share > 0.0 && arm.share.is_finite()) {
                return wrong("ab.arms.share", arm.share.to_string(), "it must be above 0");
            }
            if config.arms.iter().take(at).any(|other| other.version == arm.version) {
                return wrong("ab.arms.version", arm.version.to_string(), "each version is there once");
            }
        }
        if !(config.alpha > 0.0 && config.alpha < 0.5) {
            return wrong("ab.alpha", config.alpha.to_string(), "it must be above 0 and below 0.5");
        }
        if !(config.indifference >= 0.0 && config.indifference.is_finite()) {
            return wrong("ab.indifference", config.indifference.to_string(), "it must be at least 0");
        }
        let least = config.min_requests.saturating_mul(config.arms.len() as u64);
        if config.max_requests < least.max(1) {
            let reason = format!(
                "the test ends at {} answers (`max_requests`) and {} arms need {} each (`min_requests`)",
                config.max_requests,
                config.arms.len(),
                config.min_requests
            );
            return Err(RolloutError::NeverEnds { reason });
        }
        let measured =
            MetricConfig { ratio: None, absolute: None, difference: Some(0.0), ..config.expression.clone() };
        let metric = Metric::new(&config.metric, &measured)?;
        if metric.quantile().is_some() || !metric.is_of_arms() {
            let reason = "is no mean of single answers, which a test compares".into();
            return Err(RolloutError::Metric { metric: config.metric, reason });
        }
        let alpha = config.alpha / config.arms.len() as f64;
        let state =
            |arm: &ArmConfig| ArmState { config: arm.clone(), mean: MeanSequence::new(alpha), is_in: true };
        Ok(Self { arms: config.arms.iter().map(state).collect(), metric, config })
    }

    /// The arm (its index) of a session; `salt` is the test's id.
    pub fn assign(&self, salt: &str, principal: &str, session: Option<&str>) -> usize {
        let weight = |(index, arm): (usize, &ArmState)| {
            let place = sticky::place(&format!("{salt}/{}", arm.config.version), principal, session);
            // Towards 0 where the place is 0, so that no division by it happens.
            (index, -arm.config.share / place.max(f64::MIN_POSITIVE).ln().min(-f64::MIN_POSITIVE))
        };
        let open = self.arms.iter().enumerate().filter(|(_, arm)| arm.is_in || self.is_fixed());
        open.map(weight).max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(index, _)| index)
    }

    /// Takes in one answer. An arm that is not there is ignored.
    pub fn push(&mut self, arm: usize, observation: &Observation) {
        let Some(value) = self.metric.value(observation) else { return };
        let scaled = self.metric.scaled(value);
        let higher = if self.metric.better == Better::Higher { scaled } else { 1.0 - scaled };
        if let Some(arm) = self.arms.get_mut(arm) {
            arm.mean.push(higher);
        }
        let best = self.arms.iter().map(|arm| arm.mean.lower()).fold(0.0, f64::max);
        for arm in &mut self.arms {
            arm.is_in &= arm.mean.upper() >= best;
        }
    }

    /// How the test stands.
    pub fn report(&self) -> AbReport {
        let arms = self.arms.iter().map(|arm| self.arm_report(arm)).collect();
        let total: u64 = self.arms.iter().map(|arm| arm.mean.count()).sum();
        let waiting = self.arms.iter().find(|arm| arm.is_in && arm.mean.count() < self.config.min_requests);
        let (best, is_over, reason) = match (waiting, self.best()) {
            (None, Some((arm, reason))) => (Some(arm.config.version), true, reason),
            _ if total >= self.config.max_requests => {
                (None, true, format!("no version is shown to be best after {total} answers"))
            }
            (Some(arm), _) => {
                let reason = format!(
                    "{} answered {} of {} requests",
                    arm.config.version,
                    arm.mean.count(),
                    self.config.min_requests
                );
                (None, false, reason)
            }
            (None, None) => (None, false, format!("no version is shown to be best after {total} answers")),
        };
        AbReport { best, is_over, reason, arms }
    }

    /// The arm that is known to be best, or as good as the best.
    fn best(&self) -> Option<(&ArmState, String)> {
        let leader = self.arms.iter().filter(|arm| arm.is_in).max_by(|a, b| {
            a.mean
                .lower()
                .total_cmp(&b.mean.lower())
                .then(a.mean.mean().unwrap_or(0.0).total_cmp(&b.mean.mean().unwrap_or(0.0)))
        })?;
        let others = || self.arms.iter().filter(|arm| arm.config.version != leader.config.version);
        let version = leader.config.version;
        if others().all(|arm| !arm.is_in) {
            return Some((leader, format!("{version} is shown to be best by `{}`", self.metric.name)));
        }
        let width = self.metric.range.1 - self.metric.range.0;
        let most = others().map(|arm| arm.mean.upper()).fold(0.0, f64::max);
        let behind = (most - leader.mean.lower()) * width;
        (behind <= self.config.indifference).then(|| {
            (
                leader,
                format!(
                    "no version is better than {version} by more than {behind:.3} in `{}`",
                    self.metric.name
                ),
            )
        })
    }

    fn arm_report(&self, arm: &ArmState) -> ArmReport {
        let back = |share: f64| {
            let share = if self.metric.better == Better::Higher { share } else { 1.0 - share };
            self.metric.unscaled(share)
        };
        let ends = (back(arm.mean.lower()), back(arm.mean.upper()));
        ArmReport {
            version: arm.config.version,
            count: arm.mean.count(),
            mean: arm.mean.mean().map(back),
            lower: ends.0.min(ends.1),
            upper: ends.0.max(ends.1),
            is_in: arm.is_in,
        }
    }

    fn is_fixed(&self) -> bool {
        self.config.allocation == Allocation::Fixed
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    fn config(allocation: Allocation, arms: &[(u64, f64)]) -> AbConfig {
        let arm =
            |(version, share): &(u64, f64)| ArmConfig { version: VersionNumber(*version), share: *share };
        let arms = arms.iter().map(arm).collect();
        AbConfig { arms, allocation, min_requests: 50, max_requests: 20_000, ..AbConfig::default() }
    }

    fn answer(score: f64) -> Observation {
        Observation { scores: [("accuracy".to_owned(), score)].into(), ..Observation::default() }
    }

    /// Runs a test to its end; every answer is right with its arm's probability. Gives the report and the answers
    /// of each arm.
    fn run(config: AbConfig, rates: &[f64], seed: u64) -> (AbReport, Vec<u64>) {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut test = AbTest::new(config).unwrap();
        let mut session = 0;
        loop {
            session += 1;
            let arm = test.assign("ab_1", "ada", Some(&format!("{seed}/{session}")));
            test.push(arm, &answer(if rng.random::<f64>() < rates[arm] { 100.0 } else { 0.0 }));
            if session % 25 == 0 {
                let report = test.report();
                if report.is_over {
                    let counts = report.arms.iter().map(|arm| arm.count).collect();
                    return (report, counts);
                }
            }
        }
    }

    #[test]
    fn the_best_arm_is_found_and_a_bandit_spends_less_on_the_others() {
        let arms = [(1, 1.0), (2, 1.0), (3, 1.0)];
        let rates = [0.7, 0.55, 0.85];
        let (mut fixed, mut bandit) = (0, 0);
        for seed in 0..10 {
            let (report, counts) = run(config(Allocation::Fixed, &arms), &rates, seed);
            assert_eq!(report.best, Some(VersionNumber(3)), "{}", report.reason);
            fixed += counts[0] + counts[1];
            let (report, counts) = run(config(Allocation::Bandit, &arms), &rates, seed);
            assert_eq!(report.best, Some(VersionNumber(3)), "{}", report.reason);
            bandit += counts[0] + counts[1];
        }
        assert!(bandit * 10 < fixed * 9, "{bandit} of {fixed}");
    }

    /// Equal arms: naming one is the error, at most 10% of the tests; here 60 tests with a look every 25 answers.
    #[test]
    fn equal_arms_are_named_best_no_more_often_than_alpha() {
        let mut named = 0;
        for seed in 0..60 {
            let bandit = AbConfig {
                alpha: 0.1,
                max_requests: 3_000,
                ..config(Allocation::Bandit, &[(1, 1.0), (2, 1.0)])
            };
            named += u32::from(run(bandit, &[0.8, 0.8], seed).0.best.is_some());
        }
        assert!(named <= 6, "{named} of 60");
    }

    #[test]
    fn sessions_keep_their_arm_when_another_is_dropped() {
        let mut test = AbTest::new(config(Allocation::Bandit, &[(1, 1.0), (2, 2.0), (3, 1.0)])).unwrap();
        let arms = |test: &AbTest| -> Vec<usize> {
            (0..4_000).map(|n| test.assign("ab_1", "ada", Some(&n.to_string()))).collect()
        };
        let before = arms(&test);
        let share = before.iter().filter(|arm| **arm == 1).count();
        assert!((1_900..2_100).contains(&share), "{share} of 4000 at a share of a half");
        for _ in 0..300 {
            test.push(0, &answer(0.0));
            test.push(1, &answer(100.0));
            test.push(2, &answer(100.0));
        }
        assert_eq!(test.report().arms.iter().map(|arm| arm.is_in).collect::<Vec<_>>(), [false, true, true]);
        let after = arms(&test);
        assert!(before.iter().zip(&after).all(|(before, after)| *before == 0 || before == after));
        assert!(after.iter().all(|arm| *arm != 0));
    }

    #[test]
    fn arms_that_are_as_good_end_a_test_that_is_told_so_and_lower_can_be_better() {
        let alike = AbConfig {
            metric: "error_rate".into(),
            indifference: 0.05,
            ..config(Allocation::Fixed, &[(1, 1.0), (2, 1.0)])
        };
        let mut test = AbTest::new(alike).unwrap();
        for n in 0..4_000 {
            test.push(n % 2, &Observation { failed: n % 100 < 2, ..Observation::default() });
        }
        let report = test.report();
        assert!(report.best.is_some() && report.reason.contains("no version is better"), "{report:?}");
        assert!(report.arms[0].lower <= 0.02 && report.arms[0].upper < 0.07, "{report:?}");
    }

    #[test]
    fn senseless_tests_are_refused() {
        let refused = |config: AbConfig| AbTest::new(config).unwrap_err().to_string();
        let two = || config(Allocation::Fixed, &[(1, 1.0), (2, 1.0)]);
        assert!(refused(config(Allocation::Fixed, &[(1, 1.0)])).contains("at least two"));
        assert!(
            refused(config(Allocation::Fixed, &[(1, 1.0), (1, 1.0)])).contains("each version is there once")
        );
        assert!(refused(config(Allocation::Fixed, &[(1, 1.0), (2, 0.0)])).contains("above 0"));
        assert!(refused(AbConfig { max_requests: 99, ..two() }).contains("can never finish"));
        assert!(refused(AbConfig { metric: "latency_p95".into(), ..two() }).contains("no mean"));
        assert!(refused(AbConfig { metric: "judge".into(), ..two() }).contains("no mean"));
    }
}
