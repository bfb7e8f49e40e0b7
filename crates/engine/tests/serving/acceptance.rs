//! The real model under random mixes of requests, with few pages: none is lost, no answer comes of another
//! adapter, and every greedy answer is the one of a run alone.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use autoglm_domain::{
    ErrorKind, FinishReason, GenerationEvent, GenerationInput, GenerationRequest, GenerationStream,
    Generator as _, Priority, Sampling, VersionNumber,
};
use autoglm_engine::{Decoder, KvCache, Model, SequenceInput, ServingConfig, ServingEngine, WantedLogits};
use futures::StreamExt as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{
    CODEC, eventually,
    hash_decoder::EOS,
    tiny_model::{CONTEXT, TinyModel},
};

/// One that sees everything, and one that sees the last 40 tokens.
static MODELS: LazyLock<[TinyModel; 2]> =
    LazyLock::new(|| [TinyModel::new(1, None), TinyModel::new(2, Some(40))]);

/// What happened in all mixes.
#[derive(Debug, Default)]
struct Seen {
    whole: AtomicUsize,
    cut_short: AtomicUsize,
    overdue: AtomicUsize,
    left: AtomicUsize,
}

/// A request and how it is read.
struct Case {
    request: GenerationRequest,
    /// Index of the adapter that its version stood for when it was made.
    adapter: usize,
    prompt: Vec<u32>,
    /// Events after which the reader goes away.
    leaves_after: Option<usize>,
    slow: bool,
}

fn random_case(random: &mut ChaCha8Rng, versions: &[usize]) -> Case {
    const BEGINNINGS: [&str; 4] = [
        "",
        "the cat sat on the mat and the hat, and in the end the cat ate the rat on the mat; ",
        "the cat sat on the mat and the hat, and in the end the rat ate the hat on the cat and went away at last. ",
        "You are the cat. ",
    ];
    const WORDS: [&str; 8] = ["the", " cat", " mat", "é", " 12", "\n", "x", " and"];
    let words = random.random_range(1..25);
    let rest: String = (0..words).map(|_| WORDS[random.random_range(0..WORDS.len())]).collect();
    let input = GenerationInput::Text(format!("{}{rest}", BEGINNINGS[random.random_range(0..4)]));
    let version = random.random_range(0..versions.len());
    let sampling =
        Sampling { max_tokens: Some(random.random_range(1..40)), logprobs: Some(0), ..Sampling::default() };
    let timeout = random.random_bool(0.15).then(|| Duration::from_micros(random.random_range(0..8_000)));
    Case {
        prompt: CODEC.encode(&input).unwrap(),
        request: GenerationRequest {
            priority: [Priority::Live, Priority::Shadow, Priority::Background][random.random_range(0..3)],
            timeout,
            ..GenerationRequest::new(input, sampling, VersionNumber(version as u64))
        },
        adapter: versions[version],
        leaves_after: random.random_bool(0.15).then(|| random.random_range(0..12)),
        slow: random.random_bool(0.15),
    }
}

fn random_config(random: &mut ChaCha8Rng) -> ServingConfig {
    let max_batch = random.random_range(1..9);
    ServingConfig {
        max_batch,
        max_batch_tokens: max_batch + random.random_range(0..60),
        // From the least that holds the longest request to plenty.
        max_cache_tokens: [CONTEXT, CONTEXT + 64, 2 * CONTEXT, 8 * CONTEXT][random.random_range(0..4)],
        max_prefix_tokens: [0, 128, 8 * CONTEXT][random.random_range(0..3)],
        event_buffer: random.random_range(1..8),
        ..ServingConfig::default()
    }
}

/// What a reader got.
struct Got {
    ids: Vec<u32>,
    end: Option<Result<FinishReason, ErrorKind>>,
    completion_tokens: usize,
}

