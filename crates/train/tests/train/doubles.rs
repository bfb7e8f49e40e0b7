//! Test doubles: artifacts in memory, and a trainer that does as it is told.

use std::{
    collections::BTreeMap,
    sync::{Mutex, mpsc},
};

use autoglm_domain::*;

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

/// The one checkpoint, in memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryCheckpoint(Mutex<Option<(TrainingRunId, Vec<u8>)>>);

impl CheckpointStore for MemoryCheckpoint {
    fn save(&self, run: TrainingRunId, state: &[u8]) -> Result<()> {
        *self.0.lock().unwrap() = Some((run, state.to_vec()));
        Ok(())
    }
    fn load(&self, run: TrainingRunId) -> Result<Option<Vec<u8>>> {
        let kept = self.0.lock().unwrap();
        Ok(kept.as_ref().filter(|(of, _)| *of == run).map(|(_, state)| state.clone()))
    }
    fn clear(&self) -> Result<()> {
        *self.0.lock().unwrap() = None;
        Ok(())
    }
}

/// What a [`ScriptedTrainer`] does.
pub(crate) enum Script {
    /// Reports three steps and returns an adapter and these metrics.
    Succeed(BTreeMap<String, f64>),
    /// Returns this error after a step.
    Fail(Error),
    /// Returns this error before any step.
    Refuse(Error),
    /// Panics.
    Panic,
    /// Reports steps until it is cancelled or stopped, one for each message; leaves a checkpoint when stopped.
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
            Script::Refuse(error) => Err(error.clone()),
            Script::Panic => panic!("the sky fell"),
            Script::Wait(steps) => {
                let steps = steps.lock().unwrap();
                for at in 1.. {
                    let _ = steps.recv();
                    match progress(step(at)) {
                        Control::Continue => {}
                        Control::Cancel => break,
                        Control::Stop => {
                            let Checkpointing { store, run, .. } = job.checkpointing.as_ref().unwrap();
                            store.save(*run, b"state").unwrap();
                            break;
                        }
                    }
                }
                Err(Error::conflict("cancelled"))
            }
        }
    }
}
