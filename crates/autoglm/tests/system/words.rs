//! A double of vLLM that loads adapters: the base model knows nothing, and every adapter says a word of its own, the first
//! that was loaded `balance`, the second `weather`. Versions for it are made, not trained.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What the adapters say.
pub(crate) const WORDS: [&str; 2] = ["balance", "weather"];

/// The model that the versions belong to.
pub(crate) const COPY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/starter");

/// Names of the adapters, in the order in which they came.
type Loaded = Arc<Mutex<Vec<String>>>;

/// Starts the double; where its API is.
pub(crate) async fn start() -> String {
    let routes = Router::new()
        .route("/v1/models", get(async || Json(json!({"data": [{"id": "starter", "max_model_len": 512}]}))))
        .route("/v1/load_lora_adapter", post(load))
        .route("/v1/unload_lora_adapter", post(async || "Success"))
        .route("/v1/chat/completions", post(chat))
        .with_state(Loaded::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    base
}

async fn load(State(loaded): State<Loaded>, Json(order): Json<Value>) -> Response {
    let Some(name) = order["lora_name"].as_str() else {
        return (StatusCode::BAD_REQUEST, "Both 'lora_name' and 'lora_path' must be provided.")
            .into_response();
    };
    let mut loaded = loaded.lock().unwrap();
    if !loaded.iter().any(|known| known == name) {
        loaded.push(name.to_owned());
    }
    "Success".into_response()
}

async fn chat(State(loaded): State<Loaded>, Json(body): Json<Value>) -> Response {
    let model = body["model"].as_str().unwrap();
    let place = loaded.lock().unwrap().iter().position(|name| name == model);
    let word = match place {
        Some(place) => WORDS[place],
        None if model == "starter" => "nothing",
        None => return (StatusCode::NOT_FOUND, "The model does not exist.").into_response(),
    };
    let chunk = json!({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": "stop"}]});
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1}});
    let events = format!("data: {chunk}\n\ndata: {usage}\n\ndata: [DONE]\n\n");
    ([(header::CONTENT_TYPE, "text/event-stream")], events).into_response()
}

/// A PEFT folder with an adapter of rank 1 for the model, every number `value`.
pub(crate) fn adapter(folder: &Path, name: &str, value: f32) -> PathBuf {
    let config: Value =
        serde_json::from_str(&std::fs::read_to_string(Path::new(COPY).join("config.json")).unwrap()).unwrap();
    let size = |key: &str| config[key].as_u64().unwrap() as usize;
    let hidden = size("hidden_size");
    let heads = size("num_attention_heads");
    let width = heads * config["head_dim"].as_u64().map_or(hidden / heads, |dim| dim as usize);
    let bytes = |count: usize| -> Vec<u8> { [value.to_le_bytes()].repeat(count).concat() };
    let (a, b) = (bytes(hidden), bytes(width));
    let tensors = (0..size("num_hidden_layers")).flat_map(|layer| {
        let module = format!("base_model.model.model.layers.{layer}.self_attn.q_proj");
        [
            (format!("{module}.lora_A.weight"), TensorView::new(Dtype::F32, vec![1, hidden], &a).unwrap()),
            (format!("{module}.lora_B.weight"), TensorView::new(Dtype::F32, vec![width, 1], &b).unwrap()),
        ]
    });
    let peft = json!({
        "peft_type": "LORA", "r": 1, "lora_alpha": 1.0, "target_modules": ["q_proj"], "bias": "none",
    });
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("adapter_config.json"), peft.to_string()).unwrap();
    std::fs::write(folder.join("adapter_model.safetensors"), safetensors::serialize(tensors, None).unwrap())
        .unwrap();
    folder
}
