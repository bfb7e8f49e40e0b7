//! What a person may order through the admin API.

use std::{sync::Arc, time::Duration};

use autoglm_domain::{
    Alias, AliasMove, Error, LiveStage, Result, Rollout, RunState, Timestamp, TrainingRunId,
};
use autoglm_gateway::{Admin, Promotion, Rollback, RolloutAction, RolloutOrder, TrainOrder};
use autoglm_rollout::OnTraffic;
use serde_json::{Value, json};

use super::{Parts, residents};
use crate::proving;

/// How long an order to train waits for the run to be planned.
const PLANNED_WITHIN: Duration = Duration::from_secs(10);

/// Orders to the running loop.
pub(crate) struct Orders(pub(crate) Arc<Parts>);

#[async_trait::async_trait]
impl Admin for Orders {
    async fn activity(&self) -> Result<Value> {
        let parts = &self.0;
        let run = parts.runner.active().map(|(id, progress)| json!({"run": id, "progress": progress}));
        Ok(json!({
            "leading": parts.leading.now(),
            "learning": parts.signals.busy(),
            "run": run,
            "resident": parts.residents.known().len(),
            "memory": parts.memory.stats(),
            "queued": parts.engine.queued(),
            "training_off": parts.no_training,
            "upstream": parts.engine.upstream().map(|upstream| json!({
                "base_url": parts.settings.upstream.base_url,
                "circuit": upstream.circuit(),
                "capabilities": upstream.known(),
            })),
        }))
    }

    async fn train(&self, order: TrainOrder) -> Result<TrainingRunId> {
        let parts = &self.0;
        if let Some(reason) = &parts.no_training {
            return Err(Error::conflict(format!("training is off: {reason}")));
        }
        let busy =
            |run| Error::conflict(format!("{run} is training already")).with_hint("wait for it to end");
        if let Some((run, _)) = parts.runner.active() {
            return Err(busy(run));
        }
        let runs = parts.store.runs().await?;
        if !parts.leading.now()
            && let Some(run) =
                runs.iter().find(|it| matches!(it.state, RunState::Planned | RunState::Running))
        {
            return Err(busy(run.id));
        }
        if let Some(rollout) = parts.store.rollouts().await?.iter().find(|rollout| rollout.is_unfinished()) {
            return Err(Error::conflict(format!("{} is being judged", rollout.candidate))
                .with_hint("wait for its verdict: the next run starts from what it decides"));
        }
        if parts.memory.training_pool().is_empty() {
            return Err(
                Error::conflict("there is nothing to learn yet").with_hint("give feedback on some answers")
            );
        }
        tracing::info!(by = order.by, reason = order.reason, "a training run was ordered");
        let before = runs.len();
        match parts.database.shared() {
            Some(store) if !parts.leading.now() => store.order_training().await.map_err(Error::from)?,
            _ => parts.signals.request(),
        }
        let deadline = tokio::time::Instant::now() + PLANNED_WITHIN;
        while tokio::time::Instant::now() < deadline {
            if let Some(run) = parts.store.runs().await?.get(before) {
                if let RunState::Failed { reason } = &run.state {
                    return Err(Error::internal(format!("{} failed: {reason}", run.id)));
                }
                return Ok(run.id);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(Error::unavailable("the run has not been planned yet")
            .with_hint("GET /v1/autoglm/status shows it"))
    }

    async fn promote(&self, promotion: Promotion) -> Result<AliasMove> {
        let parts = &self.0;
        let version = parts.registry.resolve(&promotion.version).await?;
        // Resident before it is named, so that no request meets a version that cannot answer.
        residents::ensure(parts, version).await?;
        let moved =
            parts.registry.point(promotion.alias, None, version, &promotion.by, &promotion.reason, None);
        let moved = moved.await?;
        parts.residents.follow(parts).await?;
        Ok(moved)
    }

    async fn rollout(&self, order: RolloutOrder) -> Result<Rollout> {
        let parts = &self.0;
        let _turn = parts.proving.turn().await;
        let on_traffic = parts.rollouts.on_traffic().await?.filter(|it| it.rollout().id == order.rollout);
        let Some(on_traffic) = on_traffic else {
            return Err(Error::conflict(format!("{} is not on live traffic", order.rollout)));
        };
        let rollout = order_on(on_traffic, &order, parts.clock.now()).await?;
        parts.traffic.follow(&rollout);
        tracing::info!(rollout = %rollout.id, action = ?order.action, by = order.by, "a rollout was ordered");
        Ok(rollout)
    }

    async fn rollback(&self, rollback: Rollback) -> Result<AliasMove> {
        let parts = &self.0;
        let moved = match rollback.version {
            Some(version) => {
                let promotion =
                    Promotion { version, alias: rollback.alias, by: rollback.by, reason: rollback.reason };
                return self.promote(promotion).await;
            }
            None if rollback.alias == Alias::champion() => {
                parts.registry.rollback(&rollback.by, &rollback.reason).await?
            }
            None => {
                return Err(Error::invalid(format!("`{}` needs a version to go back to", rollback.alias)));
            }
        };
        parts.residents.follow(parts).await?;
        Ok(moved)
    }
}

/// Does what was ordered. `Conflict` where it cannot be done in this state.
async fn order_on(at: OnTraffic, order: &RolloutOrder, now: Timestamp) -> Result<Rollout> {
    match (order.action, at) {
        (RolloutAction::Pause, at) => proving::pause(at, now, &order.by, &order.reason).await,
        (RolloutAction::Resume, OnTraffic::Paused(stage)) => Ok(stage.resume(now).await?.rollout().clone()),
        (RolloutAction::Resume, at) => {
            Err(Error::conflict(format!("{} is not paused", at.rollout().candidate)))
        }
        (RolloutAction::Abort, at) => {
            let was_watched = at.rollout().live().is_some_and(|live| live.stage == LiveStage::Watch);
            let mut reason = format!("by {}", order.by);
            if !order.reason.is_empty() {
                reason = format!("{reason}: {}", order.reason);
            }
            if was_watched {
                reason.push_str("; it stays champion");
            }
            proving::abort(at, reason).await
        }
    }
}
