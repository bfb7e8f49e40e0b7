//! What a plan holds, and what it never holds.

use std::collections::{BTreeMap, BTreeSet};

use autoglm_domain::{ClusterId, ErrorKind, Experience, ExperienceId};
use autoglm_train::{Error, PlanConfig, Role, Snapshot, Strategy, divide, plan};
use proptest::prelude::{Strategy as _, *};

use crate::experience;

fn config(strategy: Strategy, replay_per_new: f64) -> PlanConfig {
    PlanConfig { strategy, replay_per_new, min_replay: 0, class_balance: false, ..PlanConfig::default() }
}

fn many(ids: std::ops::Range<u128>, cluster: u32) -> Vec<Experience> {
    ids.map(|id| experience(id, cluster, &format!("t{cluster}"))).collect()
}

#[test]
fn strategies_differ_in_what_they_replay() {
    let (new, pool) = (many(0..10, 0), many(100..200, 1));
    for (strategy, expected) in [(Strategy::Naive, 0), (Strategy::Replay, 20), (Strategy::Joint, 100)] {
        let plan = plan(new.clone(), pool.clone(), &config(strategy, 2.0), 1).unwrap();
        assert_eq!((plan.new_ids.len(), plan.replay_ids.len()), (10, expected), "{strategy}");
        assert_eq!(plan.examples.len(), 10 + expected);
        assert_eq!(strategy.to_string().parse(), Ok(strategy));
        assert_eq!(plan.train_examples()[0].prompt, new[0].prompt);
    }
    assert!("ewc".parse::<Strategy>().unwrap_err().hint().unwrap().contains("`naive`"));
}

#[test]
fn the_amount_of_replay_keeps_its_bounds() {
    let pool = many(100..600, 1);
    let count = |new: u128, config: &PlanConfig| {
        plan(many(0..new, 0), pool.clone(), config, 1).unwrap().replay_ids.len()
    };
    let bounded = PlanConfig { min_replay: 50, max_replay: 300, ..config(Strategy::Replay, 3.0) };
    assert_eq!(count(1, &bounded), 50, "at least min_replay");
    assert_eq!(count(20, &bounded), 60, "the ratio");
    assert_eq!(count(90, &bounded), 270);
    assert_eq!(count(99, &bounded), 297);
    assert_eq!(count(150, &bounded), 300, "at most max_replay");
    assert_eq!(count(0, &bounded), 300, "nothing new: consolidate");
    assert_eq!(count(50, &config(Strategy::Replay, 1e18)), 500, "no more than there are");
    assert_eq!(count(3, &config(Strategy::Replay, 0.5)), 2, "rounded up");
}

