//! The decision rule, without any I/O: pairs of scores in, a ruling out.
//!
//! # Promote
//!
//! needs all of: the new skill is shown to gain (lower end of its confidence sequence above `min_gain`);
//! what was learned before is shown not to fall, pooled (lower end above `-margin`); no cluster fell. Because
//! *all* must hold, each test runs at the whole `alpha` on its side and a candidate that fails any of them is
//! promoted with probability at most `alpha` (intersection-union test, Berger 1982): no splitting is needed.
//! The sequences therefore carry `2 alpha`, both ends together.
//!
//! # What so many pairs can show
//!
//! With a share `c` of items changing, a mean difference over `n` pairs has standard error `sqrt(c / n)`. At
//! c = 0.075 and n = 100 that is 2.7 points. A candidate that really falls by 2 points is then shown not to
//! fall by 5 in fewer than one case of three, by any test at the 5% level; four cases of five take some 500
//! pairs with a test of fixed size and 600 to 900 with one that may stop at any time. So the margin begins at
//! `margin_scale / sqrt(n)` (15 points at n = 100, 7.5 at n = 400) and reaches `margin` as held-out
//! experiences accumulate (at n = 625). It is fixed by the *planned* number of pairs, before the first
//! answer, and every reason names it. Falls within the margin are not thereby allowed, they are merely not
//! excluded at the 5% level; the rule for clusters looks at the point estimates besides.
//! `docs/experiments/0003-gate-power.md` has what comes of it.
//!
//! Where there are fewer than `min_new_skill_pairs` of what is new, as after a merge, which goes over what is
//! known already, the gain is to be shown over both suites together instead.
//!
//! # A cluster fell
//!
//! when it is shown to have fallen by more than its tolerance (upper end below `-tolerance`, error
//! probability `alpha` over all clusters, Bonferroni), or when its point estimate is below `-tolerance` and
//! either it has `min_cluster_pairs` pairs or it is shown to have fallen at all (upper end below 0). At 100
//! pairs and c = 0.075 a true fall of 2 points comes out below -10 points once in 600 clusters, at 30 pairs
//! once in 20: hence the additional condition for small clusters. A cluster of fewer than some 10 pairs can
//! lose everything without this being provable alone; the pooled test counts it all the same.
//!
//! # Reject
//!
//! when the new skill is shown to be worse, the pooled fall is shown to exceed `margin`, or a cluster fell.
//! Everything else is inconclusive, and the reason says how many examples would help.

use autoglm_domain::{ClusterEvidence, ClusterId, Evidence, Outcome};

use crate::{GateConfig, PairedSequence, reason};

/// Which suite a pair belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// What this run should have taught.
    NewSkill,
    /// What was learned before; the index of its cluster.
    Retention(usize),
}

/// One cluster of the retention suite, as planned.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterPlan {
    /// The cluster.
    pub cluster: ClusterId,
    /// A name for people.
    pub name: String,
    /// How far it may fall, 0 to 1.
    pub tolerance: f64,
    /// Pairs that will be asked.
    pub pairs: u64,
}

/// An outcome with its sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruling {
    /// Promote, reject or inconclusive.
    pub outcome: Outcome,
    /// One sentence with the deciding numbers.
    pub reason: String,
}

/// A cluster with the pairs so far.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(crate) plan: ClusterPlan,
    pub(crate) sequence: PairedSequence,
}

impl Cluster {
    /// Shown to have fallen by more than its tolerance; may be asked after every pair.
    fn is_shown_fallen(&self) -> bool {
        self.sequence.upper() < -self.plan.tolerance
    }

    /// The whole rule, for when all its pairs are in.
    fn fell(&self, min_pairs: u64) -> bool {
        let beyond = self.sequence.difference() < -self.plan.tolerance;
        let counts = self.sequence.pairs() >= min_pairs || self.sequence.upper() < 0.0;
        self.is_shown_fallen() || (beyond && counts)
    }
}

/// Takes in pairs and rules on them. Deterministic: the same pairs in the same order, the same ruling.
#[derive(Debug, Clone)]
pub struct Judge {
    pub(crate) config: GateConfig,
    pub(crate) planned_new: u64,
    pub(crate) new_skill: PairedSequence,
    pub(crate) pooled: PairedSequence,
    /// Both suites together.
    pub(crate) overall: PairedSequence,
    pub(crate) clusters: Vec<Cluster>,
    /// The pooled margin in force.
    pub(crate) margin: f64,
}

