//! One optimiser step: gradients of a batch on several threads, clipped, applied.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rayon::prelude::*;

use crate::{
    EngineError, Result,
    adapter::AdapterWeights,
    gradients::{PackedBatch, Pass},
    kernels::Threads,
    model::Model,
    optimizer::{AdamW, clipping, gather},
    scratch::Scratch,
};

/// How training stands aside for serving.
#[derive(Debug, Clone)]
pub struct Courtesy {
    /// Requests that are being served.
    pub serving: Arc<AtomicUsize>,
    /// Longest wait at one of the points between two blocks, in milliseconds; 0 never waits.
    pub longest_wait_ms: u64,
}

impl Default for Courtesy {
    fn default() -> Self {
        Self { serving: Arc::default(), longest_wait_ms: 20 }
    }
}

impl Courtesy {
    /// Waits while requests are being served, up to the limit, so that training slows down under load but
    /// never stops.
    fn stand_aside(&self) {
        const NAP: std::time::Duration = std::time::Duration::from_micros(500);
        let naps = self.longest_wait_ms * 2;
        for _ in 0..naps {
            if self.serving.load(Ordering::Relaxed) == 0 {
                return;
            }
            std::thread::sleep(NAP);
        }
    }
}

/// Threads for training. Beside serving they run `in_background`, at the lowest scheduling priority.
pub(crate) fn training_pool(threads: usize, in_background: bool) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|at| format!("train-{at}"))
        .start_handler(move |_| {
            if in_background {
                stand_back();
            }
        })
        .build()
        .map_err(|error| EngineError::Internal(format!("no threads for training: {error}")))
}

/// Lowers the priority of this thread. On Linux it is a thread's own, elsewhere the whole process's, which stays as it is.
fn stand_back() {
    // Where the system refuses, training merely competes on equal terms.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        tracing::debug!(%error, "training keeps its normal priority");
    }
}

/// Mean loss and gradient norm of one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepReport {
    /// Mean loss a supervised token, nats.
    pub(crate) loss: f64,
    /// Norm of the gradient before clipping.
    pub(crate) grad_norm: f32,
}

/// Tensors of one kind.
pub(crate) type NamedTensors<'a> = (&'static str, Vec<(&'a mut [f32], bool)>);

/// Weights in training with their optimiser and buffers.
pub(crate) struct Learner<'a> {
    model: &'a Model,
    pub(crate) weights: AdapterWeights,
    optimizer: AdamW,
    gradients: Vec<AdapterWeights>, // one a shard
    scratch: Scratch,
    pool: &'a rayon::ThreadPool,
    courtesy: Courtesy,
    max_grad_norm: f32,
    checkpointing: bool,
    teacher: Option<AdapterWeights>,
    loss: f64,
    weight: f64,
}

impl<'a> Learner<'a> {
    pub(crate) fn new(
        model: &'a Model,
        weights: AdapterWeights,
        optimizer: AdamW,
        max_grad_norm: f32,
        pool: &'a rayon::ThreadPool,
        courtesy: Courtesy,
    ) -> Self {
        let gradients = (0..pool.current_num_threads()).map(|_| weights.zeros_like()).collect();
        let scratch = Scratch::default();
        let (loss, weight) = (0.0, 0.0);
        let (checkpointing, teacher) = (false, None);
        Self {
            model,
            weights,
            optimizer,
            gradients,
            scratch,
            pool,
            courtesy,
            max_grad_norm,
            checkpointing,
            teacher,
            loss,
            weight,
        }
    }

    /// The same with gradient checkpointing or without.
    pub(crate) fn checkpointing(self, checkpointing: bool) -> Self {
        Self { checkpointing, ..self }
    }

    /// The same with a model to imitate.
    pub(crate) fn teacher(self, teacher: Option<AdapterWeights>) -> Self {
        Self { teacher, ..self }
    }

    /// Every tensor of the weights and of the optimiser's moments.
    pub(crate) fn state_mut(&mut self) -> [NamedTensors<'_>; 3] {
        let (mean, variance) = self.optimizer.moments_mut();
        [
            ("weights", self.weights.tensors_mut()),
            ("mean", mean.tensors_mut()),
            ("variance", variance.tensors_mut()),
        ]
    }

