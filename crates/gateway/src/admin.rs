//! `/v1/autoglm/…`: how the loop is doing, where an answer came from, and orders of a person.

use std::sync::Arc;

use autoglm_domain::{Alias, AliasMove, AnswerSource, Rollout, RolloutState, TrainingRun, VersionNumber};
use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, State},
};
use serde_json::{Value, json};

use crate::{
    GatewayError, Promotion, Rollback, TrainOrder,
    feedback::parse_id,
    fields::{Fields, missing},
    gateway::Shared,
    intake::{Arrival, read_json},
};

type Result<T> = std::result::Result<T, GatewayError>;

/// How many of the latest runs and rollouts a status shows.
const LATEST: usize = 10;

/// Aliases, the assessment's lag, the latest runs and rollouts, and what the loop is doing now.
pub(crate) async fn status(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
) -> Result<Json<Value>> {
    shared.principals.check_admin(&arrival.caller)?;
    let store = &shared.gateway.store;
    let (aliases, lag, runs, rollouts, activity) = futures::try_join!(
        store.aliases(),
        store.assessment_lag(),
        store.runs(),
        store.rollouts(),
        shared.gateway.admin.activity(),
    )?;
    let aliases: serde_json::Map<String, Value> =
        aliases.into_iter().map(|(alias, version)| (alias.0, version.to_string().into())).collect();
    Ok(Json(json!({
        "object": "autoglm.status",
        "aliases": aliases,
        "assessment_lag": lag,
        "runs": runs.iter().rev().take(LATEST).map(run_summary).collect::<Vec<_>>(),
        "rollouts": rollouts.iter().rev().take(LATEST).map(rollout_summary).collect::<Vec<_>>(),
        "activity": activity,
    })))
}

fn run_summary(run: &TrainingRun) -> Value {
    let mut summary = json!({
        "id": run.id, "at": run.at, "ended_at": run.ended_at, "trigger": run.trigger,
        "parent": run.parent.to_string(), "new_experiences": run.new_experiences,
        "replayed_experiences": run.replayed_experiences, "metrics": run.metrics,
    });
    merge(&mut summary, json!(run.state));
    summary
}

pub(crate) fn rollout_summary(rollout: &Rollout) -> Value {
    let mut summary = json!({
        "id": rollout.id, "at": rollout.at, "candidate": rollout.candidate.to_string(),
        "champion": rollout.champion.to_string(),
    });
    let state = match &rollout.state {
        RolloutState::Decided { verdict } => {
            json!({"state": "decided", "outcome": verdict.outcome, "reason": verdict.reason})
        }
        other => json!(other),
    };
    merge(&mut summary, state);
    summary
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// From an answer back: what was said and found of it, the version that gave it, the run that made that
/// version, the experience that was recalled for it.
pub(crate) async fn trace(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    let id = parse_id(&id, "id")?;
    let store = &shared.gateway.store;
    let record = store.interaction(id).await?;
    shared.principals.check_may_see(&arrival.caller, &record.interaction.principal)?;
    let number = record.interaction.version;
    let version = if number == VersionNumber::BASE { None } else { Some(store.version(number).await?) };
    let run = match version.as_ref().and_then(|version| version.run) {
        Some(run) => Some(store.run(run).await?),
        None => None,
    };
    let recalled = match record.interaction.source {
        AnswerSource::Memory { experience } => {
            let experience = store.experience(experience).await?;
            Some(json!({
                "id": experience.id, "at": experience.at, "target": experience.target,
                "weight": experience.weight, "provenance": experience.provenance,
            }))
        }
        _ => None,
    };
    Ok(Json(json!({
        "object": "autoglm.trace",
        "interaction": record.interaction,
        "feedback": record.feedback,
        "assessment": record.assessment,
        "version": version,
        "run": run,
        "recalled": recalled,
    })))
}

/// How the journal's mirrors are doing.
pub(crate) async fn mirrors(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
) -> Result<Json<Value>> {
    shared.principals.check_admin(&arrival.caller)?;
    let states = shared.gateway.admin.mirrors().await?;
    Ok(Json(json!({"object": "list", "data": states})))
}

/// Starts a training run.
pub(crate) async fn train(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    body: Body,
) -> Result<Json<Value>> {
    let (mut fields, by) = order(&shared, &arrival, body).await?;
    let reason = fields.string("reason")?.unwrap_or_default();
    fields.finish()?;
    let run = shared.gateway.admin.train(TrainOrder { by, reason }).await?;
    Ok(Json(json!({"object": "autoglm.run", "id": run})))
}

/// Lets a version answer without the gate's verdict.
pub(crate) async fn promote(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    body: Body,
) -> Result<Json<Value>> {
    let (mut fields, by) = order(&shared, &arrival, body).await?;
    let version = fields.string("version")?.ok_or_else(|| missing("version"))?;
    let promotion = Promotion {
        version,
        alias: alias(&mut fields)?,
        by,
        reason: fields.string("reason")?.unwrap_or_default(),
    };
    fields.finish()?;
    Ok(moved(&shared.gateway.admin.promote(promotion).await?))
}

/// Goes back to the version before, or to a named one.
pub(crate) async fn rollback(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    body: Body,
) -> Result<Json<Value>> {
    let (mut fields, by) = order(&shared, &arrival, body).await?;
    let rollback = Rollback {
        version: fields.string("version")?,
        alias: alias(&mut fields)?,
        by,
        reason: fields.string("reason")?.unwrap_or_default(),
    };
    fields.finish()?;
    Ok(moved(&shared.gateway.admin.rollback(rollback).await?))
}

/// The body of an order and who gives it. An order is a JSON object, `{}` at least.
pub(crate) async fn order(shared: &Shared, arrival: &Arrival, body: Body) -> Result<(Fields, String)> {
    shared.principals.check_admin(&arrival.caller)?;
    let fields = Fields::of_body(read_json(body, &shared.gateway.config).await?)?;
    Ok((fields, arrival.caller.principal(None)))
}

fn alias(fields: &mut Fields) -> Result<Alias> {
    Ok(fields.string("alias")?.map_or_else(Alias::champion, Alias))
}

fn moved(moved: &AliasMove) -> Json<Value> {
    let mut body = json!({"object": "autoglm.alias_move"});
    merge(&mut body, json!(moved));
    merge(&mut body, json!({"from": moved.from.to_string(), "to": moved.to.to_string()}));
    Json(body)
}
