//! The engine as the rest of autoglm sees it: requests in, streams of text out, adapters loaded and unloaded
//! meanwhile.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use autoglm_domain::{
    Adapter, AdapterHost, FinishReason, GenerationEvent, GenerationInput, GenerationRequest,
    GenerationStream, Generator, PromptToken, ResponseFormat, Sampling, ToolChoice, Usage, VersionNumber,
};
use futures::{StreamExt as _, stream};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Mutex, Semaphore},
    task::spawn_blocking,
};

use crate::{
    Decoder, EngineError, PAGE_TOKENS, Result, TextCodec,
    batcher::{Batcher, Request},
    check_sampling,
    constraint::Constraint,
    prompt_tokens::prompt_tokens,
    tools::ToolStream,
};

/// Limits of serving.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServingConfig {
    /// Requests that may wait; more are told to come again.
    pub max_queue: usize,
    /// Seconds that a request may be expected to wait, by the pace at which the queue empties; one that would wait
    /// longer is told to come again.
    pub max_wait_s: u64,
    /// Sequences that are generated at once.
    pub max_batch: usize,
    /// Tokens that go through the model in one step; longer prompts are fed in parts, so that they do not hold
    /// up the others. At least `max_batch`.
    pub max_batch_tokens: usize,
    /// Tokens that the caches of all running sequences may hold together, in pages of 32 that are taken as they
    /// are needed. When they run out, the sequence that is last in rank is computed again later. Prompt and
    /// answer of one request can have no more tokens than this.
    pub max_cache_tokens: usize,
    /// Tokens, within `max_cache_tokens`, that are remembered of requests that have ended, for later ones of the
    /// same version that begin alike; 0 remembers none.
    pub max_prefix_tokens: usize,
    /// Events that a slow reader may leave unread before its sequence pauses.
    pub event_buffer: usize,
    /// Seconds after which a paused sequence is cancelled, so that a stuck reader does not hold a place.
    pub stall_s: u64,
    /// Adapters that may be resident.
    pub max_adapters: usize,
    /// Seed of the draws of requests that name none; each request draws from a stream of its own.
    pub seed: u64,
}

impl Default for ServingConfig {
    fn default() -> Self {
        Self {
            max_queue: 1024,
            max_wait_s: 120,
            max_batch: 32,
            max_batch_tokens: 256,
            max_cache_tokens: 131_072,
            max_prefix_tokens: 32_768,
            event_buffer: 64,
            stall_s: 60,
            max_adapters: 64,
            seed: 0,
        }
    }
}

impl ServingConfig {
    /// Pages of the cache.
    pub(crate) fn pages(&self) -> usize {
        self.max_cache_tokens / PAGE_TOKENS
    }

    fn check(&self) -> Result<()> {
        for (name, value) in [
            ("max_queue", self.max_queue),
            ("max_batch", self.max_batch),
            ("event_buffer", self.event_buffer),
            ("max_adapters", self.max_adapters),
        ] {
            if !(1..=1_000_000).contains(&value) {
                return Err(EngineError::Request(format!(
                    "`{name}` is {value}; it must be from 1 to 1000000"
                )));
            }
        }
        if self.max_batch_tokens < self.max_batch {
            return Err(EngineError::Request(format!(
                "`max_batch_tokens` {} is below `max_batch` {}",
                self.max_batch_tokens, self.max_batch
            )));
        }
        if self.pages() == 0 {
            return Err(EngineError::Request(format!(
                "`max_cache_tokens` {} is below the {PAGE_TOKENS} tokens of a page",
                self.max_cache_tokens
            )));
        }
        Ok(())
    }
}

/// What the engine has done since its start, and where its pages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServingStats {
    /// Pages of the cache, of [`PAGE_TOKENS`] tokens each.
    pub pages: usize,
    /// Pages of sequences that run.
    pub pages_used: usize,
    /// Pages that are remembered of requests that have ended.
    pub pages_cached: usize,
    /// Tokens of prompts that were remembered and not computed again.
    pub prefix_hit_tokens: u64,
    /// How often a sequence gave up its pages, to be computed again.
    pub preemptions: u64,
    /// Requests that came into the batch.
    pub admitted: u64,
    /// Time that they waited for it, together.
    pub queue_wait: Duration,
}

/// An adapter that can answer. Its number is never given again: what was computed with it is not mistaken for
/// the work of another adapter that is loaded under the same version later.
struct Resident<A> {
    id: u64,
    weights: Arc<A>,
}

impl<A> Clone for Resident<A> {
    fn clone(&self) -> Self {
        Self { id: self.id, weights: Arc::clone(&self.weights) }
    }
}

