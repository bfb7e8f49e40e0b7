//! A whole autoglm in one process: everything opened, wired, served and closed.

mod aliases;
mod answerer;
mod answering;
mod checkpoints;
mod lock;
mod on_demand;
mod orders;
mod recall;
mod residents;

use std::{future::Future, sync::Arc, time::Duration};

use autoglm_domain::{
    ArtifactStore, Clock, ContentHash, Embedder, Error, ErrorKind, Generator, IdSource, InteractionId,
    Result, Store, SystemClock, SystemIds, Trainer, TrainingRun,
};
use autoglm_engine::ServingStats;
use autoglm_evaluate::Evaluator;
use autoglm_gateway::{Gateway, MetricsPage};
use autoglm_journal::SqliteStore;
use autoglm_memory::Memory;
use autoglm_registry::{ObjectArtifacts, Registry};
use autoglm_rollout::{AnswerCache, RolloutRunner};
use autoglm_train::{Runner, Triggers};
use autoglm_upstream::CircuitState;
use tokio::{net::TcpListener, task::JoinHandle};

pub(crate) use self::answering::base_model;
pub(crate) use self::residents::Residents;
use self::{answerer::Answerer, answering::Answering, checkpoints::CheckpointFile, lock::DataLock};
pub(crate) use crate::demo_run::demo_run;
use crate::{
    learning_loop,
    settings::Settings,
    signals::{Signals, Working},
};

/// How long answers under way may take once the engine is told to stop.
const ENGINE_GRACE: Duration = Duration::from_secs(5);

/// How long the step of a run under way may take then.
const RUN_GRACE: Duration = Duration::from_secs(5);

/// Everything that the loop works with.
pub(crate) struct Parts {
    lock: DataLock,
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) artifacts: Arc<dyn ArtifactStore>,
    pub(crate) registry: Arc<Registry>,
    /// The base model.
    pub(crate) base: ContentHash,
    pub(crate) model_name: String,
    pub(crate) engine: Arc<Answerer>,
    pub(crate) embedder: Arc<dyn Embedder>,
    pub(crate) evaluator: Evaluator,
    pub(crate) memory: Arc<Memory>,
    pub(crate) trainer: Arc<dyn Trainer>,
    /// Why nothing is trained here, where nothing is.
    pub(crate) no_training: Option<String>,
    pub(crate) triggers: Triggers,
    pub(crate) runner: Runner,
    pub(crate) rollouts: RolloutRunner,
    pub(crate) answers: AnswerCache,
    pub(crate) residents: Residents,
    pub(crate) signals: Arc<Signals>,
}

/// A running autoglm.
pub(crate) struct Node {
    pub(crate) registry: Arc<Registry>,
    pub(crate) memory: Arc<Memory>,
    parts: Arc<Parts>,
    tasks: Vec<JoinHandle<()>>,
}

impl Node {
    /// Opens the data directory and the model, mends what a crash left, and starts the loop.
    ///
    /// # Errors
    /// Whatever stands in the way: a damaged or newer database, a model that cannot be read, a champion that was
    /// trained on another base model.
    pub(crate) async fn open(settings: &Settings) -> Result<Arc<Self>> {
        let parts = Arc::new(open_parts(settings.clone()).await?);
        let unfinished = recover(&parts).await?;
        let tasks = vec![
            tokio::spawn(learning_loop::assess_and_remember(Arc::clone(&parts))),
            tokio::spawn(learning_loop::learn(Arc::clone(&parts), unfinished)),
            tokio::spawn(gauges(Arc::clone(&parts))),
        ];
        let (registry, memory) = (Arc::clone(&parts.registry), Arc::clone(&parts.memory));
        Ok(Arc::new(Self { registry, memory, parts, tasks }))
    }

    /// What the loop works with.
    pub(crate) fn parts(&self) -> &Arc<Parts> {
        &self.parts
    }

