//! Pretraining that is interrupted and goes on, against pretraining in one piece.

use std::fmt::Write as _;

use super::*;

/// A corpus of two hundred short sentences and options of a model that learns them in no time.
fn small(folder: &std::path::Path) -> PretrainOptions {
    let mut text = String::new();
    for at in 0..200 {
        let (one, other) = (at % 17, at % 23);
        writeln!(text, "The number {one} whale swam past the number {other} ship near the old harbour.")
            .unwrap();
    }
    let corpus = folder.join("corpus.txt");
    std::fs::write(&corpus, text).unwrap();
    PretrainOptions {
        corpus: vec![corpus],
        out: folder.join("model"),
        vocab_size: 300,
        hidden_size: 16,
        intermediate_size: 24,
        num_layers: 2,
        num_heads: 2,
        num_kv_heads: 1,
        context: 64,
        window: 32,
        batch_tokens: 256,
        conversation_share: 0.0,
        learning_rate: 0.2, // of which twelve steps of the warm-up see little
        steps: 12,
        threads: 2,
        ..PretrainOptions::default()
    }
}

fn data(options: &PretrainOptions) -> (Data, Model) {
    let text = corpus::read(&options.corpus, options.lowercase_share, options.seed).unwrap();
    let vocabulary = vocabulary::train(&text, options.vocab_size).unwrap();
    (Data::new(options, &text, &vocabulary).unwrap(), fresh_model(options, &vocabulary).unwrap())
}

#[test]
fn it_goes_on_to_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let options = small(folder.path());
    let ((data, model), pool) = (data(&options), training_pool(2, false).unwrap());
    let mut whole = Course::new(&options, &data, &model, &pool);
    whole.run(&mut |_| {}, &mut |_| Ok(())).unwrap();

    let mut first = Course::new(&options, &data, &model, &pool);
    for step in 0..5 {
        first.step(step as f32 / 12.0).unwrap();
    }
    let state = first.state().unwrap();
    // What is done after the state was taken is lost, and done again.
    first.step(5.0 / 12.0).unwrap();
    let mut second = Course::new(&options, &data, &model, &pool);
    second.go_on(&state).unwrap();
    assert_eq!(second.progress.step, 5);
    second.run(&mut |_| {}, &mut |_| Ok(())).unwrap();
    assert_eq!(second.learner.weights, whole.learner.weights);
    let figures = |course: &Course<'_>| (course.progress.step, course.progress.tokens, course.progress.loss);
    assert_eq!(figures(&second), figures(&whole));
    assert!(whole.progress.held_out_loss < 5.6, "it learned nothing: {}", whole.progress.held_out_loss);

    let other = PretrainOptions { learning_rate: 1e-3, ..options.clone() };
    let refused = Course::new(&other, &data, &model, &pool).go_on(&state).unwrap_err();
    assert_eq!(refused, EngineError::Checkpoint("it is of other options or another corpus".into()));
    let longer = PretrainOptions { seconds: 9e9, threads: 1, ..options.clone() };
    Course::new(&longer, &data, &model, &pool).go_on(&state).unwrap();
}

#[test]
fn what_was_interrupted_is_found_in_the_folder_and_gone_when_it_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let options = small(folder.path());
    let resumed = PretrainOptions { resume: true, ..options.clone() };
    let missing = pretrain(&resumed, &mut |_| {}).unwrap_err();
    assert_eq!(missing.kind(), autoglm_domain::ErrorKind::NotFound, "{missing}");

    // An interrupted pretraining leaves the model so far, its tokenizer among it, and the state.
    pretrain(&options, &mut |_| {}).unwrap();
    let state_file = options.out.join("pretrain.state");
    assert!(!state_file.exists());
    let text = corpus::read(&options.corpus, options.lowercase_share, options.seed).unwrap();
    let vocabulary = vocabulary::load(&options.out).unwrap();
    let (data, model) =
        (Data::new(&options, &text, &vocabulary).unwrap(), fresh_model(&options, &vocabulary).unwrap());
    let pool = training_pool(2, false).unwrap();
    let mut first = Course::new(&options, &data, &model, &pool);
    for step in 0..5 {
        first.step(step as f32 / 12.0).unwrap();
    }
    let whole = std::fs::read(options.out.join("model.safetensors")).unwrap();
    std::fs::write(options.out.join("model.safetensors"), b"").unwrap();
    state::save(&options.out, &first.state().unwrap()).unwrap();
    let mut last = None;
    pretrain(&resumed, &mut |progress| last = Some(progress)).unwrap();
    assert_eq!(last.unwrap().step, 12);
    assert!(!state_file.exists());
    assert!(std::fs::read(options.out.join("model.safetensors")).unwrap() == whole);
}
