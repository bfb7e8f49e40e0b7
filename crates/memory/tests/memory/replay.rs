//! What training is given.

use std::collections::{BTreeMap, HashSet};

use autoglm_memory::{Config, Memory};

use crate::Bench;

/// 400 of a common target, 5 of a rare one in the same task, 3 of another task.
async fn lopsided() -> Bench {
    let bench = Bench::new(Config { held_out_share: 0.1, ..Config::default() }).await;
    let mut records = Vec::new();
    for (task, target, count) in [("bank", "balance", 400), ("bank", "fraud", 5), ("trip", "visa", 3)] {
        for n in 0..count {
            let mut record = bench.correction(&format!("{target} case{n}"), target, "a");
            record.interaction.metadata.insert("task".into(), task.into());
            records.push(record);
        }
    }
    bench.memory.remember_all(&records).await.unwrap();
    assert_eq!(*bench.store.appends.lock(), 1);
    bench
}

fn by_target(memory: &Memory, most: usize, seed: u64) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for experience in memory.sample_replay(most, seed, |_| true) {
        assert!(!experience.held_out);
        *counts.entry(experience.target.clone()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn rare_targets_are_not_lost_and_the_seed_decides() {
    let bench = lopsided().await;
    let pool = by_target(&bench.memory, 10_000, 0);
    assert_eq!(pool.values().sum::<usize>(), bench.memory.training_pool().len());
    let counts = by_target(&bench.memory, 20, 1);
    assert_eq!(counts.values().sum::<usize>(), 20);
    assert_eq!((counts["fraud"], counts["visa"]), (pool["fraud"], pool["visa"]));
    let ids = |seed| {
        bench.memory.sample_replay(20, seed, |_| true).iter().map(|found| found.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(1), ids(1));
    assert_ne!(ids(1), ids(2));
    assert_eq!(ids(1).iter().collect::<HashSet<_>>().len(), 20);
    assert!(bench.memory.sample_replay(9, 1, |e| e.target == "visa").len() == pool["visa"]);
}

#[tokio::test]
async fn tasks_are_clusters_with_names_that_survive_a_restart() {
    let bench = lopsided().await.restart().await;
    let names = bench.memory.cluster_names();
    assert_eq!(names.values().map(String::as_str).collect::<Vec<_>>(), ["bank", "trip"]);
    let mut record = bench.correction("visa for japan", "visa", "a");
    record.interaction.metadata.insert("task".into(), "trip".into());
    bench.memory.remember(&record).await.unwrap();
    assert_eq!(bench.memory.cluster_names().len(), 2);
    let stats = bench.memory.stats();
    assert_eq!((stats.clusters, stats.effective), (2, 409));
    assert_eq!(stats.held_out + stats.trainable, 409);
}

#[tokio::test]
async fn what_is_new_is_what_was_not_trained_on() {
    let bench = lopsided().await;
    let trained: HashSet<_> = bench.memory.training_pool().iter().map(|found| found.id).collect();
    assert!(bench.memory.new_since(&trained).is_empty());
    let before = bench.memory.training_pool().len();
    for n in 0..30 {
        bench.correct(&format!("fresh {n}"), "new", "a").await;
    }
    let new = bench.memory.new_since(&trained);
    assert_eq!(new.len(), bench.memory.training_pool().len() - before);
    assert!(!new.is_empty() && new.iter().all(|found| found.target == "new"));
}
