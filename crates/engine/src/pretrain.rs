//! Pretraining a small model from plain text: tokenizer, weights, chat template, all written to one folder
//! that any loader of Hugging Face models can read.
//!
//! In: text files. Out: `config.json`, `model.safetensors` (bf16), `tokenizer.json`,
//! `tokenizer_config.json`, `chat_template.jinja`, `pretrain.json` (what was done, and the losses).

mod corpus;
mod save;
mod state;
mod tasks;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::{path::PathBuf, time::Instant};

use autoglm_domain::ContentHash;
use rand::{RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{
    EngineError, Family, ModelConfig, Result, RopeConfig, RopeScaling,
    adapter::AdapterWeights,
    checkpoint,
    gradients::PackedBatch,
    learner::{Courtesy, Learner, training_pool},
    model::Model,
    optimizer::{AdamW, schedule},
    weights::BaseWeights,
};

/// What to pretrain.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PretrainOptions {
    /// Text files: `.txt` (documents separated by 0x1E) or `.jsonl` (field `text`), plain or `.zst`.
    pub corpus: Vec<PathBuf>,
    /// Folder to write.
    pub out: PathBuf,
    /// Continue from the weights and tokenizer of this folder instead of starting afresh.
    pub from: Option<PathBuf>,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Longest context that the model will claim, in tokens.
    pub context: usize,
    /// Tokens of a training window.
    pub window: usize,
    /// Tokens of an optimiser step.
    pub batch_tokens: usize,
    /// Share of a batch that is conversations made from the text.
    pub conversation_share: f64,
    /// Share of the paragraphs that are lower-cased.
    pub lowercase_share: f64,
    /// Peak learning rate.
    pub learning_rate: f32,
    /// AdamW's weight decay.
    pub weight_decay: f32,
    /// How long to train, in seconds; the schedule runs over this time.
    pub seconds: f64,
    /// Steps to train, whatever the time; 0 leaves it to `seconds`.
    pub steps: u64,
    /// Compute blocks again on the way back instead of keeping them, for less memory.
    pub gradient_checkpointing: bool,
    /// Go on with the pretraining that was interrupted in `out`; its options must be the same, but for the time.
    pub resume: bool,
    /// Seed of weights and of the order of the data.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
}

impl Default for PretrainOptions {
    fn default() -> Self {
        Self {
            corpus: Vec::new(),
            out: PathBuf::from("model"),
            from: None,
            vocab_size: 4096,
            hidden_size: 256,
            intermediate_size: 640,
            num_layers: 4,
            num_heads: 4,
            num_kv_heads: 2,
            context: 512,
            window: 256,
            batch_tokens: 4096,
            conversation_share: 0.2,
            lowercase_share: 0.7,
            learning_rate: 3e-3,
            weight_decay: 0.05,
            seconds: 3600.0,
            steps: 0,
            gradient_checkpointing: false,
            resume: false,
            seed: 0,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// How far pretraining is.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PretrainProgress {
    /// Steps done.
    pub step: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Mean loss of the latest steps, nats a token.
    pub loss: f64,
    /// Loss on text that is never trained on, nats a token; measured now and then.
    pub held_out_loss: f64,
    /// Seconds since the start.
    pub seconds: f64,
}

/// Pretrains a model and writes it to `options.out`; `report` hears of progress every few seconds, and the
/// folder is rewritten every five minutes, so that an interrupted run leaves a usable model, and the state to go on
/// from with [`PretrainOptions::resume`].
///
/// # Errors
/// `NotFound` where there is nothing to go on from, `Checkpoint` where it is damaged or of another pretraining.
pub fn pretrain(options: &PretrainOptions, report: &mut dyn FnMut(PretrainProgress)) -> Result<()> {
    let state = options.resume.then(|| state::load(&options.out)).transpose()?;
    let text = corpus::read(&options.corpus, options.lowercase_share, options.seed)?;
    let vocabulary = match &options.from {
        // Training a tokenizer again need not give the same one.
        _ if options.resume => vocabulary::load(&options.out)?,
        Some(folder) => vocabulary::load(folder)?,
        None => vocabulary::train(&text, options.vocab_size)?,
    };
    let data = Data::new(options, &text, &vocabulary)?;
    let mut model = match &options.from {
        Some(folder) => Model::load(folder)?,
        None => fresh_model(options, &vocabulary)?,
    };
    if !model.config().tie_word_embeddings {
        return Err(EngineError::Request("pretraining is for models with tied embeddings".into()));
    }
    if model.config().attention_bias || model.config().mlp_bias {
        // They would stay as they are and be missing in what is written.
        return Err(EngineError::Request("pretraining is for models without biases".into()));
    }
    let pool = training_pool(options.threads, false)?;
    let mut course = Course::new(options, &data, &model, &pool);
    if let Some(state) = state {
        course.go_on(&state)?;
    }
    course.run(report, &mut |course| {
        save::save(
            &options.out,
            model.config(),
            &course.learner.weights,
            &vocabulary,
            options,
            &course.progress,
        )?;
        let state = course.state()?;
        state::save(&options.out, &state)
    })?;
    let (learner, progress) = (course.learner, course.progress);
    save::save(&options.out, model.config(), &learner.weights, &vocabulary, options, &progress)?;
    state::remove(&options.out)?;
    let trained = learner.weights;
    model = Model::new(model.config().clone(), BaseWeights::with_replacements(model.weights(), trained)?)?;
    tracing::info!(hash = %model.hash(), "pretrained");
    Ok(())
}

/// Steps over which the learning rate rises.
const WARMUP_STEPS: f32 = 200.0;

/// A pretraining under way.
struct Course<'a> {
    options: &'a PretrainOptions,
    data: &'a Data,
    learner: Learner<'a>,
    random: ChaCha8Rng,
    progress: PretrainProgress,
    begin: Instant,
    /// Seconds that were spent before `begin`.
    spent: f64,
}

/// How far a pretraining is: all that is not in the learner.
#[derive(Debug, Serialize, Deserialize)]
struct Position {
    /// What it is a position in.
    of: ContentHash,
    step: u64,
    tokens: u64,
    /// Bits of the mean loss: JSON does not keep the last digit.
    loss: u64,
    seconds: f64,
    word: u64,
}

impl<'a> Course<'a> {
    fn new(
        options: &'a PretrainOptions,
        data: &'a Data,
        model: &'a Model,
        pool: &'a rayon::ThreadPool,
    ) -> Self {
        let weights = AdapterWeights::everything(model);
        let optimizer = AdamW::new(&weights, 0.95, options.weight_decay);
        let courtesy = Courtesy { longest_wait_ms: 0, ..Courtesy::default() };
        let learner = Learner::new(model, weights, optimizer, 1.0, pool, courtesy)
            .checkpointing(options.gradient_checkpointing);
        let progress =
            PretrainProgress { step: 0, tokens: 0, loss: 0.0, held_out_loss: f64::NAN, seconds: 0.0 };
        let random = ChaCha8Rng::seed_from_u64(options.seed ^ 0x5eed);
        Self { options, data, learner, random, progress, begin: Instant::now(), spent: 0.0 }
    }

