//! Files that lie, break off or ask for what is not read: each gets an error that names the file, the key or
//! tensor, and the limit.

use std::io::Cursor;

use super::{
    file::GgufFile,
    metadata::{Array, Metadata, Scalar, Value},
    tensor_type::TensorType,
    tokenizer,
    write::{self, Entry},
};
use crate::{EngineError, Result};

/// A whole file: some keys and two tensors.
fn whole() -> Vec<u8> {
    let mut metadata = Metadata::new("x.gguf");
    metadata.set("general.architecture", Value::text("llama"));
    metadata.set("list", Value::Array(Array::Texts(vec!["a".into(), "bc".into()])));
    metadata.set("number", Value::u32(7));
    file(
        &metadata,
        &[entry("a.weight", TensorType::F32, &[2, 4]), entry("b.weight", TensorType::Q8_0, &[1, 64])],
    )
}

fn entry(name: &str, kind: TensorType, shape: &[usize]) -> Entry {
    Entry { name: name.into(), kind, shape: shape.to_vec() }
}

fn file(metadata: &Metadata, entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    let failed = |error: &std::io::Error| EngineError::Internal(error.to_string());
    write::write(&mut out, metadata, entries, &failed, |entry| Ok(vec![1; entry.len()])).unwrap();
    out
}

fn open(bytes: &[u8]) -> Result<GgufFile<Cursor<&[u8]>>> {
    GgufFile::new(Cursor::new(bytes), "x.gguf")
}

fn refusal(bytes: &[u8]) -> String {
    match open(bytes) {
        Ok(_) => panic!("it was read"),
        Err(error) => {
            assert!(error.hint().is_some(), "{error} has no hint");
            error.to_string()
        }
    }
}

/// The file with the bytes after the first `needle` replaced.
fn patched(needle: &[u8], skip: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = whole();
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap() + needle.len() + skip;
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

#[test]
fn a_whole_file_is_read() {
    let bytes = whole();
    let mut file = open(&bytes).unwrap();
    assert_eq!(file.metadata().unsigned("number").unwrap(), Some(7));
    let (info, bytes) = file.read("b.weight").unwrap();
    assert_eq!((info.shape, bytes), (vec![1, 64], vec![1; 68]));
    assert_eq!(file.read("c").unwrap_err().to_string(), "`x.gguf` the tensor `c` is missing");
}

/// Whatever the length at which a file breaks off, it is refused.
#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let bytes = whole();
    // Behind the last tensor there is only padding.
    let end = bytes.len() - (96 - 68);
    for length in 0..end {
        let error = refusal(&bytes[..length]);
        assert!(error.starts_with("`x.gguf` "), "{length}: {error}");
    }
    assert!(open(&bytes[..end]).is_ok());
    assert_eq!(
        refusal(b""),
        "`x.gguf` ends before the mark `GGUF`: 4 bytes are wanted at 0, 0 are left of 0"
    );
}

#[test]
fn marks_and_versions() {
    assert_eq!(refusal(b"GGML\x03\0\0\0"), "`x.gguf` does not begin with `GGUF`");
    let version = |version: u32| patched(b"GGUF", 0, &version.to_le_bytes());
    assert_eq!(refusal(&version(1)), "`x.gguf` has version 1 of GGUF; versions 2 and 3 are read");
    assert_eq!(refusal(&version(4)), "`x.gguf` has version 4 of GGUF; versions 2 and 3 are read");
    assert_eq!(
        refusal(&version(3u32.swap_bytes())),
        "`x.gguf` is big-endian; only little-endian files are read"
    );
    assert!(open(&version(2)).is_ok());
}

