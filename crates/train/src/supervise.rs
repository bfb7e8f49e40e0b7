//! The thread that trains, and who records what became of it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
};

use autoglm_domain::{
    CheckpointStore, Clock, Control, ErrorKind, Event, RunState, Store, TrainJob, TrainProgress, Trained,
    Trainer, TrainingRun,
};
use tokio::sync::{oneshot, watch};

use crate::{Error, Result, runner::Slot};

/// Why a run that the end of the process cut short was cancelled; its trigger still holds.
pub const FOUND_UNFINISHED: &str = "found unfinished at start";

/// A run that trained to its end. It is still `running`: hand the run to [`Runner::finish`](crate::Runner::finish) or
/// [`Runner::succeeded`](crate::Runner::succeeded) with the version it became, or to [`Runner::fail`](crate::Runner::fail).
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// The run, its metrics filled in.
    pub run: TrainingRun,
    /// What came out.
    pub trained: Trained,
}

/// Why a run stops before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Halt {
    /// For good, with the reason.
    Cancel(String),
    /// To be gone on with by the next process.
    Suspend,
}

/// Set once.
pub(crate) type Cancellation = Arc<OnceLock<Halt>>;

/// Where runs leave checkpoints, and how often.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoints {
    pub(crate) store: Arc<dyn CheckpointStore>,
    pub(crate) every_s: f32,
}

impl Checkpoints {
    /// Forgets the checkpoint of a run that has ended.
    pub(crate) fn clear(checkpoints: Option<&Self>) {
        let cleared = checkpoints.map_or(Ok(()), |checkpoints| checkpoints.store.clear());
        if let Err(error) = cleared {
            tracing::warn!(%error, "a checkpoint that nobody needs could not be removed");
        }
    }
}

/// What the trainer's thread needs.
pub(crate) struct Work {
    pub(crate) job: TrainJob,
    pub(crate) trainer: Arc<dyn Trainer>,
    pub(crate) progress: watch::Sender<Option<TrainProgress>>,
    pub(crate) cancellation: Cancellation,
}

/// Waits for the thread and records the end, whether or not anybody still waits for the result.
pub(crate) struct Supervisor {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) checkpoints: Option<Checkpoints>,
    pub(crate) slot: Slot,
    /// Whether another process began the run.
    pub(crate) resumed: bool,
}

impl Supervisor {
    pub(crate) async fn supervise(
        self,
        mut run: TrainingRun,
        work: Work,
        answer: oneshot::Sender<Result<Finished>>,
    ) {
        let (cancellation, progress) = (Arc::clone(&work.cancellation), work.progress.subscribe());
        run.state = RunState::Running;
        let trained = match self.record(&run).await {
            Ok(()) => train(work).await,
            Err(error) => Err(error),
        };
        let result = match (trained, cancellation.get()) {
            (_, Some(Halt::Suspend)) => Err(Error::Suspended(run.id)),
            (_, Some(Halt::Cancel(reason))) => Err(self.cancelled(&run, reason).await),
            (Ok(trained), None) => match diverged(&trained) {
                Some(error) => Err(self.failed(&run, error).await),
                None => {
                    let finite = trained.metrics.iter().filter(|(_, value)| value.is_finite());
                    run.metrics = finite.map(|(name, value)| (name.clone(), *value)).collect();
                    tracing::info!(metrics = ?run.metrics, "run trained");
                    Ok(Finished { run: run.clone(), trained })
                }
            },
            (Err(error), None) if self.resumed && progress.borrow().is_none() => {
                tracing::warn!(%error, "the run cannot go on");
                Err(self.cancelled(&run, FOUND_UNFINISHED).await)
            }
            (Err(error), None) => Err(self.failed(&run, error).await),
        };
        let suspended = cancellation.get() == Some(&Halt::Suspend);
        let Self { store, clock, slot, .. } = self;
        drop(slot);
        if let Err(Ok(unclaimed)) = answer.send(result)
            && !suspended
        {
            let cancelled = RunState::Cancelled { reason: "nobody waited for it any longer".into() };
            record(&*store, &ended(&unclaimed.run, cancelled, &*clock)).await;
        }
    }

    async fn record(&self, run: &TrainingRun) -> autoglm_domain::Result<()> {
        self.store.append(vec![Event::Run(Box::new(run.clone()))]).await
    }

    async fn cancelled(&self, run: &TrainingRun, reason: &str) -> Error {
        tracing::info!(reason, "run cancelled");
        Checkpoints::clear(self.checkpoints.as_ref());
        let state = RunState::Cancelled { reason: reason.to_owned() };
        record(&*self.store, &ended(run, state, &*self.clock)).await;
        Error::Cancelled { run: run.id, reason: reason.to_owned() }
    }

    async fn failed(&self, run: &TrainingRun, source: autoglm_domain::Error) -> Error {
        tracing::warn!(error = %source, "run failed");
        Checkpoints::clear(self.checkpoints.as_ref());
        let state = RunState::Failed { reason: source.message.clone() };
        record(&*self.store, &ended(run, state, &*self.clock)).await;
        Error::Failed { run: run.id, source }
    }
}

/// Records an end as well as can be: where the store refuses, [`Runner::recover`](crate::Runner::recover) does it at the next start.
async fn record(store: &dyn Store, run: &TrainingRun) {
    if let Err(error) = store.append(vec![Event::Run(Box::new(run.clone()))]).await {
        tracing::error!(run = %run.id, %error, "the end of the run could not be recorded");
    }
}

pub(crate) fn ended(run: &TrainingRun, state: RunState, clock: &dyn Clock) -> TrainingRun {
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
            match cancellation.get() {
                None => Control::Continue,
                Some(Halt::Suspend) => Control::Stop,
                Some(Halt::Cancel(_)) => Control::Cancel,
            }
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
