//! One training run, from planned to its end.
//!
//! In comes a plan with a parent and hyper-parameters; out comes the trained adapter and a run that the
//! store knows in every state. The trainer blocks for long, so it has a thread of its own. A run that ended
//! well stays `running` until whoever registers the adapter says which version it became:
//! [`Runner::succeeded`] makes the record to write together with the version.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
};

use autoglm_domain::{
    Adapter, ArtifactStore, Clock, ContentHash, Control, ErrorKind, Event, HyperParameters, IdSource,
    RunState, Store, TrainJob, TrainProgress, Trained, Trainer, TrainingRun, TrainingRunId, Trigger,
    VersionNumber,
};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tracing::Instrument as _;

use crate::{Error, Plan, Result, Snapshot};

/// Why a run that the end of the process cut short was cancelled; its trigger still holds.
pub const FOUND_UNFINISHED: &str = "found unfinished at start";

/// What to train and why.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// Why.
    pub trigger: Trigger,
    /// Hash of the base model.
    pub base: ContentHash,
    /// The version whose adapter it starts from.
    pub parent: VersionNumber,
    /// That adapter; `None` starts a fresh one.
    pub parent_adapter: Option<Adapter>,
    /// What to train on.
    pub plan: Plan,
    /// How.
    pub hyper: HyperParameters,
    /// Seed of everything random in it.
    pub seed: u64,
}

/// A run that trained to its end. It is still `running`: hand the run to [`Runner::finish`] or
/// [`Runner::succeeded`] with the version it became, or to [`Runner::fail`].
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// The run, its metrics filled in.
    pub run: TrainingRun,
    /// What came out.
    pub trained: Trained,
}

/// Progress as it is watched: `None` until the first step is done.
type Progress = watch::Receiver<Option<TrainProgress>>;

/// Set once, with the reason.
type Cancellation = Arc<OnceLock<String>>;

/// The run in progress.
#[derive(Debug, Clone)]
struct Active {
    run: TrainingRunId,
    cancellation: Cancellation,
    progress: Progress,
}

/// Runs training runs, one at a time.
pub struct Runner {
    store: Arc<dyn Store>,
    artifacts: Arc<dyn ArtifactStore>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    active: Arc<Mutex<Option<Active>>>,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("active", &*self.active.lock()).finish_non_exhaustive()
    }
}

/// A run in progress. Dropping it cancels the run.
#[derive(Debug)]
pub struct RunHandle {
    run: TrainingRunId,
    cancellation: Cancellation,
    progress: Progress,
    result: oneshot::Receiver<Result<Finished>>,
}

impl RunHandle {
    /// The run's id.
    pub fn id(&self) -> TrainingRunId {
        self.run
    }

    /// How far it is, to be watched.
    pub fn progress(&self) -> watch::Receiver<Option<TrainProgress>> {
        self.progress.clone()
    }

    /// Stops the run at its next step; the first reason given is recorded.
    pub fn cancel(&self, reason: &str) {
        let _ = self.cancellation.set(reason.to_owned());
    }

    /// Waits for the end. `Conflict` when it was cancelled, the trainer's kind when it failed; both are
    /// recorded by then.
    pub async fn wait(mut self) -> Result<Finished> {
        let lost =
            |_| autoglm_domain::Error::internal("the run was lost with the runtime that supervised it");
        (&mut self.result).await.map_err(lost)?
    }
}

impl Drop for RunHandle {
    fn drop(&mut self) {
        self.cancel("nobody waited for it any longer");
    }
}

impl Runner {
    /// A runner without a run.
    pub fn new(
        store: Arc<dyn Store>,
        artifacts: Arc<dyn ArtifactStore>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
    ) -> Self {
        Self { store, artifacts, clock, ids, active: Arc::default() }
    }

    /// The run in progress and how far it is.
    pub fn active(&self) -> Option<(TrainingRunId, Option<TrainProgress>)> {
        let active = self.active.lock();
        active.as_ref().map(|active| (active.run, *active.progress.borrow()))
    }

    /// Cancels the run in progress if it is `run`, or whichever it is when `None`. Whether there was one.
    pub fn cancel(&self, run: Option<TrainingRunId>, reason: &str) -> bool {
        let active = self.active.lock();
        let fitting = active.as_ref().filter(|active| run.is_none_or(|run| run == active.run));
        fitting.is_some_and(|active| active.cancellation.set(reason.to_owned()).is_ok())
    }

    /// [`Runner::start`], waited for.
    pub async fn run(&self, request: RunRequest, trainer: Arc<dyn Trainer>) -> Result<Finished> {
        self.start(request, trainer).await?.wait().await
    }