impl Judge {
    /// A judge for `planned_new` pairs of the new skill and the planned pairs of each cluster.
    pub fn new(config: GateConfig, planned_new: u64, clusters: Vec<ClusterPlan>) -> Self {
        let both_sides = 2.0 * config.alpha;
        let planned_retention = clusters.iter().map(|plan| plan.pairs).sum();
        let shared = both_sides / clusters.len().max(1) as f64;
        Self {
            planned_new,
            new_skill: PairedSequence::with_horizon(both_sides, planned_new),
            pooled: PairedSequence::with_horizon(both_sides, planned_retention),
            overall: PairedSequence::with_horizon(both_sides, planned_new + planned_retention),
            margin: config.margin_for(planned_retention),
            clusters: clusters
                .into_iter()
                .map(|plan| Cluster { sequence: PairedSequence::with_horizon(shared, plan.pairs), plan })
                .collect(),
            config,
        }
    }

    /// A ruling that needs no answer at all: too little of what is new to promote anything, and nothing old that
    /// could show harm.
    pub fn before_asking(&self) -> Option<Ruling> {
        let nothing_old = self.clusters.iter().all(|cluster| cluster.plan.pairs == 0);
        (self.too_little_new() && nothing_old).then(|| reason::too_few(self))
    }

    /// Takes in a pair of scores, 0 to 1. A cluster that was not planned is ignored.
    pub fn push(&mut self, part: Part, champion: f64, candidate: f64) {
        match part {
            Part::NewSkill => {
                self.new_skill.push(champion, candidate);
                self.overall.push(champion, candidate);
            }
            Part::Retention(index) => {
                if let Some(cluster) = self.clusters.get_mut(index) {
                    cluster.sequence.push(champion, candidate);
                    self.pooled.push(champion, candidate);
                    self.overall.push(champion, candidate);
                }
            }
        }
    }

    /// Whether more pairs of `part` can still change the ruling. Clusters are always looked at in full,
    /// because their point estimates count.
    pub fn wants(&self, part: Part) -> bool {
        match part {
            Part::NewSkill => {
                !self.is_gain_shown() || self.new_skill.pairs() < self.config.min_new_skill_pairs
            }
            Part::Retention(_) => true,
        }
    }

    /// A rejection that no further pair would take back; may be asked after every pair.
    pub fn early(&self) -> Option<Ruling> {
        if self.new_skill.upper() < self.config.min_gain {
            return Some(reason::worse_at_new(self));
        }
        if self.pooled.upper() < -self.config.margin {
            return Some(reason::fell_overall(self));
        }
        let shown = self.clusters.iter().find(|cluster| cluster.is_shown_fallen());
        shown.map(|cluster| reason::cluster_fell(self, cluster))
    }

    /// The ruling on everything that came in.
    pub fn rule(&self) -> Ruling {
        if let Some(rejection) = self.early() {
            return rejection;
        }
        let min_pairs = self.config.min_cluster_pairs;
        let worst = self
            .clusters
            .iter()
            .filter(|cluster| cluster.fell(min_pairs))
            .min_by(|a, b| a.sequence.difference().total_cmp(&b.sequence.difference()));
        if let Some(cluster) = worst {
            return reason::cluster_fell(self, cluster);
        }
        if self.too_little_new() {
            // A merge teaches little or nothing new: it has to be better at everything together.
            let better = self.overall.lower() > self.config.min_gain && self.is_retention_shown();
            return if better { reason::better_overall(self) } else { reason::too_few(self) };
        }
        match (self.is_gain_shown(), self.is_retention_shown()) {
            (true, true) => reason::promote(self),
            (false, _) => reason::gain_open(self),
            (true, false) => reason::retention_open(self),
        }
    }

