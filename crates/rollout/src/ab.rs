//! Tests of two or more versions against one another on live traffic.
//!
//! In come one answer after another with its arm; out goes which arm is best, once that is known, at any look.
//! Each of `K` arms has a confidence sequence for its mean at `alpha / K` ([`MeanSequence`]), so that all of them
//! hold at all times together with probability `1 - alpha`. An arm is out once its upper end is below the best lower
//! end; the best is known when one is left, or when the others can be better by no more than `indifference`.
//!
//! With [`Allocation::Fixed`](autoglm_domain::Allocation::Fixed) every arm keeps its share until then. With [`Allocation::Bandit`](autoglm_domain::Allocation::Bandit) arms that are out
//! get no more sessions: successive elimination (Even-Dar, Mannor and Mansour 2006, "Action elimination and stopping
//! conditions for the multi-armed bandit and reinforcement learning problems", algorithm 3) with these sequences in
//! place of its intervals, which keeps the probability of dropping the best arm at `alpha`. It is taken rather than
//! LUCB or Thompson sampling because conversations must not change their version: a session goes to the arm of the
//! highest `-weight / ln(place of session and arm)` among those that are in (weighted rendezvous hashing, after
//! Thaler and Ravishankar 1998), so that only the sessions of an arm that is dropped move, and no table of sessions
//! has to be kept.

use autoglm_domain::{AbArm, AbArmReport, AbTest, VersionNumber};
use serde::{Deserialize, Serialize};

use crate::{
    MeanSequence, MetricConfig, RolloutError, RolloutPolicy,
    metric::{Better, Metric},
    observation::Observation,
    sticky,
};

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
    pub arms: Vec<AbArmReport>,
}

#[derive(Debug, Clone)]
struct ArmState {
    config: AbArm,
    mean: MeanSequence,
    /// Once out, out for good: the sequence's ends only close in.
    is_in: bool,
}

/// The version that answers a conversation while `test` runs; `None` where the test has no arms.
pub fn assigned(test: &AbTest, principal: &str, session: Option<&str>) -> Option<VersionNumber> {
    place(&test.id.to_string(), principal, session, &test.open_arms())
}

/// Weighted rendezvous hashing: a conversation moves only when its own arm is dropped.
fn place(salt: &str, principal: &str, session: Option<&str>, arms: &[AbArm]) -> Option<VersionNumber> {
    let weight = |arm: &AbArm| {
        let place = sticky::place(&format!("{salt}/{}", arm.version), principal, session);
        // Towards 0 where the place is 0, so that no division by it happens.
        (arm.version, -arm.share / place.max(f64::MIN_POSITIVE).ln().min(-f64::MIN_POSITIVE))
    };
    arms.iter().map(weight).max_by(|a, b| a.1.total_cmp(&b.1)).map(|(version, _)| version)
}

/// The analysis of a running test. Deterministic: the same answers in the same order, the same report.
#[derive(Debug, Clone)]
pub struct AbAnalysis {
    test: AbTest,
    metric: Metric,
    arms: Vec<ArmState>,
}

impl AbAnalysis {
    /// The analysis of `test`, whose metric may be an expression of `policy`. `Invalid` when it has fewer than two
    /// arms, an arm twice or without a share, a metric that is no mean, or could never end.
    pub fn new(test: &AbTest, policy: &RolloutPolicy) -> Result<Self, RolloutError> {
        check(test)?;
        let named = policy.metrics.get(&test.metric).filter(|named| named.expression.is_some());
        let measured = MetricConfig {
            ratio: None,
            absolute: None,
            difference: Some(0.0),
            ..named.cloned().unwrap_or_default()
        };
        let metric = Metric::new(&test.metric, &measured)?;
        if metric.quantile().is_some() || !metric.is_of_arms() {
            let reason = "is no mean of single answers, which a test compares".into();
            return Err(RolloutError::Metric { metric: test.metric.clone(), reason });
        }
        let alpha = test.alpha / test.arms.len() as f64;
        // Out is out for good, also over a restart.
        let is_out = |arm: &AbArm| test.found.iter().any(|it| it.version == arm.version && !it.is_in);
        let state =
            |arm: &AbArm| ArmState { config: *arm, mean: MeanSequence::new(alpha), is_in: !is_out(arm) };
        Ok(Self { arms: test.arms.iter().map(state).collect(), metric, test: test.clone() })
    }