    /// Stores the plan's snapshot, records the run as planned and starts it. `Conflict` while another run
    /// is in progress.
    pub async fn start(&self, request: RunRequest, trainer: Arc<dyn Trainer>) -> Result<RunHandle> {
        let run = TrainingRunId::next(&*self.ids);
        let (progress_in, progress) = watch::channel(None);
        let cancellation = Cancellation::default();
        let slot =
            self.occupy(Active { run, cancellation: cancellation.clone(), progress: progress.clone() })?;
        let snapshot = Snapshot::of(&request.plan).store(&*self.artifacts).await?;
        let examples = request.plan.train_examples();
        let run = TrainingRun {
            id: run,
            at: self.clock.now(),
            ended_at: None,
            trigger: request.trigger,
            base: request.base,
            parent: request.parent,
            snapshot,
            new_experiences: request.plan.new_ids.len() as u64,
            replayed_experiences: request.plan.replay_ids.len() as u64,
            strategy: request.plan.strategy.to_string(),
            hyper: request.hyper.clone(),
            seed: request.seed,
            metrics: std::collections::BTreeMap::new(),
            state: RunState::Planned,
        };
        self.record(&run).await?;
        let job = TrainJob {
            parent: request.parent_adapter,
            ..TrainJob::new(examples, request.hyper, request.seed)
        };
        let id = run.id;
        let span = tracing::info_span!("run", run = %id, parent = %run.parent);
        let work = Work { job, trainer, progress: progress_in, cancellation: cancellation.clone() };
        let (answer, result) = oneshot::channel();
        let supervisor = Supervisor { store: Arc::clone(&self.store), clock: Arc::clone(&self.clock), slot };
        tokio::spawn(supervisor.supervise(run, work, answer).instrument(span));
        Ok(RunHandle { run: id, cancellation, progress, result })
    }

    fn occupy(&self, active: Active) -> Result<Slot> {
        let mut slot = self.active.lock();
        if let Some(there) = slot.as_ref() {
            return Err(Error::Busy(there.run));
        }
        *slot = Some(active);
        Ok(Slot(Arc::clone(&self.active)))
    }

    async fn record(&self, run: &TrainingRun) -> Result<()> {
        Ok(self.store.append(vec![Event::Run(Box::new(run.clone()))]).await?)
    }

    /// The record that the run became `version`, to be written together with it.
    pub fn succeeded(&self, run: &TrainingRun, version: VersionNumber) -> TrainingRun {
        ended(run, RunState::Succeeded { version }, &*self.clock)
    }

    /// Records that the run became `version`, for a version that is registered already.
    pub async fn finish(&self, run: &TrainingRun, version: VersionNumber) -> Result<TrainingRun> {
        let run = self.succeeded(run, version);
        self.record(&run).await?;
        Ok(run)
    }

    /// Records that nothing became of the run after it had trained to its end.
    pub async fn fail(&self, run: &TrainingRun, reason: &str) -> Result<TrainingRun> {
        let run = ended(run, RunState::Failed { reason: reason.to_owned() }, &*self.clock);
        self.record(&run).await?;
        Ok(run)
    }

    /// At start: ends the runs that the end of the last process cut short, and returns them. A run whose
    /// version was registered has succeeded, any other is cancelled.
    pub async fn recover(&self) -> Result<Vec<TrainingRun>> {
        let versions = self.store.versions().await?;
        let mut recovered = Vec::new();
        for run in self.store.runs().await? {
            if !matches!(run.state, RunState::Planned | RunState::Running) {
                continue;
            }
            let state = match versions.iter().find(|version| version.run == Some(run.id)) {
                Some(version) => RunState::Succeeded { version: version.number },
                None => RunState::Cancelled { reason: FOUND_UNFINISHED.to_owned() },
            };
            tracing::warn!(run = %run.id, ?state, "run found unfinished at start");
            recovered.push(ended(&run, state, &*self.clock));
        }
        if !recovered.is_empty() {
            let events = recovered.iter().map(|run| Event::Run(Box::new(run.clone()))).collect();
            self.store.append(events).await?;
        }
        Ok(recovered)
    }
}

/// Keeps other runs out while it lives.
struct Slot(Arc<Mutex<Option<Active>>>);

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

/// What the trainer's thread needs.
struct Work {
    job: TrainJob,
    trainer: Arc<dyn Trainer>,
    progress: watch::Sender<Option<TrainProgress>>,
    cancellation: Cancellation,
}

