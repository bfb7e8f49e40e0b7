//! LoRA training in the serving process, on the same base weights.

mod examples;
mod order;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Instant};

use autoglm_domain::{
    Checkpointing, ContentHash, Control, HyperParameters, TrainJob, TrainProgress, Trained, Trainer,
};
use serde::{Deserialize, Serialize};

use self::{
    examples::{Encoded, Noise, Preference, encode, split},
    order::{Order, Place},
};
use crate::{
    Courtesy, EngineError, Model, Result, TextCodec,
    adapter::AdapterWeights,
    checkpoint,
    gradients::PackedBatch,
    learner::{Learner, training_pool},
    optimizer::{AdamW, schedule},
    peft,
};

/// Share of the peak learning rate that the cosine ends at.
const FLOOR: f32 = 0.1;

/// Trains adapters on threads of its own.
pub struct LoraTrainer {
    model: Arc<Model>,
    codec: TextCodec,
    pool: rayon::ThreadPool,
    courtesy: Courtesy,
}

impl std::fmt::Debug for LoraTrainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoraTrainer")
            .field("threads", &self.pool.current_num_threads())
            .finish_non_exhaustive()
    }
}

/// How far a job is: all that is not in the learner.
#[derive(Debug, Serialize, Deserialize)]
struct Position {
    /// What it is a position in.
    job: ContentHash,
    progress: TrainProgress,
    /// Bits of the first loss and of the running mean: JSON does not keep the last digit.
    losses: [u64; 2],
    order: Place,
    noise_word: u64,
}

/// A job under way.
struct Course<'a> {
    job: &'a TrainJob,
    hash: ContentHash,
    examples: Vec<Encoded>,
    preference: Preference,
    learner: Learner<'a>,
    order: Order,
    noise: Noise,
    progress: TrainProgress,
    /// Loss of the first step, and the running mean of the latest ones.
    losses: [f64; 2],
    begin: Instant,
    /// Seconds that were spent before `begin`.
    spent: f64,
}

impl LoraTrainer {
    /// A trainer with `threads` threads of the lowest priority that stand aside as `courtesy` says.
    pub fn new(model: Arc<Model>, codec: TextCodec, threads: usize, courtesy: Courtesy) -> Result<Self> {
        Ok(Self { model, codec, pool: training_pool(threads.max(1), true)?, courtesy })
    }

    fn start(&self, job: &TrainJob) -> Result<AdapterWeights> {
        let Some(parent) = &job.parent else {
            return AdapterWeights::fresh(&self.model, &job.hyper, job.seed);
        };
        let mut weights = peft::read(&self.model, parent)?;
        let base = self.model.weights();
        if job.hyper.train_embedding && weights.embed.is_none() {
            weights.embed = Some(base.embed.matrix.to_rows());
        }
        if job.hyper.train_norms && weights.norm.is_none() {
            weights.norm = Some(base.norm.clone());
            for (change, layer) in weights.layers.iter_mut().zip(&base.layers) {
                change.train_norms(layer);
            }
        }
        Ok(weights)
    }

    /// What preferences are measured from and what is imitated, where an example asks for either.
    fn reference(&self, job: &TrainJob, examples: &[Encoded]) -> Result<Option<AdapterWeights>> {
        let asks = |example: &Encoded| example.teacher_share > 0.0 || example.rejected.is_some();
        if !examples.iter().any(asks) {
            return Ok(None);
        }
        match job.reference.as_ref().or(job.parent.as_ref()) {
            Some(adapter) => peft::read(&self.model, adapter).map(Some),
            None => Ok(Some(AdapterWeights::unchanged(&self.model))),
        }
    }

    /// Measures every pair once with the reference.
    fn measure_pairs(
        &self,
        job: &TrainJob,
        reference: &AdapterWeights,
        examples: &mut [Encoded],
    ) -> Result<()> {
        let preference = Preference::of(&job.hyper)?;
        let limit = job.hyper.batch_tokens.max(1) as usize;
        let mut waiting: Vec<&mut Encoded> = Vec::new();
        let mut pairs = examples.iter_mut().filter(|example| example.rejected.is_some()).peekable();
        while let Some(example) = pairs.next() {
            waiting.push(example);
            let tokens: usize = waiting.iter().map(|example| example.length()).sum();
            if pairs.peek().is_some_and(|next| tokens + next.length() <= limit) {
                continue;
            }
            let mut batch = PackedBatch::default();
            waiting.iter().for_each(|example| example.pack(&mut batch, preference));
            let found = Learner::score(&self.model, reference, &batch, &self.pool, &self.courtesy);
            for (example, pair) in waiting.drain(..).zip(&batch.pairs) {
                let sum = |range: &std::ops::Range<usize>| -> f64 {
                    found[range.clone()].iter().map(|logprob| f64::from(*logprob)).sum()
                };
                if let Some(rejected) = &mut example.rejected {
                    rejected.reference = sum(&pair.chosen) - sum(&pair.rejected);
                }
            }
        }
        Ok(())
    }

