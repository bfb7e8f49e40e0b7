//! What training and the gate are given: believed experiences, those that are held out apart.

use std::{collections::BTreeMap, sync::Arc};

use autoglm_domain::{ClusterId, Experience};

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
}
