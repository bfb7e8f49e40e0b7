//! The one sentence of a verdict.

use autoglm_domain::Outcome;

use crate::{
    PairedSequence,
    judge::{Cluster, Judge, Ruling},
};

/// Beyond this many examples the sentence does not name a number.
const MOST_EXAMPLES: f64 = 1e6;

pub(crate) fn too_few(judge: &Judge) -> Ruling {
    let few = match judge.planned_new {
        0 => "no held-out example of new material".to_owned(),
        few => format!(
            "{few} held-out examples of the new material, at least {} are needed",
            judge.config.min_new_skill_pairs
        ),
    };
    if judge.overall.pairs() == 0 {
        return inconclusive(few);
    }
    inconclusive(format!("{few}, and no gain is shown over everything together: {}", overall(judge)))
}

pub(crate) fn promote(judge: &Judge) -> Ruling {
    let learned = gain(&judge.new_skill);
    let kept = if judge.pooled.pairs() == 0 {
        "nothing was learned before".to_owned()
    } else {
        format!("{}, and none of {} fell", retention(judge), clusters(judge.clusters.len()))
    };
    Ruling { outcome: Outcome::Promote, reason: format!("{learned}; {kept}") }
}

/// Too little new to prove alone, but better at everything together.
pub(crate) fn better_overall(judge: &Judge) -> Ruling {
    let kept = format!("{}, and none of {} fell", retention(judge), clusters(judge.clusters.len()));
    let reason = format!("better at everything together: {}; {kept}", overall(judge));
    Ruling { outcome: Outcome::Promote, reason }
}

/// `84.0% -> 86.0%, +2.0 points (at least +0.3 points, 300 pairs)`
fn overall(judge: &Judge) -> String {
    let (lower, count) = (points(judge.overall.lower()), pairs(judge.overall.pairs()));
    format!("{} (at least {lower}, {count})", change(&judge.overall))
}

pub(crate) fn worse_at_new(judge: &Judge) -> Ruling {
    reject(format!(
        "{}, so it is shown to gain less than {}",
        gain(&judge.new_skill),
        percent_points(judge.config.min_gain)
    ))
}

pub(crate) fn fell_overall(judge: &Judge) -> Ruling {
    let pooled = &judge.pooled;
    reject(format!(
        "what was learned before fell by more than {}: {}, at most {} in {}",
        percent_points(judge.config.margin),
        change(pooled),
        points(pooled.upper()),
        pairs(pooled.pairs())
    ))
}

pub(crate) fn cluster_fell(judge: &Judge, cluster: &Cluster) -> Ruling {
    let others = judge
        .clusters
        .iter()
        .filter(|other| other.sequence.pairs() > 0 && other.sequence.difference() < -other.plan.tolerance)
        .count()
        .saturating_sub(1);
    let others = if others > 0 { format!(", and so did {others} more") } else { String::new() };
    reject(format!(
        "`{}` fell by more than its tolerance of {}: {} in {}{others}",
        cluster.plan.name,
        percent_points(cluster.plan.tolerance),
        change(&cluster.sequence),
        pairs(cluster.sequence.pairs())
    ))
}

pub(crate) fn gain_open(judge: &Judge) -> Ruling {
    let sequence = &judge.new_skill;
    let needed = examples_needed(sequence, judge.config.alpha, |_| judge.config.min_gain);
    let advice = match needed {
        Some(needed) => format!("about {needed} held-out examples would show such a gain"),
        None => "more examples would not show one".to_owned(),
    };
    inconclusive(format!("no gain is shown: {}; {advice}", gain(sequence)))
}

pub(crate) fn retention_open(judge: &Judge) -> Ruling {
    let needed =
        examples_needed(&judge.pooled, judge.config.alpha, |pairs| -judge.config.margin_for(pairs as u64));
    let advice = match needed {
        Some(needed) => format!("about {needed} held-out examples would settle it"),
        None => "more examples would not show it".to_owned(),
    };
    inconclusive(format!(
        "{}, but it is not shown that what was learned before holds: {}; {advice}",
        gain(&judge.new_skill),
        retention(judge)
    ))
}

