//! Tokenizers and chat templates of the forms that GLM-4 and Mistral use, against transformers.

use std::{path::Path, sync::Arc};

use autoglm_domain::{ChatMessage, GenerationInput, SystemClock, TrainExample};
use autoglm_engine::{ModelConfig, TextCodec, TextStream};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::fixture;

/// What `make_texts.py` wrote.
#[derive(Deserialize)]
struct Reference {
    vocab_size: usize,
    texts: Vec<Case>,
    chats: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: Option<String>,
    messages: Option<Vec<ChatMessage>>,
    ids: Vec<u32>,
    decoded: String,
}

/// The folder's codec, for a model of `family` that fits its vocabulary.
fn load(folder: &Path, family: &str, end: &Value, vocab_size: usize) -> TextCodec {
    let config = json!({
        "model_type": family, "vocab_size": vocab_size, "hidden_size": 8, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8,
        "eos_token_id": end,
    });
    let config = ModelConfig::from_json(&config.to_string()).unwrap();
    TextCodec::load(folder, &config, Arc::new(SystemClock)).unwrap()
}

/// The answer's text as it comes, a token at a time.
fn streamed(codec: &TextCodec, ids: &[u32]) -> String {
    let mut stream = TextStream::new(Arc::clone(codec.tokenizer()), Vec::new());
    let mut text: String = ids.iter().map(|id| stream.push(*id, None).unwrap().text).collect();
    text.push_str(&stream.finish().unwrap().text);
    text
}

fn check(family: &str, end: &Value) -> TextCodec {
    let folder = fixture("texts").join(family);
    let reference: Reference =
        serde_json::from_slice(&std::fs::read(folder.join("ref.json")).unwrap()).unwrap();
    let codec = load(&folder, family, end, reference.vocab_size);
    assert_eq!(codec.tokenizer().vocab_size(), reference.vocab_size);
    for case in reference.texts.iter().chain(&reference.chats) {
        let input = match (&case.text, &case.messages) {
            (Some(text), _) => GenerationInput::Text(text.clone()),
            (None, messages) => GenerationInput::Chat(messages.clone().unwrap()),
        };
        let ids = codec.encode(&input).unwrap();
        assert_eq!(ids, case.ids, "{family}: {input:?}");
        assert_eq!(codec.tokenizer().decode(&ids).unwrap(), case.decoded);
        assert_eq!(streamed(&codec, &ids), case.decoded, "{family}: {input:?}, streamed");
    }
    codec
}

fn example(target: &str) -> TrainExample {
    let prompt = vec![ChatMessage::user("Where is my card?")];
    TrainExample { prompt, target: target.into(), weight: 1.0, frequency: 1.0, objective: Default::default() }
}

/// Its turns end where the next begins, so that any of three tokens ends an answer.
#[test]
fn glm4_s_texts_begin_with_two_marks_and_its_roles_are_tokens() {
    let codec = check("glm4", &json!([319, 323, 325]));
    let tokenizer = codec.tokenizer();
    let names =
        ["<|endoftext|>", "<|user|>", "<|observation|>"].map(|name| tokenizer.token_id(name).unwrap());
    assert_eq!(codec.eos_token_ids(), names);
    let encoded = codec.encode_example(&example("The card is lost.")).unwrap();
    assert_eq!(tokenizer.decode(&encoded.target).unwrap(), "\nThe card is lost.");
    assert_eq!(encoded.target.last(), Some(&names[0]));
    assert_eq!(encoded.prompt.last(), tokenizer.token_id("<|assistant|>").as_ref());
}

#[test]
fn mistral_s_blanks_are_marks_and_its_unknown_characters_bytes() {
    let codec = check("mistral", &json!(2));
    let encoded = codec.encode_example(&example("The card is lost.")).unwrap();
    assert_eq!(codec.tokenizer().decode(&encoded.target).unwrap(), "The card is lost.");
    assert_eq!(encoded.target.last(), Some(&2));
    let refused = GenerationInput::Chat(vec![ChatMessage::assistant("a")]);
    let error = codec.encode(&refused).unwrap_err().to_string();
    assert!(error.contains("user and assistant must take turns"), "{error}");
}

/// A vocabulary that lost its merges loads elsewhere and cuts texts into letters.
#[test]
fn a_tokenizer_without_its_merges_is_refused() {
    for family in ["glm4", "mistral"] {
        let bytes = std::fs::read(fixture("texts").join(family).join("tokenizer.json")).unwrap();
        let mut tokenizer: Value = serde_json::from_slice(&bytes).unwrap();
        tokenizer["model"]["merges"] = json!([]);
        let error = autoglm_engine::Tokenizer::from_bytes(tokenizer.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains("its merges are missing"), "{error}");
    }
}