    fn run(&self, job: &TrainJob, report: &mut dyn FnMut(TrainProgress) -> Control) -> Result<Trained> {
        let begin = Instant::now();
        let mut examples = encode(job, &self.model, &self.codec)?;
        let preference = Preference::of(&job.hyper)?;
        let reference = self.reference(job, &examples)?;
        if let Some(reference) = &reference {
            self.measure_pairs(job, reference, &mut examples)?;
        }
        let weights = self.start(job)?;
        let optimizer = AdamW::new(&weights, 0.999, job.hyper.weight_decay);
        let courtesy = self.courtesy.clone();
        let learner =
            Learner::new(&self.model, weights, optimizer, job.hyper.max_grad_norm, &self.pool, courtesy)
                .checkpointing(job.hyper.gradient_checkpointing)
                .teacher(reference.filter(|_| examples.iter().any(|example| example.teacher_share > 0.0)));
        let progress = TrainProgress {
            step: 0,
            steps: planned_steps(&job.hyper, &examples),
            loss: 0.0,
            learning_rate: 0.0,
            grad_norm: 0.0,
            tokens: 0,
            seconds: 0.0,
        };
        let mut course = Course {
            job,
            hash: fingerprint(&self.model, job)?,
            order: Order::new(&examples, job.seed),
            noise: Noise::of(job, &self.model, &self.codec)?,
            examples,
            preference,
            learner,
            progress,
            losses: [0.0; 2],
            begin,
            spent: 0.0,
        };
        course.go_on()?;
        course.steps(report)?;
        course.end(&self.model)
    }
}

