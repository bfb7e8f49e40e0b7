//! The batching thread: admits, steps, hands out, until it is told to end.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    events::Doorbell,
    queue::{Phase, Queue},
    sequence::{Ending, Sequence, capacity},
};
use crate::{Decoder, EngineError, Result, ServingConfig, TextCodec};

/// The thread's state.
pub(super) struct Worker<D: Decoder> {
    decoder: Arc<D>,
    codec: TextCodec,
    max_batch: usize,
    max_batch_tokens: usize,
    max_cache_tokens: usize,
    stall: Duration,
    queue: Arc<Queue<D>>,
    bell: Arc<Doorbell>,
    running: Vec<Sequence<D>>, // in order of admission
}

impl<D: Decoder> Worker<D> {
    pub(super) fn new(
        decoder: Arc<D>,
        codec: &TextCodec,
        config: &ServingConfig,
        queue: Arc<Queue<D>>,
        bell: Arc<Doorbell>,
    ) -> Self {
        Self {
            decoder,
            codec: codec.clone(),
            max_batch: config.max_batch,
            max_batch_tokens: config.max_batch_tokens,
            max_cache_tokens: config.max_cache_tokens,
            stall: Duration::from_secs(config.stall_s),
            queue,
            bell,
            running: Vec::new(),
        }
    }

    /// Works until the phase says to end.
    pub(super) fn run(&mut self) {
        loop {
            let phase = self.queue.phase();
            if phase == Phase::Cancelling {
                self.running.drain(..).for_each(Sequence::cancel);
                return;
            }
            self.running.retain(|sequence| !sequence.is_abandoned());
            self.admit();
            let stepped = self.step();
            let next_stall = self.end_stalled();
            if phase == Phase::Finishing && self.running.is_empty() && self.queue.len() == 0 {
                return;
            }
            if !stepped {
                self.bell.wait(next_stall);
            }
        }
    }

    /// Lets requests in while there are places and room for their caches.
    fn admit(&mut self) {
        let context = self.decoder.context_length();
        while self.running.len() < self.max_batch {
            let used: usize = self.running.iter().map(Sequence::capacity).sum();
            let alone = self.running.is_empty();
            let fits = |prompt, max_tokens| {
                alone || used + capacity(prompt, max_tokens, context) <= self.max_cache_tokens
            };
            let Some(waiting) = self.queue.pop_if(fits) else { return };
            match Sequence::new(waiting, &*self.decoder, &self.codec) {
                Ok(sequence) => self.running.push(sequence),
                Err((sender, error)) => sender.end(Ending::Failed(error), Default::default()),
            }
        }
    }

    /// How many tokens each running sequence gives to the next step: one where it decodes, and as much of its
    /// prompt as the budget still allows otherwise, first come first served.
    fn plan(&mut self) -> Vec<usize> {
        let now = Instant::now();
        let mut budget = self.max_batch_tokens;
        let mut counts: Vec<Option<usize>> = Vec::with_capacity(self.running.len());
        for sequence in &mut self.running {
            counts.push(sequence.is_ready(now).then_some(usize::from(sequence.unfed() == 0)));
        }
        budget = budget.saturating_sub(counts.iter().flatten().sum());
        for (count, sequence) in counts.iter_mut().zip(&self.running) {
            if *count == Some(0) {
                let chunk = sequence.unfed().min(budget);
                budget -= chunk;
                *count = Some(chunk);
            }
        }
        counts.into_iter().map(Option::unwrap_or_default).collect()
    }

    /// One step; `false` when no sequence could take part.
    fn step(&mut self) -> bool {
        let counts = self.plan();
        if counts.iter().all(|count| *count == 0) {
            return false;
        }
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
        for (mut sequence, count) in running.into_iter().zip(counts) {
            let wanted = count > 0 && sequence.wants_logits(count);
            sequence.fed(count);
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

    /// Cancels sequences whose readers have not kept up for too long; gives the time until the next may be due.
    fn end_stalled(&mut self) -> Option<Duration> {
        if self.running.iter().all(|sequence| sequence.stalled_since().is_none()) {
            return None;
        }
        let now = Instant::now();
        let left = |sequence: &Sequence<D>| {
            sequence.stalled_since().map(|since| (since + self.stall).saturating_duration_since(now))
        };
        let (overdue, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|sequence| left(sequence).is_some_and(|left| left.is_zero()));
        let next = kept.iter().filter_map(left).min();
        self.running = kept;
        if overdue.is_empty() {
            return next;
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
