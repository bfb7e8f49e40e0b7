//! Orders that come to a process that does not lead go to the one that does, through the database, and its answer comes
//! back.

use std::{sync::Arc, time::Duration};

use autoglm_domain::{AbTest, AbTestId, Error, ErrorKind, Result, Rollout, RolloutId};
use autoglm_gateway::{AbOrder, Announcement, RolloutOrder, RolloutStart};
use autoglm_journal::PostgresStore;
use serde::{Deserialize, Serialize};

use super::{Parts, announcements, orders::Orders};

/// Longest wait for an answer; before a rollout begins its candidate is loaded.
const WITHIN: Duration = Duration::from_secs(30);
/// The same where the candidate is first fetched from its repository.
const FETCHED_WITHIN: Duration = Duration::from_secs(300);
/// Characters of a refusal that are passed on.
const LENGTH: usize = 2_000;

/// What only the process that leads does.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    StartRollout(RolloutStart),
    Rollout(RolloutOrder),
    StartTest(AbOrder),
    StopTest { test: AbTestId, by: String, reason: String },
    Announced(Announcement),
}

impl Order {
    fn within(&self) -> Duration {
        match self {
            Self::Announced(_) => FETCHED_WITHIN,
            _ => WITHIN,
        }
    }
}

/// What came of it. What it is about is in the store.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Rollout(RolloutId),
    Test(AbTestId),
    Refused { kind: ErrorKind, message: String, hint: Option<String> },
}

/// Passes an order about a rollout on; the rollout as it is then.
pub(super) async fn rollout(parts: &Parts, store: &PostgresStore, order: Order) -> Result<Rollout> {
    let Answer::Rollout(id) = pass_on(parts, store, order).await? else { return Err(other()) };
    let rollouts = parts.store.rollouts().await?;
    rollouts.into_iter().find(|rollout| rollout.id == id).ok_or_else(other)
}

/// Passes an order about a test of versions on; the test as it is then.
pub(super) async fn test(parts: &Parts, store: &PostgresStore, order: Order) -> Result<AbTest> {
    let Answer::Test(id) = pass_on(parts, store, order).await? else { return Err(other()) };
    let tests = parts.store.ab_tests().await?;
    tests.into_iter().find(|test| test.id == id).ok_or_else(other)
}

fn other() -> Error {
    Error::internal("the process that leads answered another order")
}

async fn pass_on(parts: &Parts, store: &PostgresStore, order: Order) -> Result<Answer> {
    let text = serde_json::to_string(&order)
        .map_err(|error| Error::internal(format!("an order cannot be passed on: {error}")))?;
    let (id, within) = (parts.ids.next_uuid().to_string(), order.within());
    let answer = store.order(&id, &text, within).await.map_err(Error::from)?.ok_or_else(|| {
        Error::unavailable(format!("no process that leads the loop answered within {} s", within.as_secs()))
            .with_hint("look whether it was carried out before giving the order again")
    })?;
    match serde_json::from_str(&answer) {
        Ok(Answer::Refused { kind, message, hint }) => Err(Error { kind, message, hint, later: None }),
        Ok(answer) => Ok(answer),
        Err(_) => Err(Error::internal("the process that leads is of another version, and not understood")),
    }
}

/// Carries an order out that another process passed on, and answers it.
pub(super) async fn carry_out(parts: Arc<Parts>, store: PostgresStore, id: String, order: String) {
    let answer = carried_out(&parts, &order).await.unwrap_or_else(|error| {
        let cut = |text: String| text.chars().take(LENGTH).collect();
        Answer::Refused { kind: error.kind, message: cut(error.message), hint: error.hint.map(cut) }
    });
    let told = async {
        let text = serde_json::to_string(&answer).map_err(|error| Error::internal(error.to_string()))?;
        store.answer(&id, &text).await.map_err(Error::from)
    };
    if let Err(error) = told.await {
        tracing::warn!(%error, "an order of another process is not answered");
    }
}

async fn carried_out(parts: &Arc<Parts>, order: &str) -> Result<Answer> {
    let order = serde_json::from_str(order).map_err(|_| {
        Error::invalid("the process that leads is of another version, and knows no such order")
    })?;
    let orders = Orders(Arc::clone(parts));
    Ok(match order {
        Order::StartRollout(order) => Answer::Rollout(orders.begin(order).await?.id),
        Order::Rollout(order) => Answer::Rollout(orders.carry_on(order).await?.id),
        Order::Announced(it) => Answer::Rollout(announcements::take_in(&orders, it).await?.id),
        Order::StartTest(order) => Answer::Test(orders.begin_test(order).await?.id),
        Order::StopTest { test, by, reason } => Answer::Test(orders.end_test(test, by, reason).await?.id),
    })
}
