//! What fuzzing found worth keeping (`fuzz/corpus`), through the readers once more.

use std::path::Path;

use autoglm_engine::{Model, ModelConfig, Tokenizer, trial};

/// A fuzz target.
type Target = fn(&[u8]);

#[test]
fn the_corpus_is_read_without_a_panic() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let targets: [(&str, Target); 4] = [
        ("gguf", trial::gguf),
        ("safetensors", trial::safetensors),
        ("adapter", trial::adapter),
        ("json", trial::json),
    ];
    for (name, target) in targets {
        let mut files = 0;
        for entry in std::fs::read_dir(corpus.join(name)).unwrap() {
            target(&std::fs::read(entry.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files >= 1, "{name} has no corpus");
    }
}

/// Fuzzing began with files that are whole: else it would have tried the first check alone.
#[test]
fn the_seeds_are_whole() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for name in ["qwen2", "glm4", "llama_spm"] {
        // Only a name that ends so is taken for GGUF where a model is named; here the path is.
        let path = corpus.join("gguf").join(name);
        Model::load(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        Tokenizer::of_model(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let config = std::fs::read_to_string(corpus.join("json/glm4")).unwrap();
    assert!(ModelConfig::from_json(&config).is_ok());
    Tokenizer::load(&corpus.join("json/tokenizer")).unwrap();
}