impl Course<'_> {
    /// Goes on from the checkpoint of the job, where there is one.
    fn go_on(&mut self) -> Result<()> {
        let Some(Checkpointing { store, run, .. }) = &self.job.checkpointing else { return Ok(()) };
        let Some(bytes) = store.load(*run).map_err(|error| EngineError::Checkpoint(error.message))? else {
            return Ok(());
        };
        let position: Position = checkpoint::read(&bytes, &mut self.learner)?;
        if position.job != self.hash || !self.order.go_on(position.order) {
            return Err(EngineError::Checkpoint("it is of another job".into()));
        }
        self.noise.random.set_word_pos(u128::from(position.noise_word));
        self.losses = position.losses.map(f64::from_bits);
        self.spent = position.progress.seconds;
        self.progress = TrainProgress { steps: self.progress.steps, ..position.progress };
        tracing::info!(step = self.progress.step, steps = self.progress.steps, "training goes on");
        Ok(())
    }

    /// Leaves a checkpoint. One that cannot be written costs what it would have saved, but not the run.
    fn save(&mut self) {
        let Some(Checkpointing { store, run, .. }) = &self.job.checkpointing else { return };
        let position = Position {
            job: self.hash,
            progress: self.progress,
            losses: self.losses.map(f64::to_bits),
            order: self.order.place(),
            noise_word: self.noise.random.get_word_pos() as u64,
        };
        let saved = checkpoint::write(&mut self.learner, &position)
            .map_err(autoglm_domain::Error::from)
            .and_then(|bytes| store.save(*run, &bytes));
        if let Err(error) = saved {
            tracing::warn!(%error, "a checkpoint could not be written");
        }
    }

    fn seconds(&self) -> f64 {
        self.spent + self.begin.elapsed().as_secs_f64()
    }

    /// Steps until all are done, the time is up, or the caller has had enough.
    fn steps(&mut self, report: &mut dyn FnMut(TrainProgress) -> Control) -> Result<()> {
        let hyper = &self.job.hyper;
        let every_s = self.job.checkpointing.as_ref().map_or(f64::INFINITY, |it| f64::from(it.every_s));
        let mut saved = Instant::now();
        while self.progress.step < self.progress.steps {
            let by_time =
                if hyper.max_seconds > 0.0 { self.seconds() as f32 / hyper.max_seconds } else { 0.0 };
            if by_time >= 1.0 {
                break;
            }
            self.step(by_time)?;
            match report(self.progress) {
                Control::Continue => {}
                Control::Cancel => return Err(EngineError::Cancelled("training")),
                Control::Stop => {
                    self.save();
                    return Err(EngineError::Cancelled("training"));
                }
            }
            if saved.elapsed().as_secs_f64() >= every_s {
                self.save();
                saved = Instant::now();
            }
        }
        Ok(())
    }

    /// One optimiser step, when `by_time` of the time is up.
    fn step(&mut self, by_time: f32) -> Result<()> {
        let (hyper, steps) = (&self.job.hyper, self.progress.steps as f32);
        let done = by_time.max(self.progress.step as f32 / steps);
        for _ in 0..hyper.accumulation.max(1) {
            let batch = self.order.next_batch(&self.examples, hyper.batch_tokens as usize);
            let batch: Vec<Cow<'_, Encoded>> =
                batch.into_iter().map(|at| self.noise.over(&self.examples[at])).collect();
            let shards = split(&batch, self.learner.shards(), self.preference);
            self.learner.accumulate(&shards);
            self.progress.tokens += shards.iter().map(|shard| shard.tokens.len() as u64).sum::<u64>();
        }
        // The first step already learns: warm-up begins one step in.
        let warm = done + 1.0 / steps;
        let rate = hyper.learning_rate * schedule(warm.min(1.0), hyper.warmup_share, FLOOR);
        let step = self.learner.apply(rate)?;
        let progress = &mut self.progress;
        progress.step += 1;
        progress.loss = step.loss;
        progress.learning_rate = f64::from(rate);
        progress.grad_norm = f64::from(step.grad_norm);
        if progress.step == 1 {
            self.losses = [step.loss; 2];
        }
        self.losses[1] = 0.9 * self.losses[1] + 0.1 * step.loss;
        self.progress.seconds = self.seconds();
        Ok(())
    }

    /// What came out.
    fn end(&self, model: &Model) -> Result<Trained> {
        let adapter = peft::write(model, &self.learner.weights)?;
        let (seconds, tokens) = (self.seconds(), self.progress.tokens as f64);
        let metrics = BTreeMap::from([
            ("loss_first".to_owned(), self.losses[0]),
            ("loss_last".to_owned(), self.losses[1]),
            ("steps".to_owned(), f64::from(self.progress.step)),
            ("tokens".to_owned(), tokens),
            ("seconds".to_owned(), seconds),
            ("tokens_per_s".to_owned(), tokens / seconds.max(1e-9)),
            ("activation_mb".to_owned(), self.learner.activation_bytes() as f64 / 1e6),
        ]);
        Ok(Trained { adapter, metrics })
    }
}

impl Trainer for LoraTrainer {
    fn train(
        &self,
        job: &TrainJob,
        progress: &mut dyn FnMut(TrainProgress) -> Control,
    ) -> autoglm_domain::Result<Trained> {
        Ok(self.run(job, progress)?)
    }
}

/// The hash of everything that a job's result depends on.
fn fingerprint(model: &Model, job: &TrainJob) -> Result<ContentHash> {
    let hash = |adapter: &Option<autoglm_domain::Adapter>| {
        adapter.as_ref().map(|adapter| ContentHash::of(&adapter.pack()))
    };
    let of = (model.hash(), hash(&job.parent), hash(&job.reference), &job.examples, &job.hyper, job.seed);
    let bytes = serde_json::to_vec(&of).map_err(|error| EngineError::Internal(error.to_string()))?;
    Ok(ContentHash::of(&bytes))
}

fn planned_steps(hyper: &HyperParameters, examples: &[Encoded]) -> u32 {
    if hyper.steps > 0 {
        return hyper.steps;
    }
    let tokens: f64 =
        examples.iter().map(|example| example.length() as f64 * f64::from(example.frequency)).sum();
    let a_step = f64::from(hyper.batch_tokens.max(1)) * f64::from(hyper.accumulation.max(1));
    (f64::from(hyper.passes) * tokens / a_step).ceil().max(1.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_and_frequencies_make_steps() {
        let mut examples = examples::tests::examples(&[4; 5]);
        for (example, frequency) in examples.iter_mut().zip([3.0, 1.0, 0.5, 0.25, 1.75]) {
            example.frequency = frequency;
        }
        let hyper = HyperParameters { batch_tokens: 4, passes: 8.0, ..HyperParameters::default() };
        assert_eq!(planned_steps(&hyper, &examples), 52);
    }
}