    /// All that the ruling rests on.
    pub fn evidence(&self) -> Evidence {
        let some = |sequence: &PairedSequence| (sequence.pairs() > 0).then(|| sequence.evidence());
        Evidence {
            new_skill: some(&self.new_skill),
            retention: some(&self.pooled),
            clusters: self
                .clusters
                .iter()
                .map(|cluster| ClusterEvidence {
                    cluster: cluster.plan.cluster,
                    name: cluster.plan.name.clone(),
                    tolerance: cluster.plan.tolerance,
                    paired: cluster.sequence.evidence(),
                    fell: cluster.fell(self.config.min_cluster_pairs),
                })
                .collect(),
            ..Evidence::default()
        }
    }

    /// Pairs taken in so far, both suites.
    pub fn pairs(&self) -> u64 {
        self.new_skill.pairs() + self.pooled.pairs()
    }

    fn too_little_new(&self) -> bool {
        self.planned_new < self.config.min_new_skill_pairs
    }

    fn is_gain_shown(&self) -> bool {
        self.new_skill.lower() > self.config.min_gain
    }

    fn is_retention_shown(&self) -> bool {
        self.clusters.iter().all(|cluster| cluster.plan.pairs == 0) || self.pooled.lower() > -self.margin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(pairs: u64) -> ClusterPlan {
        ClusterPlan { cluster: ClusterId(7), name: "banking".into(), tolerance: 0.1, pairs }
    }

    /// `wins`, `losses`, `ties` (both right) spread evenly: every loss and win among as many ties.
    fn push_all(judge: &mut Judge, part: Part, wins: usize, losses: usize, ties: usize) {
        let total = wins + losses + ties;
        let spread = |i: usize, n: usize| (i + 1) * n / total > i * n / total;
        let (mut w, mut l) = (0, 0);
        for i in 0..total {
            let pair = if spread(i, wins) && w < wins {
                w += 1;
                (0.0, 1.0)
            } else if spread(total - 1 - i, losses) && l < losses {
                l += 1;
                (1.0, 0.0)
            } else {
                (1.0, 1.0)
            };
            judge.push(part, pair.0, pair.1);
        }
        assert_eq!((w, l), (wins, losses), "the pattern cannot be spread");
    }

    #[test]
    fn a_win_that_keeps_the_old_is_promoted_and_says_why() {
        let mut judge = Judge::new(GateConfig::default(), 100, vec![plan(100)]);
        push_all(&mut judge, Part::Retention(0), 3, 5, 92);
        for i in 0..100 {
            judge.push(Part::NewSkill, 0.0, f64::from(i % 5 != 0));
        }
        let ruling = judge.rule();
        assert_eq!(ruling.outcome, Outcome::Promote, "{}", ruling.reason);
        assert!(ruling.reason.contains("+80.0 points"), "{}", ruling.reason);
        assert!(ruling.reason.contains("-2.0 points"), "{}", ruling.reason);
        assert!(!judge.wants(Part::NewSkill) && judge.wants(Part::Retention(0)));
    }

    #[test]
    fn the_first_version_needs_no_retention() {
        let mut judge = Judge::new(GateConfig::default(), 30, vec![]);
        (0..30).for_each(|_| judge.push(Part::NewSkill, 0.0, 1.0));
        assert_eq!(judge.rule().outcome, Outcome::Promote);
        assert_eq!(judge.evidence().retention, None);
    }

    #[test]
    fn too_few_examples_are_inconclusive_and_named() {
        let judge = Judge::new(GateConfig::default(), 12, vec![]);
        let ruling = judge.before_asking().unwrap();
        assert_eq!(ruling.outcome, Outcome::Inconclusive);
        assert_eq!(ruling.reason, "12 held-out examples of the new material, at least 20 are needed");
    }

    #[test]
    fn too_few_new_examples_promote_nothing_but_harm_is_rejected_all_the_same() {
        let mut kept = Judge::new(GateConfig::default(), 3, vec![plan(100)]);
        assert_eq!(kept.before_asking(), None);
        push_all(&mut kept, Part::Retention(0), 0, 0, 100);
        (0..3).for_each(|_| kept.push(Part::NewSkill, 0.0, 1.0));
        let ruling = kept.rule();
        assert_eq!(ruling.outcome, Outcome::Inconclusive);
        assert!(ruling.reason.contains("no gain is shown over everything together"), "{}", ruling.reason);
        let mut merged = Judge::new(GateConfig::default(), 0, vec![plan(100)]);
        push_all(&mut merged, Part::Retention(0), 20, 1, 79);
        assert_eq!(merged.rule().outcome, Outcome::Promote, "{}", merged.rule().reason);
        let mut spoiled = Judge::new(GateConfig::default(), 0, vec![plan(100)]);
        push_all(&mut spoiled, Part::Retention(0), 0, 80, 20);
        assert_eq!(spoiled.rule().outcome, Outcome::Reject);
    }

    #[test]
    fn a_few_new_pairs_count_together_with_the_old() {
        let judged = |wins: usize, losses: usize| {
            let mut judge = Judge::new(GateConfig::default(), 8, vec![plan(300)]);
            push_all(&mut judge, Part::Retention(0), wins, losses, 300 - wins - losses);
            (0..8).for_each(|_| judge.push(Part::NewSkill, 0.0, 1.0));
            judge.rule()
        };
        let better = judged(8, 3);
        assert_eq!(better.outcome, Outcome::Promote, "{}", better.reason);
        assert!(better.reason.contains("better at everything together"), "{}", better.reason);
        let level = judged(4, 10);
        assert_eq!(level.outcome, Outcome::Inconclusive, "{}", level.reason);
    }

    #[test]
    fn a_fallen_cluster_is_rejected_by_name_although_the_pool_holds() {
        let plans = vec![plan(300), ClusterPlan { name: "travel".into(), ..plan(100) }, plan(300)];
        let mut judge = Judge::new(GateConfig::default(), 30, plans);
        (0..30).for_each(|_| judge.push(Part::NewSkill, 0.0, 1.0));
        push_all(&mut judge, Part::Retention(0), 10, 5, 285);
        push_all(&mut judge, Part::Retention(2), 10, 5, 285);
        push_all(&mut judge, Part::Retention(1), 2, 14, 84);
        assert!(judge.pooled.lower() > -judge.margin, "{:?}", judge.pooled.evidence());
        let ruling = judge.rule();
        assert_eq!(ruling.outcome, Outcome::Reject);
        assert!(
            ruling.reason.contains("`travel` fell") && ruling.reason.contains("-12.0 points"),
            "{ruling:?}"
        );
        let fell: Vec<bool> = judge.evidence().clusters.iter().map(|cluster| cluster.fell).collect();
        assert_eq!(fell, [false, true, false]);
    }

    #[test]
    fn a_small_cluster_needs_proof_that_it_fell_at_all() {
        let mut judge = Judge::new(GateConfig::default(), 30, vec![plan(20)]);
        push_all(&mut judge, Part::Retention(0), 0, 3, 17);
        assert!(!judge.evidence().clusters[0].fell, "-15 points in 20 pairs is within chance");
        let mut judge = Judge::new(GateConfig::default(), 30, vec![plan(20)]);
        push_all(&mut judge, Part::Retention(0), 0, 10, 10);
        assert!(judge.evidence().clusters[0].fell);
    }

    #[test]
    fn no_gain_is_inconclusive_and_a_loss_is_rejected_early() {
        let mut judge = Judge::new(GateConfig::default(), 100, vec![]);
        push_all(&mut judge, Part::NewSkill, 5, 5, 90);
        let ruling = judge.rule();
        assert_eq!(ruling.outcome, Outcome::Inconclusive);
        assert!(ruling.reason.contains("no gain"), "{}", ruling.reason);

        let mut judge = Judge::new(GateConfig::default(), 100, vec![]);
        let until = (1..=100).find(|_| {
            judge.push(Part::NewSkill, 1.0, 0.0);
            judge.early().is_some()
        });
        assert!(until.is_some_and(|pairs| pairs < 30), "{until:?}");
        assert_eq!(judge.rule().outcome, Outcome::Reject);
    }

    #[test]
    fn open_retention_names_how_many_examples_would_settle_it() {
        let mut judge = Judge::new(GateConfig::default(), 30, vec![plan(40)]);
        (0..30).for_each(|_| judge.push(Part::NewSkill, 0.0, 1.0));
        push_all(&mut judge, Part::Retention(0), 2, 5, 33);
        let ruling = judge.rule();
        assert_eq!(ruling.outcome, Outcome::Inconclusive, "{}", ruling.reason);
        assert!(ruling.reason.contains("examples would"), "{}", ruling.reason);
    }
}
