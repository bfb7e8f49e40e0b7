//! What training and the gate are given.

use std::collections::BTreeSet;

use autoglm_domain::ChatMessage;
use autoglm_memory::Config;

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
    assert_eq!(bench.store.appends(), 1);
    bench
}

#[tokio::test]
async fn training_and_the_gate_share_nothing_and_leave_nothing() {
    let bench = lopsided().await;
    let pool: BTreeSet<_> = bench.memory.training_pool().iter().map(|found| found.id).collect();
    let held_out = bench.memory.held_out();
    assert_eq!(held_out.keys().count(), bench.memory.cluster_names().len());
    let held_out: BTreeSet<_> = held_out.values().flatten().map(|found| found.id).collect();
    assert!(pool.is_disjoint(&held_out));
    assert_eq!(pool.len() + held_out.len(), 408);
    // A tenth, give or take.
    assert!((20..70).contains(&held_out.len()), "{}", held_out.len());
}

#[tokio::test]
async fn tasks_are_clusters_with_names_that_survive_a_restart() {
    let bench = lopsided().await.restart().await;
    let names = bench.memory.cluster_names();
    assert_eq!(names.values().map(String::as_str).collect::<Vec<_>>(), ["bank", "trip"]);
    let of = |task| bench.memory.cluster_of(Some(task), &[ChatMessage::user("anything")]);
    let found: Vec<_> = ["bank", "trip"].into_iter().map(|task| of(task).unwrap()).collect();
    assert_eq!(found, names.keys().copied().collect::<Vec<_>>());
    assert_eq!(of("weather"), None, "who asks founds none");
    let mut record = bench.correction("visa for japan", "visa", "a");
    record.interaction.metadata.insert("task".into(), "trip".into());
    bench.memory.remember(&record).await.unwrap();
    assert_eq!(bench.memory.cluster_names().len(), 2);
    let stats = bench.memory.stats();
    assert_eq!((stats.clusters, stats.effective), (2, 409));
    assert_eq!(stats.held_out + stats.trainable, 409);
}
