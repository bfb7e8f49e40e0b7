//! The engine alone: prefill, decode, steps of many versions, and a training step on random weights of two sizes, so
//! that it can be held against other engines on the same work.
//!
//! Every figure is a median with the slowest and the fastest repetition beside it. The peak of memory is the whole
//! process's so far: measure one mode of one size in a process where that matters.

use std::{fmt::Write as _, sync::Arc, time::Instant};

use autoglm_domain::{
    ChatMessage, Control, Error, HyperParameters, Result, SystemClock, TrainExample, TrainJob, Trainer as _,
};
use autoglm_engine::{
    ChatTemplate, Courtesy, Decoder as _, KvCache, LoraTrainer, Model, ModelConfig, SequenceInput, TextCodec,
    Tokenizer, WantedLogits, WeightFormat, set_threads,
};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};

use super::latency::median;
use crate::printer::{Outcome, Printer, Table};

/// Tokens of the prompt that is prefilled.
const PROMPT: usize = 512;
/// Tokens in the cache when decoding begins.
const CONTEXT: usize = 128;
/// Sequences decoded at once.
const DECODE_BATCHES: [usize; 3] = [1, 8, 32];
/// Sequences of a step of several versions.
const VERSIONS: usize = 8;
/// Rank of the adapters of such a step.
const RANK: u32 = 16;
/// Rank with which an adapter of the big model takes 11 MB.
const RANK_OF_10_MB: u32 = 5;
/// Sequences of a training step and the tokens of each.
const TRAIN_BATCH: [usize; 2] = [4, 256];
const VOCABULARY: usize = 32_000;
const SEED: u64 = 0;

/// Shape of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Size {
    /// Hidden 256, 6 layers: 14 million parameters with the embedding
    Small,
    /// Hidden 896, 24 layers: 387 million
    Big,
}

/// What is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Prefill of 512 tokens, decoding of 1, 8 and 32 sequences
    Infer,
    /// Decoding of 8 sequences of one version, of eight, and of one with another in its shadow; an adapter made
    /// resident beside decoding
    Versions,
    /// LoRA steps of rank 16 on all projections, 4 sequences of 256 tokens
    Train,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct EngineReport {
    /// Threads of serving, and of training.
    pub(crate) threads: usize,
    /// One entry a measurement.
    pub(crate) figures: Vec<Figure>,
}

/// One measurement.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// Shape of the model.
    pub(crate) size: Size,
    /// How its weights are kept.
    pub(crate) weights: WeightFormat,
    /// `prefill 512`, `decode batch 8`, …
    pub(crate) what: String,
    /// Tokens a second, median of the repetitions.
    pub(crate) tokens_per_s: f64,
    /// Tokens a second of the slowest repetition.
    pub(crate) slowest: f64,
    /// Tokens a second of the fastest repetition.
    pub(crate) fastest: f64,
    /// Tokens a second of CPU time of all threads together, median: steadier where others use the machine too.
    /// 0 where the system does not tell.
    pub(crate) tokens_per_cpu_s: f64,
    /// Repetitions.
    pub(crate) repeats: usize,
    /// Largest resident set of the process so far, MiB; 0 where the system does not tell.
    pub(crate) peak_rss_mb: u64,
}

/// Time of one repetition, or the clocks at one moment.
#[derive(Debug, Clone, Copy)]
struct Spent {
    /// Seconds on the wall.
    wall_s: f64,
    /// Seconds of CPU, all threads together.
    cpu_s: f64,
}

impl Spent {
    /// The clocks now, the wall's since `begin`.
    fn now(begin: Instant) -> Self {
        Self { wall_s: begin.elapsed().as_secs_f64(), cpu_s: cpu_seconds() }
    }

    fn since(self, before: Self) -> Self {
        Self { wall_s: self.wall_s - before.wall_s, cpu_s: self.cpu_s - before.cpu_s }
    }
}

