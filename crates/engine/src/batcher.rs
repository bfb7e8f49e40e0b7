//! Continuous batching: requests in, token streams out, one thread that owns the model's steps.
//!
//! Requests wait in a bounded queue and are let into the batch in order of arrival as places become free.
//! Every step takes one token of each sequence that decodes, and fills the rest of its budget with parts of
//! prompts. A sequence whose reader is slow pauses; one whose reader is gone is dropped; an error of a step
//! ends the sequences in it and no others.

mod events;
mod queue;
mod sequence;
mod worker;

use std::{
    sync::{Arc, atomic::AtomicUsize},
    thread::JoinHandle,
    time::Duration,
};

use autoglm_domain::Sampling;
use crossbeam_channel::Receiver;
use parking_lot::Mutex;

use self::{
    events::{Doorbell, EventStream, channel},
    queue::{Flight, Phase, Queue, Waiting},
    worker::Worker,
};
use crate::{Decoder, EngineError, Result, ServingConfig, TextCodec, check_sampling};

/// One request with its prompt as ids and its adapter held.
pub(crate) struct Request<D: Decoder> {
    /// Ids to continue.
    pub(crate) prompt: Vec<u32>,
    /// How tokens are drawn.
    pub(crate) sampling: Sampling,
    /// The version's adapter, kept for as long as the sequence runs.
    pub(crate) adapter: Option<Arc<D::Adapter>>,
    /// Seed where `sampling` names none.
    pub(crate) seed: u64,
}

/// The handle of the batching thread. Dropping it cancels what runs and waits for the thread.
pub(crate) struct Batcher<D: Decoder> {
    queue: Arc<Queue<D>>,
    bell: Arc<Doorbell>,
    context: usize,
    event_buffer: usize,
    in_flight: Arc<AtomicUsize>,
    ended: Receiver<()>, // disconnected when the thread has ended
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<D: Decoder> Batcher<D> {
    /// Starts the thread.
    pub(crate) fn start(decoder: Arc<D>, codec: &TextCodec, config: &ServingConfig) -> Result<Self> {
        let queue = Arc::new(Queue::new(config.max_queue));
        let bell = Arc::new(Doorbell::default());
        let context = decoder.context_length();
        let (ending, ended) = crossbeam_channel::bounded(0);
        let mut worker = Worker::new(decoder, codec, config, Arc::clone(&queue), Arc::clone(&bell));
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
            context,
            event_buffer: config.event_buffer,
            in_flight: Arc::default(),
            ended,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Queues a request. `Invalid` when its sampling is out of range or its prompt leaves no room for an
    /// answer, `Unavailable` when the queue is full or the engine goes down.
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
        self.queue.push(Waiting { request, sender, flight })?;
        self.bell.ring();
        Ok(stream)
    }

    /// Requests that wait or run.
    pub(crate) fn busy(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.in_flight)
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