    /// Answers on `listener` until `shutdown`; answers on their way are finished first.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        let parts = &self.parts;
        let gateway = Gateway {
            config: parts.settings.server.clone(),
            generator: Arc::new(on_demand::OnDemand(Arc::clone(parts))),
            embedder: Arc::clone(&parts.embedder),
            store: Arc::clone(&parts.store) as Arc<dyn Store>,
            clock: Arc::clone(&parts.clock),
            ids: Arc::clone(&parts.ids),
            aliases: Arc::new(aliases::Names(Arc::clone(parts))),
            recall: Arc::new(recall::FromMemory(Arc::clone(&parts.memory))),
            observer: Arc::new(Bell(Arc::clone(&parts.signals))),
            admin: Arc::new(orders::Orders(Arc::clone(parts))),
            metrics: MetricsPage::install().map_err(Error::from)?,
        };
        gateway.serve(listener, shutdown).await.map_err(Error::from)
    }

    /// Waits until the run in progress has left its checkpoint, but not for ever: there may be an older one.
    async fn suspended(&self) {
        let stopped = async {
            while self.parts.runner.active().is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(RUN_GRACE, stopped).await.is_err() {
            tracing::warn!(
                "the run in progress takes long over its step and goes on from an older checkpoint"
            );
        }
    }

    /// Stops the loop, lets the engine finish, and closes the store. What was cut short is found and mended at
    /// the next start.
    pub(crate) async fn close(&self) {
        self.parts.runner.suspend("the server was stopped");
        self.suspended().await;
        for task in &self.tasks {
            task.abort();
        }
        let engine = Arc::clone(&self.parts.engine);
        let stopped = tokio::task::spawn_blocking(move || engine.shutdown(ENGINE_GRACE)).await;
        if let Err(error) = stopped {
            tracing::warn!(%error, "the engine did not stop in order");
        }
        if let Err(error) = self.parts.store.close().await {
            tracing::warn!(%error, "the store did not close in order");
        }
        self.parts.lock.release();
    }
}

async fn open_parts(mut settings: Settings) -> Result<Parts> {
    let data = settings.store.data_dir.clone();
    std::fs::create_dir_all(&data).map_err(|error| {
        Error::unavailable(format!("the data directory `{}` cannot be made: {error}", data.display()))
            .with_hint("choose another with --data-dir")
    })?;
    let lock = DataLock::take(&data)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids: Arc<dyn IdSource> = Arc::new(SystemIds);
    let store =
        SqliteStore::open(settings.database(), settings.journal.clone()).await.map_err(Error::from)?;
    let store = Arc::new(store);
    let shared: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
    let objects = ObjectArtifacts::open(&settings.registry, &data).map_err(Error::from)?;
    objects.sweep().await.map_err(Error::from)?;
    let artifacts: Arc<dyn ArtifactStore> = Arc::new(objects);
    let registry =
        Registry::open(Arc::clone(&shared), Arc::clone(&artifacts), Arc::clone(&clock), &settings.registry);
    let registry = Arc::new(registry.await.map_err(Error::from)?);

    let Answering { engine, base, model_name, embedder, trainer, no_training } =
        Answering::open(&settings, &clock, &*ids).await?;
    // Nothing to train with: nothing is planned either.
    settings.train.triggers.enabled &= no_training.is_none();
    let memory = Memory::open(
        Arc::clone(&shared),
        Arc::clone(&embedder),
        Arc::clone(&clock),
        Arc::clone(&ids),
        settings.memory.clone(),
    );
    let evaluator = Evaluator::new(
        settings.evaluate.clone(),
        Arc::clone(&embedder),
        Some(Arc::clone(&engine) as Arc<dyn Generator>),
        Arc::clone(&clock),
        Arc::clone(&ids),
    );
    settings.rollout.check().map_err(Error::from)?;
    let mut runner =
        Runner::new(Arc::clone(&shared), Arc::clone(&artifacts), Arc::clone(&clock), Arc::clone(&ids));
    if settings.train.checkpoint_s > 0.0 {
        let store = Arc::new(CheckpointFile::in_data(&data));
        runner = runner.with_checkpoints(store, settings.train.checkpoint_s);
    }
    Ok(Parts {
        lock,
        memory: Arc::new(memory.await.map_err(Error::from)?),
        evaluator: evaluator.map_err(Error::from)?,
        triggers: Triggers::new(settings.train.triggers.clone()).map_err(Error::from)?,
        runner,
        rollouts: RolloutRunner::new(shared, Arc::clone(&clock), Arc::clone(&ids)),
        trainer,
        no_training,
        answers: AnswerCache::default(),
        residents: Residents::default(),
        signals: Arc::default(),
        settings,
        clock,
        ids,
        store,
        artifacts,
        registry,
        base,
        model_name,
        engine,
        embedder,
    })
}

