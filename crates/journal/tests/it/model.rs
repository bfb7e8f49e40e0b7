//! Random events: the projections equal a naive fold of them, before and after the file is opened again.

use autoglm_domain::*;
use autoglm_doubles::MemoryStore;
use autoglm_journal::{Config, SqliteStore};
use proptest::prelude::*;

use crate::{
    postgres::Database,
    samples::{self, event},
};

/// Any number but NaN, infinities included: they must be refused alike.
fn number() -> impl Strategy<Value = f64> {
    use proptest::num::f64::*;
    prop_oneof![20 => POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO, 1 => INFINITE]
}

fn vector() -> impl Strategy<Value = Vec<f32>> {
    use proptest::num::f32::*;
    proptest::collection::vec(POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO, 0..5)
}

/// Ids are few, so that appends meet one another.
fn any_event() -> impl Strategy<Value = Event> {
    let n = 0_u64..5;
    let of = 0_u64..4;
    prop_oneof![
        4 => (of.clone(), number(), ".{0,8}").prop_map(|(n, latency_ms, answer)| {
            Event::Interaction(Box::new(Interaction { latency_ms, answer, ..samples::interaction(n) }))
        }),
        3 => (n.clone(), of.clone(), number()).prop_map(|(n, of, score)| {
            Event::Feedback(Feedback { score: Some(score), ..samples::feedback(n, of) })
        }),
        3 => (n.clone(), of.clone(), any::<bool>(), 0_u32..4, number()).prop_map(
            |(n, of, judged, feedback_seen, overall)| {
                Event::Assessment(Assessment { overall, feedback_seen, ..samples::assessment(n, of, judged) })
            }
        ),
        2 => (of.clone(), 0_u64..5, vector()).prop_map(|(n, count, centroid)| {
            Event::Pattern(ErrorPattern { centroid, ..samples::pattern(n, count) })
        }),
        2 => (of.clone(), vector(), proptest::num::f32::NORMAL).prop_map(|(n, embedding, weight)| {
            Event::Experience(Box::new(Experience { embedding, weight, ..samples::experience(n) }))
        }),
        2 => (of.clone(), proptest::num::f32::NORMAL).prop_map(|(of, weight)| event::amendment(of, weight)),
        1 => (of.clone(), any::<bool>()).prop_map(|(n, runs)| {
            event::run(n, if runs { RunState::Running } else { RunState::Planned })
        }),
        2 => of.clone().prop_map(event::version),
        2 => (n.clone(), of.clone(), number(), number()).prop_map(|(n, of, overall, distance)| {
            event::shadow_pair(n, of, overall, distance)
        }),
        1 => (n.clone(), of.clone()).prop_map(|(n, of)| event::progress(n, of)),
        1 => (of.clone(), any::<bool>()).prop_map(|(n, ends)| {
            event::ab_test(n, if ends { samples::best(1) } else { AbState::Running })
        }),
        1 => (of.clone(), any::<bool>()).prop_map(|(n, scans)| {
            event::rollout(n, if scans { RolloutState::Scanning } else { RolloutState::OfflineGate })
        }),
        3 => (prop_oneof![Just("champion"), Just("candidate")], 0_u64..3, 0_u64..3)
            .prop_map(|(alias, from, to)| event::alias_move(alias, from, to)),
    ]
}

pub(crate) async fn assert_same(store: &impl Store, naive: &impl Store) {
    assert_eq!(store.events_after(0, 1000).await, naive.events_after(0, 1000).await);
    assert_eq!(store.events_after(3, 4).await, naive.events_after(3, 4).await);
    for limit in [2, 1000] {
        assert_eq!(store.recent_interactions(limit).await, naive.recent_interactions(limit).await);
        assert_eq!(store.awaiting_assessment(limit).await, naive.awaiting_assessment(limit).await);
        assert_eq!(store.recent_assessments(limit).await, naive.recent_assessments(limit).await);
    }
    assert_eq!(store.assessment_lag().await, naive.assessment_lag().await);
    assert_eq!(store.experiences().await, naive.experiences().await);
    assert_eq!(store.patterns().await, naive.patterns().await);
    assert_eq!(store.versions().await, naive.versions().await);
    assert_eq!(store.runs().await, naive.runs().await);
    assert_eq!(store.rollouts().await, naive.rollouts().await);
    for (rollout, limit) in (0..4).flat_map(|n| [(samples::id(n), 1), (samples::id(n), 1000)]) {
        for order in [PairOrder::Oldest, PairOrder::Worst, PairOrder::MostDifferent] {
            assert_eq!(
                store.shadow_pairs(rollout, order, limit).await,
                naive.shadow_pairs(rollout, order, limit).await
            );
        }
        assert_eq!(
            store.rollout_progress(rollout, limit).await,
            naive.rollout_progress(rollout, limit).await
        );
    }
    assert_eq!(store.ab_tests().await, naive.ab_tests().await);
    assert_eq!(store.aliases().await, naive.aliases().await);
    for alias in [Alias::champion(), Alias::candidate()] {
        assert_eq!(store.alias_history(&alias).await, naive.alias_history(&alias).await);
    }
}

/// Gives both the same appends; they must answer alike, and hold the same.
async fn follow(store: &impl Store, appends: Vec<Vec<Event>>) -> MemoryStore {
    let naive = MemoryStore::default();
    for events in appends {
        let expected = naive.append(events.clone()).await.map_err(|error| error.kind);
        let got = store.append(events).await.map_err(|error| error.kind);
        // Which is found first, the bad number or the bad reference, is not said anywhere.
        let order_is_free = expected.is_err() && got == Err(ErrorKind::Invalid);
        assert!(got == expected || order_is_free, "{got:?} instead of {expected:?}");
    }
    assert_same(store, &naive).await;
    naive
}

fn appends() -> impl Strategy<Value = Vec<Vec<Event>>> {
    proptest::collection::vec(proptest::collection::vec(any_event(), 1..4), 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn projections_equal_a_fold_of_the_events(appends in appends()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("journal.sqlite");
            let store = SqliteStore::open(&path, Config::default()).await.unwrap();
            let naive = follow(&store, appends).await;
            store.close().await.unwrap();
            assert_same(&SqliteStore::open(&path, Config::default()).await.unwrap(), &naive).await;
        });
    }
}

#[test]
fn in_postgres_too() {
    let Some(server) = Database::server() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = ProptestConfig { cases: 24, ..ProptestConfig::default() };
    proptest::test_runner::TestRunner::new(config)
        .run(&appends(), |appends| {
            runtime.block_on(async {
                let database = server.fresh().await;
                let store = database.open().await;
                let naive = follow(&store, appends).await;
                store.close().await.unwrap();
                assert_same(&database.open().await, &naive).await;
            });
            Ok(())
        })
        .unwrap();
}
