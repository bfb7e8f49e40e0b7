//! Every gradient against finite differences, and training against serving.

use autoglm_domain::HyperParameters;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{
    Family, ModelConfig, RopeConfig, RopeScaling, SequenceInput, WantedLogits, WeightFormat,
    kernels::cross_entropy_row, weights::BaseWeights,
};

const FAMILIES: [Family; 3] = [Family::Llama, Family::Qwen3, Family::Glm4];

/// A model with every option that `family` brings, and a window in its second block.
fn tiny_model(family: Family) -> Model {
    let glm = family == Family::Glm4;
    let config = ModelConfig {
        family,
        vocab_size: 23,
        hidden_size: 16,
        intermediate_size: 24,
        num_layers: 2,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: 4,
        rms_norm_eps: 1e-5,
        rope: RopeConfig {
            partial_rotary_factor: if glm { 0.5 } else { 1.0 },
            interleaved: glm,
            ..RopeConfig::whole(10_000.0, RopeScaling::None)
        },
        tie_word_embeddings: true,
        attention_bias: glm,
        attention_out_bias: false,
        mlp_bias: false,
        qk_norm: family == Family::Qwen3,
        branch_norms: glm,
        fused_gate_up: glm,
        sliding_window: Some(2),
        windowed_layers: vec![false, true],
        max_position_embeddings: 32,
        bos_token_id: None,
        eos_token_ids: vec![1],
        initializer_range: 0.3,
    };
    Model::random(config, 7).unwrap()
}

fn batch() -> PackedBatch {
    let mut batch = PackedBatch::default();
    batch.push(&[3, 9, 14, 2, 7], [(2, 5, 0.4), (3, 11, 0.3), (4, 1, 0.3)].into_iter());
    batch.push(&[8, 8, 20], [(1, 6, 0.5), (2, 1, 0.5)].into_iter());
    batch
}

/// Compares the gradient with central differences at a sample of positions of every tensor.
fn check(model: &Model, weights: AdapterWeights) {
    check_losses(model, weights, &batch(), None);
}

fn check_losses(
    model: &Model,
    mut weights: AdapterWeights,
    batch: &PackedBatch,
    teacher: Option<&AdapterWeights>,
) {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for (tensor, _) in weights.tensors_mut() {
        tensor.iter_mut().for_each(|value| *value += random.random_range(-0.1..0.1));
    }
    let scratch = Scratch::default();
    let mut gradients = weights.zeros_like();
    let loss = |weights: &AdapterWeights| {
        Pass::new(model, weights, Threads::One, &|| (), &scratch).teacher(teacher).loss(batch)
    };
    let pass = Pass::new(model, &weights, Threads::One, &|| (), &scratch).teacher(teacher);
    assert!((pass.run(batch, &mut gradients) - loss(&weights)).abs() < 1e-6);
    let h = 5e-3;
    let tensors = gradients.tensors_mut().len();
    for tensor in 0..tensors {
        let length = weights.tensors_mut()[tensor].0.len();
        for _ in 0..6 {
            let at = random.random_range(0..length);
            let mut losses = [0.0; 2];
            for (found, step) in losses.iter_mut().zip([h, -h]) {
                weights.tensors_mut()[tensor].0[at] += step;
                *found = loss(&weights);
                weights.tensors_mut()[tensor].0[at] -= step;
            }
            let expected = (losses[0] - losses[1]) / f64::from(2.0 * h);
            let ours = f64::from(gradients.tensors_mut()[tensor].0[at]);
            assert!(
                (ours - expected).abs() < 2e-3 + 0.02 * expected.abs(),
                "tensor {tensor} at {at}: {ours} instead of {expected}"
            );
        }
    }
}

/// Everything that an adapter can train.
fn whole() -> HyperParameters {
    HyperParameters { rank: 3, alpha: 6.0, train_embedding: true, train_norms: true, ..Default::default() }
}

#[test]
fn gradients_of_a_whole_adapter_equal_finite_differences() {
    for family in FAMILIES {
        let model = tiny_model(family);
        check(&model, AdapterWeights::fresh(&model, &whole(), 1).unwrap());
    }
}

#[test]
fn gradients_of_every_base_weight_equal_finite_differences() {
    for family in FAMILIES {
        let model = tiny_model(family);
        check(&model, AdapterWeights::everything(&model));
    }
}

fn whole_adapter(model: &Model, seed: u64) -> AdapterWeights {
    let mut adapter = AdapterWeights::fresh(model, &whole(), seed).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for (tensor, _) in adapter.tensors_mut() {
        tensor.iter_mut().for_each(|value| *value += random.random_range(-0.2..0.2));
    }
    adapter
}

