use proptest::prelude::*;

use super::*;

fn sampler(sampling: Sampling) -> Sampler {
    Sampler::new(&sampling, 7, &[]).unwrap()
}

/// How often each of `vocab` tokens is drawn from `logits` in `draws` draws.
fn shares(sampling: Sampling, logits: &[f32], draws: usize) -> Vec<f64> {
    let mut sampler = sampler(sampling);
    let mut counts = vec![0.0; logits.len()];
    for _ in 0..draws {
        sampler.generated.clear();
        counts[sampler.sample(&mut logits.to_vec()).unwrap().id as usize] += 1.0 / draws as f64;
    }
    counts
}

#[test]
fn greedy_takes_the_lowest_id_among_equals() {
    let sampled = sampler(Sampling::default()).sample(&mut [1.0, 3.0, 2.0, 3.0]).unwrap();
    assert_eq!(sampled, Sampled { id: 1, report: None });
}

#[test]
fn draws_follow_the_softmax_at_the_temperature() {
    // Probabilities 0.8 and 0.2 at temperature 2: logits 2 ln 0.8, 2 ln 0.2.
    let logits = [2.0 * 0.8_f32.ln(), 2.0 * 0.2_f32.ln()];
    let found = shares(Sampling { temperature: 2.0, ..Sampling::default() }, &logits, 20_000);
    assert!((found[0] - 0.8).abs() < 0.01, "{found:?}");
}

#[test]
fn top_k_top_p_and_min_p_cut_where_they_should() {
    let probabilities = [0.1_f32, 0.4, 0.25, 0.2, 0.05];
    let logits = probabilities.map(f32::ln);
    let base = Sampling { temperature: 1.0, ..Sampling::default() };
    let drawn = |sampling| {
        let shares = shares(sampling, &logits, 3_000);
        (0..5).filter(|id| shares[*id] > 0.0).collect::<Vec<_>>()
    };
    assert_eq!(drawn(base.clone()), [0, 1, 2, 3, 4]);
    assert_eq!(drawn(Sampling { top_k: 2, ..base.clone() }), [1, 2]);
    // 0.4 + 0.25 < 0.7 <= 0.4 + 0.25 + 0.2
    assert_eq!(drawn(Sampling { top_p: 0.7, ..base.clone() }), [1, 2, 3]);
    assert_eq!(drawn(Sampling { top_p: 0.0, ..base.clone() }), [1]);
    // At least 0.3 * 0.4 = 0.12.
    assert_eq!(drawn(Sampling { min_p: 0.3, ..base.clone() }), [1, 2, 3]);
    // Top-p after top-k renormalises: 0.4 / 0.65 = 0.615 reaches 0.6.
    assert_eq!(drawn(Sampling { top_k: 2, top_p: 0.6, ..base }), [1]);
}

#[test]
fn penalties_follow_their_formulas() {
    let sampling = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
    let mut sampler = Sampler::new(&sampling, 0, &[0, 1, 1]).unwrap();
    let mut logits = [4.0, -1.0, 3.0];
    // Token 0 falls to 2, token 1 to -2: token 2 wins.
    assert_eq!(sampler.sample(&mut logits).unwrap().id, 2);
    assert_eq!(logits, [2.0, -2.0, 3.0]);
    let sampling = Sampling { frequency_penalty: 0.5, presence_penalty: 1.0, ..Sampling::default() };
    let mut sampler = Sampler::new(&sampling, 0, &[1]).unwrap();
    for expected in [[5.0, 4.0], [3.5, 4.0], [3.5, 2.5], [3.0, 2.5]] {
        let mut logits = [5.0, 4.0];
        sampler.sample(&mut logits).unwrap();
        assert_eq!(logits, expected);
    }
}

#[test]
fn log_probabilities_are_the_models_own_whatever_the_sampling() {
    let sampling = Sampling {
        logprobs: Some(2),
        repetition_penalty: 3.0,
        temperature: 0.5,
        top_k: 1,
        ..Sampling::default()
    };
    let mut sampler = Sampler::new(&sampling, 0, &[2]).unwrap();
    let probabilities = [0.1_f32, 0.3, 0.6];
    // The logits are below 0, where the penalty multiplies: 3 ln 0.6 < ln 0.3, so the second is drawn.
    let sampled = sampler.sample(&mut probabilities.map(f32::ln)).unwrap();
    let (logprob, top) = sampled.report.unwrap();
    assert_eq!(sampled.id, 1);
    assert!((logprob - 0.3_f32.ln()).abs() < 1e-6);
    assert_eq!(top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2, 1]);
    assert!((top[0].1 - 0.6_f32.ln()).abs() < 1e-6);
}