    /// Takes in one answer of `version`. One that is no arm is ignored.
    pub fn push(&mut self, version: VersionNumber, observation: &Observation) {
        let Some(value) = self.metric.value(observation) else { return };
        let scaled = self.metric.scaled(value);
        let higher = if self.metric.better == Better::Higher { scaled } else { 1.0 - scaled };
        if let Some(arm) = self.arms.iter_mut().find(|arm| arm.config.version == version) {
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
        let waiting = self.arms.iter().find(|arm| arm.is_in && arm.mean.count() < self.test.min_requests);
        let (best, is_over, reason) = match (waiting, self.best()) {
            (None, Some((arm, reason))) => (Some(arm.config.version), true, reason),
            _ if total >= self.test.max_requests => {
                (None, true, format!("no version is shown to be best after {total} answers"))
            }
            (Some(arm), _) => {
                let reason = format!(
                    "{} answered {} of {} requests",
                    arm.config.version,
                    arm.mean.count(),
                    self.test.min_requests
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
        (behind <= self.test.indifference).then(|| {
            (
                leader,
                format!(
                    "no version is better than {version} by more than {behind:.3} in `{}`",
                    self.metric.name
                ),
            )
        })
    }

    fn arm_report(&self, arm: &ArmState) -> AbArmReport {
        let back = |share: f64| {
            let share = if self.metric.better == Better::Higher { share } else { 1.0 - share };
            self.metric.unscaled(share)
        };
        let ends = (back(arm.mean.lower()), back(arm.mean.upper()));
        AbArmReport {
            version: arm.config.version,
            count: arm.mean.count(),
            mean: arm.mean.mean().map(back),
            lower: ends.0.min(ends.1),
            upper: ends.0.max(ends.1),
            is_in: arm.is_in,
        }
    }
}

/// That it can begin, and come to an end.
fn check(test: &AbTest) -> Result<(), RolloutError> {
    let wrong = |name, value: String, limit| Err(RolloutError::Policy { name, value, limit });
    if test.arms.len() < 2 {
        return wrong("ab.arms", test.arms.len().to_string(), "at least two versions are compared");
    }
    for (at, arm) in test.arms.iter().enumerate() {
        if !(arm.share > 0.0 && arm.share.is_finite()) {
            return wrong("ab.arms.share", arm.share.to_string(), "it must be above 0");
        }
        if test.arms.iter().take(at).any(|other| other.version == arm.version) {
            return wrong("ab.arms.version", arm.version.to_string(), "each version is there once");
        }
    }
    if !(test.alpha > 0.0 && test.alpha < 0.5) {
        return wrong("ab.alpha", test.alpha.to_string(), "it must be above 0 and below 0.5");
    }
    if !(test.indifference >= 0.0 && test.indifference.is_finite()) {
        return wrong("ab.indifference", test.indifference.to_string(), "it must be at least 0");
    }
    let least = test.min_requests.saturating_mul(test.arms.len() as u64);
    if test.max_requests < least.max(1) {
        let reason = format!(
            "the test ends at {} answers (`max_requests`) and {} arms need {} each (`min_requests`)",
            test.max_requests,
            test.arms.len(),
            test.min_requests
        );
        return Err(RolloutError::NeverEnds { reason });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use autoglm_domain::{AbState, Allocation, Id, Timestamp};
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    fn test_of(allocation: Allocation, arms: &[(u64, f64)]) -> AbTest {
        AbTest {
            id: Id::new(uuid::Uuid::from_u128(1)),
            at: Timestamp(1),
            by: "ada".into(),
            champion: VersionNumber(1),
            arms: arms
                .iter()
                .map(|(version, share)| AbArm { version: VersionNumber(*version), share: *share })
                .collect(),
            allocation,
            metric: "accuracy".into(),
            alpha: 0.05,
            indifference: 0.0,
            min_requests: 50,
            max_requests: 20_000,
            state: AbState::Running,
            reason: String::new(),
            found: Vec::new(),
        }
    }

    fn analysis(test: &AbTest) -> AbAnalysis {
        AbAnalysis::new(test, &RolloutPolicy::default()).unwrap()
    }

    /// The version that answers session `n` while the arms stand as `analysis` says.
    fn assign(analysis: &AbAnalysis, n: u64) -> VersionNumber {
        let found = analysis.arms.iter().map(|arm| analysis.arm_report(arm)).collect();
        let test = AbTest { found, ..analysis.test.clone() };
        assigned(&test, "ada", Some(&n.to_string())).unwrap()
    }

    fn answer(score: f64) -> Observation {
        Observation { scores: [("accuracy".to_owned(), score)].into(), ..Observation::default() }
    }

    /// Runs a test to its end; every answer is right with its arm's probability. Gives the report and the answers
    /// of each arm.
    fn run(test: AbTest, rates: &[f64], seed: u64) -> (AbReport, Vec<u64>) {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut test = analysis(&test);
        let mut session = 0;
        loop {
            session += 1;
            let version = assign(&test, seed * 1_000_000 + session);
            let rate = rates[version.0 as usize - 1];
            test.push(version, &answer(if rng.random::<f64>() < rate { 100.0 } else { 0.0 }));
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
            let (report, counts) = run(test_of(Allocation::Fixed, &arms), &rates, seed);
            assert_eq!(report.best, Some(VersionNumber(3)), "{}", report.reason);
            fixed += counts[0] + counts[1];
            let (report, counts) = run(test_of(Allocation::Bandit, &arms), &rates, seed);
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
            let bandit = AbTest {
                alpha: 0.1,
                max_requests: 3_000,
                ..test_of(Allocation::Bandit, &[(1, 1.0), (2, 1.0)])
            };
            named += u32::from(run(bandit, &[0.8, 0.8], seed).0.best.is_some());
        }
        assert!(named <= 6, "{named} of 60");
    }

    #[test]
    fn sessions_keep_their_arm_when_another_is_dropped() {
        let versions = [1, 2, 3].map(VersionNumber);
        let mut test = analysis(&test_of(Allocation::Bandit, &[(1, 1.0), (2, 2.0), (3, 1.0)]));
        let arms =
            |test: &AbAnalysis| -> Vec<VersionNumber> { (0..4_000).map(|n| assign(test, n)).collect() };
        let before = arms(&test);
        let share = before.iter().filter(|arm| **arm == versions[1]).count();
        assert!((1_900..2_100).contains(&share), "{share} of 4000 at a share of a half");
        for _ in 0..300 {
            test.push(versions[0], &answer(0.0));
            test.push(versions[1], &answer(100.0));
            test.push(versions[2], &answer(100.0));
        }
        assert_eq!(test.report().arms.iter().map(|arm| arm.is_in).collect::<Vec<_>>(), [false, true, true]);
        let after = arms(&test);
        assert!(before.iter().zip(&after).all(|(before, after)| *before == versions[0] || before == after));
        assert!(after.iter().all(|arm| *arm != versions[0]));
    }

    #[test]
    fn arms_that_are_as_good_end_a_test_that_is_told_so_and_lower_can_be_better() {
        let alike = AbTest {
            metric: "error_rate".into(),
            indifference: 0.05,
            ..test_of(Allocation::Fixed, &[(1, 1.0), (2, 1.0)])
        };
        let mut test = analysis(&alike);
        for n in 0..4_000 {
            let failed = Observation { failed: n % 100 < 2, ..Observation::default() };
            test.push(VersionNumber(1 + n % 2), &failed);
        }
        let report = test.report();
        assert!(report.best.is_some() && report.reason.contains("no version is better"), "{report:?}");
        assert!(report.arms[0].lower <= 0.02 && report.arms[0].upper < 0.07, "{report:?}");
    }

    #[test]
    fn senseless_tests_are_refused_and_expressions_of_the_policy_are_known() {
        let mut policy = RolloutPolicy::default();
        let pace = MetricConfig {
            expression: Some("latency_ms / max(tokens, 1)".into()),
            least: Some(0.0),
            most: Some(1000.0),
            better: Some(Better::Lower),
            ratio: Some(1.3),
            ..MetricConfig::default()
        };
        policy.metrics.insert("pace".into(), pace);
        let refused = |test: AbTest| AbAnalysis::new(&test, &policy).unwrap_err().to_string();
        let two = || test_of(Allocation::Fixed, &[(1, 1.0), (2, 1.0)]);
        assert!(refused(test_of(Allocation::Fixed, &[(1, 1.0)])).contains("at least two"));
        let twice = test_of(Allocation::Fixed, &[(1, 1.0), (1, 1.0)]);
        assert!(refused(twice).contains("each version is there once"));
        assert!(refused(test_of(Allocation::Fixed, &[(1, 1.0), (2, 0.0)])).contains("above 0"));
        assert!(refused(AbTest { max_requests: 99, ..two() }).contains("can never finish"));
        assert!(refused(AbTest { metric: "latency_p95".into(), ..two() }).contains("no mean"));
        assert!(refused(AbTest { metric: "judge".into(), ..two() }).contains("no mean"));
        let mut paced = AbAnalysis::new(&AbTest { metric: "pace".into(), ..two() }, &policy).unwrap();
        let slow = Observation { latency_ms: 100.0, tokens: 10, ..Observation::default() };
        paced.push(VersionNumber(2), &slow);
        let mean = paced.report().arms[1].mean.unwrap();
        assert!((mean - 10.0).abs() < 1e-9, "{mean}");
    }
}
