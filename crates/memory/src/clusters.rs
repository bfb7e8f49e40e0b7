//! Clusters: one a `task` name where the client gives one, else by the embedding of the prompt.
//!
//! Online leader clustering: a vector joins the nearest cluster when it is near enough, or when there is no
//! room for another, and founds one otherwise. A cluster never changes its number, and its members carry
//! the number with them, so that a restart finds the same clusters.

use std::collections::{BTreeMap, HashMap};

use autoglm_domain::{ClusterId, Experience};

use crate::{Config, dense::dot};

/// All clusters so far.
#[derive(Debug, Clone)]
pub(crate) struct Clusters {
    max_leaders: usize,
    max_tasks: usize,
    similarity: f32,
    tasks: HashMap<String, ClusterId>,
    /// Sum of the members' embeddings.
    leaders: BTreeMap<ClusterId, Vec<f32>>,
    next: u32,
}

impl Clusters {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            max_leaders: config.max_clusters,
            max_tasks: config.max_task_clusters,
            similarity: config.cluster_similarity,
            tasks: HashMap::new(),
            leaders: BTreeMap::new(),
            next: 0,
        }
    }

    /// The cluster of a new experience; founds one where it must.
    pub(crate) fn assign(&mut self, task: Option<&str>, embedding: &[f32]) -> ClusterId {
        if let Some(task) = task {
            if let Some(known) = self.tasks.get(task) {
                return *known;
            }
            if self.tasks.len() < self.max_tasks {
                let founded = self.found();
                self.tasks.insert(task.to_owned(), founded);
                return founded;
            }
        }
        let cluster = match self.nearest(embedding) {
            Some((id, similarity))
                if similarity >= self.similarity || self.leaders.len() >= self.max_leaders =>
            {
                id
            }
            _ => self.found(),
        };
        self.join(cluster, embedding);
        cluster
    }

    /// The cluster of `task`, if it has one of its own.
    pub(crate) fn of_task(&self, task: &str) -> Option<ClusterId> {
        self.tasks.get(task).copied()
    }

    /// The cluster that a vector is near enough to.
    pub(crate) fn near(&self, embedding: &[f32]) -> Option<ClusterId> {
        self.nearest(embedding).filter(|(_, similarity)| *similarity >= self.similarity).map(|(id, _)| id)
    }

    /// With its cosine.
    fn nearest(&self, embedding: &[f32]) -> Option<(ClusterId, f32)> {
        self.leaders
            .iter()
            .map(|(id, sum)| (*id, cosine(sum, embedding)))
            .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
    }

    /// Takes note of an experience that has its cluster already.
    pub(crate) fn restore(&mut self, experience: &Experience) {
        let cluster = experience.cluster;
        self.next = self.next.max(cluster.0.saturating_add(1));
        match &experience.task {
            Some(task) if self.tasks.len() < self.max_tasks && !self.leaders.contains_key(&cluster) => {
                self.tasks.entry(task.clone()).or_insert(cluster);
            }
            Some(task) if self.tasks.contains_key(task) => {}
            _ => self.join(cluster, &experience.embedding),
        }
    }

    fn found(&mut self) -> ClusterId {
        let id = ClusterId(self.next);
        self.next = self.next.saturating_add(1);
        id
    }

    fn join(&mut self, cluster: ClusterId, embedding: &[f32]) {
        let sum = self.leaders.entry(cluster).or_default();
        if sum.len() < embedding.len() {
            sum.resize(embedding.len(), 0.0);
        }
        sum.iter_mut().zip(embedding).for_each(|(sum, value)| *sum += value);
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    if a.is_empty() && b.is_empty() {
        return 1.0;
    }
    let length = (dot(a, a) * dot(b, b)).sqrt();
    if a.len() != b.len() || length <= f32::EPSILON { 0.0 } else { dot(a, b) / length }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_vectors_share_a_cluster_and_the_number_is_limited() {
        let mut clusters = Clusters::new(&Config { max_clusters: 2, ..Config::default() });
        let a = clusters.assign(None, &[1.0, 0.0, 0.0]);
        let b = clusters.assign(None, &[0.0, 1.0, 0.0]);
        assert_ne!(a, b);
        assert_eq!(clusters.assign(None, &[0.9, 0.1, 0.0]), a);
        // Who only asks founds none.
        assert_eq!(clusters.near(&[0.9, 0.1, 0.0]), Some(a));
        assert_eq!(clusters.near(&[0.0, 0.0, 1.0]), None);
        // There is no room for a third: the nearest takes it.
        assert_eq!(clusters.assign(None, &[0.0, 0.5, 0.8]), b);
    }

    #[test]
    fn a_task_is_a_cluster_of_its_own_up_to_the_limit() {
        let config = Config { max_task_clusters: 2, ..Config::default() };
        let mut clusters = Clusters::new(&config);
        let banking = clusters.assign(Some("banking"), &[1.0, 0.0]);
        let travel = clusters.assign(Some("travel"), &[1.0, 0.0]);
        assert_ne!(banking, travel);
        assert_eq!(clusters.assign(Some("banking"), &[0.0, 1.0]), banking);
        assert_eq!(clusters.of_task("banking"), Some(banking));
        assert_eq!(clusters.of_task("third"), None);
        let third = clusters.assign(Some("third"), &[0.0, 1.0]);
        assert!(third != banking && third != travel);
        assert_eq!(clusters.assign(Some("fourth"), &[0.0, 1.0]), third);
    }

    #[test]
    fn without_embeddings_there_is_one_cluster() {
        let mut clusters = Clusters::new(&Config::default());
        assert_eq!(clusters.assign(None, &[]), clusters.assign(None, &[]));
    }
}
