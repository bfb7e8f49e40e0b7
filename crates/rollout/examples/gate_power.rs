//! Prints the power of the gate's default rule as Markdown: the tables of
//! `docs/experiments/0003-gate-power.md`. `cargo run --release -p autoglm-rollout --example gate_power`.
#![allow(clippy::print_stdout, reason = "its output is its purpose")]
#![allow(clippy::indexing_slicing, reason = "simulation over fixed tables")]

use std::time::Instant;

use autoglm_rollout::{GateConfig, PairedSequence};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

#[allow(missing_docs, reason = "documented where it belongs, in the tests")]
#[path = "../tests/rollout/scenario.rs"]
mod scenario;

use scenario::{Truth, demo_run, shares};

const RUNS: usize = 600;
const SIZES: [usize; 4] = [50, 100, 200, 400];
const DIFFERENCES: [f64; 8] = [-0.10, -0.05, -0.02, 0.0, 0.02, 0.05, 0.10, 0.50];

fn main() {
    let config = GateConfig::default();
    let mut rng = ChaCha8Rng::seed_from_u64(20_261_124);
    let cell = |[promote, reject, open]: [f64; 3]| {
        format!(" {:.0} / {:.0} / {:.0} |", 100.0 * promote, 100.0 * reject, 100.0 * open)
    };

    heading("Retention: one cluster of n pairs, 7.5% churn, the new skill won", "true difference");
    for difference in DIFFERENCES {
        print!("| {:+.0} |", 100.0 * difference);
        for size in SIZES {
            let suites = |_: &mut _| {
                (Truth::new_skill(100, 0.78, 0.0), vec![Truth::retention(size, difference, 0.075)])
            };
            print!("{}", cell(shares(&config, RUNS, &mut rng, suites)));
        }
        println!();
    }

    heading("New skill: n pairs, 10% churn, nothing learned before", "true difference");
    for difference in DIFFERENCES {
        print!("| {:+.0} |", 100.0 * difference);
        for size in SIZES {
            let new_skill = Truth { level: 0.5, ..Truth::new_skill(size, difference, 0.10) };
            print!("{}", cell(shares(&config, RUNS, &mut rng, |_: &mut _| (new_skill, vec![]))));
        }
        println!();
    }

    println!("\nA stream of domains, 100 held-out each (promote / reject / inconclusive, %)\n");
    println!("| earlier domains | learned | worst corner | one domain -20 | one domain -10 | shuffled |");
    println!("|---|---|---|---|---|---|");
    for earlier in [0, 1, 2, 4, 6, 9] {
        print!("| {earlier} |");
        let runs = RUNS / 2;
        print!("{}", cell(shares(&config, runs, &mut rng, |rng| demo_run(earlier, rng))));
        let corner =
            |_: &mut _| (Truth::new_skill(100, 0.75, 0.0), vec![Truth::retention(100, -0.03, 0.10); earlier]);
        print!("{}", cell(shares(&config, runs, &mut rng, corner)));
        for fall in [0.2, 0.1] {
            let forgetful = |rng: &mut ChaCha8Rng| {
                let (new_skill, mut clusters) = demo_run(earlier, rng);
                if earlier > 0 {
                    clusters[rng.random_range(0..earlier)] = Truth::retention(100, -fall, fall + 0.05);
                }
                (new_skill, clusters)
            };
            let shares = shares(&config, runs, &mut rng, forgetful);
            print!("{}", if earlier > 0 { cell(shares) } else { " - |".to_owned() });
        }
        let shuffled =
            |_: &mut _| (Truth::new_skill(100, 0.04, 0.06), vec![Truth::retention(100, -0.5, 0.55); earlier]);
        println!("{}", cell(shares(&config, runs, &mut rng, shuffled)));
    }

    let started = Instant::now();
    let mut sequence = PairedSequence::with_horizon(0.1, 10_000);
    for _ in 0..10_000 {
        let draw: f64 = rng.random();
        sequence.push(f64::from(u8::from(draw > 0.03)), f64::from(u8::from(draw < 0.95)));
    }
    println!(
        "\n10,000 pairs take {:.1} ms (interval {} to {})",
        1e3 * started.elapsed().as_secs_f64(),
        sequence.lower(),
        sequence.upper()
    );
}

fn heading(title: &str, first: &str) {
    println!("\n{title} (promote / reject / inconclusive, %)\n");
    println!("| {first} | n = 50 | n = 100 | n = 200 | n = 400 |\n|---|---|---|---|---|");
}
