//! Adapters that PEFT wrote, alone and beside others in one batch.

use autoglm_engine::{Decoder as _, Model, SequenceInput, WantedLogits, score};

use crate::{Reference, base_of, check_equal, fixture, read_adapter};

fn check(name: &str) {
    let folder = fixture("adapters").join(name);
    let model = Model::load(&base_of(&folder)).unwrap();
    let adapter = model.load_adapter(&read_adapter(&folder)).unwrap();
    let reference = Reference::load(&folder);
    let (_, logits) = score(&model, Some(&adapter), &reference.ids).unwrap();
    check_equal(name, &logits, &reference.logits);
    let (_, without) = score(&model, None, &reference.ids).unwrap();
    let changed = logits.iter().zip(&without).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(changed > 0.5, "the adapter changes next to nothing: {changed}");
}

#[test]
fn low_rank_matrices_on_every_projection() {
    check("plain");
}

#[test]
fn a_trained_embedding_that_is_tied_and_trained_norms() {
    check("saved");
}

#[test]
fn one_low_rank_matrix_over_gate_and_up_and_trained_norms_behind_the_branches() {
    check("glm4");
}

#[test]
fn low_rank_matrices_beside_sliding_windows() {
    check("mistral");
    check("qwen2_windowed");
}

#[test]
fn two_projections_of_one_layer_with_a_stabilised_scale() {
    check("partial");
}

/// Base, adapter, base, adapter: each sequence of a batch is answered by its own version.
#[test]
fn versions_that_share_a_batch_do_not_touch_one_another() {
    let folder = fixture("adapters/saved");
    let (base, reference) = (base_of(&folder), Reference::load(&folder));
    let model = Model::load(&base).unwrap();
    let adapter = model.load_adapter(&read_adapter(&folder)).unwrap();
    let plain = Reference::load(&base);
    let mut caches: Vec<_> = (0..4).map(|_| model.new_cache()).collect();
    let mut batch: Vec<_> = caches
        .iter_mut()
        .enumerate()
        .map(|(at, cache)| SequenceInput {
            tokens: if at % 2 == 0 { &plain.ids } else { &reference.ids },
            cache,
            adapter: (at % 2 == 1).then_some(&adapter),
            logits: WantedLogits::All,
        })
        .collect();
    let logits = model.step(&mut batch).unwrap();
    let length = reference.logits.len();
    for (at, logits) in logits.chunks_exact(length).enumerate() {
        let expected = if at % 2 == 0 { &plain.logits } else { &reference.logits };
        check_equal(&format!("sequence {at}"), logits, expected);
    }
}
