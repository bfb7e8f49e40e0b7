//! A run's states, whatever becomes of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use autoglm_domain::{
    Adapter, CheckpointStore as _, ContentHash, Error as PortError, ErrorKind, Event, HyperParameters,
    ManualClock, ModelVersion, RunState, SequentialIds, Store as _, Timestamp, Trigger, VersionNumber,
};
use autoglm_doubles::{MemoryStore, version};
use autoglm_train::{Error, FOUND_UNFINISHED, PlanConfig, Recovered, RunRequest, Runner, Snapshot, plan};

use crate::{
    doubles::{MemoryArtifacts, MemoryCheckpoint, Script, ScriptedTrainer},
    experience,
};

struct World {
    store: Arc<MemoryStore>,
    artifacts: Arc<MemoryArtifacts>,
    clock: Arc<ManualClock>,
    runner: Runner,
}

impl World {
    /// The states that a run went through.
    fn states(&self) -> Vec<RunState> {
        let events = self.store.events().into_iter();
        events.filter_map(|e| if let Event::Run(run) = e { Some(run.state) } else { None }).collect()
    }
}

fn world() -> World {
    let (store, artifacts) = (Arc::new(MemoryStore::default()), Arc::new(MemoryArtifacts::default()));
    let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
    let ids = Arc::new(SequentialIds::default());
    let runner = Runner::new(store.clone(), artifacts.clone(), clock.clone(), ids);
    World { store, artifacts, clock, runner }
}

fn request() -> RunRequest {
    let new = (1..4).map(|id| experience(id, 0, "billing")).collect();
    let pool = (10..12).map(|id| experience(id, 1, "travel")).collect();
    RunRequest {
        trigger: Trigger::NewExperiences { count: 3 },
        base: ContentHash::of(b"base"),
        parent: VersionNumber(4),
        parent_adapter: Some(Adapter { config: vec![1], weights: vec![2] }),
        plan: plan(new, pool, &PlanConfig::default(), 5).unwrap(),
        hyper: HyperParameters { rank: 4, ..HyperParameters::default() },
        seed: 5,
    }
}

fn metrics(loss: f64) -> BTreeMap<String, f64> {
    BTreeMap::from([("loss_last".to_owned(), loss), ("tokens_per_s".to_owned(), 900.0)])
}

/// A trainer that waits, and the sender that lets it go on by a step.
fn waiting() -> (Arc<ScriptedTrainer>, mpsc::Sender<()>) {
    let (go_on, steps) = mpsc::channel();
    (ScriptedTrainer::new(Script::Wait(Mutex::new(steps))), go_on)
}

async fn until(condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen within five seconds");
}

#[tokio::test]
async fn a_run_that_succeeds_is_recorded_from_plan_to_version() {
    let world = world();
    let trainer = ScriptedTrainer::new(Script::Succeed(metrics(0.25)));
    let handle = world.runner.start(request(), trainer.clone()).await.unwrap();
    let (id, progress) = (handle.id(), handle.progress());
    world.clock.advance_ms(500);
    let finished = handle.wait().await.unwrap();
    assert_eq!(progress.borrow().unwrap().step, 3);
    assert_eq!(world.states(), [RunState::Planned, RunState::Running]);
    assert_eq!(world.runner.active(), None);
    assert_eq!(finished.trained.adapter.weights, [1]);

    let run = world.runner.finish(&finished.run, VersionNumber(5)).await.unwrap();
    assert_eq!(world.store.run(id).await.unwrap(), run);
    assert_eq!(run.state, RunState::Succeeded { version: VersionNumber(5) });
    assert_eq!((run.at, run.ended_at), (Timestamp(1_000), Some(Timestamp(1_500))));
    assert_eq!((run.new_experiences, run.replayed_experiences), (3, 2));
    assert_eq!((run.strategy.as_str(), run.seed, run.parent), ("replay", 5, VersionNumber(4)));
    assert_eq!(run.metrics, metrics(0.25));

    let snapshot = Snapshot::load(&*world.artifacts, run.snapshot).await.unwrap();
    assert_eq!(snapshot, Snapshot::of(&request().plan));
    let jobs = trainer.jobs.lock().unwrap();
    assert_eq!(jobs[0].parent, request().parent_adapter);
    assert_eq!(jobs[0].examples, request().plan.train_examples());
    assert_eq!((jobs[0].hyper.rank, jobs[0].seed), (4, 5));
}