/// Ends what a crash left open, but for a run that can go on, which it returns; makes every version that an alias
/// names resident, and lets rollouts that were cut short start again.
async fn recover(parts: &Arc<Parts>) -> Result<Option<(TrainingRun, Working)>> {
    let runs = parts.runner.recover().await.map_err(Error::from)?;
    let unfinished = parts.rollouts.recover().await.map_err(Error::from)?;
    match parts.residents.follow(parts).await {
        // The loop follows them as soon as it answers.
        Err(error) if parts.engine.upstream().is_some() && error.kind == ErrorKind::Unavailable => {
            tracing::warn!(%error, "the versions that aliases name are not on the upstream yet");
        }
        followed => followed?,
    }
    for rollout in unfinished {
        tracing::info!(candidate = %rollout.candidate, "a rollout was cut short and begins again");
        let parts = Arc::clone(parts);
        let working = parts.signals.work();
        tokio::spawn(async move {
            let _working = working;
            if let Err(error) = residents::restart(&parts, rollout.candidate).await {
                tracing::warn!(%error, candidate = %rollout.candidate, "a rollout could not begin again");
            }
        });
    }
    Ok(runs.unfinished.map(|run| (run, parts.signals.work())))
}

/// Figures of the loop for `/metrics`.
async fn gauges(parts: Arc<Parts>) {
    loop {
        if let Ok(lag) = parts.store.assessment_lag().await {
            metrics::gauge!("autoglm_assessment_lag").set(lag as f64);
        }
        let stats = parts.memory.stats();
        metrics::gauge!("autoglm_experiences").set(stats.experiences as f64);
        metrics::gauge!("autoglm_champion_version").set(learning_loop::champion(&parts).0 as f64);
        metrics::gauge!("autoglm_engine_queue").set(parts.engine.queued() as f64);
        if let Some(upstream) = parts.engine.upstream() {
            let open = f64::from(u8::from(upstream.circuit() != CircuitState::Closed));
            metrics::gauge!("autoglm_upstream_circuit_open").set(open);
        }
        if let Some(stats) = parts.engine.serving_stats() {
            serving_figures(stats);
        }
        metrics::gauge!("autoglm_learning").set(f64::from(u8::from(parts.signals.busy())));
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

fn serving_figures(stats: ServingStats) {
    let free = stats.pages.saturating_sub(stats.pages_used + stats.pages_cached);
    for (state, pages) in [("used", stats.pages_used), ("cached", stats.pages_cached), ("free", free)] {
        metrics::gauge!("autoglm_engine_pages", "state" => state).set(pages as f64);
    }
    metrics::counter!("autoglm_engine_prefix_hit_tokens_total").absolute(stats.prefix_hit_tokens);
    metrics::counter!("autoglm_engine_preemptions_total").absolute(stats.preemptions);
    metrics::counter!("autoglm_engine_admitted_total").absolute(stats.admitted);
    let waited_ms = u64::try_from(stats.queue_wait.as_millis()).unwrap_or(u64::MAX);
    metrics::counter!("autoglm_engine_queue_wait_ms_total").absolute(waited_ms);
}

/// Wakes the loop when something was recorded.
struct Bell(Arc<Signals>);

impl autoglm_gateway::Observer for Bell {
    fn interaction(&self, _id: InteractionId) {
        self.0.recorded();
    }

    fn feedback(&self, _feedback: &autoglm_domain::Feedback) {
        self.0.recorded();
    }
}
