//! What a person may order through the admin API.

use std::{sync::Arc, time::Duration};

use autoglm_domain::{
    AbArm, AbState, AbTest, AbTestId, Alias, AliasMove, Error, Event, Id, LiveStage, MirrorState, Result,
    Rollout, RolloutId, RunState, TrainingRunId, VersionNumber,
};
use autoglm_gateway::{
    AbOrder, Admin, Promotion, Rollback, RolloutAction, RolloutOrder, RolloutStart, TrainOrder,
};
use autoglm_journal::PostgresStore;
use autoglm_rollout::{AbAnalysis, OnTraffic};
use serde_json::{Value, json};

use super::{
    Parts,
    relay::{self, Order},
    residents,
};
use crate::{
    consolidate,
    learning_loop::champion,
    proving::{self, comparing},
};

/// How long an order to train waits for the run to be planned.
const PLANNED_WITHIN: Duration = Duration::from_secs(10);

/// Orders to the running loop.
pub(crate) struct Orders(pub(crate) Arc<Parts>);

impl Orders {
    /// Where another process leads the loop: what it decides must not be crossed, so it has to do what is ordered.
    pub(super) fn elsewhere(&self) -> Option<&PostgresStore> {
        self.0.database.shared().filter(|_| !self.0.leading.now())
    }

    /// `Conflict` where this process does not lead.
    pub(super) fn leads(&self) -> Result<()> {
        match self.0.leading.now() {
            true => Ok(()),
            false => Err(Error::conflict("another process has come to lead the loop on this database")
                .with_hint("give the order again")),
        }
    }

    /// The rollout on live traffic. Its end can be recorded by any process, as one that has ended stays ended.
    async fn on_traffic(&self) -> Result<Option<OnTraffic>> {
        let parts = &self.0;
        if parts.leading.now() {
            return Ok(parts.rollouts.on_traffic().await?);
        }
        let live = parts.store.rollouts().await?.into_iter().find(|rollout| rollout.live().is_some());
        Ok(live.map(|rollout| OnTraffic::restore(Arc::clone(&parts.store), rollout)).transpose()?)
    }

    /// Sends a version on its way, in the process that leads.
    pub(super) async fn begin(&self, order: RolloutStart) -> Result<Rollout> {
        let parts = &self.0;
        self.leads()?;
        let candidate = parts.registry.resolve(&order.version).await?;
        if candidate == VersionNumber::BASE {
            return Err(Error::invalid("the base model is no candidate")
                .with_hint("`POST /v1/autoglm/rollback` with `\"version\": \"base\"` goes back to it"));
        }
        if let Some((run, _)) = parts.runner.active() {
            return Err(Error::conflict(format!("{run} is training, and its version goes first"))
                .with_hint("wait for it to end"));
        }
        residents::ensure(parts, candidate).await?;
        tracing::info!(%candidate, by = order.by, reason = order.reason, "a rollout was ordered");
        let (begun, told) = tokio::sync::oneshot::channel();
        let working = parts.signals.work();
        let task = tokio::spawn({
            let parts = Arc::clone(parts);
            async move {
                let _working = working;
                let proven = consolidate::prove_telling(&parts, candidate, candidate.0, Some(begun)).await;
                if let Err(error) = &proven {
                    tracing::warn!(%error, %candidate, "a rollout that was ordered came to nothing");
                }
                proven
            }
        });
        match told.await {
            Ok(rollout) => Ok(rollout),
            // It ended before it began.
            Err(_) => match task.await {
                Ok(Err(error)) => Err(error),
                _ => Err(Error::internal("the rollout could not begin")),
            },
        }
    }

    /// Does what was ordered of a candidate on live traffic, in the process that leads; an abort in any.
    pub(super) async fn carry_on(&self, order: RolloutOrder) -> Result<Rollout> {
        let parts = &self.0;
        if order.action != RolloutAction::Abort {
            self.leads()?;
        }
        let _turn = parts.proving.turn().await;
        let on_traffic = self.on_traffic().await?.filter(|it| it.rollout().id == order.rollout);
        let Some(on_traffic) = on_traffic else {
            return Err(Error::conflict(format!("{} is not on live traffic", order.rollout)));
        };
        let rollout = order_on(parts, on_traffic, &order).await?;
        parts.traffic.follow(&rollout);
        tracing::info!(rollout = %rollout.id, action = ?order.action, by = order.by, "a rollout was ordered");
        Ok(rollout)
    }