impl Figure {
    fn new(subject: Subject, what: String, tokens: usize, spent: &[Spent]) -> Self {
        let rate = |seconds: f64| if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 };
        let wall = || spent.iter().map(|one| one.wall_s);
        Self {
            size: subject.size,
            weights: subject.weights,
            what,
            tokens_per_s: rate(median(wall())),
            slowest: rate(wall().fold(0.0, f64::max)),
            fastest: rate(wall().fold(f64::MAX, f64::min)),
            tokens_per_cpu_s: rate(median(spent.iter().map(|one| one.cpu_s))),
            repeats: spent.len(),
            peak_rss_mb: peak_rss_mb(),
        }
    }
}

/// Measures every mode of every size on `threads` threads, `repeats` times after a warm-up.
pub(crate) fn run(
    sizes: &[Size],
    formats: &[WeightFormat],
    modes: &[Mode],
    threads: usize,
    repeats: usize,
) -> Result<EngineReport> {
    set_threads(threads)?;
    let mut figures = Vec::new();
    for &size in sizes {
        for &weights in formats {
            let subject = Subject { size, weights };
            let model = Arc::new(Model::random_as(config(size)?, SEED, weights)?);
            for mode in modes {
                match mode {
                    Mode::Infer => infer(&model, subject, repeats, &mut figures)?,
                    Mode::Versions => versions(&model, subject, repeats, &mut figures)?,
                    Mode::Train => figures.push(train(&model, subject, threads, repeats)?),
                }
            }
        }
    }
    Ok(EngineReport { threads, figures })
}

