//! The suites: held-out experiences that both versions answer.

use std::collections::BTreeMap;

use autoglm_domain::{ClusterId, Experience};
use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use crate::{ClusterPlan, GateConfig, Part};

/// Held-out experiences of one cluster that an earlier version learned.
#[derive(Debug, Clone, PartialEq)]
pub struct RetentionSuite {
    /// The cluster.
    pub cluster: ClusterId,
    /// A name for people.
    pub name: String,
    /// How far it may fall, 0 to 1; `None` takes the configured tolerance.
    pub tolerance: Option<f64>,
    /// The experiences.
    pub experiences: Vec<Experience>,
}

/// What a candidate is examined on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Suites {
    /// Held-out experiences of what this run should have taught.
    pub new_skill: Vec<Experience>,
    /// Everything learned before, by cluster. Empty for the first version ever.
    pub retention: Vec<RetentionSuite>,
}

/// One question of a gate, for both versions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Question<'a> {
    /// Which suite it belongs to.
    pub part: Part,
    /// What is asked.
    pub experience: &'a Experience,
}

impl Suites {
    /// Sorts experiences into the suites: those that `is_new` to the new-skill suite, the others to the
    /// retention suite of their cluster, which is named after its commonest task. Experiences that are not
    /// held out (they may have been trained on) or that were outvoted (weight 0) are left out.
    pub fn split(
        experiences: impl IntoIterator<Item = Experience>,
        is_new: impl Fn(&Experience) -> bool,
    ) -> Self {
        let mut suites = Self::default();
        let mut clusters: BTreeMap<ClusterId, Vec<Experience>> = BTreeMap::new();
        for experience in experiences {
            if !experience.held_out || experience.weight <= 0.0 {
                continue;
            }
            if is_new(&experience) {
                suites.new_skill.push(experience);
            } else {
                clusters.entry(experience.cluster).or_default().push(experience);
            }
        }
        suites.retention = clusters
            .into_iter()
            .map(|(cluster, experiences)| RetentionSuite {
                cluster,
                name: commonest_task(&experiences).unwrap_or_else(|| cluster.to_string()),
                tolerance: None,
                experiences,
            })
            .collect();
        suites
    }

    /// The questions in the order they are asked, the same for the same seed. Each suite is a uniformly
    /// random sample in a uniformly random order, which the confidence sequences rest on (drawing the
    /// clusters in turn would not be); the two are interleaved in proportion to their sizes.
    pub fn questions(&self, config: &GateConfig, seed: u64) -> Vec<Question<'_>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut sample = |experiences: &'_ [Experience], most: u64| {
            let mut picked: Vec<usize> = (0..experiences.len()).collect();
            picked.shuffle(&mut rng);
            picked.truncate(usize::try_from(most).unwrap_or(usize::MAX));
            picked
        };
        let new_skill: Vec<_> = sample(&self.new_skill, config.max_new_skill_pairs)
            .into_iter()
            .filter_map(|i| self.new_skill.get(i))
            .map(|experience| Question { part: Part::NewSkill, experience })
            .collect();
        let mut retention: Vec<_> = Vec::new();
        for (index, suite) in self.retention.iter().enumerate() {
            let picked = sample(&suite.experiences, config.max_cluster_pairs);
            retention.extend(
                picked
                    .into_iter()
                    .filter_map(|i| suite.experiences.get(i))
                    .map(|experience| Question { part: Part::Retention(index), experience }),
            );
        }
        retention.shuffle(&mut rng);
        interleave(new_skill, retention)
    }

    /// What the judge needs to know of each cluster, in the order of [`Suites::retention`].
    pub fn cluster_plans(&self, config: &GateConfig) -> Vec<ClusterPlan> {
        self.retention
            .iter()
            .map(|suite| ClusterPlan {
                cluster: suite.cluster,
                name: suite.name.clone(),
                tolerance: suite.tolerance.unwrap_or(config.tolerance),
                pairs: (suite.experiences.len() as u64).min(config.max_cluster_pairs),
            })
            .collect()
    }
}

/// Merges two lists so that each is spread evenly over the result.
fn interleave<T>(first: Vec<T>, second: Vec<T>) -> Vec<T> {
    let (a, b) = (first.len(), second.len());
    let mut merged = Vec::with_capacity(a + b);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut taken = 0;
    for turn in 1..=a + b {
        let due = (turn * a).div_ceil((a + b).max(1));
        let next = if due > taken { first.next().inspect(|_| taken += 1) } else { None };
        merged.extend(next.or_else(|| second.next()));
    }
    merged
}

fn commonest_task(experiences: &[Experience]) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for task in experiences.iter().filter_map(|experience| experience.task.as_deref()) {
        *counts.entry(task).or_default() += 1;
    }
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map(|(task, _)| task.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaving_spreads_both_and_loses_none() {
        let merged = interleave(vec!['n'; 2], vec!['r'; 6]);
        assert_eq!(merged.iter().collect::<String>(), "nrrrnrrr");
        assert_eq!(interleave(Vec::<u8>::new(), vec![]), Vec::<u8>::new());
        assert_eq!(interleave(vec![1, 2], vec![]), vec![1, 2]);
        assert_eq!(interleave(vec![], vec![3]), vec![3]);
    }
}
