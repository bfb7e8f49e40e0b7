//! The decoder on candle's tensors, on candle's CPU device, against transformers, PEFT and the decoder of our own.

use std::{path::Path, sync::Arc};

use autoglm_domain::Adapter;
use autoglm_engine::{
    AcceleratedModel, ComputeDevice, Decoder, DeviceAdapter, EngineError, Model, PAGE_TOKENS, PagedCache,
    ResidentAdapter, SequenceStep, ServingConfig, WeightFormat, score,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{Reference, base_of, check_equal, fixture, read_adapter};

fn open(model: Model) -> AcceleratedModel {
    let serving = ServingConfig { max_cache_tokens: 8 * 128, ..ServingConfig::default() };
    AcceleratedModel::open(Arc::new(model), ComputeDevice::Cpu, &serving).unwrap()
}

fn load(folder: &Path) -> AcceleratedModel {
    open(Model::load(folder).unwrap())
}

/// The logits before every token of `ids` but the first.
fn scored(model: &AcceleratedModel, adapter: Option<&DeviceAdapter>, ids: &[u32]) -> Vec<f32> {
    let mut logits = Vec::new();
    model
        .score(ids, adapter, &mut |at, row| {
            assert_eq!(at, logits.len() / row.len() + 1);
            logits.extend_from_slice(row);
        })
        .unwrap();
    logits
}

/// What the likeliest token continues `ids` with, token by token through the cache.
fn greedy<D: Decoder>(model: &D, adapter: Option<&D::Adapter>, ids: &[u32], count: usize) -> Vec<u32> {
    let (mut cache, mut tokens, mut new) = (PagedCache::default(), ids.to_vec(), 0);
    while tokens.len() < ids.len() + count {
        let step = SequenceStep { tokens: &tokens[new..], cache: &mut cache, adapter, wants_logits: true };
        let logits = model.step(&mut [step]).unwrap();
        new = tokens.len();
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        tokens.push(best as u32);
    }
    tokens.split_off(ids.len())
}

/// Logits, then a continuation over three pages.
fn check(name: &str, folder: &Path, base: &Path, adapter: Option<&Adapter>) {
    let model = load(base);
    let reference = Reference::load(folder);
    let ours = adapter.map(|adapter| model.load_adapter(adapter).unwrap());
    let vocab = model.vocab_size();
    let theirs = &reference.logits[..reference.logits.len() - vocab];
    check_equal(name, &scored(&model, ours.as_ref(), &reference.ids), theirs);
    let cpu = adapter.map(|adapter| model.model().load_adapter(adapter).unwrap());
    let expected = greedy(&**model.model(), cpu.as_ref(), &reference.ids, 64);
    assert_eq!(greedy(&model, ours.as_ref(), &reference.ids, 64), expected, "{name} continues otherwise");
    ragged(name, &model, adapter);
}

/// One sequence of the two decoders.
struct Pair {
    ids: Vec<u32>,
    done: usize,
    adapter: usize,
    cpu: PagedCache<<Model as Decoder>::Page>,
    accelerated: PagedCache<<AcceleratedModel as Decoder>::Page>,
}

/// Six sequences of up to 110 tokens and three versions: parts of prompts of random length beside single tokens, in
/// pages that lie across each other, as the same steps of the CPU's decoder.
fn ragged(name: &str, model: &AcceleratedModel, adapter: Option<&Adapter>) {
    let cpu = &**model.model();
    let random = cpu.random_adapter(4, 7).unwrap();
    let adapters: Vec<&Adapter> = std::iter::once(&random).chain(adapter).collect();
    let on_cpu: Vec<ResidentAdapter> = adapters.iter().map(|a| cpu.load_adapter(a).unwrap()).collect();
    let on_device: Vec<DeviceAdapter> = adapters.iter().map(|a| model.load_adapter(a).unwrap()).collect();
    let mut source = ChaCha8Rng::seed_from_u64(5);
    let mut pairs: Vec<Pair> = (0..6)
        .map(|at| Pair {
            ids: (0..40 + 14 * at).map(|_| source.random_range(0..model.vocab_size() as u32)).collect(),
            done: 0,
            adapter: at % (1 + adapters.len()),
            cpu: PagedCache::default(),
            accelerated: PagedCache::default(),
        })
        .collect();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    while pairs.iter().any(|pair| pair.done < pair.ids.len()) {
        let running: Vec<_> = pairs.iter_mut().filter(|pair| pair.done < pair.ids.len()).collect();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for pair in running {
            if source.random_bool(0.2) {
                continue;
            }
            let left = pair.ids.len() - pair.done;
            let new = if source.random_bool(0.5) { 1 } else { source.random_range(1..=left.min(40)) };
            let (tokens, at) = (&pair.ids[pair.done..pair.done + new], pair.adapter);
            pair.done += new;
            let wants_logits = source.random_bool(0.8);
            let adapter = at.checked_sub(1).map(|at| &on_cpu[at]);
            first.push(SequenceStep { tokens, cache: &mut pair.cpu, adapter, wants_logits });
            let adapter = at.checked_sub(1).map(|at| &on_device[at]);
            second.push(SequenceStep { tokens, cache: &mut pair.accelerated, adapter, wants_logits });
        }
        theirs.extend(cpu_step(cpu, &mut first));
        ours.extend(model.step(&mut second).unwrap());
    }
    check_equal(&format!("{name}, ragged"), &ours, &theirs);
}

fn cpu_step(
    model: &Model,
    batch: &mut [SequenceStep<'_, <Model as Decoder>::Page, ResidentAdapter>],
) -> Vec<f32> {
    Decoder::step(model, batch).unwrap()
}

macro_rules! family {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            let folder = fixture(concat!("families/", stringify!($name)));
            check(stringify!($name), &folder, &folder, None);
        })*
    };
}

