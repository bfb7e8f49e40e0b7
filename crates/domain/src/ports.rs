//! Ports to the engine: generating, embedding, hosting adapters, training.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    Adapter, ChatMessage, FinishReason, HyperParameters, PromptToken, Result, Sampling, TokenLogprob,
    ToolCall, ToolCallPiece, Toolbox, TrainingRunId, Usage, VersionNumber,
};

/// What to go on from.
#[derive(Debug, Clone, PartialEq)]
pub enum GenerationInput {
    /// A conversation; the model's chat template is applied.
    Chat(Vec<ChatMessage>),
    /// A conversation with tools that the model may ask to be called.
    ChatWithTools {
        /// The conversation.
        messages: Vec<ChatMessage>,
        /// The tools.
        toolbox: Toolbox,
    },
    /// Plain text, continued as it is.
    Text(String),
}

/// One request to the engine.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationRequest {
    /// What to go on from.
    pub input: GenerationInput,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The version that answers, resolved from the alias when the request began.
    pub version: VersionNumber,
    /// Who goes first where not everyone can.
    pub priority: Priority,
    /// How long it may take from here to its last token; `None` is as long as it takes. When the time is up before
    /// the first token, it fails with `TimedOut`; after that it ends with what there is, as
    /// [`FinishReason::Length`].
    pub timeout: Option<Duration>,
}

impl GenerationRequest {
    /// A request of live traffic that may take as long as it takes.
    pub fn new(input: GenerationInput, sampling: Sampling, version: VersionNumber) -> Self {
        Self { input, sampling, version, priority: Priority::Live, timeout: None }
    }

    /// The same request with another priority.
    #[must_use]
    pub fn with_priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }
}

/// Who goes first: somebody who waits for the answer, before those who only learn from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Somebody waits for the answer.
    #[default]
    Live,
    /// A candidate answers beside the version that is served.
    Shadow,
    /// Evaluation, which can wait.
    Background,
}

/// What a generation yields.
#[derive(Debug, Clone, PartialEq)]
pub enum GenerationEvent {
    /// The prompt's tokens, before anything else; where [`Sampling::token_ids`] or
    /// [`Sampling::prompt_logprobs`] asks for them.
    Prompt(Vec<PromptToken>),
    /// Some more text (whole characters; held back while it could begin a stop string).
    Text {
        /// The text.
        text: String,
        /// Log-probabilities of the tokens that made it, where they were asked for.
        logprobs: Vec<TokenLogprob>,
    },
    /// A piece of a tool call.
    ToolCall(ToolCallPiece),
    /// The last event.
    Done {
        /// Why it ended.
        finish_reason: FinishReason,
        /// Token counts.
        usage: Usage,
    },
}

/// Events of one generation. Dropping it cancels the generation.
pub type GenerationStream = Pin<Box<dyn futures::Stream<Item = Result<GenerationEvent>> + Send>>;

/// A whole generation, collected.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The text.
    pub text: String,
    /// The tool calls; their ids are empty.
    pub tool_calls: Vec<ToolCall>,
    /// Log-probabilities, where they were asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// The prompt's tokens, where they were asked for.
    pub prompt: Vec<PromptToken>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Token counts.
    pub usage: Usage,
}

impl Generation {
    /// Takes in one event; says whether it was the last.
    pub fn take_in(&mut self, event: GenerationEvent) -> bool {
        match event {
            GenerationEvent::Prompt(tokens) => self.prompt = tokens,
            GenerationEvent::Text { text, logprobs } => {
                self.text.push_str(&text);
                self.logprobs.extend(logprobs);
            }
            GenerationEvent::ToolCall(piece) => piece.add_to(&mut self.tool_calls),
            GenerationEvent::Done { finish_reason, usage } => {
                self.finish_reason = finish_reason;
                self.usage = usage;
                return true;
            }
        }
        false
    }
}

impl Default for Generation {
    fn default() -> Self {
        Self {
            text: String::new(),
            tool_calls: Vec::new(),
            logprobs: Vec::new(),
            prompt: Vec::new(),
            finish_reason: FinishReason::Cancelled,
            usage: Usage::default(),
        }
    }
}

/// Port: something that answers.
#[async_trait::async_trait]
pub trait Generator: Send + Sync {
    /// Queues a request. `Invalid` when the prompt does not fit the context, `NotFound` when the version is
    /// not resident, `Unavailable` when the queue is full or the wait would be too long. A refusal that is about
    /// one field of a request begins with the field's name in backquotes, so that the edge can point at it.
    async fn generate(&self, request: GenerationRequest) -> Result<GenerationStream>;

    /// [`Generator::generate`], collected.
    async fn generate_all(&self, request: GenerationRequest) -> Result<Generation> {
        use futures::StreamExt as _;
        let mut stream = self.generate(request).await?;
        let mut generation = Generation::default();
        while let Some(event) = stream.next().await {
            if generation.take_in(event?) {
                return Ok(generation);
            }
        }
        Err(crate::Error::internal("the generation ended without saying so"))
    }

    /// Most tokens of prompt and answer together.
    fn context_length(&self) -> u32;

    /// How many tokens the input has after the chat template.
    fn count_tokens(&self, input: &GenerationInput) -> Result<u32>;
}