/// A model that answers, on a thread of its own. Share it in an [`Arc`]; dropping it cancels what runs.
pub struct ServingEngine<D: Decoder> {
    decoder: Arc<D>,
    codec: TextCodec,
    adapters: RwLock<BTreeMap<VersionNumber, Resident<D::Adapter>>>,
    loaded: AtomicU64, // adapters so far
    max_adapters: usize,
    batcher: Batcher<D>,
    seed: u64,
    requests: AtomicU64,
    scoring: Mutex<()>,
    compiling: Semaphore,
}

/// Forms of answers that are compiled at once.
const COMPILING: usize = 2;

impl<D: Decoder> std::fmt::Debug for ServingEngine<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServingEngine").field("resident", &self.resident()).finish_non_exhaustive()
    }
}

impl<D: Decoder> ServingEngine<D> {
    /// Starts the thread. `Invalid` when a limit of `config` is out of range, or the tokenizer has more ids
    /// than the model.
    pub fn start(decoder: Arc<D>, codec: TextCodec, config: &ServingConfig) -> Result<Self> {
        config.check()?;
        if codec.tokenizer().vocab_size() > decoder.vocab_size() {
            return Err(EngineError::Tokenizer(format!(
                "has {} ids, the model has {}",
                codec.tokenizer().vocab_size(),
                decoder.vocab_size()
            )));
        }
        let batcher = Batcher::start(Arc::clone(&decoder), &codec, config)?;
        Ok(Self {
            decoder,
            codec,
            adapters: RwLock::default(),
            loaded: AtomicU64::new(0),
            max_adapters: config.max_adapters,
            batcher,
            seed: config.seed,
            requests: AtomicU64::new(0),
            scoring: Mutex::default(),
            compiling: Semaphore::new(COMPILING),
        })
    }

    /// Tokenizer and chat template.
    pub fn codec(&self) -> &TextCodec {
        &self.codec
    }

    /// The model.
    pub fn decoder(&self) -> &Arc<D> {
        &self.decoder
    }

    /// Requests that wait or run, kept up to date; training reads it to stand aside.
    pub fn busy(&self) -> Arc<AtomicUsize> {
        self.batcher.busy()
    }

    /// Requests that wait for a place in the batch.
    pub fn queued(&self) -> usize {
        self.batcher.queued()
    }

    /// What it has done since its start, and where its pages are.
    pub fn stats(&self) -> ServingStats {
        self.batcher.stats()
    }

    /// Takes nothing new, lets what waits and runs finish for up to `grace`, then ends the rest as cancelled.
    /// Blocks until the thread is idle for good.
    pub fn shutdown(&self, grace: Duration) {
        self.batcher.shutdown(grace);
    }

    /// [`AdapterHost::load`] without a runtime: nothing is waited for here.
    pub fn load(&self, version: VersionNumber, adapter: &Adapter) -> autoglm_domain::Result<()> {
        if version == VersionNumber::BASE {
            return Err(EngineError::Adapter("v0 is the base model and has none".into()).into());
        }
        let weights = Arc::new(self.decoder.load_adapter(adapter)?);
        let ready = Resident { id: 1 + self.loaded.fetch_add(1, Ordering::Relaxed), weights };
        let mut adapters = self.adapters.write();
        if adapters.len() >= self.max_adapters && !adapters.contains_key(&version) {
            return Err(EngineError::TooManyAdapters { limit: self.max_adapters }.into());
        }
        adapters.insert(version, ready);
        Ok(())
    }

    fn adapter(&self, version: VersionNumber) -> Result<Option<Resident<D::Adapter>>> {
        if version == VersionNumber::BASE {
            return Ok(None);
        }
        self.adapters.read().get(&version).cloned().map(Some).ok_or(EngineError::NotResident(version))
    }

    async fn submit(&self, request: &GenerationRequest) -> Result<GenerationStream> {
        let now = Instant::now();
        let adapter = self.adapter(request.version)?;
        let prompt = self.codec.encode(&request.input)?;
        self.check_bias(&request.sampling)?;
        let reported = self
            .report_prompt(&prompt, adapter.as_ref().map(|adapter| &adapter.weights), &request.sampling)
            .await?;
        let first = reported.map(|tokens| Ok(GenerationEvent::Prompt(tokens)));
        if first.is_some() && request.sampling.max_tokens == Some(0) {
            let prompt_tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
            let usage = Usage { prompt_tokens, completion_tokens: 0 };
            let done = Ok(GenerationEvent::Done { finish_reason: FinishReason::Length, usage });
            return Ok(Box::pin(stream::iter(first.into_iter().chain([done]))));
        }
        // Any fixed odd number would do: it keeps the streams of successive requests apart.
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let seed = self.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let constraint = self.constraint(&request.input, &request.sampling.format).await?;
        let toolbox = match &request.input {
            GenerationInput::ChatWithTools { toolbox, .. } => Some(Arc::new(toolbox.clone())),
            _ => None,
        };
        let markers = if toolbox.is_some() { self.codec.tool_markers() } else { Vec::new() };
        let request = Request {
            prompt,
            sampling: request.sampling.clone(),
            constraint,
            markers,
            adapter_id: adapter.as_ref().map_or(0, |adapter| adapter.id),
            adapter: adapter.map(|adapter| adapter.weights),
            seed,
            priority: request.priority,
            deadline: request.timeout.and_then(|timeout| now.checked_add(timeout)),
            timeout_ms: request.timeout.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
        };
        let answer: GenerationStream = Box::pin(self.batcher.submit(request)?);
        let answer = match toolbox {
            Some(toolbox) => with_tool_calls(answer, ToolStream::new(self.codec.tool_style(), &toolbox)),
            None => answer,
        };
        Ok(match first {
            Some(first) => Box::pin(stream::iter([first]).chain(answer)),
            None => answer,
        })
    }

