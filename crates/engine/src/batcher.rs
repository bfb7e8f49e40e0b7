//! Continuous batching: requests in, token streams out, one thread that owns the model's steps.
//!
//! Requests wait in a bounded queue and are let into the batch by priority, then by arrival, as places become
//! free. Every step takes one token of each sequence that decodes, and fills the rest of its budget with parts
//! of prompts. A sequence whose reader is slow pauses; one whose reader is gone is dropped; one whose time is up
//! ends; an error of a step ends the sequences in it and no others.
//!
//! Keys and values lie in pages of a limited pool. Pages that are full are found again by later sequences that
//! begin alike under the same adapter. When the pool is empty, the last in rank gives up its pages and is
//! computed again later from its tokens; the first in rank can always go on, so everything ends.
//!
//! What shares a sequence's batch, how its prompt is cut into parts, whether its first pages come from another
//! sequence and whether it was computed twice: none of it changes a bit of its logits, since every kernel sums
//! each row in an order of its own (`panels` and `paged` in `kernels`).

mod counts;
mod drain;
mod events;
mod pool;
mod prefix;
mod queue;
mod sequence;
mod worker;

use std::{
    sync::{Arc, atomic::AtomicUsize},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use autoglm_domain::{Priority, Sampling};
use crossbeam_channel::Receiver;
use parking_lot::Mutex;

use self::{
    counts::Counts,
    events::{Doorbell, EventStream, channel},
    pool::Pool,
    queue::{Flight, Phase, Queue, Waiting},
    worker::{Shared, Worker},
};
use crate::{
    Decoder, EngineError, PAGE_TOKENS, Result, ServingConfig, ServingStats, TextCodec, check_sampling,
    constraint::Constraint,
};

/// One request with its prompt as ids and its adapter held.
pub(crate) struct Request<D: Decoder> {
    /// Ids to continue.
    pub(crate) prompt: Vec<u32>,
    /// How tokens are drawn.
    pub(crate) sampling: Sampling,
    /// The form that the answer must have.
    pub(crate) constraint: Option<Constraint>,
    /// Special tokens that show in the text, with what they show.
    pub(crate) markers: Vec<(u32, String)>,
    /// The version's adapter, kept for as long as the sequence runs.
    pub(crate) adapter: Option<Arc<D::Adapter>>,
    /// What no other adapter has, nor a later one under the same number; 0 is the base model.
    pub(crate) adapter_id: u64,
    /// Seed where `sampling` names none.
    pub(crate) seed: u64,
    /// Who goes first.
    pub(crate) priority: Priority,
    /// When its time is up.
    pub(crate) deadline: Option<Instant>,
    /// How long that was from its arrival.
    pub(crate) timeout_ms: u64,
}

impl<D: Decoder> Request<D> {
    fn overdue(&self) -> EngineError {
        EngineError::Overdue { timeout_ms: self.timeout_ms }
    }
}

/// The handle of the batching thread. Dropping it cancels what runs and waits for the thread.
pub(crate) struct Batcher<D: Decoder> {
    queue: Arc<Queue<D>>,
    bell: Arc<Doorbell>,
    pool: Arc<Pool<D::Page>>,
    counts: Arc<Counts>,
    context: usize,
    event_buffer: usize,
    in_flight: Arc<AtomicUsize>,
    ended: Receiver<()>, // disconnected when the thread has ended
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<D: Decoder> Batcher<D> {
    /// Starts the thread.
    pub(crate) fn start(decoder: Arc<D>, codec: &TextCodec, config: &ServingConfig) -> Result<Self> {
        let queue = Arc::new(Queue::new(config.max_queue, Duration::from_secs(config.max_wait_s)));
        let (bell, counts) = (Arc::new(Doorbell::default()), Arc::new(Counts::default()));
        let keep = config.max_prefix_tokens / PAGE_TOKENS;
        let maker = Arc::clone(&decoder);
        let pool = Arc::new(Pool::new(config.pages(), keep, move || maker.new_page()));
        // One request alone always has pages enough.
        let context = decoder.context_length().min(pool.tokens());
        let (ending, ended) = crossbeam_channel::bounded(0);
        let shared = Shared {
            decoder,
            pool: Arc::clone(&pool),
            queue: Arc::clone(&queue),
            bell: Arc::clone(&bell),
            counts: Arc::clone(&counts),
        };
        let mut worker = Worker::new(shared, codec, context, config);
        let thread = std::thread::Builder::new()
            .name("generate".into())
            .spawn(move || {
                worker.run();
                drop(worker);
                drop(ending);
            })
            .map_err(|error| EngineError::Internal(format!("no thread for generation: {error}")))?;
        Ok(Self {
            queue,
            bell,
            pool,
            counts,
            context,
            event_buffer: config.event_buffer,
            in_flight: Arc::default(),
            ended,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Queues a request. `Invalid` when its sampling is out of range or its prompt leaves no room for an
    /// answer, `Unavailable` when the queue is full, the wait would be too long or the engine goes down.
    pub(crate) fn submit(&self, request: Request<D>) -> Result<EventStream> {
        check_sampling(&request.sampling)?;
        let tokens = request.prompt.len();
        if tokens == 0 {
            return Err(EngineError::Request("the prompt is empty".into()));
        }
        if tokens >= self.context {
            return Err(EngineError::PromptTooLong { tokens, limit: self.context });
        }
        let (sender, stream) = channel(self.event_buffer, Arc::clone(&self.bell));
        let flight = Flight::new(&self.in_flight);
        self.queue.push(Waiting { request, sender, flight, since: Instant::now() })?;
        self.bell.ring();
        Ok(stream)
    }

    /// Requests that wait or run.
    pub(crate) fn busy(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.in_flight)
    }

    /// Most tokens of prompt and answer together: those of the model's context that the pages hold.
    pub(crate) fn context(&self) -> usize {
        self.context
    }

    /// What happened so far, and where the pages are.
    pub(crate) fn stats(&self) -> ServingStats {
        let pages = self.pool.stats();
        let (admitted, waited, preemptions) = self.counts.read();
        ServingStats {
            pages: self.pool.tokens() / PAGE_TOKENS,
            pages_used: pages.used,
            pages_cached: pages.cached,
            prefix_hit_tokens: pages.hit_tokens,
            preemptions,
            admitted,
            queue_wait: waited,
        }
    }

    /// Requests that wait.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Takes nothing new, finishes for up to `grace`, cancels the rest and waits for the thread.
    pub(crate) fn shutdown(&self, grace: Duration) {
        self.enter(Phase::Finishing);
        // A disconnection is the thread's end; nothing is ever sent.
        let _ = self.ended.recv_timeout(grace);
        self.enter(Phase::Cancelling);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the generation thread ended in a panic");
        }
    }

    fn enter(&self, phase: Phase) {
        self.queue.enter(phase);
        self.bell.ring();
    }
}

impl<D: Decoder> Drop for Batcher<D> {
    fn drop(&mut self) {
        self.shutdown(Duration::ZERO);
    }
}