#[test]
fn counts_and_lengths_that_the_file_cannot_hold() {
    let size = whole().len() as u64;
    let huge = u64::MAX.to_le_bytes();
    let tensors = refusal(&patched(b"GGUF", 4, &huge));
    assert_eq!(
        tensors,
        format!(
            "`x.gguf` says that the number of tensors is {}, but the {} bytes left hold at most {}",
            u64::MAX,
            size - 16,
            (size - 16) / 24
        )
    );
    let keys = refusal(&patched(b"GGUF", 12, &(1u64 << 40).to_le_bytes()));
    assert!(keys.starts_with("`x.gguf` says that the number of keys is 1099511627776, but the "), "{keys}");
    let list = refusal(&patched(b"list", 8, &huge));
    assert!(
        list.contains("says that the number of texts in the value of `list` is 18446744073709551615"),
        "{list}"
    );
    let text = refusal(&patched(b"list", 16, &huge));
    assert!(
        text.starts_with("`x.gguf` ends before text 0 of the value of `list`: 18446744073709551615 bytes"),
        "{text}"
    );
    // One more key than there is: the tensor's name is taken for it.
    let more = refusal(&patched(b"GGUF", 12, &4u64.to_le_bytes()));
    assert!(more.starts_with("`x.gguf` "), "{more}");
}

#[test]
fn types_that_do_not_exist_or_are_not_read() {
    assert_eq!(
        refusal(&patched(b"number", 0, &99u32.to_le_bytes())),
        "`x.gguf` the value of `number` has the type 99, which does not exist"
    );
    assert_eq!(
        refusal(&patched(b"list", 4, &9u32.to_le_bytes())),
        "`x.gguf` the value of `list` is a list of lists, which no model needs"
    );
    assert_eq!(
        refusal(&patched(b"list", 4, &77u32.to_le_bytes())),
        "`x.gguf` the value of `list` lists the type 77, which does not exist"
    );
    // Behind the name: number of dimensions, two dimensions, the type.
    let kind = |kind: u32| refusal(&patched(b"a.weight", 20, &kind.to_le_bytes()));
    assert_eq!(kind(10), "`x.gguf` the tensor `a.weight` has the type `q2_K`, which is not read");
    assert_eq!(kind(4711), "`x.gguf` the tensor `a.weight` has the type number 4711, which is not read");
    assert_eq!(
        open(&patched(b"a.weight", 20, &10u32.to_le_bytes())).unwrap_err().hint().unwrap(),
        "types that are read: f32, f16, bf16, q4_0, q8_0, q4_K, q6_K"
    );
    assert_eq!(kind(12), "`x.gguf` the tensor `a.weight` of type q4_K has rows of 4, no multiple of 256");
}

#[test]
fn shapes_and_places_that_lie() {
    let shape = |at: usize, size: u64| refusal(&patched(b"a.weight", 4 + 8 * at, &size.to_le_bytes()));
    assert_eq!(shape(0, 0), "`x.gguf` the tensor `a.weight` has a dimension of 0: [2, 0]");
    assert_eq!(
        shape(1, 1 << 62),
        "`x.gguf` the tensor `a.weight` has the shape [4611686018427387904, 4], more than can be counted"
    );
    let beyond = shape(1, 1 << 40);
    assert!(
        beyond.starts_with("`x.gguf` the tensor `a.weight` of 17592186044416 bytes at 0 after the header's "),
        "{beyond}"
    );
    assert!(beyond.ends_with(&format!("reaches beyond the file's {} bytes", whole().len())), "{beyond}");
    let dimensions = |count: u32| refusal(&patched(b"a.weight", 0, &count.to_le_bytes()));
    assert_eq!(dimensions(0), "`x.gguf` the tensor `a.weight` has 0 dimensions; 1 to 4 are read");
    assert_eq!(dimensions(5), "`x.gguf` the tensor `a.weight` has 5 dimensions; 1 to 4 are read");
    let offset = |offset: u64| refusal(&patched(b"b.weight", 24, &offset.to_le_bytes()));
    assert_eq!(offset(33), "`x.gguf` the tensor `b.weight` begins at 33, which is no multiple of 32");
    assert_eq!(offset(0), "`x.gguf` the tensors `a.weight` and `b.weight` overlap");
    assert!(
        offset(u64::MAX - 31).contains("the tensor `b.weight` of 68 bytes at 18446744073709551584 after")
    );
}