    /// Compiles the answer's form on a thread of its own, at most so many at once that hostile ones do not take
    /// every core.
    async fn constraint(
        &self,
        input: &GenerationInput,
        format: &ResponseFormat,
    ) -> Result<Option<Constraint>> {
        let choice = match input {
            GenerationInput::ChatWithTools { toolbox, .. } => &toolbox.choice,
            _ => &ToolChoice::Auto,
        };
        if format.is_text() && *choice == ToolChoice::Auto {
            return Ok(None);
        }
        let permit = self.compiling.acquire().await;
        let (codec, input, format) = (self.codec.clone(), input.clone(), format.clone());
        let compiled = spawn_blocking(move || codec.constraint(&input, &format));
        let compiled =
            compiled.await.map_err(|error| EngineError::Internal(format!("compiling ended: {error}")))?;
        drop(permit);
        compiled
    }

    /// The prompt's tokens, where they are asked for; scored on a thread of their own.
    async fn report_prompt(
        &self,
        prompt: &[u32],
        adapter: Option<&Arc<D::Adapter>>,
        sampling: &Sampling,
    ) -> Result<Option<Vec<PromptToken>>> {
        if !sampling.token_ids && sampling.prompt_logprobs.is_none() {
            return Ok(None);
        }
        check_sampling(&Sampling { max_tokens: None, ..sampling.clone() })?;
        let (tokens, limit) = (prompt.len(), self.decoder.context_length());
        if tokens >= limit {
            return Err(EngineError::PromptTooLong { tokens, limit });
        }
        let (decoder, codec, adapter) = (Arc::clone(&self.decoder), self.codec.clone(), adapter.cloned());
        let (prompt, top) = (prompt.to_vec(), sampling.prompt_logprobs);
        // One at a time: scoring competes with the batch for the same cores.
        let _turn = self.scoring.lock().await;
        let scored =
            spawn_blocking(move || prompt_tokens(&*decoder, &codec, adapter.as_deref(), &prompt, top));
        let scored =
            scored.await.map_err(|error| EngineError::Internal(format!("scoring ended: {error}")))?;
        scored.map(Some)
    }

    fn check_bias(&self, sampling: &Sampling) -> Result<()> {
        let vocab = self.codec.tokenizer().vocab_size();
        match sampling.logit_bias.iter().find(|(id, _)| *id as usize >= vocab) {
            None => Ok(()),
            Some((id, _)) => Err(EngineError::Request(format!(
                "`logit_bias` names the token {id}; the vocabulary has {vocab}"
            ))),
        }
    }
}

/// The events of a generation with the tool calls in its text as events of their own.
fn with_tool_calls(answer: GenerationStream, mut calls: ToolStream) -> GenerationStream {
    Box::pin(answer.flat_map(move |event| {
        let events = match event {
            Ok(event) => calls.take(event).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(events)
    }))
}

#[async_trait::async_trait]
impl<D: Decoder> Generator for ServingEngine<D> {
    async fn generate(&self, request: GenerationRequest) -> autoglm_domain::Result<GenerationStream> {
        Ok(self.submit(&request).await?)
    }

    fn context_length(&self) -> u32 {
        u32::try_from(self.batcher.context()).unwrap_or(u32::MAX)
    }

    fn count_tokens(&self, input: &GenerationInput) -> autoglm_domain::Result<u32> {
        Ok(u32::try_from(self.codec.encode(input)?.len()).unwrap_or(u32::MAX))
    }
}

#[async_trait::async_trait]
impl<D: Decoder> AdapterHost for ServingEngine<D> {
    async fn load(&self, version: VersionNumber, adapter: &Adapter) -> autoglm_domain::Result<()> {
        // The method of the engine itself, which goes before the port's.
        Self::load(self, version, adapter)
    }

    fn unload(&self, version: VersionNumber) {
        // Sequences that run hold the adapter themselves.
        self.adapters.write().remove(&version);
    }

    fn resident(&self) -> Vec<VersionNumber> {
        std::iter::once(VersionNumber::BASE).chain(self.adapters.read().keys().copied()).collect()
    }
}