#[test]
fn logits_that_are_no_numbers_are_an_error_and_masks_are_not() {
    let mut sampler = sampler(Sampling { temperature: 1.0, ..Sampling::default() });
    let nan = sampler.sample(&mut [0.0, f32::NAN, f32::NAN]);
    assert_eq!(nan, Err(EngineError::NotANumber { count: 2, token: 1 }));
    assert!(sampler.sample(&mut [f32::INFINITY, 0.0]).is_err());
    assert!(sampler.sample(&mut [f32::NEG_INFINITY; 3]).is_err());
    assert!(sampler.sample(&mut []).is_err());
    assert_eq!(sampler.sample(&mut [f32::NEG_INFINITY, 0.0]).unwrap().id, 1);
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let refused = |sampling: Sampling| check_sampling(&sampling).unwrap_err().to_string();
    let base = Sampling::default;
    assert_eq!(refused(Sampling { top_p: 1.5, ..base() }), "`top_p` is 1.5; it must be from 0 to 1");
    assert!(refused(Sampling { temperature: f32::NAN, ..base() }).starts_with("`temperature` is NaN"));
    assert!(refused(Sampling { repetition_penalty: 0.0, ..base() }).starts_with("`repetition_penalty` is 0"));
    assert!(refused(Sampling { max_tokens: Some(0), ..base() }).starts_with("`max_tokens`"));
    assert!(refused(Sampling { logprobs: Some(21), ..base() }).starts_with("21 alternatives"));
    assert!(refused(Sampling { stop: vec![String::new()], ..base() }).starts_with("a stop string"));
}

#[test]
fn a_large_vocabulary_is_drawn_from_in_milliseconds() {
    let logits: Vec<f32> =
        (0..151_936_u32).map(|id| (id.wrapping_mul(2_654_435_761) >> 8) as f32 * 6e-7).collect();
    for sampling in [
        Sampling { temperature: 1.0, ..Sampling::default() },
        Sampling { temperature: 1.0, top_p: 0.9, logprobs: Some(20), ..Sampling::default() },
        Sampling { temperature: 0.7, top_k: 50, top_p: 0.9, min_p: 0.05, ..Sampling::default() },
        Sampling::default(),
    ] {
        let mut sampler = sampler(sampling.clone());
        let mut copies = vec![logits.clone(); 10];
        let draw_ms = copies.iter_mut().map(|logits| {
            let start = std::time::Instant::now();
            sampler.sample(logits).unwrap();
            start.elapsed().as_secs_f64() * 1e3
        });
        // The least disturbed one.
        let fastest_ms = draw_ms.fold(f64::INFINITY, f64::min);
        println!("{fastest_ms:.3} ms a draw: temperature {}, top_p {}", sampling.temperature, sampling.top_p);
        assert!(fastest_ms < 100.0, "{fastest_ms} ms a draw");
    }
}

proptest! {
    /// The fast cuts keep exactly what a full sort keeps.
    #[test]
    fn the_nucleus_is_that_of_a_full_sort(
        steps in prop::collection::vec(0_u8..40, 1..1500),
        top_p in 0.0_f32..1.0,
    ) {
        let mut fast: Vec<(f32, u32)> = steps.iter().zip(0..).map(|(step, id)| (f32::from(*step) / 4.0, id)).collect();
        let weight = |logit: f32| f64::from(logit.exp());
        let mut slow = fast.clone();
        slow.sort_by(likelier);
        let total: f64 = fast.iter().map(|(logit, _)| weight(*logit)).sum();
        keep_nucleus(&mut fast, top_p, weight);
        prop_assert_eq!(&fast[..], &slow[..fast.len()]);
        let sum = |kept: &[(f32, u32)]| kept.iter().map(|(logit, _)| weight(*logit)).sum::<f64>();
        let target = total * f64::from(top_p);
        prop_assert!(sum(&fast) >= target * (1.0 - 1e-9));
        prop_assert!(fast.len() == 1 || sum(&fast[..fast.len() - 1]) < target * (1.0 + 1e-9));
    }

    /// Same seed, same draws; every draw is a token that is not masked; reports add up.
    #[test]
    fn draws_repeat_and_respect_masks(
        logits in prop::collection::vec(prop_oneof![4 => -20.0_f32..20.0, 1 => Just(f32::NEG_INFINITY)], 2..300),
        seed: u64,
        temperature in 0.0_f32..3.0,
        top_k in 0_u32..20,
        top_p in 0.0_f32..=1.0,
        min_p in 0.0_f32..=1.0,
    ) {
        prop_assume!(logits.iter().any(|logit| logit.is_finite()));
        let sampling = Sampling { temperature, top_k, top_p, min_p, seed: Some(seed), logprobs: Some(5), ..Sampling::default() };
        let (mut one, mut two) = (Sampler::new(&sampling, 1, &[]).unwrap(), Sampler::new(&sampling, 2, &[]).unwrap());
        for _ in 0..4 {
            let sampled = one.sample(&mut logits.clone()).unwrap();
            prop_assert!(logits[sampled.id as usize].is_finite());
            let (logprob, top) = sampled.report.clone().unwrap();
            prop_assert!(logprob <= 1e-6 && top[0].1 >= logprob);
            prop_assert!(top.iter().map(|(_, logprob)| logprob.exp()).sum::<f32>() <= 1.0 + 1e-4);
            prop_assert_eq!(sampled, two.sample(&mut logits.clone()).unwrap());
        }
    }
}
