//! Bytes from strangers, read as the engine reads files and then dropped: what the fuzz targets call and what
//! the tests replay their corpus through.
//!
//! Whatever the bytes are, these return: with an error or without, but without a panic, and in memory and time
//! that are bounded by the number of bytes.

use std::{
    io::Cursor,
    sync::{Arc, OnceLock},
};

use autoglm_domain::{Adapter, ChatMessage, SystemClock};

use crate::{
    ChatTemplate, Decoder as _, Model, ModelConfig, Tokenizer,
    gguf::{self, GgufFile},
    weights,
};

/// A model small enough to try adapters on at thousands a second.
const SMALL: &str = r#"{"model_type": "qwen3", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
    "tie_word_embeddings": true}"#;

/// A GGUF file: its header, every tensor, the model, the tokenizer and the template.
pub fn gguf(bytes: &[u8]) {
    let Ok(mut file) = GgufFile::new(Cursor::new(bytes), "fuzzed") else { return };
    let names: Vec<String> = file.tensors().keys().cloned().collect();
    for name in names {
        // Its place was held against the file's size when the header was read.
        debug_assert!(file.values(&name).is_ok(), "{name}");
    }
    if let Ok((config, weights)) = gguf::read_model(&mut file, None) {
        drop(Model::new(config, weights));
    }
    if let Ok(tokenizer) = gguf::read_tokenizer(&file) {
        drop(tokenizer.encode("Grüße, 12 🙂\n<s> the", true).map(|ids| tokenizer.decode(&ids)));
    }
    if let Ok(Some(template)) = gguf::read_template(&file, Arc::new(SystemClock)) {
        drop(template.render(&[ChatMessage::user("hi")], &[], true));
    }
}

/// A file of weights in safetensors.
pub fn safetensors(bytes: &[u8]) {
    if let Ok(tensors) = weights::read_safetensors(bytes, "fuzzed") {
        for (name, tensor) in &tensors {
            drop(tensor.values(name));
        }
    }
}

/// Both files of an adapter, with a 0 byte between them.
pub fn adapter(bytes: &[u8]) {
    static MODEL: OnceLock<Option<Model>> = OnceLock::new();
    let small = || ModelConfig::from_json(SMALL).and_then(|config| Model::random(config, 1)).ok();
    let Some(model) = MODEL.get_or_init(small) else { return };
    let at = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (config, weights) = (bytes[..at].to_vec(), bytes.get(at + 1..).unwrap_or_default().to_vec());
    drop(model.load_adapter(&Adapter { config, weights }));
}

/// A `config.json`, an index of files of weights, a `tokenizer.json` or a chat template: whatever the text is.
pub fn json(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(config) = ModelConfig::from_json(text) {
        // What was read is said again in the same words.
        debug_assert_eq!(ModelConfig::from_json(&config.to_json()).as_ref(), Ok(&config));
        drop(crate::rope_frequencies(&config));
    }
    drop(weights::files_of_index(text, "fuzzed"));
    drop(Tokenizer::from_bytes(bytes).map(|tokenizer| tokenizer.encode("the cat 12", true)));
    if let Ok(template) = ChatTemplate::new(text, [], Arc::new(SystemClock)) {
        drop(template.render(&[ChatMessage::user("hi")], &[], true));
    }
}