fn config(size: Size) -> Result<ModelConfig> {
    let shape = match size {
        Size::Small => [256, 1024, 6, 4],
        Size::Big => [896, 4864, 24, 14],
    };
    let [hidden, intermediate, layers, heads] = shape;
    let config = json!({
        "model_type": "qwen2",
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": true,
    });
    Ok(ModelConfig::from_json(&config.to_string())?)
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
struct Subject {
    size: Size,
    weights: WeightFormat,
}

fn infer(model: &Model, subject: Subject, repeats: usize, figures: &mut Vec<Figure>) -> Result<()> {
    let prompt = vec![0; PROMPT];
    let spent = repeat(1, repeats, || feed(model, std::slice::from_mut(&mut model.new_cache()), &prompt))?;
    figures.push(Figure::new(subject, format!("prefill {PROMPT}"), PROMPT, &spent));
    for batch in DECODE_BATCHES {
        let mut caches: Vec<KvCache> = (0..batch).map(|_| model.new_cache()).collect();
        feed(model, &mut caches, &prompt[..CONTEXT])?;
        let spent = repeat(2, 6 * repeats, || feed(model, &mut caches, &[0]))?;
        figures.push(Figure::new(subject, format!("decode batch {batch}"), batch, &spent));
    }
    Ok(())
}

/// Steps of several versions, each kind in turn with the others so that a change of the machine meets all; then how long
/// an adapter takes to become resident, and how much longer a step takes meanwhile.
fn versions(model: &Model, subject: Subject, repeats: usize, figures: &mut Vec<Figure>) -> Result<()> {
    let adapters = (0..VERSIONS as u64)
        .map(|seed| Ok(model.load_adapter(&model.random_adapter(RANK, seed)?)?))
        .collect::<Result<Vec<_>>>()?;
    let kinds: [(&str, Vec<usize>); 3] = [
        ("decode batch 8, one adapter", vec![0; VERSIONS]),
        ("decode batch 8, eight adapters", (0..VERSIONS).collect()),
        ("decode batch 8, each with a shadow", (0..2 * VERSIONS).map(|at| at / VERSIONS).collect()),
    ];
    let prompt = vec![0; CONTEXT];
    let mut caches: Vec<Vec<KvCache>> =
        kinds.iter().map(|(_, versions)| versions.iter().map(|_| model.new_cache()).collect()).collect();
    let step = |caches: &mut [KvCache], versions: &[usize], tokens: &[u32]| -> Result<()> {
        let sequences = caches.iter_mut().zip(versions);
        let mut batch: Vec<_> = sequences
            .map(|(cache, version)| SequenceInput {
                tokens,
                cache,
                adapter: Some(&adapters[*version]),
                logits: WantedLogits::Last,
            })
            .collect();
        std::hint::black_box(model.step(&mut batch)?);
        Ok(())
    };
    let mut spent: [Vec<Spent>; 3] = Default::default();
    for ((_, versions), caches) in kinds.iter().zip(&mut caches) {
        step(caches, versions, &prompt)?;
    }
    let begin = Instant::now();
    for at in 0..2 + 6 * repeats {
        for (((_, versions), caches), spent) in kinds.iter().zip(&mut caches).zip(&mut spent) {
            let before = Spent::now(begin);
            step(caches, versions, &[0])?;
            if at >= 2 {
                spent.push(Spent::now(begin).since(before));
            }
        }
    }
    for ((what, _), spent) in kinds.iter().zip(&spent) {
        figures.push(Figure::new(subject, (*what).to_owned(), VERSIONS, spent));
    }
    residency(model, subject, repeats, figures)
}

/// An adapter made resident while another thread decodes.
fn residency(model: &Model, subject: Subject, repeats: usize, figures: &mut Vec<Figure>) -> Result<()> {
    let adapter = model.random_adapter(RANK_OF_10_MB, SEED)?;
    let mut cache = [model.new_cache()];
    feed(model, &mut cache, &vec![0; CONTEXT])?;
    let mut decode = || -> Result<f64> {
        let begin = Instant::now();
        feed(model, &mut cache, &[0])?;
        Ok(begin.elapsed().as_secs_f64())
    };
    let alone = (0..6 * repeats).map(|_| decode()).collect::<Result<Vec<f64>>>()?;
    let (mut loads, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..6 * repeats {
        let load = std::thread::scope(|scope| -> Result<Spent> {
            let thread = scope.spawn(|| -> Result<Spent> {
                let begin = Instant::now();
                std::hint::black_box(model.load_adapter(&adapter)?);
                Ok(Spent { wall_s: begin.elapsed().as_secs_f64(), cpu_s: 0.0 })
            });
            beside.push(decode()?);
            thread.join().map_err(|_| Error::internal("loading an adapter panicked"))?
        })?;
        loads.push(load);
    }
    let mb = adapter.weights.len() as f64 / 1e6;
    figures.push(Figure::new(subject, format!("adapters of {mb:.0} MB made resident, a second"), 1, &loads));
    let step = |what: &str, steps: Vec<f64>| {
        let spent: Vec<Spent> = steps.into_iter().map(|wall_s| Spent { wall_s, cpu_s: 0.0 }).collect();
        Figure::new(subject, what.to_owned(), 1, &spent)
    };
    figures.push(step("decode batch 1, before", alone));
    figures.push(step("decode batch 1, while one is made resident", beside));
    Ok(())
}

/// One step that appends `tokens` to every cache and computes the logits after them.
fn feed(model: &Model, caches: &mut [KvCache], tokens: &[u32]) -> Result<()> {
    let mut batch: Vec<_> = caches
        .iter_mut()
        .map(|cache| SequenceInput { tokens, cache, adapter: None, logits: WantedLogits::Last })
        .collect();
    std::hint::black_box(model.step(&mut batch)?);
    Ok(())
}

/// Time of each repetition after a warm-up.
fn repeat(warm_up: usize, repeats: usize, mut run: impl FnMut() -> Result<()>) -> Result<Vec<Spent>> {
    let (mut spent, begin) = (Vec::with_capacity(repeats), Instant::now());
    for at in 0..warm_up + repeats {
        let before = Spent::now(begin);
        run()?;
        if at >= warm_up {
            spent.push(Spent::now(begin).since(before));
        }
    }
    Ok(spent)
}

fn train(model: &Arc<Model>, subject: Subject, threads: usize, repeats: usize) -> Result<Figure> {
    let [batch, length] = TRAIN_BATCH;
    let trainer = LoraTrainer::new(Arc::clone(model), codec(model.config())?, threads, Courtesy::default())?;
    // A sequence of 256 inputs and as many targets: one prompt token, and 256 that are learnt.
    let example = |at: usize| {
        let id = |i: usize| ((at * length + i) * 7919) % VOCABULARY;
        let mut target = String::new();
        for i in 1..=length {
            let _ = write!(target, "t{} ", id(i));
        }
        TrainExample {
            prompt: vec![ChatMessage::user(format!("t{} ", id(0)))],
            target,
            weight: 1.0,
            frequency: 1.0,
            objective: Default::default(),
        }
    };
    let hyper = HyperParameters {
        rank: 16,
        alpha: 32.0,
        learning_rate: 1e-4,
        batch_tokens: u32::try_from(batch * (length + 1)).unwrap_or(u32::MAX),
        steps: u32::try_from(repeats + 1).unwrap_or(u32::MAX),
        ..HyperParameters::default()
    };
    let job = TrainJob::new((0..batch).map(example).collect(), hyper, SEED);
    let (mut spent, begin) = (Vec::with_capacity(repeats), Instant::now());
    let mut before = Spent::now(begin);
    trainer.train(&job, &mut |progress| {
        let now = Spent::now(begin);
        // The first step warms up.
        if progress.step > 1 {
            spent.push(now.since(before));
        }
        before = now;
        Control::Continue
    })?;
    Ok(Figure::new(subject, format!("LoRA r=16 step {batch}x{length}"), batch * length, &spent))
}

/// A codec whose words are the tokens: `t7 t11` is 7, 11.
fn codec(config: &ModelConfig) -> Result<TextCodec> {
    let vocabulary: serde_json::Map<String, Value> =
        (0..config.vocab_size).map(|id| (format!("t{id}"), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t0"},
    });
    let tokenizer = Tokenizer::from_bytes(tokenizer.to_string().as_bytes())?;
    let template = "{% for message in messages %}{{ message.content }}{% endfor %}";
    let template = ChatTemplate::new(template, [], Arc::new(SystemClock))?;
    Ok(TextCodec::new(tokenizer, Some(template), config)?)
}

/// CPU time of this process's threads, from `/proc/self/task/*/schedstat`, whose first number is in nanoseconds.
fn cpu_seconds() -> f64 {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return 0.0 };
    let nanoseconds = threads.flatten().filter_map(|thread| {
        let schedule = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        schedule.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1e9
}

/// `VmHWM` of `/proc/self/status` in MiB.
fn peak_rss_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}

/// Prints it.
pub(crate) fn print(report: &EngineReport, printer: &Printer) -> Outcome {
    let mut table = Table::new(&[
        "MODEL",
        "WEIGHTS",
        "WORK",
        ">TOKENS/S",
        ">SLOWEST",
        ">FASTEST",
        ">TOKENS/CPU-S",
        ">REPEATS",
        ">PEAK MEMORY",
    ]);
    for figure in &report.figures {
        let rate = |rate: f64| if rate < 100.0 { format!("{rate:.1}") } else { format!("{rate:.0}") };
        table.row([
            format!("{:?}", figure.size).to_lowercase(),
            figure.weights.name().to_owned(),
            figure.what.clone(),
            rate(figure.tokens_per_s),
            rate(figure.slowest),
            rate(figure.fastest),
            rate(figure.tokens_per_cpu_s),
            figure.repeats.to_string(),
            format!("{} MiB", figure.peak_rss_mb),
        ]);
    }
    printer.table(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_model_is_measured_in_every_mode() {
        let modes = [Mode::Infer, Mode::Versions, Mode::Train];
        let report = run(&[Size::Small], &[WeightFormat::F32, WeightFormat::Q8_0], &modes, 2, 1).unwrap();
        let works: Vec<&str> = report.figures.iter().map(|figure| figure.what.as_str()).collect();
        let expected = [
            "prefill 512",
            "decode batch 1",
            "decode batch 8",
            "decode batch 32",
            "decode batch 8, one adapter",
            "decode batch 8, eight adapters",
            "decode batch 8, each with a shadow",
            "adapters of 1 MB made resident, a second",
            "decode batch 1, before",
            "decode batch 1, while one is made resident",
            "LoRA r=16 step 4x256",
        ];
        assert_eq!(works, [expected, expected].concat());
        for figure in &report.figures {
            assert!(figure.tokens_per_s > 0.0 && figure.slowest <= figure.fastest, "{figure:?}");
        }
        // Eight sequences decode faster than one after the other; the fastest repetition is the least disturbed one.
        assert!(report.figures[2].fastest > report.figures[1].fastest);
    }
}