#[test]
fn gradients_of_the_divergence_from_a_teacher_equal_finite_differences() {
    let model = tiny_model(Family::Qwen3);
    let teacher = whole_adapter(&model, 9);
    let mut batch = batch();
    let targets = [(0, 4, 0.5), (1, 17, 1.5), (3, 1, 1.0)];
    batch.push_distilled(&[6, 19, 2, 12], targets.into_iter(), 0.7);
    assert!((batch.weight - 5.0).abs() < 1e-6);
    check_losses(&model, whole_adapter(&model, 1), &batch, Some(&teacher));
    // A model that is its own teacher diverges from it by nothing.
    let mut alone = PackedBatch::default();
    alone.push_distilled(&[6, 19, 2, 12], targets.into_iter(), 1.0);
    let scratch = Scratch::default();
    let loss = |teacher| {
        let pass = Pass::new(&model, &teacher, Threads::One, &|| (), &scratch);
        pass.teacher(Some(&whole_adapter(&model, 9))).loss(&alone)
    };
    assert!(loss(whole_adapter(&model, 9)).abs() < 1e-6);
    assert!(loss(whole_adapter(&model, 1)) > 0.1);
}

#[test]
fn gradients_of_preferences_equal_finite_differences() {
    let model = tiny_model(Family::Qwen3);
    let mut batch = batch();
    for (at, reference) in [0.3, -8.0].into_iter().enumerate() {
        let at = at as u32;
        let chosen = [(1, 5 + at, 0.2), (2, 11, 0.2), (3, 1, 0.2)];
        let rejected = [(1, 9 + at, 0.0), (2, 1, 0.0)];
        let pair = Pair { chosen: 0..0, rejected: 0..0, reference, beta: 0.4, weight: 1.5 };
        batch.push_pair(
            (&[3 + at, 9, 5 + at, 11], chosen.into_iter()),
            (&[3 + at, 9, 9 + at], rejected.into_iter()),
            pair,
        );
    }
    assert_eq!((batch.pairs[1].chosen.clone(), batch.pairs[1].rejected.clone()), (10..13, 13..15));
    assert!((batch.weight - 5.0).abs() < 1e-6);
    check_losses(&model, whole_adapter(&model, 1), &batch, None);
}

/// Computed again, a block is what it was: the gradients are the same to the bit, for a part of the memory.
#[test]
fn gradient_checkpointing_changes_memory_alone() {
    let config = ModelConfig { num_layers: 8, ..tiny_model(Family::Qwen3).config().clone() };
    let model = Model::random(config, 7).unwrap();
    let hyper = HyperParameters { rank: 3, train_embedding: true, train_norms: true, ..Default::default() };
    let mut weights = AdapterWeights::fresh(&model, &hyper, 1).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for (tensor, _) in weights.tensors_mut() {
        tensor.iter_mut().for_each(|value| *value += random.random_range(-0.1..0.1));
    }
    let run = |checkpointing: bool| {
        let (scratch, mut gradients) = (Scratch::default(), weights.zeros_like());
        let pass = Pass::new(&model, &weights, Threads::One, &|| (), &scratch);
        let loss = pass.checkpointing(checkpointing).run(&batch(), &mut gradients);
        (loss, gradients, scratch.peak_bytes())
    };
    let (loss, gradients, bytes) = run(false);
    let (loss_again, gradients_again, fewer_bytes) = run(true);
    assert_eq!(loss, loss_again);
    assert_eq!(gradients, gradients_again);
    assert!(3 * fewer_bytes < bytes, "{fewer_bytes} of {bytes} bytes");
}

#[test]
fn gradients_of_some_projections_of_some_layers_equal_finite_differences() {
    let model = tiny_model(Family::Qwen3);
    let hyper = HyperParameters {
        rank: 3,
        alpha: 3.0,
        use_rslora: true,
        target_modules: vec!["v_proj".into(), "down_proj".into()],
        layers_to_transform: vec![1],
        ..Default::default()
    };
    let mut adapter = AdapterWeights::fresh(&model, &hyper, 1).unwrap();
    assert!((adapter.scale - 3.0f32.sqrt()).abs() < 1e-6);
    assert_eq!(
        adapter.tensors_mut().iter().map(|(tensor, _)| tensor.len()).sum::<usize>(),
        3 * (16 + 8 + 24 + 16)
    );
    check(&model, adapter);
}

