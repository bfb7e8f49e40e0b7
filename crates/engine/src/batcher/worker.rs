//! The batching thread: admits, steps, hands out, until it is told to end.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    counts::Counts,
    events::Doorbell,
    pool::Pool,
    queue::{Phase, Queue, Rank},
    sequence::{Ending, Sequence},
};
use crate::{Decoder, EngineError, Result, ServingConfig, TextCodec};

/// The thread's state.
pub(super) struct Worker<D: Decoder> {
    decoder: Arc<D>,
    codec: TextCodec,
    context: usize,
    max_batch: usize,
    max_batch_tokens: usize,
    stall: Duration,
    pool: Arc<Pool<D::Page>>,
    queue: Arc<Queue<D>>,
    bell: Arc<Doorbell>,
    counts: Arc<Counts>,
    running: Vec<Sequence<D>>, // by rank
    parked: Vec<Sequence<D>>,  // by rank: taken out of the batch, without pages
}

/// What the batching thread shares with its handle.
pub(super) struct Shared<D: Decoder> {
    pub(super) decoder: Arc<D>,
    pub(super) pool: Arc<Pool<D::Page>>,
    pub(super) queue: Arc<Queue<D>>,
    pub(super) bell: Arc<Doorbell>,
    pub(super) counts: Arc<Counts>,
}

impl<D: Decoder> Worker<D> {
    pub(super) fn new(shared: Shared<D>, codec: &TextCodec, context: usize, config: &ServingConfig) -> Self {
        let Shared { decoder, pool, queue, bell, counts } = shared;
        Self {
            decoder,
            codec: codec.clone(),
            context,
            max_batch: config.max_batch,
            max_batch_tokens: config.max_batch_tokens,
            stall: Duration::from_secs(config.stall_s),
            pool,
            queue,
            bell,
            counts,
            running: Vec::new(),
            parked: Vec::new(),
        }
    }

    /// Works until the phase says to end.
    pub(super) fn run(&mut self) {
        loop {
            let phase = self.queue.phase();
            if phase == Phase::Cancelling {
                self.sequences().for_each(Sequence::cancel);
                return;
            }
            self.running.retain(|sequence| !sequence.is_abandoned());
            self.parked.retain(|sequence| !sequence.is_abandoned());
            let next_deadline = self.end_overdue();
            self.admit();
            let stepped = self.step();
            let next_stall = self.end_stalled();
            let idle = self.running.is_empty() && self.parked.is_empty();
            if phase == Phase::Finishing && idle && self.queue.len() == 0 {
                return;
            }
            if !stepped {
                self.bell.wait(next_deadline.into_iter().chain(next_stall).min());
            }
        }
    }

    /// Takes out all sequences.
    fn sequences(&mut self) -> impl Iterator<Item = Sequence<D>> {
        let running = std::mem::take(&mut self.running);
        running.into_iter().chain(std::mem::take(&mut self.parked))
    }

    /// Takes out the sequences, of the batch and of those parked, that `chosen` chooses.
    fn remove(&mut self, chosen: impl Fn(&Sequence<D>) -> bool) -> Vec<Sequence<D>> {
        let running = self.running.extract_if(.., |sequence| chosen(sequence));
        running.chain(self.parked.extract_if(.., |sequence| chosen(sequence))).collect()
    }

    /// Lets sequences into the batch, by rank, while there are places and pages for them. One whose reader is slow
    /// and one of lower priority make way.
    fn admit(&mut self) {
        let now = Instant::now();
        loop {
            // All are asked, so that none passes for slow whose reader has caught up.
            let ready: Vec<bool> = self.parked.iter_mut().map(|sequence| sequence.is_ready(now)).collect();
            let parked = self.parked.iter().zip(ready).find(|(_, ready)| *ready);
            let parked = parked.map(|(sequence, _)| (sequence.rank(), sequence.need()));
            let pool = Arc::clone(&self.pool);
            let waiting = self.queue.first(|request| pool.need(request.adapter_id, &request.prompt));
            match (parked, waiting) {
                (Some((rank, need)), waiting) if waiting.is_none_or(|(first, _)| rank < first) => {
                    if !self.make_way(rank, need) {
                        return;
                    }
                    self.resume(rank);
                }
                (_, Some((rank, need))) => {
                    if !self.make_way(rank, need) {
                        return;
                    }
                    self.begin(rank, now);
                }
                _ => return,
            }
        }
    }