#[test]
fn names_that_come_twice() {
    let renamed = |from: &[u8], to: &[u8]| {
        let mut bytes = whole();
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to);
        refusal(&bytes)
    };
    assert_eq!(renamed(b"b.weight", b"a.weight"), "`x.gguf` has the tensor `a.weight` twice");
    let mut metadata = Metadata::new("x.gguf");
    metadata.set("one", Value::u32(1));
    metadata.set("two", Value::u32(2));
    let mut bytes = file(&metadata, &[]);
    let at = bytes.windows(3).position(|window| window == b"two").unwrap();
    bytes[at..at + 3].copy_from_slice(b"one");
    assert_eq!(refusal(&bytes), "`x.gguf` has the key `one` twice");
}

#[test]
fn an_alignment_that_is_none() {
    for alignment in [0u32, 3, 1 << 31 | 1] {
        let mut metadata = Metadata::new("x.gguf");
        metadata.set("general.alignment", Value::u32(32));
        let mut bytes = file(&metadata, &[]);
        let at = bytes.windows(17).position(|window| window == b"general.alignment").unwrap() + 21;
        bytes[at..at + 4].copy_from_slice(&alignment.to_le_bytes());
        assert_eq!(
            refusal(&bytes),
            format!("`x.gguf` `general.alignment` is {alignment}; it must be a power of two up to 2^31")
        );
    }
    let mut metadata = Metadata::new("x.gguf");
    metadata.set("general.alignment", Value::u32(4096));
    let bytes = file(&metadata, &[entry("a", TensorType::F32, &[3])]);
    assert_eq!(open(&bytes).unwrap().values("a").unwrap().len(), 3);
}

/// Keys of a model with two tokens, changed.
fn tokens(change: impl FnOnce(&mut Metadata)) -> String {
    let mut metadata = Metadata::new("x.gguf");
    metadata.set("tokenizer.ggml.model", Value::text("gpt2"));
    metadata.set("tokenizer.ggml.pre", Value::text("gpt-2"));
    metadata.set("tokenizer.ggml.tokens", texts(&["a", "b", "ab"]));
    metadata.set("tokenizer.ggml.merges", texts(&["a b"]));
    assert!(tokenizer::read(&metadata).is_ok());
    change(&mut metadata);
    let error = tokenizer::read(&metadata).unwrap_err();
    assert!(error.hint().is_some(), "{error} has no hint");
    error.to_string()
}

fn texts(texts: &[&str]) -> Value {
    Value::Array(Array::Texts(texts.iter().map(ToString::to_string).collect()))
}

fn integers(values: &[i32]) -> Value {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Value::Array(Array::Numbers { kind: Scalar::I32, bytes })
}

#[test]
fn tokenizers_with_parts_missing_or_in_contradiction() {
    let set =
        |key: &str, value: Value| tokens(|metadata| metadata.set(format!("tokenizer.ggml.{key}"), value));
    assert_eq!(
        set("merges", texts(&[])),
        "`x.gguf` has no `tokenizer.ggml.merges`, without which its tokenizer cannot join bytes"
    );
    assert_eq!(set("merges", texts(&["ab"])), "`x.gguf` has merge 0, `ab`, which is not two tokens");
    assert_eq!(set("merges", texts(&["a b", "b a"])), "`x.gguf` has merge 1, `b a`, but no token `ba`");
    assert_eq!(set("tokens", texts(&["a", "b", "ab", "a"])), "`x.gguf` has the token `a` twice, as 0 and 3");
    assert_eq!(
        set("tokens", Value::u32(3)),
        "`x.gguf` the value of `tokenizer.ggml.tokens` is not a list of texts"
    );
    assert_eq!(set("token_type", integers(&[1, 1])), "`x.gguf` has 3 tokens, but 2 kinds of tokens");
    assert_eq!(
        set("token_type", integers(&[1, 9, 1])),
        "`x.gguf` has the token 1 of kind 9, which does not exist"
    );
    assert_eq!(
        set("pre", Value::text("cl100k")),
        "`x.gguf` splits texts by `tokenizer.ggml.pre` = `cl100k`, which is not known"
    );
    assert_eq!(
        set("model", Value::text("bert")),
        "`x.gguf` has a tokenizer of the kind `bert`, which is not read"
    );
    assert_eq!(set("model", Value::text("llama")), "`x.gguf` `tokenizer.ggml.scores` is missing");
    let bos = tokens(|metadata| {
        metadata.set("tokenizer.ggml.add_bos_token", Value::flag(true));
        metadata.set("tokenizer.ggml.bos_token_id", Value::u32(3));
    });
    assert_eq!(bos, "`x.gguf` `tokenizer.ggml.bos_token_id` 3 is no token");
}

