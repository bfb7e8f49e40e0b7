//! Runs that are cut short and go on: the same losses and the same bytes as in one piece.

use std::sync::Mutex;

use autoglm_domain::{CheckpointStore, Checkpointing, Error, ErrorKind, Result, TrainingRunId};

use super::*;

/// Test double: keeps the checkpoint in memory.
#[derive(Debug, Default)]
struct Kept(Mutex<Option<Vec<u8>>>);

impl CheckpointStore for Kept {
    fn save(&self, _: TrainingRunId, state: &[u8]) -> Result<()> {
        *self.0.lock().unwrap() = Some(state.to_vec());
        Ok(())
    }

    fn load(&self, _: TrainingRunId) -> Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().clone())
    }

    fn clear(&self) -> Result<()> {
        *self.0.lock().unwrap() = None;
        Ok(())
    }
}

struct World {
    trainer: LoraTrainer,
    job: TrainJob,
    kept: Arc<Kept>,
}

/// A run of small batches in random order, with noise, of which checkpoints are kept every `every_s` seconds.
fn world(name: &str, every_s: f32) -> World {
    let folder = fixture("runs").join(name);
    let run: Run = serde_json::from_slice(&std::fs::read(folder.join("run.json")).unwrap()).unwrap();
    let model = Arc::new(Model::load(&base_of(&folder)).unwrap());
    let trainer = LoraTrainer::new(Arc::clone(&model), codec(&model), 2, Courtesy::default()).unwrap();
    let hyper: HyperParameters = serde_json::from_value(run.hyper.clone()).unwrap();
    let hyper = HyperParameters { batch_tokens: 24, accumulation: 2, prompt_noise: 0.3, ..hyper };
    let kept = Arc::new(Kept::default());
    let checkpointing =
        Checkpointing { store: kept.clone(), run: TrainingRunId::new(Default::default()), every_s };
    let job = TrainJob {
        parent: Some(read_adapter(&folder)),
        checkpointing: Some(checkpointing),
        ..TrainJob::new(run.examples(), hyper, 5)
    };
    World { trainer, job, kept }
}

impl World {
    /// Trains until `end` says otherwise after a step; the losses, and what came out.
    fn train(&self, end: impl Fn(u32) -> Control) -> (Vec<(u32, f64)>, Result<Trained>) {
        let mut losses = Vec::new();
        let trained = self.trainer.train(&self.job, &mut |progress| {
            losses.push((progress.step, progress.loss));
            end(progress.step)
        });
        (losses, trained)
    }
}

/// Never but at the end of a step `at`, where `control` is what happens.
fn at(step: u32, control: Control) -> impl Fn(u32) -> Control {
    move |done| if done == step { control } else { Control::Continue }
}

#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_bytes() {
    for name in ["saved", "preference", "distilled"] {
        let world = world(name, f32::INFINITY);
        let (whole, expected) = world.train(|_| Control::Continue);
        assert_eq!(world.kept.load(TrainingRunId::new(Default::default())), Ok(None));
        let (mut losses, stopped) = world.train(at(7, Control::Stop));
        assert_eq!(stopped.unwrap_err().kind, ErrorKind::Conflict);
        let (more, again) = world.train(at(13, Control::Stop));
        losses.extend(more);
        assert_eq!((losses.len(), again.unwrap_err().kind), (13, ErrorKind::Conflict));
        let (rest, trained) = world.train(|_| Control::Continue);
        losses.extend(rest);
        assert_eq!(losses, whole, "{name}");
        let (trained, expected) = (trained.unwrap(), expected.unwrap());
        assert_eq!(trained.adapter, expected.adapter, "{name}");
        for metric in ["loss_first", "loss_last", "steps", "tokens"] {
            assert_eq!(trained.metrics[metric], expected.metrics[metric], "{metric}");
        }
    }
}

/// What was done since the last checkpoint is done again.
#[test]
fn a_run_that_was_cut_short_goes_on_from_its_last_checkpoint() {
    let world = world("saved", 0.0);
    let (whole, expected) = world.train(|_| Control::Continue);
    world.kept.clear().unwrap();
    let (before, _) = world.train(at(7, Control::Cancel));
    let (after, trained) = world.train(|_| Control::Continue);
    assert_eq!((before.last().unwrap().0, after[0].0), (7, 7));
    assert_eq!([&before[..6], &after].concat(), whole);
    assert_eq!(trained.unwrap().adapter, expected.unwrap().adapter);
}

/// The time that was spent before counts, so the schedule ends with the time.
#[test]
fn seconds_that_were_spent_before_count() {
    let mut world = world("plain", f32::INFINITY);
    (world.job.hyper.max_seconds, world.job.hyper.steps) = (4.0, 1_000_000);
    let nap = || std::thread::sleep(std::time::Duration::from_millis(300));
    let mut seconds = 0.0;
    for stop in [2, 4] {
        let mut last = None;
        let stopped = world.trainer.train(&world.job, &mut |progress| {
            nap();
            last = Some(progress);
            if progress.step == stop { Control::Stop } else { Control::Continue }
        });
        assert_eq!(stopped.unwrap_err().kind, ErrorKind::Conflict);
        seconds = last.unwrap().seconds;
    }
    // Four steps and two naps, over two processes; what comes after the last report is not counted.
    assert!((0.6..4.0).contains(&seconds), "{seconds}");
    let (rest, trained) = world.train(|_| {
        nap();
        Control::Continue
    });
    // At a nap each, no more than 12 steps begin in the 3.4 s that are left; in 4 s there were 14.
    assert!(rest[0].0 == 5 && rest.len() <= 12, "{rest:?}");
    assert!(trained.unwrap().metrics["seconds"] < 20.0);
}

#[test]
fn a_checkpoint_that_is_damaged_or_of_another_job_is_refused() {
    let mut world = world("plain", f32::INFINITY);
    world.train(at(3, Control::Stop)).1.unwrap_err();
    let refused = |world: &World| -> Error { world.train(|_| panic!("it went on")).1.unwrap_err() };
    world.job.seed = 6;
    let error = refused(&world);
    assert_eq!(
        (error.message.as_str(), error.kind),
        ("the checkpoint cannot be used: it is of another job", ErrorKind::Invalid)
    );
    world.job.seed = 5;
    let sound = world.kept.0.lock().unwrap().clone().unwrap();
    let (mut flipped, middle) = (sound.clone(), sound.len() / 2);
    flipped[middle] ^= 1;
    for bytes in [flipped, sound[..middle].to_vec()] {
        *world.kept.0.lock().unwrap() = Some(bytes);
        let error = refused(&world);
        assert_eq!(error.message, "the checkpoint cannot be used: its content is not what was written");
    }
    *world.kept.0.lock().unwrap() = Some(sound[..7].to_vec());
    assert_eq!(refused(&world).message, "the checkpoint cannot be used: 7 bytes are too few");
    *world.kept.0.lock().unwrap() = Some(sound);
    assert_eq!(world.train(|_| Control::Continue).0[0].0, 4);
}
