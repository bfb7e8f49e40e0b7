//! The bounded queue between callers and the batching thread.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use super::{Request, events::EventSender};
use crate::{Decoder, EngineError, Result};

/// Counts one request for as long as it lives.
pub(super) struct Flight(Arc<AtomicUsize>);

impl Flight {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A request that waits.
pub(super) struct Waiting<D: Decoder> {
    pub(super) request: Request<D>,
    pub(super) sender: EventSender,
    pub(super) flight: Flight,
}

/// What the batching thread is to do; only ever moves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Take requests.
    Open,
    /// Take none, finish those that are there.
    Finishing,
    /// End everything.
    Cancelling,
}

struct State<D: Decoder> {
    waiting: VecDeque<Waiting<D>>,
    phase: Phase,
}

/// Requests in order of arrival, at most `limit`.
pub(super) struct Queue<D: Decoder> {
    state: Mutex<State<D>>,
    limit: usize,
}

impl<D: Decoder> Queue<D> {
    pub(super) fn new(limit: usize) -> Self {
        Self { state: Mutex::new(State { waiting: VecDeque::new(), phase: Phase::Open }), limit }
    }

    /// Appends a request. `Unavailable` when the queue is full of requests whose readers are still there, or
    /// the engine goes down.
    pub(super) fn push(&self, waiting: Waiting<D>) -> Result<()> {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return Err(EngineError::ShuttingDown);
        }
        if state.waiting.len() >= self.limit {
            state.waiting.retain(|waiting| !waiting.sender.is_closed());
        }
        if state.waiting.len() >= self.limit {
            return Err(EngineError::QueueFull { limit: self.limit });
        }
        state.waiting.push_back(waiting);
        Ok(())
    }

    /// Takes the first request whose reader is still there, if `fits` likes its prompt length and the longest
    /// answer it allows; otherwise it stays first.
    pub(super) fn pop_if(&self, fits: impl FnOnce(usize, Option<u32>) -> bool) -> Option<Waiting<D>> {
        let mut state = self.state.lock();
        while state.waiting.front().is_some_and(|waiting| waiting.sender.is_closed()) {
            state.waiting.pop_front();
        }
        let first = &state.waiting.front()?.request;
        if fits(first.prompt.len(), first.sampling.max_tokens) { state.waiting.pop_front() } else { None }
    }

    pub(super) fn len(&self) -> usize {
        self.state.lock().waiting.len()
    }

    pub(super) fn phase(&self) -> Phase {
        self.state.lock().phase
    }

    /// Moves on to `phase`; never back.
    pub(super) fn enter(&self, phase: Phase) {
        let mut state = self.state.lock();
        state.phase = state.phase.max(phase);
    }

    /// Refuses everything from now on and ends what waits.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Cancelling;
        state.waiting.drain(..).for_each(|waiting| waiting.sender.cancel());
    }
}