#[test]
fn scores_that_are_too_few_or_no_numbers() {
    let scored = |scores: &[f32]| {
        tokens(|metadata| {
            let bytes = scores.iter().flat_map(|score| score.to_le_bytes()).collect();
            metadata.set("tokenizer.ggml.model", Value::text("llama"));
            metadata.set("tokenizer.ggml.scores", Value::Array(Array::Numbers { kind: Scalar::F32, bytes }));
        })
    };
    assert_eq!(scored(&[0.0]), "`x.gguf` has 3 tokens, but 1 scores");
    assert_eq!(scored(&[0.0, f32::NAN, 1.0]), "`x.gguf` has the score NaN for token 1");
}

/// Keys of a small model; `change` sets or replaces some.
fn model(change: impl FnOnce(&mut Metadata)) -> String {
    let mut metadata = Metadata::new("x.gguf");
    metadata.set("general.architecture", Value::text("llama"));
    for (key, value) in [
        ("context_length", 64),
        ("embedding_length", 32),
        ("block_count", 1),
        ("feed_forward_length", 48),
        ("attention.head_count", 4),
    ] {
        metadata.set(format!("llama.{key}"), Value::u32(value));
    }
    metadata.set("llama.attention.layer_norm_rms_epsilon", Value::f32(1e-5));
    change(&mut metadata);
    let bytes = file(&metadata, &[entry("token_embd.weight", TensorType::F32, &[16, 32])]);
    super::model::read(&mut open(&bytes).unwrap(), None).unwrap_err().to_string()
}

#[test]
fn models_that_are_not_computed() {
    let set = |key: &str, value: Value| model(|metadata| metadata.set(key, value));
    assert_eq!(model(|_| {}), "weights: `model.layers.0.input_layernorm.weight` is missing");
    assert_eq!(
        set("general.architecture", Value::text("mamba")),
        "`x.gguf` has the architecture `mamba`, which is not computed"
    );
    assert_eq!(set("general.type", Value::text("adapter")), "`x.gguf` holds a `adapter`, not a model");
    assert_eq!(set("split.count", Value::u32(3)), "`x.gguf` is one of 3 parts of a model");
    assert_eq!(
        set("llama.expert_count", Value::u32(8)),
        "`x.gguf` sets `llama.expert_count`, which changes the arithmetic and is not supported"
    );
    assert_eq!(
        set("llama.flux_capacitance", Value::u32(8)),
        "`x.gguf` has the unknown key `llama.flux_capacitance`, which may change the arithmetic"
    );
    assert_eq!(
        set("llama.attention.head_count", integers(&[4, 4])),
        "`x.gguf` the value of `llama.attention.head_count` is not a whole number from 0 on"
    );
    assert_eq!(
        set("llama.rope.scaling.type", Value::text("longrope")),
        "`x.gguf` has the rope scaling `longrope`, which is not computed"
    );
    assert_eq!(
        set("llama.rope.dimension_count", Value::u32(4)),
        "`x.gguf` has heads of 8, but `llama.rope.dimension_count` is 4"
    );
    assert_eq!(
        set("llama.block_count", Value::u32(1 << 30)),
        "`x.gguf` describes a model that is not computed: `num_hidden_layers` is 1073741824; it must be from 1 to 1024"
    );
    assert_eq!(
        set("tokenizer.ggml.bos_token_id", Value::u32(16)),
        "`x.gguf` describes a model that is not computed: token 16 is outside the vocabulary of 16"
    );
    assert_eq!(
        model(|metadata| metadata.set("llama.embedding_length", Value::u32(64))),
        "weights: `model.embed_tokens.weight` has shape [16, 32] where the configuration says [16, 64]"
    );
}
