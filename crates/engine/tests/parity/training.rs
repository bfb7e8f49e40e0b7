//! Twenty steps of training against PyTorch with PEFT, and the way of our adapters back.

mod resume;

use std::{path::Path, sync::Arc};

use autoglm_domain::{
    ChatMessage, Control, HyperParameters, Objective, SystemClock, TrainExample, TrainJob, TrainProgress,
    Trained, Trainer as _,
};
use autoglm_engine::{
    ChatTemplate, Courtesy, Decoder as _, LoraTrainer, Model, TextCodec, Tokenizer, WeightFormat, score,
};
use serde::Deserialize;
use serde_json::json;

use crate::{base_of, fixture, read_adapter};

/// What `make_fixtures.py` wrote of a run.
#[derive(Deserialize)]
struct Run {
    hyper: serde_json::Value,
    /// The adapter that is the reference, where it is not the parent.
    reference: Option<String>,
    examples: Vec<Example>,
    learning_rates: Vec<f64>,
    losses: Vec<f64>,
}

#[derive(Deserialize)]
struct Example {
    prompt: Vec<u32>,
    target: Vec<u32>,
    rejected: Option<Vec<u32>>,
    teacher_share: Option<f32>,
    weight: f32,
}

impl Run {
    fn examples(&self) -> Vec<TrainExample> {
        let example = |example: &Example| TrainExample {
            prompt: vec![ChatMessage::user(words(&example.prompt))],
            target: words(&example.target),
            weight: example.weight,
            frequency: 1.0,
            objective: example.objective(),
        };
        self.examples.iter().map(example).collect()
    }
}

impl Example {
    fn objective(&self) -> Objective {
        match (&self.rejected, self.teacher_share) {
            (Some(rejected), _) => Objective::Prefer { rejected: words(rejected) },
            (None, Some(share)) => Objective::Distill { share },
            (None, None) => Objective::CrossEntropy,
        }
    }
}

/// `t7 t11` for the tokens 7 and 11.
fn words(ids: &[u32]) -> String {
    ids.iter().map(|id| format!("t{id} ")).collect()
}

/// A codec that reads [`words`], so that a run can be given in tokens.
fn codec(model: &Model) -> TextCodec {
    let vocabulary: serde_json::Map<_, _> =
        (0..model.config().vocab_size).map(|id| (format!("t{id}"), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t0"},
    });
    let tokenizer = Tokenizer::from_bytes(tokenizer.to_string().as_bytes()).unwrap();
    let template = "{% for message in messages %}{{ message.content }}{% endfor %}";
    let template = ChatTemplate::new(template, [], Arc::new(SystemClock)).unwrap();
    TextCodec::new(tokenizer, Some(template), model.config()).unwrap()
}

fn train(base: &Path, folder: &Path, run: &Run, threads: usize) -> (Arc<Model>, Vec<TrainProgress>, Trained) {
    let model = Arc::new(Model::load(base).unwrap());
    let trainer = LoraTrainer::new(Arc::clone(&model), codec(&model), threads, Courtesy::default()).unwrap();
    let hyper: HyperParameters = serde_json::from_value(run.hyper.clone()).unwrap();
    // Every step sees every example, so that their order does not matter.
    let hyper = HyperParameters { batch_tokens: 100_000, ..hyper };
    let reference = run.reference.as_ref().map(|name| read_adapter(&fixture("adapters").join(name)));
    let job =
        TrainJob { parent: Some(read_adapter(folder)), reference, ..TrainJob::new(run.examples(), hyper, 5) };
    let mut steps = Vec::new();
    let trained = trainer.train(&job, &mut |progress| {
        steps.push(progress);
        Control::Continue
    });
    (model, steps, trained.unwrap())
}

fn check(name: &str) {
    let folder = fixture("runs").join(name);
    check_run(name, &base_of(&folder), &folder);
}

/// The run in `folder`, of the model in `base`.
pub(crate) fn check_run(name: &str, base: &Path, folder: &Path) {
    let run: Run = serde_json::from_slice(&std::fs::read(folder.join("run.json")).unwrap()).unwrap();
    for threads in [1, 2] {
        let (model, steps, trained) = train(base, folder, &run, threads);
        assert_eq!(steps.len(), run.losses.len(), "{name}");
        let mut largest = 0.0f64;
        for ((step, loss), rate) in steps.iter().zip(&run.losses).zip(&run.learning_rates) {
            assert!((step.learning_rate - rate).abs() < 1e-6, "{} instead of {rate}", step.learning_rate);
            let difference = (step.loss - loss).abs();
            assert!(difference < 1e-3, "{name}, step {}: {} instead of {loss}", step.step, step.loss);
            largest = largest.max(difference);
        }
        println!("{name} on {threads} threads: losses differ by at most {largest:.1e}");
        keep(name, &trained);
        check_way_back(&model, &trained);
    }
}

/// What was written reads back, and is not the untrained adapter.
fn check_way_back(model: &Model, trained: &Trained) {
    let adapter = model.load_adapter(&trained.adapter).unwrap();
    let ids = [5, 9, 40, 3];
    let (_, with) = score(model, Some(&adapter), &ids).unwrap();
    let (_, without) = score(model, None, &ids).unwrap();
    assert!(with.iter().zip(&without).any(|(a, b)| (a - b).abs() > 0.1));
}