/// The frozen base in fewer bits: against the same values as 32-bit floats, against differences of the loss itself,
/// and without a copy of the weights in floats.
#[test]
fn gradients_over_a_base_in_fewer_bits_equal_those_over_its_values() {
    // How far the products' rounding of their inputs may move the gradient, as a part of its norm.
    for (format, most) in [(WeightFormat::Bf16, 0.02), (WeightFormat::Q8_0, 0.04), (WeightFormat::Q4K, 0.04)]
    {
        let config = ModelConfig {
            hidden_size: 64,
            intermediate_size: 96,
            head_dim: 16,
            initializer_range: 0.1,
            ..tiny_model(Family::Qwen3).config().clone()
        };
        let model = Model::random_as(config.clone(), 7, format).unwrap();
        let values = BaseWeights::with_replacements(model.weights(), AdapterWeights::everything(&model));
        let floats = Model::new(config, values.unwrap()).unwrap();
        assert!(3 * model.weight_bytes() < 2 * floats.weight_bytes(), "{format:?}");
        let mut weights = whole_adapter(&model, 1);
        let run = |model: &Model, weights: &AdapterWeights| {
            let (scratch, mut gradients) = (Scratch::default(), weights.zeros_like());
            let pass = Pass::new(model, weights, Threads::One, &|| (), &scratch);
            (pass.run(&batch(), &mut gradients), gradients, scratch.peak_bytes())
        };
        let (loss, mut gradients, bytes) = run(&model, &weights);
        let (expected_loss, mut expected, expected_bytes) = run(&floats, &weights);
        assert_eq!(bytes, expected_bytes, "{format:?}");
        assert!((loss - expected_loss).abs() < 0.02 * expected_loss, "{loss} instead of {expected_loss}");
        let (mut apart, mut norm) = (0.0, 0.0);
        for ((ours, _), (theirs, _)) in gradients.tensors_mut().into_iter().zip(expected.tensors_mut()) {
            for (ours, theirs) in ours.iter().zip(theirs.iter()) {
                apart += f64::from(ours - theirs).powi(2);
                norm += f64::from(*theirs).powi(2);
            }
        }
        let off = (apart / norm).sqrt();
        println!(
            "{format:?}: the loss differs by {:.1e}, the gradient by {off:.1e} of its norm",
            loss - expected_loss
        );
        assert!(off < most, "{format:?}: the gradient is off by {off} of its norm");

        // Along the gradient the loss changes by the square of its norm; a large step drowns the rounding.
        let mut along = |step: f64| {
            for ((weights, _), (gradient, _)) in
                weights.tensors_mut().into_iter().zip(gradients.tensors_mut())
            {
                weights.iter_mut().zip(gradient).for_each(|(w, g)| *w += step as f32 * *g);
            }
            let scratch = Scratch::default();
            Pass::new(&model, &weights, Threads::One, &|| (), &scratch).loss(&batch())
        };
        let step = 0.05 / norm.sqrt();
        let (up, down) = (along(step), along(-2.0 * step));
        let found = (up - down) / (2.0 * step) / norm;
        assert!(
            (found - 1.0).abs() < 0.08,
            "{format:?}: the loss changes by {found} of what the gradient says"
        );
    }
}

/// The step that serves and the pass that trains compute the same function.
#[test]
fn serving_in_chunks_and_training_agree() {
    for family in FAMILIES {
        serve_and_train(&tiny_model(family));
    }
}

fn serve_and_train(model: &Model) {
    let hyper = HyperParameters {
        rank: 3,
        alpha: 6.0,
        train_embedding: true,
        train_norms: true,
        ..Default::default()
    };
    let mut adapter = AdapterWeights::fresh(model, &hyper, 1).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(5);
    for (tensor, _) in adapter.tensors_mut() {
        tensor.iter_mut().for_each(|value| *value += random.random_range(-0.2..0.2));
    }
    let resident = crate::resident::ResidentAdapter::new(adapter.clone(), model);
    let tokens = [3, 9, 14, 2, 7, 21, 4];
    let mut cache = model.new_cache();
    let mut other = model.new_cache();
    let mut logits = Vec::new();
    for chunk in [&tokens[..4], &tokens[4..6], &tokens[6..]] {
        let mut batch = [
            SequenceInput { tokens: chunk, cache: &mut other, adapter: None, logits: WantedLogits::Last },
            SequenceInput {
                tokens: chunk,
                cache: &mut cache,
                adapter: Some(&resident),
                logits: WantedLogits::All,
            },
        ];
        let step = model.step(&mut batch).unwrap();
        logits.extend_from_slice(&step[23..]);
    }
    let mut packed = PackedBatch::default();
    packed.push(&tokens, (0..7).map(|at| (at, (at as u32 * 5) % 23, 1.0)));
    let expected: f64 = packed
        .targets
        .iter()
        .map(|target| {
            let mut row = logits[target.row * 23..][..23].to_vec();
            f64::from(cross_entropy_row(&mut row, target.token as usize, 1.0))
        })
        .sum();
    let loss = Pass::new(model, &adapter, Threads::One, &|| (), &Scratch::default()).loss(&packed);
    assert!((loss - expected).abs() < 1e-4, "{loss} instead of {expected}");
}