/// Waits for the thread and records the end, whether or not anybody still waits for the result.
struct Supervisor {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    slot: Slot,
}

impl Supervisor {
    async fn supervise(self, mut run: TrainingRun, work: Work, answer: oneshot::Sender<Result<Finished>>) {
        let cancellation = Arc::clone(&work.cancellation);
        run.state = RunState::Running;
        let trained = match self.record(&run).await {
            Ok(()) => train(work).await,
            Err(error) => Err(error),
        };
        let result = match (trained, cancellation.get()) {
            (_, Some(reason)) => Err(self.cancelled(&run, reason).await),
            (Ok(trained), None) => match diverged(&trained) {
                Some(error) => Err(self.failed(&run, error).await),
                None => {
                    let finite = trained.metrics.iter().filter(|(_, value)| value.is_finite());
                    run.metrics = finite.map(|(name, value)| (name.clone(), *value)).collect();
                    tracing::info!(metrics = ?run.metrics, "run trained");
                    Ok(Finished { run: run.clone(), trained })
                }
            },
            (Err(error), None) => Err(self.failed(&run, error).await),
        };
        let Self { store, clock, slot } = self;
        drop(slot);
        if let Err(Ok(unclaimed)) = answer.send(result) {
            let cancelled = RunState::Cancelled { reason: "nobody waited for it any longer".into() };
            record(&*store, &ended(&unclaimed.run, cancelled, &*clock)).await;
        }
    }

    async fn record(&self, run: &TrainingRun) -> autoglm_domain::Result<()> {
        self.store.append(vec![Event::Run(Box::new(run.clone()))]).await
    }

    async fn cancelled(&self, run: &TrainingRun, reason: &str) -> Error {
        tracing::info!(reason, "run cancelled");
        let state = RunState::Cancelled { reason: reason.to_owned() };
        record(&*self.store, &ended(run, state, &*self.clock)).await;
        Error::Cancelled { run: run.id, reason: reason.to_owned() }
    }

    async fn failed(&self, run: &TrainingRun, source: autoglm_domain::Error) -> Error {
        tracing::warn!(error = %source, "run failed");
        let state = RunState::Failed { reason: source.message.clone() };
        record(&*self.store, &ended(run, state, &*self.clock)).await;
        Error::Failed { run: run.id, source }
    }
}

/// Records an end as well as can be: where the store refuses, [`Runner::recover`] does it at the next start.
async fn record(store: &dyn Store, run: &TrainingRun) {
    if let Err(error) = store.append(vec![Event::Run(Box::new(run.clone()))]).await {
        tracing::error!(run = %run.id, %error, "the end of the run could not be recorded");
    }
}

fn ended(run: &TrainingRun, state: RunState, clock: &dyn Clock) -> TrainingRun {
    TrainingRun { state, ended_at: Some(clock.now()), ..run.clone() }
}

/// A loss that is no number means an adapter that is none; metrics that are not finite cannot be stored.
fn diverged(trained: &Trained) -> Option<autoglm_domain::Error> {
    let loss = trained.metrics.get("loss_last").filter(|loss| !loss.is_finite())?;
    let message = format!("the training diverged: its last loss is {loss}");
    Some(autoglm_domain::Error::new(ErrorKind::Internal, message).with_hint("lower `hyper.learning_rate`"))
}

/// Runs the trainer on a thread of its own.
async fn train(work: Work) -> autoglm_domain::Result<Trained> {
    let (done, result) = oneshot::channel();
    let span = tracing::Span::current();
    let thread = std::thread::Builder::new().name("train".into()).spawn(move || {
        let _entered = span.enter();
        let Work { job, trainer, progress, cancellation } = work;
        let mut report = |step: TrainProgress| {
            progress.send_replace(Some(step));
            if cancellation.get().is_some() { Control::Cancel } else { Control::Continue }
        };
        let trained = catch_unwind(AssertUnwindSafe(|| trainer.train(&job, &mut report)));
        // Nobody listens when the runtime is gone; there is nobody to tell then.
        let _ = done.send(trained.unwrap_or_else(|panic| Err(panicked(&*panic))));
    });
    if let Err(error) = thread {
        let message = format!("no thread for the training: {error}");
        return Err(autoglm_domain::Error::unavailable(message));
    }
    result.await.map_err(|_| autoglm_domain::Error::internal("the trainer's thread died"))?
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> autoglm_domain::Error {
    let message =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    autoglm_domain::Error::internal(format!("the trainer panicked: {}", message.unwrap_or("no message")))
}
