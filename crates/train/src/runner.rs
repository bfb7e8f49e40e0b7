//! One training run, from planned to its end.
//!
//! In comes a plan with a parent and hyper-parameters; out comes the trained adapter and a run that the
//! store knows in every state. The trainer blocks for long, so it has a thread of its own. A run that ended
//! well stays `running` until whoever registers the adapter says which version it became:
//! [`Runner::succeeded`] makes the record to write together with the version.

use std::sync::Arc;

use autoglm_domain::{
    Adapter, ArtifactStore, CheckpointStore, Checkpointing, Clock, ContentHash, Event, HyperParameters,
    IdSource, RunState, Store, TrainJob, TrainProgress, Trainer, TrainingRun, TrainingRunId, Trigger,
    VersionNumber,
};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tracing::Instrument as _;

use crate::{
    Error, Plan, Result, Snapshot,
    supervise::{Cancellation, Checkpoints, FOUND_UNFINISHED, Finished, Halt, Supervisor, Work, ended},
};

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

/// Progress as it is watched: `None` until the first step is done.
type Progress = watch::Receiver<Option<TrainProgress>>;

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
    checkpoints: Option<Checkpoints>,
    active: Arc<Mutex<Option<Active>>>,
}

/// What [`Runner::recover`] found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recovered {
    /// Runs that it ended.
    pub ended: Vec<TrainingRun>,
    /// The run that can go on, for [`Runner::resume`] or [`Runner::abandon`]; it is still `running`.
    pub unfinished: Option<TrainingRun>,
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
        let _ = self.cancellation.set(Halt::Cancel(reason.to_owned()));
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
        Self { store, artifacts, clock, ids, checkpoints: None, active: Arc::default() }
    }

    /// The same, whose runs leave a checkpoint every `every_s` seconds, from which the next process goes on.
    #[must_use]
    pub fn with_checkpoints(self, store: Arc<dyn CheckpointStore>, every_s: f32) -> Self {
        Self { checkpoints: Some(Checkpoints { store, every_s }), ..self }
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
        fitting.is_some_and(|active| active.cancellation.set(Halt::Cancel(reason.to_owned())).is_ok())
    }

    /// Stops the run in progress, if there is one, because the process ends: with a checkpoint, so that the next
    /// process goes on with it, or for good where none are kept.
    pub fn suspend(&self, reason: &str) {
        if self.checkpoints.is_none() {
            self.cancel(None, reason);
            return;
        }
        if let Some(active) = self.active.lock().as_ref() {
            let _ = active.cancellation.set(Halt::Suspend);
        }
    }

    /// [`Runner::start`], waited for.
    pub async fn run(&self, request: RunRequest, trainer: Arc<dyn Trainer>) -> Result<Finished> {
        self.start(request, trainer).await?.wait().await
    }

    /// Stores the plan's snapshot, records the run as planned and starts it. `Conflict` while another run
    /// is in progress.
    pub async fn start(&self, request: RunRequest, trainer: Arc<dyn Trainer>) -> Result<RunHandle> {
        let run = TrainingRunId::next(&*self.ids);
        let entered = self.enter(run)?;
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
        Ok(self.launch(entered, run, job, trainer, false))
    }

    /// Goes on with a run that [`Runner::recover`] found unfinished; `parent_adapter` is that of its parent.
    ///
    /// # Errors
    /// `Conflict` while another run is in progress; the snapshot's where that cannot be read. Whether the
    /// checkpoint is sound is told by the trainer: the run fails where it is not.
    pub async fn resume(
        &self,
        run: TrainingRun,
        parent_adapter: Option<Adapter>,
        trainer: Arc<dyn Trainer>,
    ) -> Result<RunHandle> {
        let entered = self.enter(run.id)?;
        let plan = Plan::of(Snapshot::load(&*self.artifacts, run.snapshot).await?);
        let job = TrainJob {
            parent: parent_adapter,
            ..TrainJob::new(plan.train_examples(), run.hyper.clone(), run.seed)
        };
        Ok(self.launch(entered, run, job, trainer, true))
    }

    /// Ends a run that [`Runner::recover`] found unfinished and that nobody goes on with; its trigger still holds.
    pub async fn abandon(&self, run: &TrainingRun) -> Result<TrainingRun> {
        let run = ended(run, RunState::Cancelled { reason: FOUND_UNFINISHED.to_owned() }, &*self.clock);
        self.record(&run).await?;
        self.forget();
        Ok(run)
    }

    /// Keeps other runs out.
    fn enter(&self, run: TrainingRunId) -> Result<Entered> {
        let (reports, progress) = watch::channel(None);
        let active = Active { run, cancellation: Cancellation::default(), progress };
        Ok(Entered { slot: self.occupy(active.clone())?, active, reports })
    }

    /// Trains on a thread of its own, watched over.
    fn launch(
        &self,
        entered: Entered,
        run: TrainingRun,
        mut job: TrainJob,
        trainer: Arc<dyn Trainer>,
        resumed: bool,
    ) -> RunHandle {
        let Entered { slot, active: Active { run: id, cancellation, progress }, reports } = entered;
        job.checkpointing = self.checkpoints.clone().map(|Checkpoints { store, every_s }| Checkpointing {
            store,
            run: id,
            every_s,
        });
        let span = tracing::info_span!("run", run = %id, parent = %run.parent);
        let work = Work { job, trainer, progress: reports, cancellation: cancellation.clone() };
        let (answer, result) = oneshot::channel();
        let (store, clock) = (Arc::clone(&self.store), Arc::clone(&self.clock));
        let supervisor = Supervisor { store, clock, checkpoints: self.checkpoints.clone(), slot, resumed };
        tokio::spawn(supervisor.supervise(run, work, answer).instrument(span));
        RunHandle { run: id, cancellation, progress, result }
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

    /// The record that the run became `version`, to be written together with it; then [`Runner::forget`] what was kept
    /// to go on with the run.
    pub fn succeeded(&self, run: &TrainingRun, version: VersionNumber) -> TrainingRun {
        ended(run, RunState::Succeeded { version }, &*self.clock)
    }

    /// Removes the checkpoint of a run whose end is recorded.
    pub fn forget(&self) {
        Checkpoints::clear(self.checkpoints.as_ref());
    }

    /// Records that the run became `version`, for a version that is registered already.
    pub async fn finish(&self, run: &TrainingRun, version: VersionNumber) -> Result<TrainingRun> {
        let run = self.succeeded(run, version);
        self.record(&run).await?;
        self.forget();
        Ok(run)
    }

    /// Records that nothing became of the run after it had trained to its end.
    pub async fn fail(&self, run: &TrainingRun, reason: &str) -> Result<TrainingRun> {
        let run = ended(run, RunState::Failed { reason: reason.to_owned() }, &*self.clock);
        self.record(&run).await?;
        self.forget();
        Ok(run)
    }

    /// At start: finds the runs that the end of the last process cut short. A run whose version was registered has
    /// succeeded. The latest one that left a checkpoint can go on; any other is cancelled.
    pub async fn recover(&self) -> Result<Recovered> {
        let versions = self.store.versions().await?;
        let mut recovered = Recovered::default();
        for run in self.store.runs().await?.into_iter().rev() {
            if !matches!(run.state, RunState::Planned | RunState::Running) {
                continue;
            }
            let state = match versions.iter().find(|version| version.run == Some(run.id)) {
                Some(version) => RunState::Succeeded { version: version.number },
                None if recovered.unfinished.is_none() && self.left_checkpoint(run.id) => {
                    tracing::info!(run = %run.id, "a run that was cut short can go on");
                    recovered.unfinished = Some(run);
                    continue;
                }
                None => RunState::Cancelled { reason: FOUND_UNFINISHED.to_owned() },
            };
            tracing::warn!(run = %run.id, ?state, "run found unfinished at start");
            recovered.ended.insert(0, ended(&run, state, &*self.clock));
        }
        if !recovered.ended.is_empty() {
            let events = recovered.ended.iter().map(|run| Event::Run(Box::new(run.clone()))).collect();
            self.store.append(events).await?;
        }
        if recovered.unfinished.is_none() {
            self.forget();
        }
        Ok(recovered)
    }

    fn left_checkpoint(&self, run: TrainingRunId) -> bool {
        let Some(Checkpoints { store, .. }) = &self.checkpoints else { return false };
        store
            .load(run)
            .inspect_err(|error| tracing::warn!(%error, "a checkpoint cannot be read"))
            .is_ok_and(|state| state.is_some())
    }
}

/// A run that may begin.
struct Entered {
    slot: Slot,
    active: Active,
    reports: watch::Sender<Option<TrainProgress>>,
}

/// Keeps other runs out while it lives.
pub(crate) struct Slot(Arc<Mutex<Option<Active>>>);

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}
