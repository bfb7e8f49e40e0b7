//! The confidence sequence: coverage at every time, equality with a naive reference, tightness, invariants.

use autoglm_rollout::PairedSequence;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

/// Draws pairs with the mean difference that it also tells.
fn source(kind: usize, rng: &mut ChaCha8Rng) -> (f64, f64, f64) {
    let bit = |yes: bool| f64::from(u8::from(yes));
    match kind % 6 {
        // sparse: 8% of the items change, in net -2 points
        0 => {
            let draw: f64 = rng.random();
            let (champion, candidate) = if draw < 0.05 {
                (1.0, 0.0)
            } else if draw < 0.08 {
                (0.0, 1.0)
            } else {
                (1.0, 1.0)
            };
            (champion, candidate, -0.02)
        }
        // as spread as can be
        1 => {
            let win = bit(rng.random_bool(0.5));
            (1.0 - win, win, 0.0)
        }
        // independent coins
        2 => (bit(rng.random_bool(0.3)), bit(rng.random_bool(0.7)), 0.4),
        // one in a hundred, one-sided: the hardest for variance-adaptive bets
        3 => (0.0, bit(rng.random_bool(0.01)), 0.01),
        // graded scores
        4 => (rng.random::<f64>(), rng.random::<f64>().sqrt(), 2.0 / 3.0 - 0.5),
        // nearly sure wins: a mean next to the end of the range
        _ => (0.0, bit(rng.random_bool(0.97)), 0.97),
    }
}

#[test]
fn every_interval_of_a_sequence_covers_with_the_promised_probability() {
    const SEQUENCES: usize = 2000;
    const PAIRS: usize = 60;
    let alpha = 0.1;
    let mut rng = ChaCha8Rng::seed_from_u64(2023);
    let mut missed = [0.0f64; 6];
    for number in 0..SEQUENCES {
        let kind = number % 6;
        let mut sequence = match number / 6 % 3 {
            0 => PairedSequence::new(alpha),
            1 => PairedSequence::with_horizon(alpha, 30), // and on beyond it
            _ => PairedSequence::with_horizon(alpha, PAIRS as u64),
        };
        let mut covers = true;
        for _ in 0..PAIRS {
            let (champion, candidate, mean) = source(kind, &mut rng);
            sequence.push(champion, candidate);
            covers &= sequence.lower() <= mean + 1e-12 && mean - 1e-12 <= sequence.upper();
        }
        missed[kind] += f64::from(u8::from(!covers));
    }
    let allowed = |n: f64| alpha + 3.0 * (alpha * (1.0 - alpha) / n).sqrt();
    let total = missed.iter().sum::<f64>() / SEQUENCES as f64;
    assert!(total <= allowed(SEQUENCES as f64), "{total} of all, by kind {missed:?}");
    for (kind, count) in missed.iter().enumerate() {
        let share = count / (SEQUENCES as f64 / 6.0);
        assert!(share <= allowed(SEQUENCES as f64 / 6.0), "kind {kind}: {share}");
    }
    assert!(total > 0.01, "an interval that never misses is not worth its width: {total}");
}

/// The definition, word for word: every pair anew from the history, products instead of logarithms, every
/// grid point, no early stop.
fn naive_lower(xs: &[f64], alpha: f64, horizon: Option<usize>) -> f64 {
    let target = 2.0 / alpha;
    let mut bound = -1.0;
    let mut grid: Vec<i32> = (-1000..=1000i32).filter(|m| m.abs() <= 200 || m % 10 == 0).collect();
    grid.remove(0);
    for thousandths in grid {
        let mean = (f64::from(thousandths) / 1000.0 + 1.0) / 2.0;
        let mut capital = 1.0f64;
        for (i, x) in xs.iter().enumerate() {
            let t = i as f64 + 1.0;
            let mut squares = 0.125;
            for s in 1..=i {
                let centre = (0.5 + xs[..s].iter().sum::<f64>()) / (s as f64 + 1.0);
                squares += (xs[s - 1] - centre).powi(2);
            }
            let variance = squares / t;
            let (bet, at_stake) = match horizon {
                Some(n) if i < n => {
                    ((2.0 * (target / capital).ln() / (variance * (n as f64 - t + 1.0))).sqrt(), 0.9)
                }
                _ => ((2.0 * target.ln() / (variance * t * (t + 1.0).ln())).sqrt(), 0.5),
            };
            capital *= 1.0 + bet.min(at_stake / mean) * (x - mean);
            if capital >= target {
                break;
            }
        }
        if capital < target {
            return bound;
        }
        bound = f64::from(thousandths) / 1000.0;
    }
    bound
}

