//! A double of the servers that load adapters while they run: it keeps names and paths, refuses what vLLM and SGLang
//! refuse in their words, and answers a chat with what it was asked for.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use autoglm_upstream::Dialect;
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::fault_injector::{end, word};

#[derive(Clone)]
pub(crate) struct LoraDouble {
    pub(crate) base: String,
    shared: Arc<Shared>,
}

struct Shared {
    dialect: Dialect,
    loaded: Mutex<BTreeMap<String, PathBuf>>,
    orders: Mutex<Vec<(String, Value)>>,
}

impl LoraDouble {
    pub(crate) async fn start(dialect: Dialect) -> Self {
        let shared = Arc::new(Shared { dialect, loaded: Mutex::default(), orders: Mutex::default() });
        let routes = Router::new().route("/v1/models", get(models)).route("/v1/chat/completions", post(chat));
        let routes = match dialect {
            Dialect::Vllm => routes
                .route("/v1/load_lora_adapter", post(load))
                .route("/v1/unload_lora_adapter", post(unload)),
            Dialect::Sglang => {
                routes.route("/load_lora_adapter", post(load)).route("/unload_lora_adapter", post(unload))
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let routes = routes.with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { base, shared }
    }

    /// Orders with a name, as path and body.
    pub(crate) fn orders(&self) -> Vec<(String, Value)> {
        self.shared.orders.lock().unwrap().clone()
    }

    pub(crate) fn loaded(&self) -> BTreeMap<String, PathBuf> {
        self.shared.loaded.lock().unwrap().clone()
    }

    /// Forgets every adapter, as a restart does.
    pub(crate) fn forget(&self) {
        self.shared.loaded.lock().unwrap().clear();
    }
}

async fn models(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let base = json!({"id": "big", "object": "model", "max_model_len": 8192});
    let loaded = shared.loaded.lock().unwrap();
    let adapters = loaded.keys().map(|name| json!({"id": name, "object": "model", "parent": "big"}));
    Json(json!({"object": "list", "data": std::iter::once(base).chain(adapters).collect::<Vec<_>>()}))
}

fn refused(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": {"message": message, "type": "BadRequestError", "code": status.as_u16()}})))
        .into_response()
}

async fn load(State(shared): State<Arc<Shared>>, uri: axum::http::Uri, Json(order): Json<Value>) -> Response {
    let (Some(name), Some(path)) = (order["lora_name"].as_str(), order["lora_path"].as_str()) else {
        return refused(StatusCode::BAD_REQUEST, "Both 'lora_name' and 'lora_path' must be provided.");
    };
    shared.orders.lock().unwrap().push((uri.path().to_owned(), order.clone()));
    let path = PathBuf::from(path);
    if !path.join("adapter_config.json").is_file() || !path.join("adapter_model.safetensors").is_file() {
        return refused(StatusCode::NOT_FOUND, &format!("Loading lora {name} failed: No adapter found"));
    }
    if std::fs::read(path.join("adapter_model.safetensors")).unwrap() == b"broken" {
        return refused(StatusCode::BAD_REQUEST, "rank 64 is greater than max_lora_rank 16");
    }
    let mut loaded = shared.loaded.lock().unwrap();
    if loaded.contains_key(name) {
        let message = format!("The lora adapter '{name}' has already been loaded.");
        return refused(StatusCode::BAD_REQUEST, &message);
    }
    loaded.insert(name.to_owned(), path);
    match shared.dialect {
        Dialect::Vllm => format!("Success: LoRA adapter '{name}' added successfully.").into_response(),
        Dialect::Sglang => Json(json!({"success": true, "loaded_adapters": {}})).into_response(),
    }
}

async fn unload(
    State(shared): State<Arc<Shared>>,
    uri: axum::http::Uri,
    Json(order): Json<Value>,
) -> Response {
    shared.orders.lock().unwrap().push((uri.path().to_owned(), order.clone()));
    match shared.loaded.lock().unwrap().remove(order["lora_name"].as_str().unwrap()) {
        Some(_) => "Success".into_response(),
        None => refused(StatusCode::NOT_FOUND, "The lora adapter cannot be found."),
    }
}

/// Says which model, and for SGLang which adapter, was asked for. `wait` keeps the answer open.
async fn chat(State(shared): State<Arc<Shared>>, Json(body): Json<Value>) -> Response {
    let model = body["model"].as_str().unwrap().to_owned();
    let adapter = body["lora_path"].as_str().map(str::to_owned);
    let wanted = adapter.clone().unwrap_or_else(|| model.clone());
    if wanted != "big" && !shared.loaded.lock().unwrap().contains_key(&wanted) {
        return refused(StatusCode::NOT_FOUND, &format!("The model `{wanted}` does not exist."));
    }
    let said = adapter.map_or_else(|| model.clone(), |adapter| format!("{model} with {adapter}"));
    let events = [word(&said), end("stop", 5, 1)].concat();
    ([(header::CONTENT_TYPE, "text/event-stream")], events).into_response()
}