/// Roughly how many pairs a test at `alpha` needs when the difference stays what it is and the bound to beat
/// is `bound(pairs)`: a capital of `1/alpha` grows at `δ²/(2σ²)` a pair, and a third more for its ups and
/// downs. `None` where no number would do.
fn examples_needed(sequence: &PairedSequence, alpha: f64, bound: impl Fn(f64) -> f64) -> Option<u64> {
    let effort = 1.3 * 2.0 * (1.0 / alpha).ln() * sequence.variance();
    let mut pairs = (sequence.pairs() as f64 * 1.1).max(10.0);
    while pairs < MOST_EXAMPLES {
        let lead = sequence.difference() - bound(pairs);
        if lead > 0.0 && effort / lead.powi(2) <= pairs {
            let step = if pairs < 100.0 { 5.0 } else { 10.0 };
            return Some(((pairs / step).ceil() * step) as u64);
        }
        pairs *= 1.05;
    }
    None
}

fn inconclusive(reason: String) -> Ruling {
    Ruling { outcome: Outcome::Inconclusive, reason }
}

fn reject(reason: String) -> Ruling {
    Ruling { outcome: Outcome::Reject, reason }
}

/// `new skill 2.0% -> 82.0% (+80.0 points, at least +61.0 and at most +95.0, 100 pairs)`
fn gain(sequence: &PairedSequence) -> String {
    format!(
        "new skill {} (at least {}, at most {}, {})",
        change(sequence),
        points(sequence.lower()),
        points(sequence.upper()),
        pairs(sequence.pairs())
    )
}

/// `retention 84.0% -> 82.0%, -2.0 points (at least -8.1 points, margin 15 points, 100 pairs)`
fn retention(judge: &Judge) -> String {
    format!(
        "retention {} (at least {}, margin {}, {})",
        change(&judge.pooled),
        points(judge.pooled.lower()),
        percent_points(judge.margin),
        pairs(judge.pooled.pairs())
    )
}

/// `84.0% -> 82.0%, -2.0 points`
fn change(sequence: &PairedSequence) -> String {
    let evidence = sequence.evidence();
    let share = |mean: f64| format!("{:.1}%", 100.0 * mean);
    format!(
        "{} -> {}, {}",
        share(evidence.champion_mean),
        share(evidence.candidate_mean),
        points(evidence.difference)
    )
}

/// `+80.0 points`; never `-0.0`.
fn points(difference: f64) -> String {
    let tenths = (1000.0 * difference).round() / 10.0 + 0.0;
    format!("{tenths:+.1} points")
}

/// `17.5 points`
fn percent_points(share: f64) -> String {
    let value = (1000.0 * share).round() / 10.0;
    format!("{value} points")
}

fn pairs(count: u64) -> String {
    if count == 1 { "1 pair".into() } else { format!("{count} pairs") }
}

fn clusters(count: usize) -> String {
    if count == 1 { "1 cluster".into() } else { format!("{count} clusters") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(points(-0.0204), "-2.0 points");
        assert_eq!(points(-0.0001), "+0.0 points");
        assert_eq!(percent_points(0.175), "17.5 points");
        assert_eq!(percent_points(0.05), "5 points");
    }

    #[test]
    fn examples_needed_grow_as_the_lead_shrinks() {
        let mut sequence = PairedSequence::new(0.1);
        for i in 0..100 {
            sequence.push(0.0, f64::from(u8::from(i % 10 == 0)));
        }
        let near = examples_needed(&sequence, 0.05, |_| 0.05);
        let far = examples_needed(&sequence, 0.05, |_| -0.1);
        assert!(far < near && far.is_some(), "{far:?} {near:?}");
        assert_eq!(examples_needed(&sequence, 0.05, |_| 0.2), None);
    }
}
