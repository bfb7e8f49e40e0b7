//! Logits of every family against transformers'.

use std::path::Path;

use autoglm_engine::{Model, SequenceInput, WantedLogits, score};

use crate::{Reference, check_equal, fixture};

/// The whole text at once, and in chunks of uneven length through the cache.
fn check(folder: &Path) {
    let model = Model::load(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let reference = Reference::load(folder);
    let name = folder.file_name().unwrap().to_string_lossy();
    let (_, logits) = score(&model, None, &reference.ids).unwrap();
    check_equal(&name, &logits, &reference.logits);
    check_equal(&format!("{name} in chunks"), &in_chunks(&model, &reference.ids), &reference.logits);
}

fn in_chunks(model: &Model, ids: &[u32]) -> Vec<f32> {
    let mut cache = model.new_cache();
    let (mut logits, mut rest) = (Vec::new(), ids);
    for length in [7, 1, 1, 4].into_iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (tokens, later) = rest.split_at(length.min(rest.len()));
        let input = SequenceInput { tokens, cache: &mut cache, adapter: None, logits: WantedLogits::All };
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

/// Folders of other shapes: `make_fixtures.py OUT --shapes`, then this with `AUTOGLM_PARITY=OUT`.
#[test]
#[ignore = "needs folders that make_fixtures.py writes"]
fn folders_named_by_the_environment() {
    let folders = std::env::var("AUTOGLM_PARITY").unwrap();
    for entry in std::fs::read_dir(folders).unwrap() {
        check(&entry.unwrap().path());
    }
}
