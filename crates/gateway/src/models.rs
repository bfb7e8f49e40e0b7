//! `GET /v1/models` and `GET /v1/models/{id}`: the names that a client may give as `model`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::HeaderValue,
};
use serde_json::{Value, json};

use crate::{
    GatewayError, ModelEntry, ModelKind,
    gateway::Shared,
    intake::{VERSION_HEADER, version_value},
};

/// Base, aliases, versions.
pub(crate) async fn list(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let data: Vec<Value> =
        shared.gateway.aliases.list().iter().map(|entry| model(entry, &entry.id)).collect();
    Json(json!({"object": "list", "data": data}))
}

/// One of them. Every name that answers is found, the beginning of a hash as well.
pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<([(axum::http::HeaderName, HeaderValue); 1], Json<Value>), GatewayError> {
    let version = shared.resolve(&id)?;
    let entries = shared.gateway.aliases.list();
    let named = entries.iter().find(|entry| entry.id == id);
    let entry = named.or_else(|| {
        let bare = |entry: &&ModelEntry| entry.version == version && entry.kind != ModelKind::Alias;
        entries.iter().find(bare)
    });
    let entry = entry.ok_or_else(|| GatewayError::Internal(format!("`{id}` resolves but is not listed")))?;
    Ok(([(VERSION_HEADER, version_value(version))], Json(model(entry, &id))))
}

fn model(entry: &ModelEntry, id: &str) -> Value {
    json!({
        "id": id,
        "object": "model",
        "created": entry.created.0.div_euclid(1000),
        "owned_by": "autoglm",
        "autoglm": {"kind": entry.kind, "version": entry.version.to_string(), "hash": entry.hash},
    })
}
