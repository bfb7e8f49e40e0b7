//! Test doubles: a store and artifacts in memory, and a trainer that does as it is told.

use std::{
    collections::BTreeMap,
    sync::{Mutex, mpsc},
};

use autoglm_domain::*;

/// Runs and versions in memory; refuses every append while `full`.
#[derive(Default)]
pub(crate) struct MemoryStore {
    pub(crate) events: Mutex<Vec<Event>>,
    pub(crate) full: Mutex<bool>,
}

impl MemoryStore {
    pub(crate) fn append_now(&self, events: Vec<Event>) {
        self.events.lock().unwrap().extend(events);
    }

    /// The states that a run went through.
    pub(crate) fn states(&self) -> Vec<RunState> {
        let events = self.events.lock().unwrap();
        events
            .iter()
            .filter_map(|e| if let Event::Run(run) = e { Some(run.state.clone()) } else { None })
            .collect()
    }
}

fn unused<T>() -> Result<T> {
    Err(Error::internal("training does not need this"))
}

#[async_trait::async_trait]
impl Store for MemoryStore {
    async fn append(&self, events: Vec<Event>) -> Result<()> {
        if *self.full.lock().unwrap() {
            return Err(Error::unavailable("the disk is full"));
        }
        self.append_now(events);
        Ok(())
    }
    async fn versions(&self) -> Result<Vec<ModelVersion>> {
        let events = self.events.lock().unwrap();
        Ok(events
            .iter()
            .filter_map(|e| if let Event::Version(v) = e { Some((**v).clone()) } else { None })
            .collect())
    }
    async fn version(&self, number: VersionNumber) -> Result<ModelVersion> {
        let found = self.versions().await?.into_iter().find(|v| v.number == number);
        found.ok_or_else(|| Error::not_found(format!("no version {number}")))
    }
    async fn runs(&self) -> Result<Vec<TrainingRun>> {
        let mut runs = BTreeMap::new();
        for event in self.events.lock().unwrap().iter() {
            if let Event::Run(run) = event {
                runs.insert(run.id, (**run).clone());
            }
        }
        Ok(runs.into_values().collect())
    }
    async fn run(&self, id: TrainingRunId) -> Result<TrainingRun> {
        let found = self.runs().await?.into_iter().find(|run| run.id == id);
        found.ok_or_else(|| Error::not_found(format!("no run {id}")))
    }
    async fn aliases(&self) -> Result<Vec<(Alias, VersionNumber)>> {
        unused()
    }
    async fn alias_history(&self, _: &Alias) -> Result<Vec<AliasMove>> {
        unused()
    }
    async fn events_after(&self, _: i64, _: usize) -> Result<Vec<RecordedEvent>> {
        unused()
    }
    async fn interaction(&self, _: InteractionId) -> Result<InteractionRecord> {
        unused()
    }
    async fn recent_interactions(&self, _: usize) -> Result<Vec<InteractionRecord>> {
        unused()
    }
    async fn awaiting_assessment(&self, _: usize) -> Result<Vec<InteractionRecord>> {
        unused()
    }
    async fn assessment_lag(&self) -> Result<u64> {
        unused()
    }
    async fn recent_assessments(&self, _: usize) -> Result<Vec<Assessment>> {
        unused()
    }
    async fn experiences(&self) -> Result<Vec<Experience>> {
        unused()
    }
    async fn experience(&self, _: ExperienceId) -> Result<Experience> {
        unused()
    }
    async fn patterns(&self) -> Result<Vec<ErrorPattern>> {
        unused()
    }
    async fn rollouts(&self) -> Result<Vec<Rollout>> {
        unused()
    }
}

#[derive(Default)]
pub(crate) struct MemoryArtifacts(Mutex<BTreeMap<ContentHash, Vec<u8>>>);

#[async_trait::async_trait]
impl ArtifactStore for MemoryArtifacts {
    async fn put(&self, bytes: Vec<u8>) -> Result<ContentHash> {
        let hash = ContentHash::of(&bytes);
        self.0.lock().unwrap().insert(hash, bytes);
        Ok(hash)
    }
    async fn get(&self, hash: ContentHash) -> Result<Vec<u8>> {
        let found = self.0.lock().unwrap().get(&hash).cloned();
        found.ok_or_else(|| Error::not_found(format!("no artifact {}", hash.short())))
    }
    async fn contains(&self, hash: ContentHash) -> Result<bool> {
        Ok(self.0.lock().unwrap().contains_key(&hash))
    }
}

/// What a [`ScriptedTrainer`] does.
pub(crate) enum Script {
    /// Reports three steps and returns an adapter and these metrics.
    Succeed(BTreeMap<String, f64>),
    /// Returns this error after a step.
    Fail(Error),
    /// Panics.
    Panic,
    /// Reports steps until it is cancelled, one for each message.
    Wait(Mutex<mpsc::Receiver<()>>),
}

/// Test double of the trainer.
pub(crate) struct ScriptedTrainer {
    pub(crate) script: Script,
    pub(crate) jobs: Mutex<Vec<TrainJob>>,
}

impl ScriptedTrainer {
    pub(crate) fn new(script: Script) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self { script, jobs: Mutex::default() })
    }
}

fn step(step: u32) -> TrainProgress {
    TrainProgress { step, steps: 3, loss: 1.0, learning_rate: 1e-3, grad_norm: 1.0, tokens: 9, seconds: 0.1 }
}

impl Trainer for ScriptedTrainer {
    fn train(&self, job: &TrainJob, progress: &mut dyn FnMut(TrainProgress) -> Control) -> Result<Trained> {
        self.jobs.lock().unwrap().push(job.clone());
        match &self.script {
            Script::Succeed(metrics) => {
                for at in 1..=3 {
                    assert_eq!(progress(step(at)), Control::Continue);
                }
                let adapter = Adapter { config: b"{}".to_vec(), weights: vec![1] };
                Ok(Trained { adapter, metrics: metrics.clone() })
            }
            Script::Fail(error) => {
                progress(step(1));
                Err(error.clone())
            }
            Script::Panic => panic!("the sky fell"),
            Script::Wait(steps) => {
                let steps = steps.lock().unwrap();
                for at in 1.. {
                    let _ = steps.recv();
                    if progress(step(at)) == Control::Cancel {
                        break;
                    }
                }
                Err(Error::conflict("cancelled"))
            }
        }
    }
}

/// A version without anything of interest.
pub(crate) fn version(
    number: u64,
    parent: u64,
    snapshot: Option<ContentHash>,
    run: Option<TrainingRunId>,
) -> ModelVersion {
    let hash = ContentHash::of(&number.to_le_bytes());
    ModelVersion {
        number: VersionNumber(number),
        hash,
        at: Timestamp(0),
        parent: VersionNumber(parent),
        run,
        base: hash,
        adapter: hash,
        snapshot,
        hyper: None,
        metrics: BTreeMap::new(),
        code_version: "test".into(),
        note: None,
    }
}
