//! Replay: what training sees of what was learned before.
//!
//! Drawn in strata, so that a rare target of a small cluster is not lost among the common ones: the number
//! wanted is shared out evenly over the clusters, each cluster's over its targets, and within a target
//! experiences are drawn without replacement in proportion to their weights. What a small stratum cannot
//! use goes to the others.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use autoglm_domain::{ClusterId, Experience, ExperienceId};
use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use crate::Memory;

impl Memory {
    /// Every believed experience that training may use, oldest first.
    pub fn training_pool(&self) -> Vec<Arc<Experience>> {
        self.effective().into_iter().filter(|experience| !experience.held_out).collect()
    }

    /// Believed experiences that are kept for the gate, by cluster.
    pub fn held_out(&self) -> BTreeMap<ClusterId, Vec<Arc<Experience>>> {
        let mut clusters: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for experience in self.effective().into_iter().filter(|experience| experience.held_out) {
            clusters.entry(experience.cluster).or_default().push(experience);
        }
        clusters
    }

    /// What of [`Memory::training_pool`] is not in `trained`.
    pub fn new_since(&self, trained: &HashSet<ExperienceId>) -> Vec<Arc<Experience>> {
        self.training_pool().into_iter().filter(|experience| !trained.contains(&experience.id)).collect()
    }

    /// Up to `most` of [`Memory::training_pool`] that pass `filter`, drawn in strata (see the module), in
    /// random order. The same memory and seed give the same sample.
    pub fn sample_replay(
        &self,
        most: usize,
        seed: u64,
        filter: impl Fn(&Experience) -> bool,
    ) -> Vec<Arc<Experience>> {
        let pool = self.pool.read();
        let mut strata: BTreeMap<ClusterId, BTreeMap<u32, Vec<Arc<Experience>>>> = BTreeMap::new();
        for entry in pool.entries.iter().filter(|entry| entry.wins && !entry.experience.held_out) {
            if filter(&entry.experience) {
                let cluster = strata.entry(entry.experience.cluster).or_default();
                cluster.entry(entry.target).or_default().push(Arc::clone(&entry.experience));
            }
        }
        drop(pool);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let sizes: Vec<usize> = strata.values().map(|targets| targets.values().map(Vec::len).sum()).collect();
        let mut sample = Vec::with_capacity(most.min(sizes.iter().sum()));
        for (targets, quota) in strata.into_values().zip(share_out(most, &sizes, &mut rng)) {
            let sizes: Vec<usize> = targets.values().map(Vec::len).collect();
            for (members, quota) in targets.into_values().zip(share_out(quota, &sizes, &mut rng)) {
                sample.extend(draw(members, quota, &mut rng));
            }
        }
        sample.shuffle(&mut rng);
        sample
    }
}

/// Shares `total` out as evenly as the strata's `sizes` allow; who gets the odd ones is drawn.
fn share_out(total: usize, sizes: &[usize], rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.shuffle(rng);
    // The smallest first: what they leave is there for the larger ones.
    order.sort_by_key(|place| sizes.get(*place).copied().unwrap_or(0));
    let mut quotas = vec![0; sizes.len()];
    let mut left = total;
    for (done, place) in order.iter().enumerate() {
        let size = sizes.get(*place).copied().unwrap_or(0);
        let quota = size.min(left / (sizes.len() - done));
        if let Some(slot) = quotas.get_mut(*place) {
            *slot = quota;
        }
        left -= quota;
    }
    // Rounding leaves fewer than there are strata.
    for place in order.iter().rev() {
        let size = sizes.get(*place).copied().unwrap_or(0);
        if let Some(slot) = quotas.get_mut(*place).filter(|slot| left > 0 && **slot < size) {
            *slot += 1;
            left -= 1;
        }
    }
    quotas
}

/// Draws without replacement in proportion to the weights: the `most` largest of `ln(u) / weight`
/// (Efraimidis and Spirakis 2006).
fn draw(members: Vec<Arc<Experience>>, most: usize, rng: &mut ChaCha8Rng) -> Vec<Arc<Experience>> {
    if members.len() <= most {
        return members;
    }
    let mut keyed: Vec<(f64, Arc<Experience>)> = members
        .into_iter()
        .map(|experience| {
            let uniform: f64 = 1.0 - rng.random::<f64>();
            (uniform.ln() / f64::from(experience.weight).max(1e-3), experience)
        })
        .collect();
    keyed.sort_by(|a, b| b.0.total_cmp(&a.0));
    keyed.truncate(most);
    keyed.into_iter().map(|(_, experience)| experience).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Everything that can be given is given, nobody gets more than it has, and nobody who could have
        /// taken more is behind another by more than one.
        #[test]
        fn sharing_out_is_fair(total in 0..200_usize, sizes in proptest::collection::vec(0..40_usize, 1..12)) {
            let quotas = share_out(total, &sizes, &mut ChaCha8Rng::seed_from_u64(3));
            prop_assert_eq!(quotas.iter().sum::<usize>(), total.min(sizes.iter().sum()));
            let largest = quotas.iter().copied().max().unwrap();
            for (quota, size) in quotas.iter().zip(&sizes) {
                prop_assert!(quota <= size);
                prop_assert!(quota == size || quota + 1 >= largest);
            }
        }
    }
}