    /// Steps that the optimiser has done.
    pub(crate) fn optimizer_step(&self) -> i32 {
        self.optimizer.step
    }

    /// Lets the optimiser go on after `step` steps.
    pub(crate) fn set_optimizer_step(&mut self, step: i32) {
        self.optimizer.step = step;
    }

    /// Log-probabilities of the targets of `batch` after `weights`, in nats.
    pub(crate) fn score(
        model: &Model,
        weights: &AdapterWeights,
        batch: &PackedBatch,
        pool: &rayon::ThreadPool,
        courtesy: &Courtesy,
    ) -> Vec<f32> {
        let (pause, scratch) = (|| courtesy.stand_aside(), Scratch::default());
        pool.install(|| Pass::new(model, weights, Threads::All, &pause, &scratch).score(batch))
    }

    /// Most bytes of activations that were there at once.
    pub(crate) fn activation_bytes(&self) -> usize {
        self.scratch.peak_bytes()
    }

    /// Into how many parts a batch is best split.
    pub(crate) fn shards(&self) -> usize {
        self.gradients.len()
    }

    /// Adds the gradients of one batch, given in at most [`Learner::shards`] parts.
    pub(crate) fn accumulate(&mut self, shards: &[PackedBatch]) {
        let threads = if shards.len() == 1 { Threads::All } else { Threads::One };
        let (model, weights, courtesy, scratch) = (self.model, &self.weights, &self.courtesy, &self.scratch);
        let pause = || courtesy.stand_aside();
        let (gradients, checkpointing) = (&mut self.gradients, self.checkpointing);
        let teacher = self.teacher.as_ref();
        let losses: Vec<f64> = self.pool.install(|| {
            shards
                .par_iter()
                .zip(gradients.par_iter_mut())
                .map(|(shard, gradients)| {
                    Pass::new(model, weights, threads, &pause, scratch)
                        .checkpointing(checkpointing)
                        .teacher(teacher)
                        .run(shard, gradients)
                })
                .collect()
        });
        self.loss += losses.iter().sum::<f64>();
        self.weight += shards.iter().map(|shard| shard.weight).sum::<f64>();
    }

    /// Applies what was accumulated since the last call.
    ///
    /// # Errors
    /// `Internal` when the loss is not a number; the weights are unchanged then.
    pub(crate) fn apply(&mut self, learning_rate: f32) -> Result<StepReport> {
        let (loss, weight) = (std::mem::take(&mut self.loss), std::mem::take(&mut self.weight));
        let Some((total, others)) = self.gradients.split_first_mut() else {
            return Err(EngineError::Internal("a learner without shards".into()));
        };
        let mean = 1.0 / weight.max(f64::MIN_POSITIVE) as f32;
        let grad_norm = self.pool.install(|| gather(total, others)) * mean;
        if !loss.is_finite() || !grad_norm.is_finite() {
            return Err(EngineError::Internal(format!(
                "training diverged: the loss is {loss}, its gradient {grad_norm}"
            )));
        }
        let factor = mean * clipping(grad_norm, self.max_grad_norm);
        let (optimizer, weights) = (&mut self.optimizer, &mut self.weights);
        self.pool.install(|| optimizer.step(weights, total, factor, learning_rate));
        Ok(StepReport { loss: loss / weight.max(f64::MIN_POSITIVE), grad_norm })
    }

    /// Mean loss a supervised token over `batches`, without learning from them.
    pub(crate) fn evaluate(&self, batches: &[PackedBatch]) -> f64 {
        let (model, weights, courtesy, scratch) = (self.model, &self.weights, &self.courtesy, &self.scratch);
        let pause = || courtesy.stand_aside();
        let losses: f64 = self.pool.install(|| {
            batches
                .par_iter()
                .map(|batch| Pass::new(model, weights, Threads::One, &pause, scratch).loss(batch))
                .sum()
        });
        let weight: f64 = batches.iter().map(|batch| batch.weight).sum();
        losses / weight.max(f64::MIN_POSITIVE)
    }
}