    /// Puts it where [`Course::state`] was taken.
    fn go_on(&mut self, state: &[u8]) -> Result<()> {
        let position: Position = checkpoint::read(state, &mut self.learner)?;
        if position.of != self.hash()? {
            return Err(EngineError::Checkpoint("it is of other options or another corpus".into()));
        }
        let Position { step, tokens, loss, seconds, word, .. } = position;
        self.random.set_word_pos(u128::from(word));
        self.progress =
            PretrainProgress { step, tokens, loss: f64::from_bits(loss), seconds, ..self.progress };
        (self.begin, self.spent) = (Instant::now(), seconds);
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<u8>> {
        let PretrainProgress { step, tokens, loss, seconds, .. } = self.progress;
        let word = self.random.get_word_pos() as u64;
        let of = self.hash()?;
        let position = Position { of, step, tokens, loss: loss.to_bits(), seconds, word };
        checkpoint::write(&mut self.learner, &position)
    }

    /// The hash of everything that the course depends on but how long it takes.
    fn hash(&self) -> Result<ContentHash> {
        let options = PretrainOptions {
            corpus: Vec::new(),
            out: PathBuf::new(),
            seconds: 0.0,
            steps: 0,
            threads: 0,
            gradient_checkpointing: false,
            resume: false,
            ..self.options.clone()
        };
        let bytes = serde_json::to_vec(&(options, self.data.hash))
            .map_err(|error| EngineError::Internal(error.to_string()))?;
        Ok(ContentHash::of(&bytes))
    }

    /// How much of it is done, 0 to 1.
    fn done(&self) -> f32 {
        match self.options.steps {
            0 => (self.progress.seconds / self.options.seconds).min(1.0) as f32,
            steps => (self.progress.step as f32 / steps as f32).min(1.0),
        }
    }

    /// Steps until all are done or the time is up; `save` is called now and then.
    fn run(
        &mut self,
        report: &mut dyn FnMut(PretrainProgress),
        save: &mut dyn FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let (mut saved, mut reported) = (Instant::now(), Instant::now());
        loop {
            self.progress.seconds = self.spent + self.begin.elapsed().as_secs_f64();
            let done = self.done();
            if done >= 1.0 {
                break;
            }
            self.step(done)?;
            if reported.elapsed().as_secs() >= 10 {
                reported = Instant::now();
                report(self.progress);
            }
            if saved.elapsed().as_secs() >= 300 {
                saved = Instant::now();
                self.progress.held_out_loss = self.learner.evaluate(&self.data.held_out);
                save(self)?;
            }
        }
        self.progress.held_out_loss = self.learner.evaluate(&self.data.held_out);
        report(self.progress);
        Ok(())
    }

    /// One optimiser step, when `done` of the course is behind it.
    fn step(&mut self, done: f32) -> Result<()> {
        let (options, shards) = (self.options, self.learner.shards());
        let shards: Vec<PackedBatch> = (0..shards)
            .map(|_| self.data.batch(options.batch_tokens / shards, options, &mut self.random))
            .collect();
        self.learner.accumulate(&shards);
        let progress = &mut self.progress;
        let warm = (progress.step as f32 / WARMUP_STEPS).min(1.0);
        let step = self.learner.apply(options.learning_rate * warm * schedule(done, 0.0, 0.02))?;
        progress.step += 1;
        progress.tokens += shards.iter().map(|shard| shard.tokens.len() as u64).sum::<u64>();
        progress.loss = if progress.step == 1 { step.loss } else { 0.98 * progress.loss + 0.02 * step.loss };
        Ok(())
    }
}

fn fresh_model(options: &PretrainOptions, vocabulary: &vocabulary::Vocabulary) -> Result<Model> {
    let config = ModelConfig {
        family: Family::Llama,
        vocab_size: vocabulary.size(),
        hidden_size: options.hidden_size,
        intermediate_size: options.intermediate_size,
        num_layers: options.num_layers,
        num_heads: options.num_heads,
        num_kv_heads: options.num_kv_heads,
        head_dim: options.hidden_size / options.num_heads.max(1),
        rms_norm_eps: 1e-5,
        rope: RopeConfig::whole(10_000.0, RopeScaling::None),
        tie_word_embeddings: true,
        attention_bias: false,
        attention_out_bias: false,
        mlp_bias: false,
        qk_norm: false,
        branch_norms: false,
        fused_gate_up: false,
        sliding_window: None,
        windowed_layers: Vec::new(),
        max_position_embeddings: options.context,
        bos_token_id: None,
        eos_token_ids: vec![vocabulary.end],
        initializer_range: 0.02,
    };
    Model::random(config, options.seed)
}

/// Tokens to learn from.
struct Data {
    tokens: Vec<u32>,
    conversations: Vec<Vec<u32>>,
    held_out: Vec<PackedBatch>,
    /// Hash of `tokens`.
    hash: ContentHash,
}

impl Data {
    fn new(
        options: &PretrainOptions,
        text: &corpus::Corpus,
        vocabulary: &vocabulary::Vocabulary,
    ) -> Result<Self> {
        let mut tokens = vocabulary.encode_documents(&text.paragraphs)?;
        let keep = tokens.len() - (tokens.len() / 100).min(64 * options.window);
        let held_out = tokens
            .split_off(keep)
            .chunks_exact(options.window + 1)
            .map(|window| {
                let mut batch = PackedBatch::default();
                push_window(&mut batch, window);
                batch
            })
            .collect();
        if tokens.len() <= options.window + 1 {
            return Err(EngineError::Request(format!(
                "the corpus holds {} tokens, too few to train on",
                keep
            )));
        }
        let conversations = tasks::conversations(text, vocabulary, options.seed)?;
        tracing::info!(tokens = tokens.len(), conversations = conversations.len(), "corpus read");
        let hash = hash_of(&tokens);
        Ok(Self { tokens, conversations, held_out, hash })
    }