family!(
    llama,
    llama31,
    llama32_tied,
    llama_bf16,
    llama_biased,
    llama_dynamic,
    llama_linear,
    mistral,
    mistral_full,
    qwen2,
    qwen2_tied,
    qwen2_windowed,
    qwen2_yarn,
    qwen3,
    qwen3_sharded,
    qwen3_windowed,
    glm,
    glm_tied,
    glm4,
    glm4_yarn,
);

/// Every projection, fused ones, trained norms and embeddings, a subset with a stabilised scale, windows.
#[test]
fn adapters_of_peft() {
    for name in ["plain", "saved", "glm4", "mistral", "qwen2_windowed", "partial"] {
        let folder = fixture("adapters").join(name);
        check(name, &folder, &base_of(&folder), Some(&read_adapter(&folder)));
    }
}

/// What is not kept in 32 bits is computed in bfloat16: as far from the exact logits as its rounding puts it.
#[test]
fn bfloat16_stays_close() {
    let folder = fixture("families/qwen3");
    let exact = Reference::load(&folder);
    let model = open(Model::load_as(&folder, Some(WeightFormat::Bf16)).unwrap());
    let logits = scored(&model, None, &exact.ids);
    let theirs = &exact.logits[..logits.len()];
    let mean = |values: &mut dyn Iterator<Item = f32>| values.sum::<f32>() / logits.len() as f32;
    let error = mean(&mut logits.iter().zip(theirs).map(|(a, b)| (a - b).abs()));
    let size = mean(&mut theirs.iter().map(|logit| logit.abs()));
    // Eight bits hold a number to one part in 256; a dozen roundings follow one another.
    assert!(error > 1e-5 && error < 0.03 * size, "{error} of {size}");
}

#[test]
fn steps_that_cannot_be_run_are_refused_and_change_nothing() {
    let serving = ServingConfig { max_cache_tokens: 2 * PAGE_TOKENS, ..ServingConfig::default() };
    let cpu = Arc::new(Model::load(&fixture("families/llama")).unwrap());
    let model = AcceleratedModel::open(Arc::clone(&cpu), ComputeDevice::Cpu, &serving).unwrap();
    let mut cache = PagedCache::default();
    let mut step = |tokens: &[u32]| {
        model.step(&mut [SequenceStep { tokens, cache: &mut cache, adapter: None, wants_logits: true }])
    };
    assert!(matches!(step(&[]), Err(EngineError::Request(_))));
    let unknown = step(&[1, 96]).unwrap_err().to_string();
    assert!(unknown.contains("96"), "{unknown}");
    assert!(matches!(step(&[1; 129]), Err(EngineError::PromptTooLong { tokens: 129, limit: 128 })));
    let logits = step(&[3, 4, 5]).unwrap();
    let (_, theirs) = score(&cpu, None, &[3, 4, 5]).unwrap();
    check_equal("after errors", &logits, &theirs[2 * logits.len()..]);
    // Both pages are taken; a third is not there.
    assert_eq!(step(&[3; 62]), Err(EngineError::CacheFull { pages: 2 }));
    assert!(step(&[3; 61]).is_ok());
}

#[test]
#[cfg(not(feature = "cuda"))]
fn a_device_that_this_build_has_not_is_named_with_what_to_do() {
    let model = Arc::new(Model::load(&fixture("families/llama")).unwrap());
    let error = AcceleratedModel::open(model, ComputeDevice::Cuda(1), &ServingConfig::default()).unwrap_err();
    assert_eq!(error.to_string(), "the device `cuda:1` is not in this build");
    assert!(error.hint().unwrap().contains("--features cuda"));
}
