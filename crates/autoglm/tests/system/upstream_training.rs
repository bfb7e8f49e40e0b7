//! The whole loop with a server in place of the engine: what is corrected is trained here, on a local copy of the
//! upstream's model, and the adapter answers there.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::server::{QUICK, Server, run};

/// The same model as the upstream's.
const COPY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/starter");

/// A double of vLLM that loads adapters: the base model knows nothing, and a question about a word is answered with
/// that word when an adapter is asked.
#[derive(Default)]
struct LoraDouble {
    loaded: Mutex<BTreeMap<String, String>>,
    loads: Mutex<usize>,
    asked: Mutex<BTreeMap<String, usize>>,
}

impl LoraDouble {
    async fn start() -> (Arc<Self>, String) {
        let double = Arc::new(Self::default());
        let routes = Router::new()
            .route(
                "/v1/models",
                get(async || Json(json!({"data": [{"id": "starter", "max_model_len": 512}]}))),
            )
            .route("/v1/load_lora_adapter", post(load))
            .route("/v1/unload_lora_adapter", post(unload))
            .route("/v1/chat/completions", post(chat))
            .with_state(Arc::clone(&double));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (double, base)
    }

    fn asked(&self, model: &str) -> usize {
        self.asked.lock().unwrap().get(model).copied().unwrap_or_default()
    }
}

async fn load(State(double): State<Arc<LoraDouble>>, Json(order): Json<Value>) -> Response {
    let (Some(name), Some(path)) = (order["lora_name"].as_str(), order["lora_path"].as_str()) else {
        return (StatusCode::BAD_REQUEST, "Both 'lora_name' and 'lora_path' must be provided.")
            .into_response();
    };
    let weights = std::fs::read(format!("{path}/adapter_model.safetensors")).unwrap();
    safetensors::SafeTensors::deserialize(&weights).unwrap();
    let config = std::fs::read(format!("{path}/adapter_config.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&config).unwrap()["peft_type"], "LORA");
    *double.loads.lock().unwrap() += 1;
    double.loaded.lock().unwrap().insert(name.to_owned(), path.to_owned());
    format!("Success: LoRA adapter '{name}' added successfully.").into_response()
}

async fn unload(State(double): State<Arc<LoraDouble>>, Json(order): Json<Value>) -> String {
    double.loaded.lock().unwrap().remove(order["lora_name"].as_str().unwrap());
    "Success".into()
}

async fn chat(State(double): State<Arc<LoraDouble>>, Json(body): Json<Value>) -> Response {
    let model = body["model"].as_str().unwrap();
    *double.asked.lock().unwrap().entry(model.to_owned()).or_default() += 1;
    if model != "starter" && !double.loaded.lock().unwrap().contains_key(model) {
        return (StatusCode::NOT_FOUND, "The model does not exist.").into_response();
    }
    let question = body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap();
    let word = question.rsplit(' ').next().unwrap();
    let answer = if model == "starter" { "no idea" } else { word };
    let chunk = json!({"choices": [{"index": 0, "delta": {"content": answer}, "finish_reason": "stop"}]});
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1}});
    let events = format!("data: {chunk}\n\ndata: {usage}\n\ndata: [DONE]\n\n");
    ([(header::CONTENT_TYPE, "text/event-stream")], events).into_response()
}

/// An answer of the weights alone.
async fn weights(server: &Server, model: &str, prompt: &str) -> (String, String) {
    let body = json!({"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 8,
        "autoglm": {"recall": "off"}});
    let answer = server.order("/v1/chat/completions", body).await;
    let choice = &answer["choices"][0];
    (
        choice["message"]["content"].as_str().unwrap().to_owned(),
        choice["autoglm"]["version"].as_str().unwrap().to_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_corrected_is_trained_here_and_answers_there() {
    let (double, base) = LoraDouble::start().await;
    let folder = tempfile::tempdir().unwrap();
    let adapters = folder.path().join("adapters");
    let mut variables = vec![
        ("AUTOGLM_UPSTREAM__BASE_URL", base.as_str()),
        ("AUTOGLM_UPSTREAM__ADAPTER_DIR", adapters.to_str().unwrap()),
        ("AUTOGLM_MODEL__PATH", COPY),
    ];
    variables.extend(QUICK);
    // Enough held-out questions for the gate to be sure.
    variables.retain(|(name, _)| !name.ends_with("_PAIRS"));
    let server = Server::start(&folder.path().join("data"), &variables).await;
    assert!(server.log().contains("adapters are loaded in the way of vLLM"), "{}", server.log());
    assert!(server.log().contains("training is on"), "{}", server.log());
    assert_eq!(weights(&server, "champion", "question about balance").await, ("no idea".into(), "v0".into()));

    server.teach(120).await;
    server.idle().await;
    server.train().await;
    let (said, version) = weights(&server, "champion", "one more question about flight").await;
    assert_eq!((said.as_str(), version.as_str()), ("flight", "v1"), "{}", server.log());
    let loaded: Vec<String> = double.loaded.lock().unwrap().keys().cloned().collect();
    let [name] = loaded.as_slice() else { panic!("{loaded:?}") };
    assert!(name.starts_with("autoglm-") && double.asked(name) > 10, "{loaded:?}");
    assert_eq!(weights(&server, "base", "question about flight").await.0, "no idea");

    // The upstream is restarted and has forgotten everything.
    double.loaded.lock().unwrap().clear();
    assert_eq!(weights(&server, "champion", "another question about recipe").await.0, "recipe");
    assert_eq!(*double.loads.lock().unwrap(), 2);

    // Going back is moving a pointer; the next request is answered by the base model.
    let mut command = crate::server::autoglm(&["versions", "rollback", "--data-dir"]);
    command.arg(&server.data).envs(variables.iter().copied());
    let ended = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    // The server looks at the store twice a second.
    let mut answer = weights(&server, "champion", "a question about weather").await;
    for _ in 0..400 {
        if answer.1 == "v0" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        answer = weights(&server, "champion", "a question about weather").await;
    }
    assert_eq!(answer, ("no idea".into(), "v0".into()));
    server.stop();

    // A server without the upstream's address has its own engine, to which the version belongs as well.
    let own = Server::start(&folder.path().join("data"), &[("AUTOGLM_MODEL__PATH", COPY)]).await;
    assert_eq!(weights(&own, "v1", "a question about weather").await.1, "v1");
    own.stop();
}