/// Port: texts to vectors. The same text always has the same vector, whatever version answers.
pub trait Embedder: Send + Sync {
    /// One vector of unit length a text.
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>>;

    /// Length of the vectors.
    fn dimensions(&self) -> usize;
}

/// Port: the versions that can answer right now.
#[async_trait::async_trait]
pub trait AdapterHost: Send + Sync {
    /// Makes `version` resident. `Invalid` when the adapter does not fit the base model, holds NaN, or is not
    /// safetensors at all; nothing changes then. Asynchronous, as the host may be another server.
    async fn load(&self, version: VersionNumber, adapter: &Adapter) -> Result<()>;

    /// Frees `version` once the requests that it is answering have ended. Unknown versions are ignored.
    fn unload(&self, version: VersionNumber);

    /// Versions that can answer; the base model ([`VersionNumber::BASE`]) always can.
    fn resident(&self) -> Vec<VersionNumber>;
}

/// One example of a training job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainExample {
    /// The conversation up to the answer.
    pub prompt: Vec<ChatMessage>,
    /// The answer to learn; loss is on its tokens and the end-of-turn token alone.
    pub target: String,
    /// Weight of its loss.
    pub weight: f32,
    /// How often a pass over the data sees it, above 0: 2 is twice a pass, 0.25 once in four passes.
    pub frequency: f32,
    /// What is minimised.
    #[serde(default)]
    pub objective: Objective,
}

/// What is minimised over an example.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "loss")]
pub enum Objective {
    /// Cross-entropy of the target.
    #[default]
    CrossEntropy,
    /// Cross-entropy mixed with the divergence from the reference, `KL(reference ‖ model)` over the vocabulary at
    /// every position of the target (Hinton et al. 2015).
    Distill {
        /// Share of the divergence, 0 to 1; cross-entropy has the rest.
        share: f32,
    },
    /// The target before another answer (DPO, Rafailov et al. 2023, eq. 7), by the hyper-parameters
    /// `preference_beta` and `preference_sft`.
    Prefer {
        /// The other answer.
        rejected: String,
    },
}

/// What to train.
#[derive(Debug, Clone)]
pub struct TrainJob {
    /// The adapter to start from; `None` starts a fresh one.
    pub parent: Option<Adapter>,
    /// The adapter that preferences are measured from and that is distilled, where an example asks for either;
    /// `None` is the parent's, or the base model where there is no parent.
    pub reference: Option<Adapter>,
    /// The examples.
    pub examples: Vec<TrainExample>,
    /// Hyper-parameters.
    pub hyper: HyperParameters,
    /// Seed of the order of examples and of fresh matrices. Same job, same seed: same adapter.
    pub seed: u64,
    /// Where the job leaves checkpoints, and goes on from one that is there.
    pub checkpointing: Option<Checkpointing>,
}

impl TrainJob {
    /// A job that starts a fresh adapter and leaves no checkpoints.
    pub fn new(examples: Vec<TrainExample>, hyper: HyperParameters, seed: u64) -> Self {
        Self { parent: None, reference: None, examples, hyper, seed, checkpointing: None }
    }
}

/// How a job leaves checkpoints.
#[derive(Debug, Clone)]
pub struct Checkpointing {
    /// Where.
    pub store: Arc<dyn CheckpointStore>,
    /// Under which run.
    pub run: TrainingRunId,
    /// Seconds between two of them.
    pub every_s: f32,
}

/// Port: the state of the training run in progress, so that a run which was cut short can go on. One run trains at
/// a time, so there is one checkpoint at most.
pub trait CheckpointStore: Send + Sync + std::fmt::Debug {
    /// Keeps `state` for `run` durably, in place of whatever was kept before; all of it or nothing.
    fn save(&self, run: TrainingRunId, state: &[u8]) -> Result<()>;

    /// What was kept for `run`.
    fn load(&self, run: TrainingRunId) -> Result<Option<Vec<u8>>>;

    /// Keeps nothing any longer.
    fn clear(&self) -> Result<()>;
}

/// How far a training job is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrainProgress {
    /// Steps done.
    pub step: u32,
    /// Steps planned.
    pub steps: u32,
    /// Mean loss a supervised token of the latest step, nats.
    pub loss: f64,
    /// Learning rate of the latest step.
    pub learning_rate: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Tokens that went through so far, prompts included.
    pub tokens: u64,
    /// Seconds since the start.
    pub seconds: f64,
}

/// What the caller wants after a progress report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Continue,
    /// Stop; the job ends with `Conflict`.
    Cancel,
    /// Leave a checkpoint and stop; the job ends with `Conflict`, and the same job goes on from there.
    Stop,
}

/// What came out of a training job.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// The adapter.
    pub adapter: Adapter,
    /// `loss_first`, `loss_last`, `steps`, `tokens`, `seconds`, `tokens_per_s`, `activation_mb` (most memory of buffers).
    pub metrics: BTreeMap<String, f64>,
}

/// Port: something that trains. Blocking and long: call it on a thread of its own.
pub trait Trainer: Send + Sync {
    /// Runs `job` to the end. `Invalid` when an example does not fit the context or there are none.
    fn train(&self, job: &TrainJob, progress: &mut dyn FnMut(TrainProgress) -> Control) -> Result<Trained>;
}
