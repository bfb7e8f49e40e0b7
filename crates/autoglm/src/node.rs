//! A whole autoglm in one process: everything opened, wired, served and closed.

mod aliases;
mod announcements;
mod answerer;
mod answering;
mod background;
mod checkpoints;
mod duties;
pub(crate) mod judging;
mod lock;
mod mirrors;
mod mlflow;
mod news;
mod on_demand;
mod orders;
mod recall;
mod relay;
pub(crate) mod residents;
pub(crate) mod shadows;
mod split;
mod traffic;

use std::{future::Future, sync::Arc, time::Duration};

use autoglm_domain::{
    ArtifactStore, Clock, ContentHash, Cursors, Embedder, Error, Feedback, Generator, IdSource,
    InteractionId, Result, Store, SystemClock, SystemIds, Timestamp, Trainer, VersionNumber,
};
use autoglm_engine::ServingStats;
use autoglm_evaluate::{Differ, Evaluator, RuleSet};
use autoglm_gateway::{Gateway, MetricsPage, ShadowRequest};
use autoglm_memory::Memory;
use autoglm_mlflow::Mlflow;
use autoglm_registry::{ObjectArtifacts, Registry};
use autoglm_rollout::{AnswerCache, Confirm, RolloutRunner};
use autoglm_train::{Runner, Triggers};
use autoglm_upstream::CircuitState;
use autoglm_webhook::{Follower, Gates};
use tokio::{net::TcpListener, task::JoinHandle};

pub(crate) use self::answering::base_model;
pub(crate) use self::residents::Residents;
use self::{
    answerer::Answerer,
    answering::Answering,
    checkpoints::CheckpointFile,
    duties::{Duties, Leading},
    judging::Judging,
    lock::DataLock,
    mirrors::Mirrors,
    news::News,
    shadows::ShadowQueue,
    traffic::Traffic,
};
pub(crate) use crate::demo_run::demo_run;
use crate::{
    database::Database,
    learning_loop,
    proving::{Doors, Proving},
    settings::Settings,
    signals::Signals,
};

/// How long answers under way may take once the engine is told to stop.
const ENGINE_GRACE: Duration = Duration::from_secs(5);

/// How long the step of a run under way may take then.
const RUN_GRACE: Duration = Duration::from_secs(5);

/// Age from which a half-written artifact is nobody's, milliseconds.
const ABANDONED_MS: i64 = 60 * 60 * 1000;

/// Everything that the loop works with.
pub(crate) struct Parts {
    /// `None` where the processes on a database agree among themselves.
    lock: Option<DataLock>,
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) database: Database,
    pub(crate) store: Arc<dyn Store>,
    /// The store for what only the leader may write; see [`duties`].
    pub(crate) leaders_store: Arc<dyn Store>,
    pub(crate) leading: Leading,
    pub(crate) news: News,
    pub(crate) mirrors: Mirrors,
    pub(crate) artifacts: Arc<dyn ArtifactStore>,
    pub(crate) registry: Arc<Registry>,
    /// The same registry for what only the leader may write.
    pub(crate) leaders_registry: Registry,
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
    /// Compares two versions' answers.
    pub(crate) differ: Differ,
    pub(crate) traffic: Traffic,
    /// Compares the answers of pairs, where one is set up.
    pub(crate) judging: Judging,
    pub(crate) proving: Proving,
    pub(crate) doors: Arc<Doors>,
    /// Held while an announced model is taken in.
    announced: tokio::sync::Mutex<()>,
    /// How far followers of the journal are.
    cursors: Arc<dyn Cursors>,
    /// Who hears of versions.
    hooks: Vec<Arc<Follower>>,
    mlflow: Option<Arc<Mlflow>>,
    pub(crate) residents: Residents,
    pub(crate) signals: Arc<Signals>,
}

/// A running autoglm.
pub(crate) struct Node {
    pub(crate) registry: Arc<Registry>,
    pub(crate) memory: Arc<Memory>,
    parts: Arc<Parts>,
    shadows: ShadowQueue,
    tasks: Vec<JoinHandle<()>>,
    /// Those of a process that leads from its start to its end.
    duties: parking_lot::Mutex<Option<Duties>>,
}

