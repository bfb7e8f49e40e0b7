//! Candidates with known merits, for the power of the gate. Also used by `examples/gate_power.rs`.

use autoglm_domain::{ClusterId, Outcome};
use autoglm_rollout::{ClusterPlan, GateConfig, Judge, Part};
use rand::{Rng, RngExt as _, seq::SliceRandom as _};

/// A suite with known truth: on `churn` of the items the versions differ, in net by `difference`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Truth {
    pub(crate) pairs: usize,
    /// Share of the other items that both get right.
    pub(crate) level: f64,
    pub(crate) difference: f64,
    pub(crate) churn: f64,
}

impl Truth {
    /// What was learned before: 85% right, and as much churn as asked for and as the difference needs.
    pub(crate) fn retention(pairs: usize, difference: f64, churn: f64) -> Self {
        Self { pairs, level: 0.85, difference, churn: churn.max(difference.abs() * 1.2) }
    }

    /// New material: the champion gets next to nothing right, the candidate `gain` more.
    pub(crate) fn new_skill(pairs: usize, gain: f64, churn: f64) -> Self {
        Self { pairs, level: 0.02, difference: gain, churn: churn.max(gain.abs() * 1.05) }
    }

    fn draw(&self, rng: &mut impl Rng) -> (f64, f64) {
        let draw: f64 = rng.random();
        if draw < (self.churn - self.difference) / 2.0 {
            (1.0, 0.0)
        } else if draw < self.churn {
            (0.0, 1.0)
        } else {
            let both = f64::from(u8::from(rng.random_bool(self.level)));
            (both, both)
        }
    }
}

/// One gate over drawn pairs, as the real one runs it: shuffled, stopping early.
pub(crate) fn judge(config: &GateConfig, new_skill: Truth, clusters: &[Truth], rng: &mut impl Rng) -> Judge {
    let plans = clusters.iter().enumerate().map(|(index, truth)| ClusterPlan {
        cluster: ClusterId(index as u32),
        name: format!("domain {index}"),
        tolerance: config.tolerance,
        pairs: truth.pairs as u64,
    });
    let mut judge = Judge::new(config.clone(), new_skill.pairs as u64, plans.collect());
    let mut order = vec![Part::NewSkill; new_skill.pairs];
    for (index, truth) in clusters.iter().enumerate() {
        order.extend(std::iter::repeat_n(Part::Retention(index), truth.pairs));
    }
    order.shuffle(rng);
    for part in order {
        if judge.early().is_some() {
            break;
        }
        if judge.wants(part) {
            let truth = match part {
                Part::NewSkill => &new_skill,
                Part::Retention(index) => &clusters[index],
            };
            let (champion, candidate) = truth.draw(rng);
            judge.push(part, champion, candidate);
        }
    }
    judge
}

/// Shares of promote, reject, inconclusive over `runs` gates.
pub(crate) fn shares<R: Rng>(
    config: &GateConfig,
    runs: usize,
    rng: &mut R,
    mut draw: impl FnMut(&mut R) -> (Truth, Vec<Truth>),
) -> [f64; 3] {
    let mut counts = [0u32; 3];
    for _ in 0..runs {
        let (new_skill, clusters) = draw(rng);
        counts[match judge(config, new_skill, &clusters, rng).rule().outcome {
            Outcome::Promote => 0,
            Outcome::Reject => 1,
            Outcome::Inconclusive => 2,
        }] += 1;
    }
    counts.map(|count| f64::from(count) / runs as f64)
}

/// A run of the demo: `earlier` domains of 100 held-out items, each really falling by 1 to 3 points with 5
/// to 10% of its items changing; the new domain goes from 0-5% to 75-85%.
pub(crate) fn demo_run(earlier: usize, rng: &mut impl Rng) -> (Truth, Vec<Truth>) {
    let clusters = (0..earlier).map(|_| {
        let fall = rng.random_range(0.01..0.03);
        Truth::retention(100, -fall, rng.random_range(0.05..0.10))
    });
    let clusters = clusters.collect();
    let level = rng.random_range(0.0..0.05);
    (Truth { level, ..Truth::new_skill(100, rng.random_range(0.75..0.80), 0.0) }, clusters)
}
