//! The bounded queue between callers and the batching thread.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use autoglm_domain::Priority;
use parking_lot::Mutex;

use super::{Request, drain::Drain, events::EventSender};
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

/// Who comes first: by priority, then by arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) priority: Priority,
    arrival: u64,
}

/// A request that waits.
pub(super) struct Waiting<D: Decoder> {
    pub(super) request: Request<D>,
    pub(super) sender: EventSender,
    pub(super) flight: Flight,
    pub(super) since: Instant,
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
    waiting: BTreeMap<Rank, Waiting<D>>,
    phase: Phase,
    arrivals: u64,
    drain: Drain,
}

/// Requests by rank, at most `limit`, none of them expected to wait longer than `longest`.
pub(super) struct Queue<D: Decoder> {
    state: Mutex<State<D>>,
    limit: usize,
    longest: Duration,
}

impl<D: Decoder> Queue<D> {
    pub(super) fn new(limit: usize, longest: Duration) -> Self {
        let state =
            State { waiting: BTreeMap::new(), phase: Phase::Open, arrivals: 0, drain: Drain::default() };
        Self { state: Mutex::new(state), limit, longest }
    }

    /// Takes a request in. One of lower priority makes way for it in a full queue, and is told so.
    ///
    /// `Unavailable` when the queue is full of requests that are as urgent and whose readers are still there,
    /// when those before it are expected to keep it waiting for too long, or when the engine goes down.
    pub(super) fn push(&self, waiting: Waiting<D>) -> Result<()> {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return Err(EngineError::ShuttingDown);
        }
        let now = waiting.since;
        let rank = Rank { priority: waiting.request.priority, arrival: state.arrivals };
        if state.waiting.len() >= self.limit {
            state.waiting.retain(|_, waiting| !waiting.sender.is_closed());
        }
        let ahead = state.waiting.range(..rank).count();
        if ahead >= self.limit {
            let half = state.drain.wait(ahead.div_ceil(2), now);
            return Err(EngineError::QueueFull { limit: self.limit, retry_s: seconds(half) });
        }
        let wait = state.drain.wait(ahead, now);
        if wait > self.longest {
            let (wait_s, limit_s) = (seconds(wait), self.longest.as_secs());
            return Err(EngineError::WaitTooLong { wait_s, limit_s, retry_s: seconds(wait - self.longest) });
        }
        if state.waiting.len() >= self.limit
            && let Some((_, last)) = state.waiting.pop_last()
        {
            let half = state.drain.wait(self.limit.div_ceil(2), now);
            last.sender.fail(EngineError::QueueFull { limit: self.limit, retry_s: seconds(half) });
        }
        if state.waiting.is_empty() {
            state.drain.begin(now);
        }
        state.arrivals += 1;
        state.waiting.insert(rank, waiting);
        Ok(())
    }

    /// The first request whose reader is still there: its rank and what `look` sees of it.
    pub(super) fn first<T>(&self, look: impl FnOnce(&Request<D>) -> T) -> Option<(Rank, T)> {
        let mut state = self.state.lock();
        while let Some(first) = state.waiting.first_entry()
            && first.get().sender.is_closed()
        {
            first.remove();
        }
        state.waiting.first_key_value().map(|(rank, waiting)| (*rank, look(&waiting.request)))
    }

    /// Takes the request of this rank out, to run it.
    pub(super) fn take(&self, rank: Rank, now: Instant) -> Option<Waiting<D>> {
        let mut state = self.state.lock();
        let waiting = state.waiting.remove(&rank)?;
        let more = !state.waiting.is_empty();
        state.drain.left(now, more);
        Some(waiting)
    }

    /// Ends requests whose time is up; gives the instant at which the next one's is.
    pub(super) fn expire(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        let overdue = |waiting: &Waiting<D>| waiting.request.deadline.is_some_and(|deadline| deadline <= now);
        state.waiting.extract_if(.., |_, waiting| overdue(waiting)).for_each(|(_, waiting)| {
            waiting.sender.fail(waiting.request.overdue());
        });
        state.waiting.values().filter_map(|waiting| waiting.request.deadline).min()
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
        std::mem::take(&mut state.waiting).into_values().for_each(|waiting| waiting.sender.cancel());
    }
}

/// Whole seconds, at least one: sooner is not worth a try.
fn seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_secs_f64().ceil() as u64).unwrap_or(u32::MAX).max(1)
}