impl Node {
    /// Opens the store, the data directory and the model, mends what a crash left, and starts the loop; where other
    /// processes share the store, as soon as this one leads.
    ///
    /// # Errors
    /// Whatever stands in the way: a damaged or newer database, a model that cannot be read, a champion that was
    /// trained on another base model.
    pub(crate) async fn open(settings: &Settings) -> Result<Arc<Self>> {
        let parts = Arc::new(open_parts(settings.clone()).await?);
        let mut tasks = Vec::new();
        let duties = match parts.database.shared() {
            None => Some(Duties::begin(&parts).await?),
            Some(store) => {
                duties::follow_aliases(&parts).await?;
                tasks.push(tokio::spawn(duties::take_turns(Arc::clone(&parts), store.clone())));
                None
            }
        };
        tasks.push(tokio::spawn(news::follow(Arc::clone(&parts))));
        tasks.push(tokio::spawn(gauges(Arc::clone(&parts))));
        let (shadows, waiting) = ShadowQueue::new(parts.settings.rollout.shadow.queue);
        tasks.push(tokio::spawn(judging::judge_pairs(Arc::clone(&parts))));
        tasks.push(tokio::spawn(judging::hold_to_labels(Arc::clone(&parts))));
        tasks.push(tokio::spawn(shadows::answer(Arc::clone(&parts), waiting)));
        let (registry, memory) = (Arc::clone(&parts.registry), Arc::clone(&parts.memory));
        Ok(Arc::new(Self {
            registry,
            memory,
            parts,
            shadows,
            tasks,
            duties: parking_lot::Mutex::new(duties),
        }))
    }

