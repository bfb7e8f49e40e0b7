//! A double of an upstream: it answers at once, without a model.
//!
//! It takes adapters in vLLM's way and says one word an adapter, in the order in which they were loaded, so that every
//! answer shows which version gave it. What is measured with it is autoglm alone.

use std::sync::Arc;

use autoglm_domain::{Error, Result};
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// Name of its base model.
const MODEL: &str = "instant";

/// The running double.
#[derive(Debug)]
pub(crate) struct InstantUpstream {
    /// Where its API is.
    pub(crate) base_url: String,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Said {
    words: &'static [&'static str],
    /// Names of the adapters, in the order in which they came.
    loaded: Mutex<Vec<String>>,
}

impl InstantUpstream {
    /// Starts one whose nth adapter says the nth of `words`.
    pub(crate) async fn start(words: &'static [&'static str]) -> Result<Self> {
        let said = Arc::new(Said { words, loaded: Mutex::default() });
        let models = async || Json(json!({"data": [{"id": MODEL, "max_model_len": 4096}]}));
        let router = Router::new()
            .route("/v1/models", get(models))
            .route("/v1/load_lora_adapter", post(load))
            .route("/v1/unload_lora_adapter", post(async || "Success"))
            .route("/v1/chat/completions", post(chat))
            .with_state(said);
        let failed = |error: std::io::Error| Error::unavailable(format!("the double cannot listen: {error}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let base_url = format!("http://{}/v1", listener.local_addr().map_err(failed)?);
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::warn!(%error, "the double stopped");
            }
        });
        Ok(Self { base_url, serving })
    }
}

impl Drop for InstantUpstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn load(State(said): State<Arc<Said>>, Json(order): Json<Value>) -> Response {
    let Some(name) = order.get("lora_name").and_then(Value::as_str) else {
        return (StatusCode::BAD_REQUEST, "Both 'lora_name' and 'lora_path' must be provided.")
            .into_response();
    };
    let mut loaded = said.loaded.lock();
    if !loaded.iter().any(|known| known == name) {
        loaded.push(name.to_owned());
    }
    "Success".into_response()
}

async fn chat(State(said): State<Arc<Said>>, Json(body): Json<Value>) -> Response {
    let model = body.get("model").and_then(Value::as_str).unwrap_or_default();
    let place = said.loaded.lock().iter().position(|name| name == model);
    let word = match place.and_then(|place| said.words.get(place)) {
        Some(word) => word,
        None if model == MODEL => "nothing",
        None => return (StatusCode::NOT_FOUND, "The model does not exist.").into_response(),
    };
    let chunk = json!({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": "stop"}]});
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1}});
    let events = format!("data: {chunk}\n\ndata: {usage}\n\ndata: [DONE]\n\n");
    ([(header::CONTENT_TYPE, "text/event-stream")], events).into_response()
}
