//! GGUF files against the reference: what llama.cpp's package wrote, what this engine writes, and what it makes of
//! files that are not what they should be.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use autoglm_domain::SystemClock;
use autoglm_engine::{
    Conversion, EngineError, Model, TensorType, TextCodec, Tokenizer, WeightFormat, convert, score,
};

use crate::{Reference, families::check_file, fixture};

/// As llama.cpp's converter lays them out: interleaved heads, factors of frequencies, YaRN, heads of another width.
#[test]
fn families_as_the_converter_writes_them() {
    for name in ["llama31", "llama_biased", "qwen2_yarn", "qwen3"] {
        check_file(&fixture(&format!("gguf/{name}.gguf")), &fixture(&format!("families/{name}")));
    }
}

fn converted(path: &Path, kind: TensorType) -> (tempfile::TempDir, PathBuf, Conversion) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    let conversion = convert(path, &file, kind, Arc::new(SystemClock)).unwrap();
    (folder, file, conversion)
}

#[test]
fn every_family_comes_back_from_a_file_as_it_was() {
    let mut seen = 0;
    for entry in std::fs::read_dir(fixture("families")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("qwen") && name.ends_with("windowed") {
            continue;
        }
        let (_keep, file, conversion) = converted(&folder, TensorType::F32);
        assert_eq!(conversion.types.len(), 1, "{name}: {conversion:?}");
        check_file(&file, &folder);
        let (there, back) = (Model::load(&folder).unwrap(), Model::load(&file).unwrap());
        assert_eq!(there.hash(), back.hash(), "{name}");
        seen += 1;
    }
    assert!(seen >= 12, "{seen}");
}

#[test]
fn windows_that_differ_from_block_to_block_have_no_word() {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("model.gguf");
    for name in ["qwen2_windowed", "qwen3_windowed"] {
        let error =
            convert(&fixture(&format!("families/{name}")), &file, TensorType::F32, Arc::new(SystemClock));
        let message = error.unwrap_err().to_string();
        assert_eq!(message, "config.json: GGUF cannot say which blocks have a sliding window");
    }
    assert!(!file.exists() && std::fs::read_dir(out.path()).unwrap().next().is_none());
}

#[test]
fn fewer_bits_cost_little_and_rows_that_fit_no_block_fall_back() {
    let folder = fixture("families/llama");
    let reference = Reference::load(&folder);
    let distance_as = |file: &Path, format: Option<WeightFormat>| {
        let (_, logits) = score(&Model::load_as(file, format).unwrap(), None, &reference.ids).unwrap();
        let squares = logits.iter().zip(&reference.logits).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
        (squares / reference.logits.iter().map(|b| b * b).sum::<f32>()).sqrt()
    };
    // What the file lost, apart from what inputs lose when they become bytes too.
    let distance = |file: &Path| distance_as(file, Some(WeightFormat::F32));
    // Rows are 32 wide, but for the 48 of `down_proj`.
    let (_keep, file, conversion) = converted(&folder, TensorType::Q8_0);
    assert_eq!(conversion.types, [("f32".into(), 5), ("bf16".into(), 2), ("q8_0".into(), 14)]);
    assert_eq!(conversion.fallbacks[0], ("blk.0.ffn_down.weight".into(), "bf16".into()));
    let q8 = distance(&file);
    assert!((1e-5..0.02).contains(&q8), "{q8}");
    let as_stored = distance_as(&file, None);
    assert!((q8..0.05).contains(&as_stored), "{as_stored}");
    let (_keep, file, conversion) = converted(&folder, TensorType::Q4K);
    assert_eq!(conversion.types, [("f32".into(), 5), ("bf16".into(), 2), ("q8_0".into(), 14)]);
    assert_eq!(distance(&file), q8);
    // From file to file: what has its type already is copied.
    let (_keep, again, _) = converted(&file, TensorType::Q8_0);
    assert_eq!(Model::load(&again).unwrap().hash(), Model::load(&file).unwrap().hash());
    let refused = convert(&folder, &again, TensorType::Q6K, Arc::new(SystemClock)).unwrap_err();
    assert_eq!(refused.to_string(), "`q6_K` is only read, not written");
}

#[test]
fn the_starter_keeps_its_tokens_and_its_template() {
    let starter = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/starter");
    let (_keep, file, conversion) = converted(&starter, TensorType::Q4K);
    // Hidden 256 fits q4_K; of 640 values a row does not.
    assert_eq!(conversion.types, [("f32".into(), 9), ("q8_0".into(), 5), ("q4_K".into(), 24)]);
    assert_eq!(conversion.fallbacks.len(), 5);
    assert_eq!(conversion.notes, Vec::<String>::new());
    let config = Model::load(&file).unwrap();
    let config = config.config();
    assert_eq!(config.eos_token_ids, [1]);
    let codec = |path: &Path| TextCodec::load(path, config, Arc::new(SystemClock)).unwrap();
    let input =
        autoglm_domain::GenerationInput::Chat(vec![autoglm_domain::ChatMessage::user("Grüße, 🙂  you")]);
    assert_eq!(codec(&file).encode(&input).unwrap(), codec(&starter).encode(&input).unwrap());
    let text = "It was  the best of times;\n\n\tit was 1859 — Grüße 漢字 🙂<|end|> 'll";
    let ids = |path: &Path| Tokenizer::of_model(path).unwrap().encode(text, true).unwrap();
    assert_eq!(ids(&file), ids(&starter));
}

#[test]
fn a_file_without_a_tokenizer_says_so() {
    let error = Tokenizer::of_model(&fixture("gguf/qwen3.gguf")).unwrap_err();
    assert!(
        matches!(&error, EngineError::Gguf { message, .. } if message == "`tokenizer.ggml.model` is missing"),
        "{error}"
    );
}