    /// Waits until this process does the loop's duties. `Conflict` when it is not its turn within `at_most`.
    pub(crate) async fn leads_within(&self, at_most: Duration) -> Result<()> {
        let leads = async {
            while !self.parts.leading.now() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(at_most, leads).await.map_err(|_| {
            Error::conflict("another process leads the loop on this database")
                .with_hint("stop the servers on it first")
        })
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
            store: Arc::clone(&parts.store),
            clock: Arc::clone(&parts.clock),
            ids: Arc::clone(&parts.ids),
            aliases: Arc::new(aliases::Names(Arc::clone(parts))),
            recall: Arc::new(recall::FromMemory(Arc::clone(&parts.memory))),
            observer: Arc::new(Bell { parts: Arc::clone(parts), shadows: self.shadows.clone() }),
            admin: Arc::new(orders::Orders(Arc::clone(parts))),
            announcements: announcements::Announcing::new(parts)?
                .map(|it| Arc::new(it) as Arc<dyn autoglm_gateway::Announcements>),
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
        drop(self.duties.lock().take());
        let engine = Arc::clone(&self.parts.engine);
        let stopped = tokio::task::spawn_blocking(move || engine.shutdown(ENGINE_GRACE)).await;
        if let Err(error) = stopped {
            tracing::warn!(%error, "the engine did not stop in order");
        }
        if let Err(error) = self.parts.database.close().await {
            tracing::warn!(%error, "the store did not close in order");
        }
        if let Some(lock) = &self.parts.lock {
            lock.release();
        }
    }
}

async fn open_parts(mut settings: Settings) -> Result<Parts> {
    crate::http::choose_provider();
    let data = settings.store.data_dir.clone();
    std::fs::create_dir_all(&data).map_err(|error| {
        Error::unavailable(format!("the data directory `{}` cannot be made: {error}", data.display()))
            .with_hint("choose another with --data-dir")
    })?;
    let alone = settings.store.url.is_empty();
    let lock = if alone { Some(DataLock::take(&data)?) } else { None };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids: Arc<dyn IdSource> = Arc::new(SystemIds);
    let database = Database::open(&settings).await?;
    let (store, leaders_store) = (database.store(), database.leaders_store());
    // Before the memory reads its experiences, so that none falls between the two.
    let news = News::after(match database.shared() {
        None => 0,
        Some(store) => store.last_seq().await.map_err(Error::from)?,
    });
    let objects = ObjectArtifacts::open(&settings.registry, &data).map_err(Error::from)?;
    // Where other processes write too, only what none of them can still be writing.
    let abandoned = if alone { Timestamp(i64::MAX) } else { Timestamp(clock.now().0 - ABANDONED_MS) };
    objects.sweep(abandoned).await.map_err(Error::from)?;
    let artifacts: Arc<dyn ArtifactStore> = Arc::new(objects);
    let registry =
        Registry::open(Arc::clone(&store), Arc::clone(&artifacts), Arc::clone(&clock), &settings.registry);
    let registry = Arc::new(registry.await.map_err(Error::from)?);

    let Answering { engine, base, model_name, embedder, trainer, no_training } =
        Answering::open(&settings, &clock, &*ids).await?;
    // Nothing to train with: nothing is planned either.
    settings.train.triggers.enabled &= no_training.is_none();
    let memory = Memory::open(
        Arc::clone(&leaders_store),
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
    let rules = RuleSet::load(settings.evaluate.safety.rules.as_deref()).map_err(Error::from)?;
    let differ = Differ::new(settings.evaluate.diff.clone(), rules, Some(Arc::clone(&embedder)));
    let gates = Arc::new(Gates::new(&settings.webhook, &clock).map_err(Error::from)?);
    let seed = || ids.next_uuid().as_u64_pair().1;
    let doors = Arc::new(Doors::new(gates, Arc::clone(&clock), &settings.webhook, seed()));
    let cursors = database.leaders_cursors();
    let hooks = Follower::all(&settings.webhook, &store, &cursors, &clock, seed()).map_err(Error::from)?;
    let mlflow = settings.mlflow.is_set().then(|| {
        Mlflow::new(settings.mlflow.clone(), Arc::clone(&store), Arc::clone(&artifacts)).map(Arc::new)
    });
    let mlflow = mlflow.transpose().map_err(Error::from)?;
    let mirrors = Mirrors::open(&settings, &database, mlflow.clone())?;
    let mut runner =
        Runner::new(Arc::clone(&leaders_store), Arc::clone(&artifacts), Arc::clone(&clock), Arc::clone(&ids));
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
        rollouts: RolloutRunner::new(Arc::clone(&leaders_store), Arc::clone(&clock), Arc::clone(&ids))
            .with_policy(&settings.rollout)
            .with_confirmation(Arc::clone(&doors) as Arc<dyn Confirm>),
        trainer,
        no_training,
        answers: AnswerCache::default(),
        differ,
        traffic: Traffic::new(settings.rollout.shadow.share),
        judging: Judging::open(&settings, &clock, ids.next_uuid().as_u64_pair().1)?,
        proving: Proving::default(),
        doors,
        announced: tokio::sync::Mutex::default(),
        cursors,
        hooks,
        mlflow,
        residents: Residents::default(),
        signals: Arc::default(),
        leading: Leading::default(),
        leaders_registry: registry.writing_to(Arc::clone(&leaders_store)),
        news,
        mirrors,
        database,
        leaders_store,
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
        metrics::gauge!("autoglm_leading").set(f64::from(u8::from(parts.leading.now())));
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

/// Wakes the loop when something was recorded, and hands on what a candidate on live traffic is judged by.
struct Bell {
    parts: Arc<Parts>,
    shadows: ShadowQueue,
}

impl Bell {
    /// Where several processes share a database, the leader hears of all of them alike: by the database.
    fn is_alone(&self) -> bool {
        self.parts.database.shared().is_none()
    }
}

impl autoglm_gateway::Observer for Bell {
    fn interaction(&self, id: InteractionId) {
        self.parts.signals.recorded();
        if self.is_alone() {
            self.parts.proving.answered(id);
        }
    }

    fn feedback(&self, feedback: &Feedback) {
        self.parts.signals.recorded();
        if self.is_alone() {
            self.parts.proving.said(feedback.interaction);
        }
    }

    fn failed(&self, version: VersionNumber, latency_ms: f64) {
        match self.is_alone() {
            true => self.parts.proving.failed(version, latency_ms),
            false => split::tell_failure(&self.parts, version, latency_ms),
        }
    }

    fn shadow(&self, request: ShadowRequest) {
        self.shadows.offer(request);
    }
}
