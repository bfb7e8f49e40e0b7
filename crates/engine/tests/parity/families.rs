//! Logits of every family against transformers'.

use std::path::Path;

use autoglm_engine::{
    Decoder as _, Model, ModelConfig, ResidentAdapter, SequenceInput, WantedLogits, WeightFormat, score,
};

use crate::{Reference, check_equal, fixture, read_adapter, training::check_run};

/// The whole text at once, and in chunks of uneven length through the cache.
fn check(folder: &Path) {
    check_file(folder, folder);
}

/// The model of `path`, a folder or a GGUF file, against the reference in `folder`.
pub(crate) fn check_file(path: &Path, folder: &Path) {
    let model = Model::load(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let reference = Reference::load(folder);
    let name = path.file_name().unwrap().to_string_lossy();
    let (_, logits) = score(&model, None, &reference.ids).unwrap();
    check_equal(&name, &logits, &reference.logits);
    let in_chunks = in_chunks(&model, None, &reference.ids, &[7, 1, 1, 4]);
    check_equal(&format!("{name} in chunks"), &in_chunks, &reference.logits);
}

fn in_chunks(model: &Model, adapter: Option<&ResidentAdapter>, ids: &[u32], lengths: &[usize]) -> Vec<f32> {
    let mut cache = model.new_cache();
    let (mut logits, mut rest) = (Vec::new(), ids);
    for length in lengths.iter().copied().cycle() {
        if rest.is_empty() {
            break;
        }
        let (tokens, later) = rest.split_at(length.min(rest.len()));
        let input = SequenceInput { tokens, cache: &mut cache, adapter, logits: WantedLogits::All };
        logits.extend(model.step(&mut [input]).unwrap());
        rest = later;
    }
    logits
}

macro_rules! family {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            check(&fixture(concat!("families/", stringify!($name))));
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

/// Whatever the kernels do with many rows and with few, and with an adapter or without.
#[test]
fn a_text_at_once_and_in_pieces_has_the_same_logits_bit_for_bit() {
    let config = serde_json::json!({
        "model_type": "qwen2", "vocab_size": 90, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "tie_word_embeddings": true,
    });
    let ids: Vec<u32> = (0..300).map(|at| at * 7 % 90).collect();
    for format in [WeightFormat::F32, WeightFormat::Bf16] {
        let config = ModelConfig::from_json(&config.to_string()).unwrap();
        let model = Model::random_as(config, 3, format).unwrap();
        let adapter = model.load_adapter(&model.random_adapter(4, 5).unwrap()).unwrap();
        let mut seen = Vec::new();
        for adapter in [None, Some(&adapter)] {
            let whole = in_chunks(&model, adapter, &ids, &[ids.len()]);
            assert!(whole.iter().all(|logit| logit.is_finite()));
            for lengths in [&[1][..], &[40, 3, 100]] {
                assert!(in_chunks(&model, adapter, &ids, lengths) == whole, "{format:?} by {lengths:?}");
            }
            seen.push(whole);
        }
        assert!(seen[0] != seen[1], "the adapter changes nothing");
    }
}

/// Dynamic scaling changes the frequencies of every token once a text outgrows the context, cached ones too; such
/// texts are refused rather than computed with frequencies that no longer hold.
#[test]
fn dynamic_scaling_ends_at_the_context() {
    let model = Model::load(&fixture("families/llama_dynamic")).unwrap();
    let ids: Vec<u32> = (0..129).map(|at| at % 90).collect();
    assert!(score(&model, None, &ids[..128]).is_ok());
    let error = score(&model, None, &ids).unwrap_err().to_string();
    assert!(error.contains("129 tokens; the context holds 128"), "{error}");
}

/// `rope_theta` and `rope_scaling` beside each other, as transformers 4 wrote them, mean the same model.
#[test]
fn a_configuration_of_transformers_4_gives_the_same_logits() {
    let (folder, copy) = (fixture("families/llama31"), tempfile::tempdir().unwrap());
    for (from, to) in [
        ("config_v4.json", "config.json"),
        ("model.safetensors", "model.safetensors"),
        ("ref.safetensors", "ref.safetensors"),
    ] {
        std::fs::copy(folder.join(from), copy.path().join(to)).unwrap();
    }
    check(copy.path());
}

/// The likeliest token after another, by steps of one through the cache.
fn greedy(model: &Model, adapter: Option<&ResidentAdapter>, ids: &[u32], count: usize) -> Vec<u32> {
    let mut cache = model.new_cache();
    let mut tokens = ids.to_vec();
    let mut new = 0;
    while tokens.len() < ids.len() + count {
        let input =
            SequenceInput { tokens: &tokens[new..], cache: &mut cache, adapter, logits: WantedLogits::Last };
        let logits = model.step(&mut [input]).unwrap();
        new = tokens.len();
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        tokens.push(best as u32);
    }
    tokens.split_off(ids.len())
}

fn check_greedy(name: &str, model: &Model, adapter: Option<&ResidentAdapter>, reference: &Reference) {
    let ours = greedy(model, adapter, &reference.ids, reference.greedy.len());
    assert_eq!(ours, reference.greedy, "{name} continues otherwise");
}

/// Models of other shapes that `make_shapes.py OUT` wrote, with `AUTOGLM_PARITY=OUT`: logits, continuations, the
/// losses of a run and the adapter that came of it. A folder without a run, or a reference without a continuation,
/// is held to what it has.
#[test]
#[ignore = "needs folders that make_shapes.py writes"]
fn folders_named_by_the_environment() {
    let folders = std::env::var("AUTOGLM_PARITY").unwrap();
    let mut folders: Vec<_> =
        std::fs::read_dir(folders).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let (mut continued, mut trained) = (0, 0);
    for folder in &folders {
        check(folder);
        let name = folder.file_name().unwrap().to_string_lossy();
        let model = Model::load(folder).unwrap();
        let reference = Reference::load(folder);
        check_greedy(&name, &model, None, &reference);
        continued += usize::from(!reference.greedy.is_empty());
        if folder.join("run").exists() {
            check_run(&name, folder, &folder.join("run"));
            let adapter = model.load_adapter(&read_adapter(&folder.join("trained"))).unwrap();
            let reference = Reference::load(&folder.join("trained"));
            let (_, logits) = score(&model, Some(&adapter), &reference.ids).unwrap();
            check_equal(&format!("{name} with PEFT's adapter"), &logits, &reference.logits);
            check_greedy(&format!("{name} with PEFT's adapter"), &model, Some(&adapter), &reference);
            trained += 1;
        }
    }
    println!("{} folders, {continued} continued, {trained} trained", folders.len());
    assert!(!folders.is_empty());
}