async fn read(mut stream: GenerationStream, leaves_after: Option<usize>, slow: bool) -> Got {
    let mut got = Got { ids: Vec::new(), end: None, completion_tokens: 0 };
    let mut events = 0;
    while leaves_after.is_none_or(|most| events < most) {
        if slow {
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        match stream.next().await {
            Some(Ok(GenerationEvent::Text { logprobs, .. })) => {
                got.ids.extend(logprobs.iter().map(|token| token.id));
            }
            Some(Ok(GenerationEvent::Done { finish_reason, usage })) => {
                got.end = Some(Ok(finish_reason));
                got.completion_tokens = usage.completion_tokens as usize;
            }
            Some(Ok(other)) => panic!("not asked for: {other:?}"),
            Some(Err(error)) => got.end = Some(Err(error.kind)),
            None => break,
        }
        events += 1;
    }
    got
}

/// Compares what a reader got with the answer of a run alone.
fn check(model: &TinyModel, case: &Case, got: &Got, seen: &Seen) {
    let most = case.request.sampling.max_tokens.unwrap() as usize;
    let most = most.min(CONTEXT - case.prompt.len());
    let mut expected = model.alone(case.adapter, &case.prompt, most);
    let ends = expected.last() == Some(&EOS);
    if ends {
        expected.pop();
    }
    let differs = got.ids.iter().zip(&expected).any(|(got, expected)| got != expected);
    assert!(!differs, "{:?} got {:?} instead of {expected:?}", case.request, got.ids);
    let counter = match got.end {
        Some(Ok(FinishReason::Stop)) => {
            assert!(ends && got.ids == expected && got.completion_tokens == expected.len() + 1);
            &seen.whole
        }
        Some(Ok(FinishReason::Length)) if got.ids.len() == most => &seen.whole,
        Some(Ok(FinishReason::Length)) => {
            assert!(
                case.request.timeout.is_some() && !got.ids.is_empty(),
                "{:?} was cut short",
                case.request
            );
            assert!(got.ids.len() <= expected.len());
            &seen.cut_short
        }
        Some(Err(ErrorKind::TimedOut)) => {
            assert!(case.request.timeout.is_some() && got.ids.is_empty());
            &seen.overdue
        }
        None => {
            assert!(case.leaves_after.is_some() && got.ids.len() <= expected.len());
            &seen.left
        }
        Some(end) => panic!("{:?} ended with {end:?}", case.request),
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A mix: requests one after another, adapters loaded under numbers that were taken before meanwhile.
async fn mix<D: Decoder>(
    random: &mut ChaCha8Rng,
    model: &'static TinyModel,
    engine: &ServingEngine<D>,
    versions: &mut [usize],
    seen: &Arc<Seen>,
) {
    let mut readers = Vec::new();
    for _ in 0..random.random_range(2..12) {
        if random.random_bool(0.1) {
            let (version, adapter) = (random.random_range(1..versions.len()), random.random_range(1..6));
            let weights = model.adapters[adapter].as_ref().unwrap();
            engine.load(VersionNumber(version as u64), weights).unwrap();
            versions[version] = adapter;
        }
        let case = random_case(random, versions);
        let stream = engine.generate(case.request.clone()).await.unwrap();
        let seen = Arc::clone(seen);
        readers.push(tokio::spawn(async move {
            let got = read(stream, case.leaves_after, case.slow).await;
            check(model, &case, &got, &seen);
        }));
        if random.random_bool(0.3) {
            tokio::time::sleep(Duration::from_micros(random.random_range(0..2_000))).await;
        }
    }
    for reader in readers {
        reader.await.unwrap();
    }
}

/// A few by default; `ENGINE_MIXES=10000 cargo test --release -p autoglm-engine --test serving acceptance` runs
/// the number that a release is accepted with, in a few minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_mixes_leave_no_page_and_answer_as_one_at_a_time() {
    let mixes: usize = std::env::var("ENGINE_MIXES").map_or(200, |mixes| mixes.parse().unwrap());
    run(mixes, |model, _| Arc::clone(model)).await;
}

/// The same on candle's tensors, held to the answers of our own decoder.
#[cfg(feature = "accelerated")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixes_on_tensors_leave_no_page_and_answer_as_one_at_a_time() {
    use autoglm_engine::{AcceleratedModel, ComputeDevice};
    run(60, |model, config| {
        Arc::new(AcceleratedModel::open(Arc::clone(model), ComputeDevice::Cpu, config).unwrap())
    })
    .await;
}

/// Random mixes through engines with the decoder that `decoder` makes of a model.
async fn run<D: Decoder>(mixes: usize, decoder: impl Fn(&Arc<Model>, &ServingConfig) -> Arc<D>) {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let seen = Arc::new(Seen::default());
    let (mut preemptions, mut hit_tokens, mut done) = (0, 0, 0);
    while done < mixes {
        let model = &MODELS[random.random_range(0..2)];
        let config = random_config(&mut random);
        let engine = ServingEngine::start(decoder(&model.model, &config), CODEC.clone(), &config).unwrap();
        let mut versions = vec![0, 1, 2, 3];
        for version in 1..versions.len() {
            let weights = model.adapters[version].as_ref().unwrap();
            engine.load(VersionNumber(version as u64), weights).unwrap();
        }
        // Several mixes go through one engine, so that what one leaves behind meets the next.
        for _ in 0..10.min(mixes - done) {
            mix(&mut random, model, &engine, &mut versions, &seen).await;
            eventually("every page is given back", || {
                engine.busy().load(Ordering::SeqCst) == 0 && engine.stats().pages_used == 0
            });
            let stats = engine.stats();
            assert!(stats.pages_cached * 32 <= config.max_prefix_tokens, "{stats:?}");
            done += 1;
        }
        let stats = engine.stats();
        (preemptions, hit_tokens) = (preemptions + stats.preemptions, hit_tokens + stats.prefix_hit_tokens);
    }
    println!("{mixes} mixes: {seen:?}, {preemptions} preemptions, {hit_tokens} tokens shared");
    let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    // The test means nothing if none of this happened.
    assert!(preemptions > mixes as u64 / 10 && hit_tokens > 32 * mixes as u64 / 10);
    assert!(count(&seen.whole) > mixes && count(&seen.left) > mixes / 10);
    assert!(count(&seen.cut_short) > 0 && count(&seen.overdue) > 0);
}

/// Or the comparison with a run alone would not see a wrong adapter.
#[test]
fn the_adapters_answer_differently() {
    for model in &*MODELS {
        let prompt = CODEC.encode(&GenerationInput::Text("the cat sat on the mat".into())).unwrap();
        let answers: Vec<_> =
            (0..model.adapters.len()).map(|adapter| model.alone(adapter, &prompt, 12)).collect();
        for (at, answer) in answers.iter().enumerate() {
            assert!(answers[..at].iter().all(|other| other != answer), "{answers:?}");
        }
    }
}

/// Bit for bit, whatever is beside it and however its prompt is cut.
#[test]
fn logits_do_not_depend_on_the_batch() {
    for model in &*MODELS {
        let adapters: Vec<_> = model
            .adapters
            .iter()
            .map(|adapter| adapter.as_ref().map(|adapter| model.model.load_adapter(adapter).unwrap()))
            .collect();
        let prompts: Vec<Vec<u32>> =
            (0..12u32).map(|at| (0..40 + 9 * at).map(|i| 3 + (i * i + 7 * at) % 250).collect()).collect();
        let run = |batch: &mut [(usize, &[u32], KvCache)]| {
            let mut inputs: Vec<_> = batch
                .iter_mut()
                .map(|(adapter, tokens, cache)| SequenceInput {
                    tokens,
                    cache,
                    adapter: adapters[*adapter].as_ref(),
                    logits: WantedLogits::Last,
                })
                .collect();
            model.model.step(&mut inputs).unwrap()
        };
        for cut in [1, 5, 13, 38] {
            let mut together: Vec<_> =
                prompts.iter().enumerate().map(|(at, p)| (at % 6, &p[..cut], KvCache::default())).collect();
            run(&mut together);
            for ((_, tokens, _), prompt) in together.iter_mut().zip(&prompts) {
                *tokens = &prompt[cut..];
            }
            let logits = run(&mut together);
            let vocab = logits.len() / prompts.len();
            for (at, (prompt, beside)) in prompts.iter().zip(logits.chunks_exact(vocab)).enumerate() {
                let alone = run(&mut [(at % 6, prompt.as_slice(), KvCache::default())]);
                assert_eq!(alone, beside, "prompt {at}, cut at {cut}");
            }
        }
    }
}
