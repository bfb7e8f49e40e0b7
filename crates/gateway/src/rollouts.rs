//! `/v1/autoglm/rollouts/…`: a candidate's way, its pairs, and a person's word on it.

use std::sync::Arc;

use autoglm_domain::{PairOrder, Rollout, RolloutId};
use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, Query, State},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    GatewayError, RolloutAction, RolloutOrder, RolloutStart,
    admin::{order, rollout_summary},
    fields::missing,
    gateway::Shared,
    intake::Arrival,
};

type Result<T> = std::result::Result<T, GatewayError>;

/// Looks that are shown with a rollout.
const LOOKS: usize = 20;
/// Most pairs of one answer.
const MOST_PAIRS: usize = 1000;

/// Every rollout, the latest first.
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
) -> Result<Json<Value>> {
    shared.principals.check_admin(&arrival.caller)?;
    let rollouts = shared.gateway.store.rollouts().await?;
    let data: Vec<Value> = rollouts.iter().rev().map(rollout_summary).collect();
    Ok(Json(json!({"object": "list", "data": data})))
}

/// Sends a version on its way.
pub(crate) async fn start(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    body: Body,
) -> Result<Json<Value>> {
    let (mut fields, by) = order(&shared, &arrival, body).await?;
    let version = fields.string("version")?.ok_or_else(|| missing("version"))?;
    let reason = fields.string("reason")?.unwrap_or_default();
    fields.finish()?;
    let rollout = shared.gateway.admin.start_rollout(RolloutStart { version, by, reason }).await?;
    Ok(Json(rollout_summary(&rollout)))
}

/// One rollout with the latest looks at it.
pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    shared.principals.check_admin(&arrival.caller)?;
    let rollout = find(&shared, &id).await?;
    let looks = shared.gateway.store.rollout_progress(rollout.id, LOOKS).await?;
    Ok(Json(json!({"object": "autoglm.rollout", "rollout": rollout, "looks": looks})))
}

/// Which pairs are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PairQuery {
    order: PairOrder,
    limit: Option<usize>,
}

/// Pairs of a rollout: the oldest, the worst, or those that differ most first.
pub(crate) async fn pairs(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    Path(id): Path<String>,
    query: std::result::Result<Query<PairQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>> {
    shared.principals.check_admin(&arrival.caller)?;
    let Query(query) = query.map_err(|error| {
        let hint = "`order` is `oldest`, `worst` or `most_different`, `limit` a number";
        GatewayError::value("order", format!("{} (hint: {hint})", error.body_text()))
    })?;
    let rollout = find(&shared, &id).await?;
    let limit = query.limit.unwrap_or(LOOKS).min(MOST_PAIRS);
    let pairs = shared.gateway.store.shadow_pairs(rollout.id, query.order, limit).await?;
    Ok(Json(json!({"object": "list", "data": pairs})))
}

/// The pairs of a rollout by route, cluster and principal group.
pub(crate) async fn slices(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    shared.principals.check_admin(&arrival.caller)?;
    let rollout = find(&shared, &id).await?;
    let slices = shared.gateway.admin.slices(rollout.id).await?;
    Ok(Json(json!({"object": "list", "data": slices})))
}

/// Holds, releases, confirms or stops a candidate on live traffic.
pub(crate) async fn act(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    Path((id, action)): Path<(String, String)>,
    body: Body,
) -> Result<Json<Value>> {
    let (mut fields, by) = order(&shared, &arrival, body).await?;
    let reason = fields.string("reason")?.unwrap_or_default();
    fields.finish()?;
    let action = match action.as_str() {
        "pause" => RolloutAction::Pause,
        "resume" => RolloutAction::Resume,
        "abort" => RolloutAction::Abort,
        "confirm" => RolloutAction::Confirm,
        other => {
            let message =
                format!("a rollout knows no `{other}` (hint: `pause`, `resume`, `confirm` or `abort`)");
            return Err(GatewayError::NotFound(message));
        }
    };
    let rollout = find(&shared, &id).await?.id;
    let rollout = shared.gateway.admin.rollout(RolloutOrder { rollout, action, by, reason }).await?;
    Ok(Json(rollout_summary(&rollout)))
}

/// By its id, or `current`, which is the one on live traffic.
async fn find(shared: &Shared, id: &str) -> Result<Rollout> {
    let mut rollouts = shared.gateway.store.rollouts().await?.into_iter();
    let found = match id.parse::<RolloutId>() {
        Ok(id) => rollouts.find(|rollout| rollout.id == id),
        Err(_) if id == "current" => rollouts.find(|rollout| rollout.live().is_some()),
        Err(error) => return Err(error.into()),
    };
    found.ok_or_else(|| {
        GatewayError::NotFound(format!("no rollout `{id}` (hint: GET /v1/autoglm/rollouts lists them)"))
    })
}
