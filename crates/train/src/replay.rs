//! Which experiences are replayed.

use std::collections::{BTreeMap, VecDeque};

use autoglm_domain::{ClusterId, Experience};
use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

/// Draws `count` of `pool` (sorted by id), without repetition, by id again.
///
/// Stratified: the clusters take turns, and within a cluster its targets do, so that every cluster is there
/// when `count` reaches their number, and rare targets are as likely as frequent ones. Within a target the
/// draw is weighted by the experiences' weights (Efraimidis and Spirakis 2006: largest `ln(u) / weight`
/// first).
pub(crate) fn sample(pool: Vec<Experience>, count: usize, seed: u64) -> Vec<Experience> {
    if count >= pool.len() {
        return pool;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut strata: BTreeMap<ClusterId, BTreeMap<String, Vec<(f64, Experience)>>> = BTreeMap::new();
    for experience in pool {
        let key = rng.random::<f64>().ln() / f64::from(experience.weight);
        let targets = strata.entry(experience.cluster).or_default();
        targets.entry(experience.target.clone()).or_default().push((key, experience));
    }
    let mut clusters: Vec<VecDeque<Experience>> = Vec::with_capacity(strata.len());
    for targets in strata.into_values() {
        let mut queues: Vec<VecDeque<Experience>> = Vec::with_capacity(targets.len());
        for mut members in targets.into_values() {
            members.sort_by(|a, b| b.0.total_cmp(&a.0));
            queues.push(members.into_iter().map(|(_, experience)| experience).collect());
        }
        queues.shuffle(&mut rng);
        clusters.push(take_turns(queues, usize::MAX).into());
    }
    clusters.shuffle(&mut rng);
    let mut drawn = take_turns(clusters, count);
    drawn.sort_by_key(|experience| experience.id);
    drawn
}

/// One from each queue in turn until `count` are taken or all queues are empty.
fn take_turns(queues: Vec<VecDeque<Experience>>, count: usize) -> Vec<Experience> {
    let mut turns: VecDeque<_> = queues.into();
    let mut taken = Vec::new();
    while taken.len() < count
        && let Some(mut queue) = turns.pop_front()
    {
        if let Some(experience) = queue.pop_front() {
            taken.push(experience);
            turns.push_back(queue);
        }
    }
    taken
}