    /// About `tokens` tokens: windows of text and conversations.
    fn batch(&self, tokens: usize, options: &PretrainOptions, random: &mut ChaCha8Rng) -> PackedBatch {
        let mut batch = PackedBatch::default();
        let talk = (tokens as f64 * options.conversation_share) as usize;
        while batch.tokens.len() < talk {
            let Some(conversation) = self.conversations.choose(random) else { break };
            push_window(&mut batch, conversation);
        }
        while batch.tokens.len() + options.window / 2 < tokens {
            // A few windows fill the whole context, so that its late positions are learned too.
            let length = if random.random_bool(0.05) { options.context } else { options.window };
            let length = length.min(self.tokens.len() - 1);
            let start = random.random_range(0..self.tokens.len() - length);
            push_window(&mut batch, &self.tokens[start..start + length + 1]);
        }
        batch
    }
}

/// The hash of the hashes of pieces: a corpus is large, and its bytes need not be there twice.
fn hash_of(tokens: &[u32]) -> ContentHash {
    let piece = |tokens: &[u32]| -> ContentHash {
        ContentHash::of(&tokens.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>())
    };
    ContentHash::of(&tokens.chunks(1 << 18).flat_map(|tokens| piece(tokens).0).collect::<Vec<u8>>())
}

/// A sequence whose every token is predicted from those before it.
fn push_window(batch: &mut PackedBatch, window: &[u32]) {
    let Some((_, inputs)) = window.split_last() else { return };
    batch.push(inputs, window.iter().skip(1).enumerate().map(|(at, &token)| (at, token, 1.0)));
}