#[test]
fn held_out_is_an_error_that_names_it() {
    for in_pool in [false, true] {
        let (mut new, mut pool) = (many(0..3, 0), many(10..13, 0));
        let list = if in_pool { &mut pool } else { &mut new };
        list[1].held_out = true;
        list[1].weight = 0.0;
        let id = list[1].id;
        let error = plan(new, pool, &PlanConfig::default(), 1).unwrap_err();
        assert_eq!(error, Error::HeldOut(id));
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}

#[test]
fn the_outvoted_the_doubled_and_the_empty() {
    let mut new = many(0..4, 0);
    new[0].weight = 0.0;
    new[1].weight = f32::NAN;
    new.push(new[3].clone());
    let pool = [new[2].clone(), experience(50, 1, "x")].to_vec();
    let made = plan(new.clone(), pool, &config(Strategy::Joint, 1.0), 1).unwrap();
    assert_eq!(made.new_ids, [new[2].id, new[3].id]);
    assert_eq!(made.replay_ids, [experience(50, 1, "x").id]);
    let error = plan(new[..2].to_vec(), vec![], &PlanConfig::default(), 1).unwrap_err();
    assert_eq!(error, Error::Nothing { given: 2 });
    assert!(error.hint().is_some());
}

#[test]
fn weights_balance_the_classes_within_their_bounds() {
    // 12 examples in 3 classes: 4 on average.
    let mut new: Vec<_> = (0..8).map(|id| experience(id, 0, "often")).collect();
    new.extend((10..13).map(|id| experience(id, 0, "seldom")));
    new.push(experience(20, 0, "once"));
    let weights = |config: &PlanConfig, new: Vec<Experience>| -> BTreeMap<String, f32> {
        plan(new, vec![], config, 1).unwrap().examples.into_iter().map(|e| (e.target, e.weight)).collect()
    };
    let balanced = PlanConfig { class_balance: true, ..config(Strategy::Naive, 0.0) };
    let found = weights(&balanced, new.clone());
    assert_eq!((found["often"], found["once"]), (0.5, 4.0));
    assert!((found["seldom"] - 4.0 / 3.0).abs() < 1e-6);
    let clipped = PlanConfig { min_weight: 0.7, max_weight: 2.0, ..balanced.clone() };
    let found = weights(&clipped, new.clone());
    assert_eq!((found["often"], found["once"]), (0.7, 2.0));
    new[0].weight = 3.0;
    let plain = plan(new, vec![], &config(Strategy::Naive, 0.0), 1).unwrap();
    assert_eq!((plain.examples[0].weight, plain.examples[1].weight), (3.0, 1.0));
}

#[test]
fn heavier_experiences_are_replayed_more_often() {
    let mut pool = many(0..20, 0);
    pool[3].weight = 50.0;
    let new = [experience(99, 1, "n")];
    let drawn = |id: ExperienceId| {
        (0..200u64)
            .filter(|seed| {
                let plan = plan(new.to_vec(), pool.clone(), &config(Strategy::Replay, 2.0), *seed).unwrap();
                plan.replay_ids.contains(&id)
            })
            .count()
    };
    let (heavy, light) = (drawn(pool[3].id), drawn(pool[4].id));
    assert!(heavy > 150 && light < 40, "{heavy} {light}");
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    for (name, bad) in [
        ("plan.replay_per_new", PlanConfig { replay_per_new: f64::NAN, ..PlanConfig::default() }),
        ("plan.replay_per_new", PlanConfig { replay_per_new: -1.0, ..PlanConfig::default() }),
        ("plan.min_weight", PlanConfig { min_weight: 0.0, ..PlanConfig::default() }),
        ("plan.max_weight", PlanConfig { max_weight: 0.01, ..PlanConfig::default() }),
        ("plan.max_weight", PlanConfig { max_weight: f32::INFINITY, ..PlanConfig::default() }),
    ] {
        let error = plan(many(0..3, 0), vec![], &bad, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn what_was_learned_is_divided_from_what_is_new() {
    let mut all = many(0..6, 0);
    all[5].held_out = true;
    let learned = BTreeSet::from([all[1].id, all[4].id, all[5].id]);
    let (new, pool) = divide(all.clone(), &learned);
    assert_eq!(new.iter().map(|e| e.id).collect::<Vec<_>>(), [all[0].id, all[2].id, all[3].id]);
    assert_eq!(pool.iter().map(|e| e.id).collect::<Vec<_>>(), [all[1].id, all[4].id]);
}

/// Experiences with few clusters and targets, so that strata have several members.
fn experiences(ids: std::ops::Range<u128>) -> impl proptest::strategy::Strategy<Value = Vec<Experience>> {
    let one = (ids, 0u32..6, 0u8..4, 0.0f32..3.0).prop_map(|(id, cluster, target, weight)| {
        let mut experience = experience(id, cluster, &format!("t{target}"));
        experience.weight = weight;
        experience
    });
    proptest::collection::vec(one, 0..60)
}

fn strategies() -> impl proptest::strategy::Strategy<Value = Strategy> {
    prop_oneof![Just(Strategy::Replay), Just(Strategy::Naive), Just(Strategy::Joint)]
}

proptest! {
    #[test]
    fn a_plan_never_holds_what_is_held_out(
        new in experiences(0..100), pool in experiences(50..200), strategy in strategies(),
        held_out in proptest::collection::btree_set(0u128..200, 0..4), seed: u64,
    ) {
        let mark = |mut list: Vec<Experience>| {
            for experience in &mut list {
                experience.held_out = held_out.contains(&experience.id.uuid().as_u128());
            }
            list
        };
        let (new, pool) = (mark(new), mark(pool));
        let any = new.iter().chain(&pool).any(|e| e.held_out);
        match plan(new, pool, &config(strategy, 1.5), seed) {
            Ok(plan) => {
                prop_assert!(!any);
                prop_assert!(plan.examples.iter().all(|e| !held_out.contains(&e.experience.uuid().as_u128())));
            }
            Err(Error::HeldOut(id)) => prop_assert!(held_out.contains(&id.uuid().as_u128())),
            Err(error) => prop_assert!(matches!(error, Error::Nothing { .. }), "{}", error),
        }
    }

    #[test]
    fn replay_covers_every_cluster_when_it_can_and_is_even(
        pool in experiences(100..400), count in 1usize..40, seed: u64,
    ) {
        // The same id may come with several clusters here; the plan keeps the first of them.
        let mut seen = BTreeSet::new();
        let pool: Vec<_> = pool.into_iter().filter(|e| seen.insert(e.id)).collect();
        let mut there: BTreeMap<ClusterId, BTreeSet<ExperienceId>> = BTreeMap::new();
        for e in pool.iter().filter(|e| e.weight > 0.0) {
            there.entry(e.cluster).or_default().insert(e.id);
        }
        let total: usize = there.values().map(BTreeSet::len).sum();
        let new = vec![experience(1, 9, "n")];
        let made = plan(new, pool.clone(), &config(Strategy::Replay, count as f64), seed).unwrap();
        prop_assert_eq!(made.replay_ids.len(), count.min(total));
        let drawn: BTreeMap<ClusterId, usize> = there
            .iter()
            .map(|(cluster, ids)| (*cluster, made.replay_ids.iter().filter(|id| ids.contains(id)).count()))
            .collect();
        if count >= there.len() {
            prop_assert!(drawn.values().all(|n| *n > 0), "{:?}", drawn);
        }
        // No cluster gets two more than another that has members left.
        let most = drawn.values().copied().max().unwrap_or(0);
        for (cluster, n) in &drawn {
            prop_assert!(*n == there[cluster].len() || n + 1 >= most, "{:?}", drawn);
        }
    }

    #[test]
    fn the_same_input_in_any_order_gives_the_same_snapshot(
        new in experiences(0..50), pool in experiences(100..400), strategy in strategies(), seed: u64,
    ) {
        // Only one of several experiences with the same id can be meant; which one, order would decide.
        let once = |list: Vec<Experience>| {
            let mut seen = BTreeSet::new();
            list.into_iter().filter(|e| seen.insert(e.id)).collect::<Vec<_>>()
        };
        let (new, pool) = (once(new), once(pool));
        let bytes = |new: Vec<Experience>, pool: Vec<Experience>| {
            plan(new, pool, &config(strategy, 1.0), seed).map(|plan| Snapshot::of(&plan).to_bytes().unwrap())
        };
        let forward = bytes(new.clone(), pool.clone());
        let backward = bytes(new.into_iter().rev().collect(), pool.into_iter().rev().collect());
        prop_assert_eq!(&forward, &backward);
        if let Ok(bytes) = forward {
            prop_assert_eq!(Snapshot::from_bytes(&bytes).unwrap().to_bytes().unwrap(), bytes);
        }
    }

    #[test]
    fn weights_are_in_bounds_and_new_and_replayed_are_disjoint(
        new in experiences(0..100), pool in experiences(50..200), seed: u64,
    ) {
        let config = PlanConfig { min_replay: 10, ..PlanConfig::default() };
        if let Ok(plan) = plan(new, pool, &config, seed) {
            prop_assert!(plan.examples.iter().all(|e| (0.1..=4.0).contains(&e.weight)));
            let ids: BTreeSet<_> = plan.examples.iter().map(|e| e.experience).collect();
            prop_assert_eq!(ids.len(), plan.examples.len());
            let new = plan.examples.iter().filter(|e| e.role == Role::New).count();
            prop_assert_eq!(new, plan.new_ids.len());
        }
    }
}

#[test]
fn another_seed_draws_another_sample() {
    let pool = many(100..400, 1);
    let draw =
        |seed| plan(many(0..10, 0), pool.clone(), &config(Strategy::Replay, 3.0), seed).unwrap().replay_ids;
    assert_ne!(draw(1), draw(2));
}