#[tokio::test]
async fn a_run_that_fails_is_recorded_with_its_reason() {
    let too_long = PortError::invalid("an example has 900 tokens, the context 512").with_hint("shorten it");
    let cases = [
        (Script::Fail(too_long), ErrorKind::Invalid, "an example has 900 tokens, the context 512"),
        (Script::Panic, ErrorKind::Internal, "the trainer panicked: the sky fell"),
        (
            Script::Succeed(metrics(f64::NAN)),
            ErrorKind::Internal,
            "the training diverged: its last loss is NaN",
        ),
    ];
    for (script, kind, reason) in cases {
        let world = world();
        let error = world.runner.run(request(), ScriptedTrainer::new(script)).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().ends_with(reason), "{error}");
        let failed = RunState::Failed { reason: reason.to_owned() };
        assert_eq!(world.states(), [RunState::Planned, RunState::Running, failed]);
        assert_eq!(world.store.runs().await.unwrap()[0].ended_at, Some(Timestamp(1_000)));
        // The next run may start.
        let again = ScriptedTrainer::new(Script::Succeed(metrics(0.1)));
        world.runner.run(request(), again).await.unwrap();
    }
}

#[tokio::test]
async fn a_result_that_is_not_registered_is_recorded_as_failed() {
    let world = world();
    let trainer = ScriptedTrainer::new(Script::Succeed(metrics(0.1)));
    let finished = world.runner.run(request(), trainer).await.unwrap();
    let run = world.runner.fail(&finished.run, "the adapter was refused").await.unwrap();
    assert_eq!(run.state, RunState::Failed { reason: "the adapter was refused".into() });
    assert_eq!(world.store.run(run.id).await.unwrap(), run);
}