    /// Begins a test of versions, in the process that leads.
    pub(super) async fn begin_test(&self, order: AbOrder) -> Result<AbTest> {
        let parts = &self.0;
        self.leads()?;
        let mut arms = Vec::with_capacity(order.arms.len());
        for (name, share) in &order.arms {
            arms.push(AbArm { version: parts.registry.resolve(name).await?, share: *share });
        }
        if let Some((run, _)) = parts.runner.active() {
            return Err(Error::conflict(format!("{run} is training, and its version goes first"))
                .with_hint("wait for it to end"));
        }
        let test = AbTest {
            id: Id::next(&*parts.ids),
            at: parts.clock.now(),
            by: order.by,
            champion: champion(parts),
            arms,
            allocation: order.allocation,
            metric: order.metric,
            alpha: order.alpha.unwrap_or(0.05),
            indifference: order.indifference.unwrap_or(0.0),
            min_requests: order.min_requests.unwrap_or(100),
            max_requests: order.max_requests.unwrap_or(100_000),
            state: AbState::Running,
            reason: "no answers so far".into(),
            found: Vec::new(),
        };
        AbAnalysis::new(&test, &parts.settings.rollout)?;
        let _turn = parts.proving.turn().await;
        if let Some(rollout) = parts.store.rollouts().await?.iter().find(|it| it.is_unfinished()) {
            return Err(Error::conflict(format!("{} is on its way", rollout.candidate))
                .with_hint("wait for its verdict, or abort it"));
        }
        no_test(parts).await?;
        for arm in &test.arms {
            residents::ensure(parts, arm.version).await?;
        }
        parts.leaders_store.append(vec![Event::AbTest(Box::new(test.clone()))]).await?;
        parts.traffic.follow_test(&test);
        parts.proving.begun();
        Ok(test)
    }

    /// Ends one, in the process that leads.
    pub(super) async fn end_test(&self, id: AbTestId, by: String, reason: String) -> Result<AbTest> {
        let parts = &self.0;
        self.leads()?;
        let _turn = parts.proving.turn().await;
        let tests = parts.store.ab_tests().await?;
        let Some(test) = tests.into_iter().find(|test| test.id == id && test.is_running()) else {
            return Err(Error::conflict(format!("{id} does not run")));
        };
        let why = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
        let reason = format!("stopped by {by}{why}; {}", test.reason);
        parts.traffic.clear();
        comparing::end(parts, &test, AbState::Stopped { ended: parts.clock.now(), stopped_by: by }, reason)
            .await
    }
}

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
            "judge": parts.judging.standing(),
            "upstream": parts.engine.upstream().map(|upstream| json!({
                "base_url": parts.settings.upstream.base_url,
                "circuit": upstream.circuit(),
                "capabilities": upstream.known(),
            })),
        }))
    }

    async fn mirrors(&self) -> Result<Vec<MirrorState>> {
        self.0.mirrors.states().await
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
        no_test(parts).await?;
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

    async fn start_rollout(&self, order: RolloutStart) -> Result<Rollout> {
        match self.elsewhere() {
            Some(store) => relay::rollout(&self.0, store, Order::StartRollout(order)).await,
            None => self.begin(order).await,
        }
    }

    async fn rollout(&self, order: RolloutOrder) -> Result<Rollout> {
        match self.elsewhere() {
            // Its end can be recorded by any process, also while none leads.
            Some(store) if order.action != RolloutAction::Abort => {
                relay::rollout(&self.0, store, Order::Rollout(order)).await
            }
            _ => self.carry_on(order).await,
        }
    }

    async fn slices(&self, rollout: RolloutId) -> Result<Vec<Value>> {
        let parts = &self.0;
        let slices = proving::slices(&*parts.store, &parts.settings.rollout, rollout).await?;
        let json = |slice| serde_json::to_value(slice).map_err(|error| Error::internal(error.to_string()));
        slices.iter().map(json).collect()
    }

    async fn start_ab(&self, order: AbOrder) -> Result<AbTest> {
        match self.elsewhere() {
            Some(store) => relay::test(&self.0, store, Order::StartTest(order)).await,
            None => self.begin_test(order).await,
        }
    }

    async fn stop_ab(&self, test: AbTestId, by: String, reason: String) -> Result<AbTest> {
        match self.elsewhere() {
            Some(store) => relay::test(&self.0, store, Order::StopTest { test, by, reason }).await,
            None => self.end_test(test, by, reason).await,
        }
    }

    async fn rollback(&self, rollback: Rollback) -> Result<AliasMove> {
        let parts = &self.0;
        let moved = match rollback.version {
            Some(version) => {
                let reason = format!("{}{}", AliasMove::ROLLBACK, rollback.reason);
                let promotion = Promotion { version, alias: rollback.alias, by: rollback.by, reason };
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

/// `Conflict` while versions are compared.
async fn no_test(parts: &Parts) -> Result<()> {
    match parts.store.ab_tests().await?.iter().find(|test| test.is_running()) {
        Some(test) => Err(Error::conflict(format!("the test of versions {} is not over", test.id))
            .with_hint("wait for its end, or stop it")),
        None => Ok(()),
    }
}

/// Does what was ordered. `Conflict` where it cannot be done in this state.
async fn order_on(parts: &Arc<Parts>, at: OnTraffic, order: &RolloutOrder) -> Result<Rollout> {
    let now = parts.clock.now();
    match (order.action, at) {
        (RolloutAction::Confirm, at) => proving::confirm(parts, at, &order.by, &order.reason).await,
        (RolloutAction::Resume, OnTraffic::Paused(stage)) if proving::awaits_word(stage.rollout()) => {
            Err(Error::conflict(format!("{} awaits somebody's word", stage.rollout().candidate))
                .with_hint("confirm it, or abort it"))
        }
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
