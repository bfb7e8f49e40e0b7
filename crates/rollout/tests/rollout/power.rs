//! The rule with its defaults, on candidates whose merits are known. `examples/gate_power.rs` prints the
//! whole table; here a few cells with room for chance.

use autoglm_rollout::GateConfig;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::scenario::{Truth, demo_run, shares};

#[test]
fn candidates_that_learned_are_promoted_whatever_they_knew_before() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for (earlier, runs, least) in [(0, 60, 1.0), (1, 80, 0.85), (4, 30, 0.85), (9, 16, 0.8)] {
        let [promote, reject, inconclusive] =
            shares(&GateConfig::default(), runs, &mut rng, |rng| demo_run(earlier, rng));
        assert!(promote >= least, "{earlier} earlier: {promote} promoted, {reject}, {inconclusive}");
    }
}

#[test]
fn a_forgotten_domain_and_shuffled_targets_are_rejected() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for (earlier, runs) in [(1, 60), (5, 20)] {
        let [promote, reject, _] = shares(&GateConfig::default(), runs, &mut rng, |rng| {
            let (new_skill, mut clusters) = demo_run(earlier, rng);
            let forgotten = rng.random_range(0..earlier);
            clusters[forgotten] = Truth::retention(100, -0.2, 0.25);
            (new_skill, clusters)
        });
        assert_eq!(promote, 0.0);
        assert!(reject >= 0.9, "{earlier} earlier: {reject} of forgetful ones rejected");

        let [promote, reject, _] = shares(&GateConfig::default(), runs, &mut rng, |_| {
            (Truth::new_skill(100, 0.04, 0.06), vec![Truth::retention(100, -0.5, 0.55); earlier])
        });
        assert_eq!((promote, reject), (0.0, 1.0), "{earlier} earlier, shuffled targets");
    }
}

#[test]
fn a_candidate_that_gained_nothing_is_seldom_promoted() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let [promote, ..] = shares(&GateConfig::default(), 250, &mut rng, |_| {
        (Truth { level: 0.5, ..Truth::new_skill(60, 0.0, 0.2) }, vec![])
    });
    let allowed = 0.05 + 3.0 * (0.05f64 * 0.95 / 250.0).sqrt();
    assert!(promote <= allowed, "{promote} promoted without a gain");
}
