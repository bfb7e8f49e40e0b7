//! LoRA training in the serving process, on the same base weights.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Instant};

use autoglm_domain::{Control, HyperParameters, TrainJob, TrainProgress, Trained, Trainer};
use rand::{
    RngExt as _, SeedableRng as _,
    seq::{IndexedRandom as _, SliceRandom as _},
};
use rand_chacha::ChaCha8Rng;

use crate::{
    Courtesy, EngineError, Model, Result, TextCodec,
    adapter::AdapterWeights,
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

/// An example as tokens: loss is on those from `supervised` on.
#[derive(Clone)]
struct Encoded {
    tokens: Vec<u32>,
    supervised: usize,
    weight: f32,
    frequency: f32,
}

/// With more noise nothing is left of a prompt.
const MOST_NOISE: f32 = 0.9;

/// A batch whose free part is at most one in so many of its tokens is full enough.
const FULL_ENOUGH: usize = 8;

/// How many examples are tried for the rest of a batch.
const LOOK_AHEAD: usize = 64;

/// An example that is seen less often than this is seen this often.
const RAREST: f32 = 1e-3;

impl LoraTrainer {
    /// A trainer with `threads` threads of the lowest priority that stand aside as `courtesy` says.
    pub fn new(model: Arc<Model>, codec: TextCodec, threads: usize, courtesy: Courtesy) -> Result<Self> {
        Ok(Self { model, codec, pool: training_pool(threads.max(1), true)?, courtesy })
    }

    fn encode(&self, job: &TrainJob) -> Result<Vec<Encoded>> {
        let limit = self.model.config().max_position_embeddings;
        let mut examples = Vec::with_capacity(job.examples.len());
        for (at, example) in job.examples.iter().enumerate() {
            if example.weight <= 0.0 {
                continue;
            }
            let encoded = self.codec.encode_example(example)?;
            let mut tokens = encoded.prompt;
            let supervised = tokens.len();
            tokens.extend(encoded.target);
            if tokens.len() > limit || supervised == 0 {
                let length = tokens.len();
                return Err(EngineError::Request(format!(
                    "example {at} has {length} tokens, the context {limit}"
                )));
            }
            let frequency = if example.frequency.is_finite() { example.frequency.max(RAREST) } else { 1.0 };
            examples.push(Encoded { tokens, supervised, weight: example.weight, frequency });
        }
        if examples.is_empty() {
            return Err(EngineError::Request("there are no examples to train on".into()));
        }
        Ok(examples)
    }

    fn start(&self, job: &TrainJob) -> Result<AdapterWeights> {
        let Some(parent) = &job.parent else {
            return AdapterWeights::fresh(&self.model, &job.hyper, job.seed);
        };
        let mut weights = peft::read(&self.model, parent)?;
        let base = self.model.weights();
        if job.hyper.train_embedding && weights.embed.is_none() {
            weights.embed = Some(base.embed.to_rows());
        }
        if job.hyper.train_norms && weights.norm.is_none() {
            weights.norm = Some(base.norm.clone());
            for (change, layer) in weights.layers.iter_mut().zip(&base.layers) {
                change.train_norms(layer);
            }
        }
        Ok(weights)
    }

    /// What the noise of a run replaces tokens by.
    fn noise(&self, job: &TrainJob) -> Result<Noise> {
        let share = job.hyper.prompt_noise;
        if !(0.0..=MOST_NOISE).contains(&share) {
            return Err(EngineError::Request(format!(
                "`prompt_noise` is {share}, which is not between 0 and {MOST_NOISE}"
            )));
        }
        let tokenizer = self.codec.tokenizer();
        let vocabulary = u32::try_from(self.model.config().vocab_size).unwrap_or(u32::MAX);
        let words = match share {
            0.0 => Vec::new(),
            _ => (0..vocabulary).filter(|id| !tokenizer.is_special(*id)).collect(),
        };
        Ok(Noise { share, words, random: ChaCha8Rng::seed_from_u64(job.seed ^ 0x5717_c400) })
    }

    fn run(&self, job: &TrainJob, report: &mut dyn FnMut(TrainProgress) -> Control) -> Result<Trained> {
        let begin = Instant::now();
        let examples = self.encode(job)?;
        let hyper = &job.hyper;
        let steps = planned_steps(hyper, &examples);
        let weights = self.start(job)?;
        let optimizer = AdamW::new(&weights, 0.999, hyper.weight_decay);
        let courtesy = self.courtesy.clone();
        let mut learner =
            Learner::new(&self.model, weights, optimizer, hyper.max_grad_norm, &self.pool, courtesy)
                .checkpointing(hyper.gradient_checkpointing);
        let mut order = Order::new(&examples, job.seed);
        let mut noise = self.noise(job)?;
        let mut progress = TrainProgress {
            step: 0,
            steps,
            loss: 0.0,
            learning_rate: 0.0,
            grad_norm: 0.0,
            tokens: 0,
            seconds: 0.0,
        };
        let (mut first, mut last) = (0.0, 0.0);
        while progress.step < steps {
            let elapsed = begin.elapsed().as_secs_f32();
            let by_time = if hyper.max_seconds > 0.0 { elapsed / hyper.max_seconds } else { 0.0 };
            if by_time >= 1.0 {
                break;
            }
            let done = by_time.max(progress.step as f32 / steps as f32);
            for _ in 0..hyper.accumulation.max(1) {
                let batch = order.next_batch(&examples, hyper.batch_tokens as usize);
                let batch: Vec<_> = batch.into_iter().map(|at| noise.over(&examples[at])).collect();
                let shards = split(&batch, learner.shards());
                learner.accumulate(&shards);
                progress.tokens += shards.iter().map(|shard| shard.tokens.len() as u64).sum::<u64>();
            }
            // The first step already learns: warm-up begins one step in.
            let warm = done + 1.0 / steps as f32;
            let rate = hyper.learning_rate * schedule(warm.min(1.0), hyper.warmup_share, FLOOR);
            let step = learner.apply(rate)?;
            progress.step += 1;
            progress.loss = step.loss;
            progress.learning_rate = f64::from(rate);
            progress.grad_norm = f64::from(step.grad_norm);
            progress.seconds = begin.elapsed().as_secs_f64();
            if progress.step == 1 {
                (first, last) = (step.loss, step.loss);
            }
            last = 0.9 * last + 0.1 * step.loss;
            if report(progress) == Control::Cancel {
                return Err(EngineError::Cancelled("training"));
            }
        }
        let adapter = peft::write(&self.model, &learner.weights)?;
        let seconds = begin.elapsed().as_secs_f64();
        let metrics = BTreeMap::from([
            ("loss_first".to_owned(), first),
            ("loss_last".to_owned(), last),
            ("steps".to_owned(), f64::from(progress.step)),
            ("tokens".to_owned(), progress.tokens as f64),
            ("seconds".to_owned(), seconds),
            ("tokens_per_s".to_owned(), progress.tokens as f64 / seconds.max(1e-9)),
            ("activation_mb".to_owned(), learner.activation_bytes() as f64 / 1e6),
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

fn planned_steps(hyper: &HyperParameters, examples: &[Encoded]) -> u32 {
    if hyper.steps > 0 {
        return hyper.steps;
    }
    let tokens: f64 =
        examples.iter().map(|example| example.tokens.len() as f64 * f64::from(example.frequency)).sum();
    let a_step = f64::from(hyper.batch_tokens.max(1)) * f64::from(hyper.accumulation.max(1));
    (f64::from(hyper.passes) * tokens / a_step).ceil().max(1.0) as u32
}

/// Examples in random order, pass after pass.
struct Order {
    random: ChaCha8Rng,
    pending: Vec<usize>,
    /// Sightings that are due to each example, counted from a random start within one, so that rare ones are
    /// spread over the passes; what is whole is seen in the next pass.
    due: Vec<f32>,
    /// Sightings in the pass under way.
    pass: usize,
}

impl Order {
    fn new(examples: &[Encoded], seed: u64) -> Self {
        let mut starts = ChaCha8Rng::seed_from_u64(seed ^ 0x0057_a475);
        let start = |example: &Encoded| {
            if example.frequency.fract() == 0.0 { 0.0 } else { starts.random::<f32>() }
        };
        let due = examples.iter().map(start).collect();
        Self { random: ChaCha8Rng::seed_from_u64(seed ^ 0x0bde_0bde), pending: Vec::new(), due, pass: 0 }
    }

    /// Begins passes until one has something to see.
    fn begin_pass(&mut self, examples: &[Encoded]) {
        while self.pending.is_empty() && !examples.is_empty() {
            for (at, (due, example)) in self.due.iter_mut().zip(examples).enumerate() {
                *due += example.frequency;
                self.pending.extend(std::iter::repeat_n(at, *due as usize));
                *due = due.fract();
            }
        }
        self.pending.shuffle(&mut self.random);
        self.pass = self.pending.len();
    }

    /// Examples of about `tokens` tokens, at least one.
    fn next_batch(&mut self, examples: &[Encoded], tokens: usize) -> Vec<usize> {
        let (mut batch, mut taken) = (Vec::new(), 0);
        loop {
            if self.pending.is_empty() {
                self.begin_pass(examples);
            }
            let room = tokens.saturating_sub(taken);
            let fits = |at: &usize| batch.is_empty() || examples[*at].tokens.len() <= room;
            // The next one, or where it does not fit and much room is left, the first after it that does.
            let reach = if room * FULL_ENOUGH > tokens { LOOK_AHEAD } else { 1 };
            let window = self.pending.len().saturating_sub(reach)..self.pending.len();
            let Some(at) = window.rev().find(|&at| fits(&self.pending[at])) else { break };
            let next = self.pending.remove(at);
            taken += examples[next].tokens.len();
            batch.push(next);
            if batch.len() >= self.pass {
                break;
            }
        }
        batch
    }
}

/// Replaces tokens of prompts by random ones.
struct Noise {
    share: f32,
    /// All tokens that are not special.
    words: Vec<u32>,
    random: ChaCha8Rng,
}

impl Noise {
    /// The example as it is seen this time. Special tokens, which say who speaks, and the target stay.
    fn over<'a>(&mut self, example: &'a Encoded) -> Cow<'a, Encoded> {
        if self.share == 0.0 {
            return Cow::Borrowed(example);
        }
        let mut seen = example.clone();
        for token in seen.tokens.iter_mut().take(example.supervised) {
            let is_word = self.words.binary_search(token).is_ok();
            if is_word && self.random.random::<f32>() < self.share {
                *token = self.words.choose(&mut self.random).copied().unwrap_or(*token);
            }
        }
        Cow::Owned(seen)
    }
}

/// Shares a batch out so that every shard has about as many tokens: longest first, to the lightest.
fn split(batch: &[Cow<'_, Encoded>], shards: usize) -> Vec<PackedBatch> {
    let mut parts = vec![PackedBatch::default(); shards.min(batch.len()).max(1)];
    let mut by_length: Vec<&Encoded> = batch.iter().map(AsRef::as_ref).collect();
    by_length.sort_by_key(|example| std::cmp::Reverse(example.tokens.len()));
    for example in by_length {
        let Some((_, inputs)) = example.tokens.split_last() else { continue };
        let targets = (example.supervised..example.tokens.len())
            .map(|next| (next - 1, example.tokens[next], example.weight));
        if let Some(lightest) = parts.iter_mut().min_by_key(|part| part.tokens.len()) {
            lightest.push(inputs, targets);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(lengths: &[usize]) -> Vec<Encoded> {
        lengths
            .iter()
            .map(|&n| Encoded { tokens: vec![1; n], supervised: 1, weight: 1.0, frequency: 1.0 })
            .collect()
    }

    #[test]
    fn every_example_comes_once_a_pass_and_batches_keep_to_their_size() {
        let examples = examples(&[5, 3, 8, 2, 7, 4]);
        let mut order = Order::new(&examples, 1);
        let mut seen = Vec::new();
        while seen.len() < 6 {
            let batch = order.next_batch(&examples, 10);
            assert!(batch.iter().map(|&at| examples[at].tokens.len()).sum::<usize>() <= 10);
            seen.extend(batch);
        }
        seen.truncate(6);
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn batches_of_uneven_examples_are_filled() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        let lengths: Vec<usize> = (0..2000).map(|_| random.random_range(20..700)).collect();
        let examples = examples(&lengths);
        let mut order = Order::new(&examples, 7);
        let mut seen = vec![0; examples.len()];
        let (mut filled, mut batches) = (0, 0);
        while order.pending.len() > LOOK_AHEAD || batches == 0 {
            let batch = order.next_batch(&examples, 1024);
            let taken: usize = batch.iter().map(|&at| lengths[at]).sum();
            assert!(taken <= 1024);
            (filled, batches) = (filled + taken, batches + 1);
            batch.into_iter().for_each(|at| seen[at] += 1);
        }
        let share = filled as f64 / (batches * 1024) as f64;
        assert!(share > 0.93, "batches are {share:.3} full");
        assert!(seen.iter().all(|&times| times <= 1));
    }

    /// Where everything is short against a batch, the order is that of the shuffle.
    #[test]
    fn short_examples_are_taken_as_they_come() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        let lengths: Vec<usize> = (0..500).map(|_| random.random_range(10..100)).collect();
        let examples = examples(&lengths);
        let mut order = Order::new(&examples, 7);
        order.begin_pass(&examples);
        let shuffled: Vec<usize> = order.pending.iter().rev().copied().collect();
        let mut taken = Vec::new();
        while order.pending.len() > 20 {
            taken.extend(order.next_batch(&examples, 1024));
        }
        assert_eq!(taken, shuffled[..taken.len()]);
    }

    #[test]
    fn frequencies_are_kept_over_the_passes() {
        let mut examples = examples(&[4; 5]);
        for (example, frequency) in examples.iter_mut().zip([3.0, 1.0, 0.5, 0.25, 1.75]) {
            example.frequency = frequency;
        }
        let mut order = Order::new(&examples, 9);
        let mut seen = [0; 5];
        for _ in 0..8 {
            order.begin_pass(&examples);
            for at in order.pending.drain(..) {
                seen[at] += 1;
            }
        }
        assert_eq!(seen, [24, 8, 4, 2, 14]);
        let hyper = HyperParameters { batch_tokens: 4, passes: 8.0, ..HyperParameters::default() };
        assert_eq!(planned_steps(&hyper, &examples), 52);
    }

    #[test]
    fn what_is_rare_alone_still_makes_a_pass() {
        let mut examples = examples(&[4]);
        examples[0].frequency = 0.01;
        assert_eq!(Order::new(&examples, 3).next_batch(&examples, 100), [0]);
    }

    #[test]
    fn noise_replaces_its_share_of_the_prompts_words_and_nothing_else() {
        let words: Vec<u32> = (10..1000).collect();
        let mut noise = Noise { share: 0.25, words, random: ChaCha8Rng::seed_from_u64(4) };
        // A special token, 400 words, a special token; the target.
        let tokens: Vec<u32> = [1].into_iter().chain(500..900).chain([2, 700, 701]).collect();
        let example = Encoded { tokens, supervised: 402, weight: 1.0, frequency: 1.0 };
        let (first, second) = (noise.over(&example).into_owned(), noise.over(&example).into_owned());
        let changed = |seen: &Encoded| -> Vec<usize> {
            (0..example.tokens.len()).filter(|&at| seen.tokens[at] != example.tokens[at]).collect()
        };
        for at in changed(&first) {
            assert!((1..401).contains(&at) && (10..1000).contains(&first.tokens[at]), "{at}");
        }
        assert!((80..=120).contains(&changed(&first).len()), "{}", changed(&first).len());
        assert_ne!(changed(&first), changed(&second));
        noise.share = 0.0;
        assert!(matches!(noise.over(&example), Cow::Borrowed(_)));
    }

    #[test]
    fn shards_are_balanced_and_hold_everything() {
        let examples = examples(&[9, 5, 5, 4, 3, 2]);
        let parts = split(&examples.iter().map(Cow::Borrowed).collect::<Vec<_>>(), 2);
        let tokens: Vec<usize> = parts.iter().map(|part| part.tokens.len()).collect();
        assert_eq!(tokens.iter().sum::<usize>(), 28 - 6);
        assert!(tokens[0].abs_diff(tokens[1]) <= 2, "{tokens:?}");
        assert_eq!(parts.iter().map(|part| part.sequences.len()).sum::<usize>(), 6);
    }
}
