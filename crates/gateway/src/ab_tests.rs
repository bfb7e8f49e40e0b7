//! `/v1/autoglm/ab-tests`: versions against one another.

use std::sync::Arc;

use autoglm_domain::{AbTest, AbTestId, Allocation};
use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, State},
};
use serde_json::{Value, json};

use crate::{
    AbOrder, GatewayError,
    admin::order,
    fields::{Fields, missing},
    gateway::Shared,
    intake::Arrival,
};

type Result<T> = std::result::Result<T, GatewayError>;

/// Begins a test.
pub(crate) async fn start(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    body: Body,
) -> Result<Json<Value>> {
    let (mut fields, by) = order(&shared, &arrival, body).await?;
    let arms = fields.array("arms")?.ok_or_else(|| missing("arms"))?;
    let arms = arms.into_iter().enumerate().map(|(at, arm)| read_arm(at, arm)).collect::<Result<_>>()?;
    let words = [("fixed", Allocation::Fixed), ("bandit", Allocation::Bandit)];
    let count = 1..=i64::MAX;
    let order = AbOrder {
        arms,
        allocation: fields.word("allocation", &words)?.unwrap_or_default(),
        metric: fields.string("metric")?.unwrap_or_else(|| "accuracy".into()),
        alpha: fields.number("alpha", 0.0..=0.5)?,
        indifference: fields.number("indifference", 0.0..=f64::MAX)?,
        min_requests: fields.integer("min_requests", count.clone())?.map(i64::unsigned_abs),
        max_requests: fields.integer("max_requests", count)?.map(i64::unsigned_abs),
        by,
    };
    fields.finish()?;
    Ok(shown(&shared.gateway.admin.start_ab(order).await?))
}

fn read_arm(at: usize, arm: Value) -> Result<(String, f64)> {
    let mut arm = Fields::nested(arm, format!("arms[{at}]"))?;
    let version = arm.string("version")?.ok_or_else(|| missing(&format!("arms[{at}].version")))?;
    let share = arm.number("share", 0.0..=f64::MAX)?.unwrap_or(1.0);
    arm.finish()?;
    Ok((version, share))
}

/// Every test, the latest first.
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
) -> Result<Json<Value>> {
    shared.principals.check_admin(&arrival.caller)?;
    let mut tests = shared.gateway.store.ab_tests().await?;
    tests.reverse();
    Ok(Json(json!({"object": "list", "data": tests})))
}

/// One test.
pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    shared.principals.check_admin(&arrival.caller)?;
    Ok(shown(&find(&shared, &id).await?))
}

/// Ends a test.
pub(crate) async fn stop(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>> {
    let (mut fields, by) = order(&shared, &arrival, body).await?;
    let reason = fields.string("reason")?.unwrap_or_default();
    fields.finish()?;
    let id = find(&shared, &id).await?.id;
    Ok(shown(&shared.gateway.admin.stop_ab(id, by, reason).await?))
}

/// By its id, or `current`, which is the one that runs.
async fn find(shared: &Shared, id: &str) -> Result<AbTest> {
    let mut tests = shared.gateway.store.ab_tests().await?.into_iter();
    let found = match id.parse::<AbTestId>() {
        Ok(id) => tests.find(|test| test.id == id),
        Err(_) if id == "current" => tests.find(AbTest::is_running),
        Err(error) => return Err(error.into()),
    };
    found.ok_or_else(|| {
        GatewayError::NotFound(format!(
            "no test of versions `{id}` (hint: GET /v1/autoglm/ab-tests lists them)"
        ))
    })
}

fn shown(test: &AbTest) -> Json<Value> {
    let mut body = json!({"object": "autoglm.ab_test"});
    if let (Value::Object(body), Value::Object(test)) = (&mut body, json!(test)) {
        body.extend(test);
    }
    Json(body)
}
