//! `POST /v1/autoglm/webhooks/model`: another system says that there is a model.
//!
//! The request carries no API key: it is signed with a secret of its own, over its timestamp and the bytes of its body.

use std::sync::Arc;

use autoglm_domain::ErrorKind;
use axum::{Json, body::Body, extract::State, http::HeaderMap};
use serde_json::{Value, json};

use crate::{
    Announcement, GatewayError, ModelSource,
    error::with_hint,
    fields::{Fields, missing},
    gateway::Shared,
    intake::{parse, read_bytes},
};

/// The route.
pub(crate) const MODEL: &str = "/v1/autoglm/webhooks/model";

/// Registers an announced model and begins its rollout.
pub(crate) async fn model(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, GatewayError> {
    let Some(announcements) = &shared.gateway.announcements else {
        let message = "no models are announced here (hint: `webhook.inbound` names the secret for it)";
        return Err(GatewayError::NotFound(message.into()));
    };
    let bytes = read_bytes(body, &shared.gateway.config).await?;
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let checked = announcements.check(header("x-autoglm-timestamp"), header("x-autoglm-signature"), &bytes);
    checked.map_err(|error| match error.kind {
        ErrorKind::Denied => GatewayError::BadSignature(with_hint(&error)),
        _ => error.into(),
    })?;
    let mut fields = Fields::of_body(parse(&bytes)?)?;
    let announcement = Announcement { source: source(&mut fields)?, note: fields.string("note")? };
    fields.finish()?;
    let announced = announcements.announced(announcement).await?;
    Ok(Json(json!({
        "object": "autoglm.announcement",
        "version": announced.version.to_string(),
        "rollout": announced.rollout,
    })))
}

fn source(fields: &mut Fields) -> Result<ModelSource, GatewayError> {
    let (path, git) = (fields.string("path")?, fields.string("git")?);
    let (path, remote) = match (path, git) {
        (Some(_), Some(_)) => return Err(GatewayError::value("git", "`path` and `git` exclude one another")),
        (None, None) => return Err(missing("path")),
        found => found,
    };
    if let Some(path) = path {
        return Ok(ModelSource::Folder(path.into()));
    }
    let version = fields.string("version")?.map(|text| text.parse()).transpose()?;
    let (branch, rev) = (fields.string("branch")?, fields.string("rev")?);
    if version.is_some() && rev.is_some() {
        return Err(GatewayError::value("rev", "`version` and `rev` exclude one another"));
    }
    Ok(ModelSource::Git { remote: remote.unwrap_or_default(), branch, version, rev })
}
