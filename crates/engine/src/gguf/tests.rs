//! What is read against what llama.cpp's own package wrote and computed (`tests/fixtures/make_gguf.py`).

use std::{path::PathBuf, sync::Arc};

use autoglm_domain::{ChatMessage, SystemClock};
use candle_core::{Device, safetensors::load};
use proptest::prelude::*;
use serde::Deserialize;

use super::{file::GgufFile, tensor_type::TensorType, *};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf").join(name)
}

fn starter(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/starter").join(name)
}

#[test]
fn every_type_dequantises_as_ggml_does() {
    let expected = load(fixture("types.safetensors"), &Device::Cpu).unwrap();
    let mut file = GgufFile::open(&fixture("types.gguf")).unwrap();
    assert_eq!(file.tensors().len(), TensorType::ALL.len());
    for kind in TensorType::ALL {
        let name = kind.name().to_uppercase();
        let (info, bytes) = file.read(&name).unwrap();
        assert_eq!((info.kind, info.shape.as_slice()), (kind, &[3, 512][..]));
        let expected = expected[&name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(dequantize::dequantize(kind, &bytes), expected, "{name}");
    }
}

#[test]
fn the_starters_tokenizer_and_template_survive_gguf() {
    let file = GgufFile::open(&fixture("starter.gguf")).unwrap();
    let template = tokenizer::template(file.metadata(), Arc::new(SystemClock)).unwrap().unwrap();
    let messages = [ChatMessage::user("hi"), ChatMessage::assistant("yo")];
    assert_eq!(
        template.render(&messages, &[], true).unwrap(),
        "<|user|>hi<|assistant|>yo<|end|><|assistant|>"
    );
    assert_eq!(tokenizer::end_tokens(file.metadata()).unwrap(), [1]);
}

#[derive(Deserialize)]
struct Golden {
    text: String,
    ids: Vec<u32>,
}

#[test]
fn pieces_with_scores_are_joined_as_sentencepiece_joins_them() {
    let tokenizer = load_tokenizer(&fixture("pieces.gguf")).unwrap();
    let golden: Vec<Golden> =
        serde_json::from_slice(&std::fs::read(fixture("pieces.json")).unwrap()).unwrap();
    assert_eq!(golden.len(), 16);
    for case in golden {
        assert_eq!(tokenizer.encode(&case.text, true).unwrap(), case.ids, "{:?}", case.text);
        assert_eq!(tokenizer.decode(&case.ids).unwrap(), case.text);
    }
}

/// Letters of several scripts, marks, spaces of every kind, emoji with joiners, special tokens.
fn texts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-zA-Z]{1,8}",
        "\\PC{1,4}",
        "[0-9]{1,5}",
        "[ \t\r\n\u{a0}\u{2003}]{1,6}",
        "[äéßøñ\u{301}\u{308}漢字かなعربي]{1,4}",
        "(🙂|👩\u{200d}👩\u{200d}👧|🇩🇪|👍🏽)",
        "('s|'t|'LL|n't|<\\|end\\|>|<\\|user\\|>|<\\|pad)",
    ];
    proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn the_starters_ids_are_the_same_from_gguf(text in texts()) {
        let (ours, theirs) = both();
        let ids = theirs.encode(&text, true).unwrap();
        prop_assert_eq!(ours.encode(&text, true).unwrap(), ids.clone());
        prop_assert_eq!(ours.decode(&ids).unwrap(), theirs.decode(&ids).unwrap());
    }
}

/// The starter's tokenizer from GGUF and from its folder.
fn both() -> &'static (Tokenizer, Tokenizer) {
    static BOTH: std::sync::OnceLock<(Tokenizer, Tokenizer)> = std::sync::OnceLock::new();
    BOTH.get_or_init(|| {
        let ours = load_tokenizer(&fixture("starter.gguf")).unwrap();
        (ours, Tokenizer::load(&starter("tokenizer.json")).unwrap())
    })
}