    /// Lets the parked sequence of this rank into the batch.
    fn resume(&mut self, rank: Rank) {
        if let Some(at) = self.parked.iter().position(|sequence| sequence.rank() == rank) {
            let sequence = self.parked.remove(at);
            self.enter(sequence);
        }
    }

    /// Lets the waiting request of this rank into the batch.
    fn begin(&mut self, rank: Rank, now: Instant) {
        let Some(waiting) = self.queue.take(rank, now) else { return };
        self.counts.admitted(now.saturating_duration_since(waiting.since));
        match Sequence::new(rank, waiting, &self.pool, self.context, &self.codec) {
            Ok(sequence) => self.enter(sequence),
            Err((sender, error)) => sender.end(Ending::Failed(error), Default::default()),
        }
    }

    fn enter(&mut self, mut sequence: Sequence<D>) {
        sequence.open();
        let at = self.running.partition_point(|other| other.rank() < sequence.rank());
        self.running.insert(at, sequence);
    }

    /// Takes the sequence at `at` out of the batch; its pages go back to the pool.
    fn park(&mut self, at: usize) {
        let mut sequence = self.running.remove(at);
        sequence.give_up();
        self.counts.preempted();
        let at = self.parked.partition_point(|other| other.rank() < sequence.rank());
        self.parked.insert(at, sequence);
    }

    /// Makes way for a sequence of this rank that takes `need` pages, where that is possible.
    fn make_way(&mut self, rank: Rank, need: usize) -> bool {
        let yields = |sequence: &Sequence<D>| {
            sequence.stalled_since().is_some() || sequence.rank().priority > rank.priority
        };
        // One page for each that runs is kept free, or the newcomer would soon be taken out again.
        let fits = |worker: &Self, more: usize, fewer: usize| {
            let running = worker.running.len() - fewer;
            running == 0 || need + running <= worker.pool.available() + more
        };
        let pages = self.running.iter().filter(|sequence| yields(sequence)).map(Sequence::pages).sum();
        let yielding = self.running.iter().filter(|sequence| yields(sequence)).count();
        if self.running.len() - yielding >= self.max_batch || !fits(self, pages, yielding) {
            return false;
        }
        while self.running.len() >= self.max_batch || !fits(self, 0, 0) {
            // Slow readers first, then the last in rank.
            let slow = self.running.iter().rposition(|sequence| sequence.stalled_since().is_some());
            match slow.or_else(|| self.running.iter().rposition(yields)) {
                Some(at) => self.park(at),
                None => return false,
            }
        }
        true
    }

    /// How many tokens each running sequence gives to the next step, with pages taken for them: one where it
    /// decodes, and as much of its prompt as the budget still allows otherwise, by rank.
    fn plan(&mut self) -> Vec<usize> {
        let now = Instant::now();
        let mut counts: Vec<usize> = Vec::with_capacity(self.running.len());
        for sequence in &mut self.running {
            counts.push(usize::from(sequence.is_ready(now) && sequence.unfed() == 1));
        }
        let mut budget = self.max_batch_tokens.saturating_sub(counts.iter().sum());
        for (count, sequence) in counts.iter_mut().zip(&self.running) {
            if sequence.unfed() > 1 && sequence.stalled_since().is_none() {
                *count = sequence.unfed().min(budget);
                budget -= *count;
            }
        }
        let mut at = 0;
        while let Some(&count) = counts.get(at) {
            if count > 0 && !self.running.get_mut(at).is_some_and(|sequence| sequence.reserve(count)) {
                let slow = self.running.iter().rposition(|s| s.stalled_since().is_some() && s.pages() > 0);
                let last = self.running.iter().rposition(|s| s.pages() > 0).filter(|last| *last > at);
                if let Some(victim) = slow.or(last) {
                    self.park(victim);
                    counts.remove(victim);
                    at -= usize::from(victim < at);
                    continue;
                }
                // The last in rank waits for the others with what it has.
                counts[at] = self.running.get(at).map_or(0, Sequence::room).min(count);
            }
            at += 1;
        }
        counts
    }

