//! Counts of what is remembered.

use std::collections::BTreeMap;

use autoglm_domain::ClusterId;
use serde::Serialize;

use crate::pool::Pool;

/// Counts for `/metrics` and people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// All experiences, those that lost included.
    pub experiences: usize,
    /// Those that are believed.
    pub effective: usize,
    /// Believed ones that training may use.
    pub trainable: usize,
    /// Believed ones that are kept for the gate.
    pub held_out: usize,
    /// Prompts that are remembered with more than one target.
    pub contradictions: usize,
    /// Different targets.
    pub targets: usize,
    /// Clusters with members.
    pub clusters: usize,
    /// Believed experiences a cluster.
    pub by_cluster: BTreeMap<ClusterId, usize>,
}

impl Stats {
    pub(crate) fn of(pool: &Pool) -> Self {
        let mut stats = Self {
            experiences: pool.entries.len(),
            contradictions: pool.contradictions(),
            targets: pool.target_count(),
            ..Self::default()
        };
        for entry in pool.entries.iter().filter(|entry| entry.wins) {
            stats.effective += 1;
            stats.held_out += usize::from(entry.experience.held_out);
            *stats.by_cluster.entry(entry.experience.cluster).or_default() += 1;
        }
        stats.trainable = stats.effective - stats.held_out;
        stats.clusters = stats.by_cluster.len();
        stats
    }
}
