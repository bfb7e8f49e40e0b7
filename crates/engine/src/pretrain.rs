//! Pretraining a small model from plain text: tokenizer, weights, chat template, all written to one folder
//! that any loader of Hugging Face models can read.
//!
//! In: text files. Out: `config.json`, `model.safetensors` (bf16), `tokenizer.json`,
//! `tokenizer_config.json`, `chat_template.jinja`, `pretrain.json` (what was done, and the losses).

mod corpus;
mod save;
mod tasks;
mod vocabulary;

use std::{path::PathBuf, time::Instant};

use rand::{RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{
    EngineError, Family, ModelConfig, Result, RopeConfig, RopeScaling,
    adapter::AdapterWeights,
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
/// folder is rewritten every five minutes, so that an interrupted run leaves a usable model.
pub fn pretrain(options: &PretrainOptions, report: &mut dyn FnMut(PretrainProgress)) -> Result<()> {
    let text = corpus::read(&options.corpus, options.lowercase_share, options.seed)?;
    let vocabulary = match &options.from {
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
    let weights = AdapterWeights::everything(&model);
    let optimizer = AdamW::new(&weights, 0.95, options.weight_decay);
    let courtesy = Courtesy { longest_wait_ms: 0, ..Courtesy::default() };
    let trained = {
        let mut learner = Learner::new(&model, weights, optimizer, 1.0, &pool, courtesy);
        run(options, &data, &mut learner, report, &|weights, progress| {
            save::save(&options.out, model.config(), weights, &vocabulary, options, progress)
        })?;
        learner.weights
    };
    model = Model::new(model.config().clone(), BaseWeights::with_replacements(model.weights(), trained))?;
    tracing::info!(hash = %model.hash(), "pretrained");
    Ok(())
}

/// Steps until the time is up.
fn run(
    options: &PretrainOptions,
    data: &Data,
    learner: &mut Learner<'_>,
    report: &mut dyn FnMut(PretrainProgress),
    save: &dyn Fn(&AdapterWeights, &PretrainProgress) -> Result<()>,
) -> Result<()> {
    let mut random = ChaCha8Rng::seed_from_u64(options.seed ^ 0x5eed);
    let begin = Instant::now();
    let (mut saved, mut reported) = (begin, begin);
    let mut progress =
        PretrainProgress { step: 0, tokens: 0, loss: 0.0, held_out_loss: f64::NAN, seconds: 0.0 };
    let warmup_steps = 200.0;
    loop {
        progress.seconds = begin.elapsed().as_secs_f64();
        let done = (progress.seconds / options.seconds).min(1.0) as f32;
        if done >= 1.0 {
            break;
        }
        let shards: Vec<PackedBatch> = (0..learner.shards())
            .map(|_| data.batch(options.batch_tokens / learner.shards(), options, &mut random))
            .collect();
        learner.accumulate(&shards);
        let warm = (progress.step as f32 / warmup_steps).min(1.0);
        let step = learner.apply(options.learning_rate * warm * schedule(done, 0.0, 0.02))?;
        progress.step += 1;
        progress.tokens += shards.iter().map(|shard| shard.tokens.len() as u64).sum::<u64>();
        progress.loss = if progress.step == 1 { step.loss } else { 0.98 * progress.loss + 0.02 * step.loss };
        if reported.elapsed().as_secs() >= 10 {
            reported = Instant::now();
            report(progress);
        }
        if saved.elapsed().as_secs() >= 300 {
            saved = Instant::now();
            progress.held_out_loss = learner.evaluate(&data.held_out);
            save(&learner.weights, &progress)?;
        }
    }
    progress.held_out_loss = learner.evaluate(&data.held_out);
    report(progress);
    save(&learner.weights, &progress)
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
    let weights = BaseWeights::random(&config, options.seed);
    Model::new(config, weights)
}

/// Tokens to learn from.
struct Data {
    tokens: Vec<u32>,
    conversations: Vec<Vec<u32>>,
    held_out: Vec<PackedBatch>,
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
        Ok(Self { tokens, conversations, held_out })
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

/// A sequence whose every token is predicted from those before it.
fn push_window(batch: &mut PackedBatch, window: &[u32]) {
    let Some((_, inputs)) = window.split_last() else { return };
    batch.push(inputs, window.iter().skip(1).enumerate().map(|(at, &token)| (at, token, 1.0)));
}