#[tokio::test]
async fn a_run_is_cancelled_at_its_next_step() {
    let world = world();
    let (trainer, go_on) = waiting();
    let handle = world.runner.start(request(), trainer).await.unwrap();
    let id = handle.id();
    assert_eq!(world.runner.active().map(|(run, _)| run), Some(id));
    go_on.send(()).unwrap();
    until(|| world.runner.active().is_some_and(|(_, progress)| progress.is_some())).await;

    let busy = world.runner.start(request(), waiting().0).await.unwrap_err();
    assert_eq!((busy.kind(), &busy), (ErrorKind::Conflict, &Error::Busy(id)));
    let other = autoglm_domain::TrainingRunId::new(uuid::Uuid::from_u128(404));
    assert!(!world.runner.cancel(Some(other), "not this one"));
    assert!(world.runner.cancel(Some(id), "by a person"));
    assert!(!world.runner.cancel(None, "once more"), "only the first reason counts");
    go_on.send(()).unwrap();
    let error = handle.wait().await.unwrap_err();
    assert_eq!(error, Error::Cancelled { run: id, reason: "by a person".into() });
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let cancelled = RunState::Cancelled { reason: "by a person".into() };
    assert_eq!(world.states(), [RunState::Planned, RunState::Running, cancelled]);
    assert!(!world.runner.cancel(None, "nothing runs"));
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_is_cancelled_and_recorded() {
    let world = world();
    let (trainer, go_on) = waiting();
    let handle = world.runner.start(request(), trainer).await.unwrap();
    drop(handle);
    go_on.send(()).unwrap();
    until(|| world.states().len() == 3).await;
    assert!(matches!(world.states()[2], RunState::Cancelled { .. }));
    until(|| world.runner.active().is_none()).await;
}

#[tokio::test]
async fn a_run_that_cannot_be_recorded_does_not_start() {
    let world = world();
    world.store.set_full(true);
    let trainer = ScriptedTrainer::new(Script::Succeed(metrics(0.1)));
    let error = world.runner.run(request(), trainer.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(trainer.jobs.lock().unwrap().is_empty());
    assert_eq!(world.runner.active(), None);
}

#[tokio::test]
async fn runs_cut_short_are_ended_at_start() {
    let world = world();
    let trainer = ScriptedTrainer::new(Script::Succeed(metrics(0.1)));
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(world.runner.run(request(), trainer.clone()).await.unwrap().run.id);
    }
    // The first was finished, the second registered but not finished, the third stayed planned.
    let first = world.store.run(ids[0]).await.unwrap();
    world.runner.finish(&first, VersionNumber(1)).await.unwrap();
    let second = ModelVersion { run: Some(ids[1]), ..version(2) };
    let mut third = world.store.run(ids[2]).await.unwrap();
    third.state = RunState::Planned;
    let events = vec![Event::Version(Box::new(second)), Event::Run(Box::new(third))];
    world.store.append(events).await.unwrap();

    world.clock.advance_ms(5_000);
    let Recovered { ended: recovered, unfinished } = world.runner.recover().await.unwrap();
    assert_eq!(unfinished, None);
    assert_eq!(recovered.iter().map(|run| run.id).collect::<Vec<_>>(), ids[1..]);
    let cut = RunState::Cancelled { reason: FOUND_UNFINISHED.into() };
    let states: Vec<_> = world.store.runs().await.unwrap().into_iter().map(|run| run.state).collect();
    let succeeded = |version| RunState::Succeeded { version: VersionNumber(version) };
    assert_eq!(states, [succeeded(1), succeeded(2), cut.clone(), cut]);
    assert!(recovered.iter().all(|run| run.ended_at == Some(Timestamp(6_000))));
    assert_eq!(world.runner.recover().await.unwrap(), Recovered::default());
}

/// A world whose runs leave checkpoints, with one that was stopped after a step by the end of its process.
async fn interrupted() -> (World, Arc<MemoryCheckpoint>, autoglm_domain::TrainingRunId) {
    let (mut world, kept) = (world(), Arc::new(MemoryCheckpoint::default()));
    world.runner = with_checkpoints(&world, &kept);
    let (trainer, go_on) = waiting();
    let handle = world.runner.start(request(), trainer).await.unwrap();
    let id = handle.id();
    world.runner.suspend("the server was stopped");
    go_on.send(()).unwrap();
    let error = handle.wait().await.unwrap_err();
    assert_eq!((&error, error.kind()), (&Error::Suspended(id), ErrorKind::Conflict));
    assert_eq!(world.states(), [RunState::Planned, RunState::Running]);
    assert_eq!(kept.load(id), Ok(Some(b"state".to_vec())));
    (world, kept, id)
}

/// The runner of the next process.
fn with_checkpoints(world: &World, kept: &Arc<MemoryCheckpoint>) -> Runner {
    let ids = Arc::new(SequentialIds::default());
    Runner::new(world.store.clone(), world.artifacts.clone(), world.clock.clone(), ids)
        .with_checkpoints(kept.clone(), 7.5)
}

#[tokio::test]
async fn a_run_that_the_end_of_the_process_stopped_goes_on_with_the_next() {
    let (world, kept, id) = interrupted().await;
    let runner = with_checkpoints(&world, &kept);
    let Recovered { ended, unfinished } = runner.recover().await.unwrap();
    assert_eq!((ended.len(), unfinished.as_ref().map(|run| run.id)), (0, Some(id)));
    let trainer = ScriptedTrainer::new(Script::Succeed(metrics(0.25)));
    let parent = request().parent_adapter;
    let handle = runner.resume(unfinished.unwrap(), parent.clone(), trainer.clone()).await.unwrap();
    assert_eq!(runner.start(request(), trainer.clone()).await.unwrap_err(), Error::Busy(id));
    let finished = handle.wait().await.unwrap();
    runner.finish(&finished.run, VersionNumber(5)).await.unwrap();
    let run = world.store.run(id).await.unwrap();
    assert_eq!(run.state, RunState::Succeeded { version: VersionNumber(5) });
    assert_eq!(kept.load(id), Ok(None));

    let jobs = trainer.jobs.lock().unwrap();
    assert_eq!((&jobs[0].parent, jobs[0].examples.clone()), (&parent, request().plan.train_examples()));
    assert_eq!((jobs[0].hyper.rank, jobs[0].seed), (4, 5));
    let checkpointing = jobs[0].checkpointing.as_ref().unwrap();
    assert_eq!((checkpointing.run, checkpointing.every_s), (id, 7.5));
}

#[tokio::test]
async fn a_run_that_cannot_go_on_is_cancelled_and_its_trigger_holds() {
    let cut = RunState::Cancelled { reason: FOUND_UNFINISHED.into() };
    // The trainer refuses the checkpoint.
    let (world, kept, id) = interrupted().await;
    let runner = with_checkpoints(&world, &kept);
    let run = runner.recover().await.unwrap().unfinished.unwrap();
    let trainer = ScriptedTrainer::new(Script::Refuse(PortError::invalid("it is damaged")));
    runner.resume(run, None, trainer).await.unwrap().wait().await.unwrap_err();
    assert_eq!((world.store.run(id).await.unwrap().state, kept.load(id)), (cut.clone(), Ok(None)));
    // Nobody wants it any longer.
    let (world, kept, id) = interrupted().await;
    let runner = with_checkpoints(&world, &kept);
    let run = runner.recover().await.unwrap().unfinished.unwrap();
    assert_eq!(runner.abandon(&run).await.unwrap().state, cut);
    assert_eq!((world.store.run(id).await.unwrap().state, kept.load(id)), (cut.clone(), Ok(None)));
    // The checkpoint is gone, or checkpoints are off.
    for gone in [true, false] {
        let (world, _, id) = interrupted().await;
        let ids = Arc::new(SequentialIds::default());
        let off = Runner::new(world.store.clone(), world.artifacts.clone(), world.clock.clone(), ids);
        let runner = if gone { with_checkpoints(&world, &Arc::default()) } else { off };
        assert_eq!(runner.recover().await.unwrap().ended.len(), 1);
        assert_eq!(world.store.run(id).await.unwrap().state, cut);
    }
}