#[test]
fn the_fast_path_equals_the_naive_reference() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for (kind, horizon) in [(0, Some(40)), (2, None), (2, Some(20)), (4, Some(30)), (5, Some(40)), (1, None)]
    {
        let mut sequence = match horizon {
            Some(pairs) => PairedSequence::with_horizon(0.1, pairs as u64),
            None => PairedSequence::new(0.1),
        };
        let mut xs = Vec::new();
        for pair in 1..=40 {
            let (champion, candidate, _) = source(kind, &mut rng);
            sequence.push(champion, candidate);
            xs.push((candidate - champion + 1.0) / 2.0);
            if pair % 10 == 0 {
                let mirrored: Vec<f64> = xs.iter().map(|x| 1.0 - x).collect();
                assert_eq!(sequence.lower(), naive_lower(&xs, 0.1, horizon), "{kind} {horizon:?} {pair}");
                assert_eq!(sequence.upper(), -naive_lower(&mirrored, 0.1, horizon), "{kind} {pair}");
            }
        }
    }
}

/// Width of the predictable plug-in Hoeffding sequence (Waudby-Smith and Ramdas 2023, section 3.1) for
/// differences, that is twice the one for `x`; it does not depend on the data.
fn hoeffding_width(pairs: usize, alpha: f64) -> f64 {
    let target = (2.0 / alpha).ln();
    let bets = (1..=pairs).map(|t| {
        let t = t as f64;
        (8.0 * target / (t * (t + 1.0).ln())).sqrt().min(1.0)
    });
    let (sum, squares) = bets.fold((0.0, 0.0), |(sum, squares), bet| (sum + bet, squares + bet * bet / 8.0));
    2.0 * 2.0 * (target + squares) / sum
}

#[test]
fn betting_is_far_tighter_than_hoeffding_where_differences_are_sparse_and_hardly_wider_where_not() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let hoeffding = hoeffding_width(200, 0.1);
    for (kind, horizon, most) in [(0, false, 0.60), (0, true, 0.40), (1, false, 1.15), (1, true, 0.9)] {
        let mut sequence =
            if horizon { PairedSequence::with_horizon(0.1, 200) } else { PairedSequence::new(0.1) };
        for _ in 0..200 {
            let (champion, candidate, _) = source(kind, &mut rng);
            sequence.push(champion, candidate);
        }
        let ratio = (sequence.upper() - sequence.lower()) / hoeffding;
        assert!(ratio < most, "kind {kind}, horizon {horizon}: {ratio} of Hoeffding's {hoeffding}");
    }
}

#[test]
fn scores_out_of_range_are_brought_into_it() {
    let (mut wild, mut tame) = (PairedSequence::new(0.1), PairedSequence::new(0.1));
    wild.push(f64::NAN, 7.0);
    wild.push(-3.0, f64::INFINITY);
    tame.push(0.0, 1.0);
    tame.push(0.0, 1.0);
    assert_eq!(wild.evidence(), tame.evidence());
    assert_eq!(tame.evidence().difference, 1.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn intervals_only_shrink_and_stay_in_order(
        pairs in proptest::collection::vec((0.0..=1.0f64, 0.0..=1.0f64), 1..60),
        harsh in any::<bool>(),
        horizon in proptest::option::of(1u64..80),
    ) {
        let mut sequence = match horizon {
            Some(pairs) => PairedSequence::with_horizon(0.1, pairs),
            None => PairedSequence::new(0.1),
        };
        let mut mirror = sequence.clone();
        let mut before = (-1.0, 1.0);
        for (champion, candidate) in pairs {
            let (champion, candidate) =
                if harsh { (champion.round(), candidate.round()) } else { (champion, candidate) };
            sequence.push(champion, candidate);
            mirror.push(candidate, champion);
            let now = (sequence.lower(), sequence.upper());
            prop_assert!(-1.0 <= now.0 && now.0 <= now.1 && now.1 <= 1.0, "{:?}", now);
            prop_assert!(before.0 <= now.0 && now.1 <= before.1, "{:?} after {:?}", now, before);
            before = now;
        }
        // Swapping the versions mirrors the interval (up to rounding of 1 - x at a grid point's edge).
        prop_assert!((mirror.lower() + sequence.upper()).abs() <= 0.0101);
        prop_assert!((mirror.difference() + sequence.difference()).abs() < 1e-9);
    }
}
