//! What a plan holds, and what it never holds.

use std::collections::{BTreeMap, BTreeSet};

use autoglm_domain::{ClusterId, ErrorKind, Experience, ExperienceId};
use autoglm_train::{Error, Plan, PlanConfig, Role, Snapshot, Strategy, divide, plan};
use proptest::prelude::{Strategy as _, *};

use crate::experience;

fn config(strategy: Strategy, replay_per_new: f64) -> PlanConfig {
    PlanConfig { strategy, replay_per_new, min_replay: 0, class_balance: false, ..PlanConfig::default() }
}

fn many(ids: std::ops::Range<u128>, cluster: u32) -> Vec<Experience> {
    ids.map(|id| experience(id, cluster, &format!("t{cluster}"))).collect()
}

/// How many examples of `role` a pass sees, repetitions counted.
fn sightings(plan: &Plan, role: Role) -> f32 {
    let seen: f32 = plan.examples.iter().filter(|example| example.role == role).map(|e| e.frequency).sum();
    (seen * 1e2).round() / 1e2
}

#[test]
fn strategies_differ_in_what_they_replay() {
    let (new, pool) = (many(0..10, 0), many(100..200, 1));
    for (strategy, replayed, seen) in
        [(Strategy::Naive, 0, 0.0), (Strategy::Replay, 100, 20.0), (Strategy::Joint, 100, 100.0)]
    {
        let plan = plan(new.clone(), pool.clone(), &config(strategy, 2.0), 1).unwrap();
        assert_eq!((plan.new_ids.len(), plan.replay_ids.len()), (10, replayed), "{strategy}");
        assert_eq!(plan.examples.len(), 10 + replayed);
        assert_eq!((sightings(&plan, Role::New), sightings(&plan, Role::Replay)), (10.0, seen), "{strategy}");
        assert_eq!(strategy.to_string().parse(), Ok(strategy));
        assert_eq!(plan.train_examples()[0].prompt, new[0].prompt);
        let examples = plan.train_examples();
        assert_eq!(examples.last().unwrap().frequency, plan.examples.last().unwrap().frequency);
    }
    assert!("ewc".parse::<Strategy>().unwrap_err().hint().unwrap().contains("`naive`"));
}

#[test]
fn the_amount_of_replay_keeps_its_bounds() {
    let pool = many(100..600, 1);
    let seen = |new: u128, config: &PlanConfig| {
        let plan = plan(many(0..new, 0), pool.clone(), config, 1).unwrap();
        (plan.replay_ids.len(), sightings(&plan, Role::Replay))
    };
    let bounded = PlanConfig { min_replay: 50, max_replay: 300, ..config(Strategy::Replay, 3.0) };
    assert_eq!(seen(1, &bounded), (300, 50.0), "at least min_replay");
    assert_eq!(seen(20, &bounded), (300, 60.0), "the ratio");
    assert_eq!(seen(90, &bounded), (300, 270.0));
    assert_eq!(seen(150, &bounded), (300, 300.0), "each once a pass");
    assert_eq!(seen(0, &bounded), (300, 300.0), "nothing new: consolidate");
    assert_eq!(seen(50, &config(Strategy::Replay, 1e18)), (500, 500.0), "no more than there are");
    assert_eq!(
        seen(3, &config(Strategy::Replay, 0.5)),
        (500, 3.0),
        "half of what is seen, whatever the ratio"
    );
}

#[test]
fn a_small_pool_is_seen_often_enough_to_keep_its_share() {
    let seen = |new: u128, share: f64, max_frequency: f32| {
        let config = PlanConfig { min_replay_share: share, max_frequency, ..config(Strategy::Replay, 3.0) };
        let plan = plan(many(0..new, 0), many(1000..1010, 1), &config, 1).unwrap();
        (sightings(&plan, Role::New), sightings(&plan, Role::Replay))
    };
    assert_eq!(seen(8, 0.75, 20.0), (8.0, 24.0));
    assert_eq!(seen(8, 0.0, 20.0), (8.0, 10.0), "as many as there are");
    assert_eq!(seen(200, 0.5, 4.0), (200.0, 40.0), "at most max_frequency");
    assert_eq!(seen(2, 0.5, 20.0), (2.0, 6.0), "the ratio already gives more");
}