/// Leaves the adapter in `AUTOGLM_KEEP`, for `fixtures/check_peft.py`.
fn keep(name: &str, trained: &Trained) {
    let Ok(folder) = std::env::var("AUTOGLM_KEEP") else { return };
    let folder = Path::new(&folder).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("adapter_config.json"), &trained.adapter.config).unwrap();
    std::fs::write(folder.join("adapter_model.safetensors"), &trained.adapter.weights).unwrap();
}

#[test]
fn losses_of_low_rank_matrices_equal_pytorch_s() {
    check("plain");
}

/// The same run over a frozen base in fewer bits (QLoRA, Dettmers et al. 2023) comes to about the same loss.
#[test]
fn a_base_in_fewer_bits_is_trained_on_as_well() {
    let folder = fixture("runs/plain");
    let run: Run = serde_json::from_slice(&std::fs::read(folder.join("run.json")).unwrap()).unwrap();
    let hyper: HyperParameters = serde_json::from_value(run.hyper.clone()).unwrap();
    let hyper = HyperParameters { batch_tokens: 100_000, steps: 40, ..hyper };
    let job = TrainJob { parent: Some(read_adapter(&folder)), ..TrainJob::new(run.examples(), hyper, 5) };
    let losses = |format| {
        let model = Arc::new(Model::load_as(&base_of(&folder), Some(format)).unwrap());
        let trainer = LoraTrainer::new(Arc::clone(&model), codec(&model), 2, Courtesy::default()).unwrap();
        let trained = trainer.train(&job, &mut |_| Control::Continue).unwrap();
        check_way_back(&model, &trained);
        (trained.metrics["loss_first"], trained.metrics["loss_last"])
    };
    let (first, last) = losses(WeightFormat::F32);
    for (format, most) in [(WeightFormat::Bf16, 0.01), (WeightFormat::Q8_0, 0.02), (WeightFormat::Q4K, 0.2)] {
        let (first_here, last_here) = losses(format);
        println!("{format:?}: loss {first_here:.4} to {last_here:.4}, over f32 {first:.4} to {last:.4}");
        assert!((first_here - first).abs() < most * first, "{format:?}: {first_here} instead of {first}");
        assert!((last_here - last).abs() < most * first, "{format:?}: {last_here} instead of {last}");
    }
}

/// Some projections of some layers: what is written says so, as PEFT reads it, and reads back.
#[test]
fn a_fresh_adapter_of_a_part_is_written_as_it_is() {
    let model = Arc::new(Model::load(&fixture("families/qwen3")).unwrap());
    let trainer = LoraTrainer::new(Arc::clone(&model), codec(&model), 1, Courtesy::default()).unwrap();
    let hyper = HyperParameters {
        rank: 8,
        alpha: 6.0,
        use_rslora: true,
        target_modules: vec!["v_proj".into(), "down_proj".into()],
        layers_to_transform: vec![1],
        learning_rate: 0.05,
        steps: 10,
        ..HyperParameters::default()
    };
    let example = TrainExample {
        prompt: vec![ChatMessage::user(words(&[9, 21, 4]))],
        target: words(&[40, 41]),
        weight: 1.0,
        frequency: 1.0,
        objective: Objective::CrossEntropy,
    };
    let job = TrainJob::new(vec![example.clone()], hyper.clone(), 5);
    let trained = trainer.train(&job, &mut |_| Control::Continue).unwrap();
    keep("part", &trained);
    let config: serde_json::Value = serde_json::from_slice(&trained.adapter.config).unwrap();
    assert_eq!(config["target_modules"], json!(["down_proj", "v_proj"]));
    assert_eq!(config["layers_to_transform"], json!([1]));
    assert_eq!((&config["use_rslora"], &config["lora_alpha"]), (&json!(true), &json!(6.0)));
    check_way_back(&model, &trained);
    // A run that goes on from it keeps its form, and begins where the other ended.
    let plain = HyperParameters { rank: 4, steps: 1, ..HyperParameters::default() };
    let job =
        TrainJob { parent: Some(trained.adapter.clone()), ..TrainJob::new(vec![example.clone()], plain, 5) };
    let further = trainer.train(&job, &mut |_| Control::Continue).unwrap();
    assert_eq!(further.adapter.config, trained.adapter.config);
    assert!(further.metrics["loss_first"] < 0.5 * trained.metrics["loss_first"]);
    let beyond = HyperParameters { layers_to_transform: vec![2], ..hyper };
    let refused = trainer.train(&TrainJob::new(vec![example], beyond, 5), &mut |_| Control::Continue);
    assert_eq!(
        refused.unwrap_err().message,
        "adapter: layer 2 cannot be adapted: the model has 2 (counted from 0)"
    );
}

#[test]
fn losses_of_preferences_equal_pytorch_s() {
    check("preference");
}

#[test]
fn losses_with_a_teacher_equal_pytorch_s() {
    check("distilled");
}

#[test]
fn losses_with_embedding_and_norms_equal_pytorch_s() {
    check("saved");
}

#[test]
fn losses_of_a_fused_gate_and_up_with_embedding_and_norms_equal_pytorch_s() {
    check("glm4");
}

#[test]
fn losses_through_sliding_windows_equal_pytorch_s() {
    check("mistral");
    check("qwen2_windowed");
}