    /// One step; `false` when no sequence could take part.
    fn step(&mut self) -> bool {
        let counts = self.plan();
        if counts.iter().all(|count| *count == 0) {
            return false;
        }
        let wanted: Vec<bool> =
            self.running.iter().zip(&counts).map(|(s, n)| *n > 0 && s.wants_logits(*n)).collect();
        let outcome = self.run_decoder(&counts);
        let running = std::mem::take(&mut self.running);
        let mut logits = match outcome {
            Ok(logits) => logits,
            Err(error) => {
                tracing::error!(%error, "a step failed; its sequences end");
                for (sequence, count) in running.into_iter().zip(counts) {
                    if count > 0 {
                        sequence.end(Ending::Failed(error.clone()));
                    } else {
                        self.running.push(sequence);
                    }
                }
                return true;
            }
        };
        let mut rows = logits.chunks_exact_mut(self.decoder.vocab_size().max(1));
        for (mut sequence, wanted) in running.into_iter().zip(wanted) {
            sequence.settle();
            let ending =
                if wanted { rows.next().and_then(|row| sequence.advance(row, &self.codec)) } else { None };
            match ending {
                Some(ending) => sequence.end(ending),
                None => self.running.push(sequence),
            }
        }
        true
    }

    /// The logits of the sequences that want some. A panic of the model becomes an error.
    fn run_decoder(&mut self, counts: &[usize]) -> Result<Vec<f32>> {
        let mut parts: Vec<_> = self
            .running
            .iter_mut()
            .zip(counts)
            .filter(|(_, count)| **count > 0)
            .map(|(sequence, count)| sequence.part(*count))
            .collect();
        let rows = parts.iter().filter(|part| part.wants_logits).count();
        let logits = catch_unwind(AssertUnwindSafe(|| self.decoder.step(&mut parts)))
            .unwrap_or_else(|_| Err(EngineError::Internal("the model panicked in a step".into())))?;
        let expected = rows * self.decoder.vocab_size();
        if logits.len() != expected {
            return Err(EngineError::Internal(format!(
                "a step gave {} logits, not {expected}",
                logits.len()
            )));
        }
        Ok(logits)
    }

    /// Ends sequences and requests whose time is up; gives the time until the next one's is.
    fn end_overdue(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let waiting = self.queue.expire(now);
        let overdue = |sequence: &Sequence<D>| sequence.deadline().is_some_and(|deadline| deadline <= now);
        self.remove(overdue).into_iter().for_each(Sequence::expire);
        let deadlines = self.running.iter().chain(&self.parked).filter_map(Sequence::deadline);
        deadlines.chain(waiting).min().map(|next| next.saturating_duration_since(now))
    }

    /// Cancels sequences whose readers have not kept up for too long; gives the time until the next may be due.
    fn end_stalled(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let stall = self.stall;
        let left = |sequence: &Sequence<D>| {
            sequence.stalled_since().map(|since| (since + stall).saturating_duration_since(now))
        };
        let overdue = self.remove(|sequence| left(sequence).is_some_and(|left| left.is_zero()));
        if overdue.is_empty() {
            return self.running.iter().chain(&self.parked).filter_map(left).min();
        }
        // Places became free: do not wait at all.
        overdue.into_iter().for_each(Sequence::cancel);
        Some(Duration::ZERO)
    }
}

impl<D: Decoder> Drop for Worker<D> {
    /// Also when the thread panics: nobody waits for an answer that never comes.
    fn drop(&mut self) {
        self.queue.close();
    }
}
