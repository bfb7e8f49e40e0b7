//! `/healthz`, `/readyz` and `/metrics`.

use std::{sync::Arc, time::Duration};

use autoglm_domain::{GenerationInput, GenerationRequest, Sampling};
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::gateway::{Phase, Shared};

/// How long a dependency may take to show that it is there.
const PROBE: Duration = Duration::from_secs(2);

/// The process answers.
pub(crate) async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Whether requests would be answered, and if not, why.
pub(crate) async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let (store, engine) = futures::join!(store(&shared), engine(&shared));
    let server = match *shared.phase.borrow() {
        _ if shared.free_slots() == 0 => Err("as many requests as allowed are being answered".to_owned()),
        Phase::Running => Ok(()),
        Phase::Draining | Phase::Stopping => Err("the server is shutting down".to_owned()),
    };
    let checks = [("server", server), ("store", store), ("engine", engine)];
    let ready = checks.iter().all(|(_, check)| check.is_ok());
    let reasons: Map<String, Value> = checks
        .into_iter()
        .map(|(name, check)| (name.to_owned(), check.err().unwrap_or_else(|| "ok".to_owned()).into()))
        .collect();
    let (code, status) =
        if ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    (code, Json(json!({"status": status, "checks": reasons}))).into_response()
}

async fn store(shared: &Shared) -> Result<(), String> {
    match timeout(PROBE, shared.gateway.store.assessment_lag()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.message),
        Err(_) => Err(format!("no answer within {} s", PROBE.as_secs())),
    }
}

/// Queues one token with the champion and cancels it at once: the engine takes requests.
async fn engine(shared: &Shared) -> Result<(), String> {
    let version = shared.gateway.aliases.resolve("champion").map_err(|error| error.message)?;
    let request = GenerationRequest::new(
        GenerationInput::Text("ready?".into()),
        Sampling { max_tokens: Some(1), ..Sampling::default() },
        version,
    );
    match timeout(PROBE, shared.gateway.generator.generate(request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.message),
        Err(_) => Err(format!("no answer within {} s", PROBE.as_secs())),
    }
}

/// Everything that was counted, in Prometheus's text form.
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let content = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content, shared.gateway.metrics.render()).into_response()
}