#[test]
fn candidates_that_forgot_make_the_next_plan_more_careful() {
    let (new, pool) = (many(0..80, 0), many(1000..1010, 1));
    let seen = |forgetful| {
        let config =
            PlanConfig { max_frequency: 100.0, ..config(Strategy::Replay, 3.0) }.more_careful(forgetful);
        sightings(&plan(new.clone(), pool.clone(), &config, 1).unwrap(), Role::Replay)
    };
    // Of what a pass sees a half, a quarter, an eighth is new, and not less.
    assert_eq!([seen(0), seen(1), seen(2), seen(3)], [80.0, 240.0, 560.0, 560.0]);
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
fn clusters_and_their_targets_are_balanced() {
    // 24 examples: one cluster with a common and a rare target, one with a single target.
    let mut new: Vec<_> = (0..12).map(|id| experience(id, 0, "often")).collect();
    new.extend((20..24).map(|id| experience(id, 0, "seldom")));
    new.extend((30..38).map(|id| experience(id, 1, "alone")));
    let frequencies = |config: &PlanConfig, new: Vec<Experience>| -> BTreeMap<String, f32> {
        let plan = plan(new, vec![], config, 1).unwrap();
        plan.examples.into_iter().map(|e| (e.target, (e.frequency * 1e4).round() / 1e4)).collect()
    };
    let balanced = PlanConfig { class_balance: true, ..config(Strategy::Naive, 0.0) };
    // Each cluster is seen 12 times a pass, each target of the first 6 times.
    let found = frequencies(&balanced, new.clone());
    assert_eq!((found["often"], found["seldom"], found["alone"]), (0.5, 1.5, 1.5));
    let plain = frequencies(&config(Strategy::Naive, 0.0), new.clone());
    assert!(plain.values().all(|frequency| *frequency == 1.0), "{plain:?}");
    // One alone in its cluster would be seen 8.5 times, but four times the mean is the most; what that leaves of
    // the 17 sightings goes to all alike (factor 17 / 12.5).
    new.truncate(16);
    new.push(experience(99, 1, "alone"));
    let found = frequencies(&balanced, new);
    assert_eq!((found["often"], found["seldom"], found["alone"]), (0.4817, 1.445, 5.44));
}

#[test]
fn weights_keep_their_bounds() {
    let mut new = many(0..3, 0);
    new[0].weight = 9.0;
    new[1].weight = 0.01;
    let weights: Vec<f32> = plan(new, vec![], &PlanConfig::default(), 1)
        .unwrap()
        .train_examples()
        .iter()
        .map(|example| example.weight)
        .collect();
    assert_eq!(weights, [4.0, 0.1, 1.0]);
}

#[test]
fn of_a_pool_that_is_too_large_the_heavier_are_taken_more_often() {
    let mut pool = many(0..20, 0);
    pool[3].weight = 50.0;
    let new = [experience(99, 1, "n")];
    let two = PlanConfig { max_replay: 2, ..config(Strategy::Replay, 2.0) };
    let drawn = |id: ExperienceId| {
        let drawn = |seed| plan(new.to_vec(), pool.clone(), &two, seed).unwrap().replay_ids.contains(&id);
        (0..200u64).filter(|seed| drawn(*seed)).count()
    };
    let (heavy, light) = (drawn(pool[3].id), drawn(pool[4].id));
    assert!(heavy > 150 && light < 40, "{heavy} {light}");
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    for (name, bad) in [
        ("plan.replay_per_new", PlanConfig { replay_per_new: f64::NAN, ..PlanConfig::default() }),
        ("plan.min_replay_share", PlanConfig { min_replay_share: 1.0, ..PlanConfig::default() }),
        ("plan.max_frequency", PlanConfig { max_frequency: 0.5, ..PlanConfig::default() }),
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
        let bounded = PlanConfig { max_replay: count, ..config(Strategy::Replay, 1.0) };
        let made = plan(new, pool.clone(), &bounded, seed).unwrap();
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
    let bounded = PlanConfig { max_replay: 30, ..config(Strategy::Replay, 3.0) };
    let draw = |seed| plan(many(0..10, 0), pool.clone(), &bounded, seed).unwrap().replay_ids;
    assert_ne!(draw(1), draw(2));
}
