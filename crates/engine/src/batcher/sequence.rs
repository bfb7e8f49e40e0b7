//! One request that runs: its tokens, its cache, its sampler, its text.

use std::{sync::Arc, time::Instant};

use autoglm_domain::{FinishReason, TokenLogprob, Usage};

use super::{Waiting, events::EventSender, queue::Flight};
use crate::{Decoder, EngineError, Result, Sampled, Sampler, SequenceStep, TextCodec, TextStream};

/// How a sequence ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// With an answer.
    Finished(FinishReason),
    /// With an error.
    Failed(EngineError),
}

/// A sequence in the batch.
pub(super) struct Sequence<D: Decoder> {
    prompt: Vec<u32>,
    fed: usize,      // tokens of the prompt that are in the cache
    next: [u32; 1],  // the token to feed once the prompt is in
    capacity: usize, // tokens that the cache may come to hold
    cache: D::Cache,
    adapter: Option<Arc<D::Adapter>>,
    sampler: Sampler,
    text: TextStream,
    generated: u32,
    max_new: u32,
    sender: EventSender,
    stalled_since: Option<Instant>,
    _flight: Flight,
}

/// Tokens that a sequence's cache may come to hold: prompt and longest answer, within the context.
pub(super) fn capacity(prompt: usize, max_tokens: Option<u32>, context: usize) -> usize {
    let longest = max_tokens.map_or(usize::MAX, |max| max as usize);
    prompt.saturating_add(longest).min(context)
}

impl<D: Decoder> Sequence<D> {
    /// Prepares a request to run; gives it back with an error when its sampling is out of range.
    pub(super) fn new(
        waiting: Waiting<D>,
        decoder: &D,
        codec: &TextCodec,
    ) -> std::result::Result<Self, (EventSender, EngineError)> {
        let Waiting { request, sender, flight } = waiting;
        let sampler = match Sampler::new(&request.sampling, request.seed, &request.prompt) {
            Ok(sampler) => sampler,
            Err(error) => return Err((sender, error)),
        };
        let capacity = capacity(request.prompt.len(), request.sampling.max_tokens, decoder.context_length());
        let max_new = capacity.saturating_sub(request.prompt.len());
        Ok(Self {
            fed: 0,
            next: [0],
            capacity,
            cache: decoder.new_cache(capacity),
            adapter: request.adapter,
            sampler,
            text: TextStream::new(Arc::clone(codec.tokenizer()), request.sampling.stop),
            generated: 0,
            max_new: u32::try_from(max_new).unwrap_or(u32::MAX),
            prompt: request.prompt,
            sender,
            stalled_since: None,
            _flight: flight,
        })
    }

    /// Tokens that its cache may come to hold.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether the reader is gone.
    pub(super) fn is_abandoned(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether it may take part in the next step: the reader keeps up.
    pub(super) fn is_ready(&mut self, now: Instant) -> bool {
        if self.sender.has_room() {
            self.stalled_since = None;
            return true;
        }
        self.stalled_since.get_or_insert(now);
        false
    }

    /// Since when its reader has not kept up.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        self.stalled_since
    }

    /// Tokens of the prompt that are not in the cache yet; 0 when it decodes.
    pub(super) fn unfed(&self) -> usize {
        self.prompt.len() - self.fed
    }

    /// Its part of a step with `count` new tokens.
    pub(super) fn part(&mut self, count: usize) -> SequenceStep<'_, D::Cache, D::Adapter> {
        let wants_logits = self.wants_logits(count);
        let chunk = self.prompt.get(self.fed..).map(|rest| rest.get(..count).unwrap_or(rest));
        SequenceStep {
            tokens: chunk.filter(|chunk| !chunk.is_empty()).unwrap_or(&self.next),
            cache: &mut self.cache,
            adapter: self.adapter.as_deref(),
            wants_logits,
        }
    }

    /// Whether a step with `count` new tokens ends in a draw.
    pub(super) fn wants_logits(&self, count: usize) -> bool {
        count >= self.unfed()
    }

    /// Notes that `count` tokens went through.
    pub(super) fn fed(&mut self, count: usize) {
        self.fed = (self.fed + count).min(self.prompt.len());
    }

    /// Draws the next token from `logits` and hands out its text; says when the answer has ended.
    pub(super) fn advance(&mut self, logits: &mut [f32], codec: &TextCodec) -> Option<Ending> {
        self.try_advance(logits, codec).unwrap_or_else(|error| Some(Ending::Failed(error)))
    }

    fn try_advance(&mut self, logits: &mut [f32], codec: &TextCodec) -> Result<Option<Ending>> {
        let Sampled { id, report } = self.sampler.sample(logits)?;
        self.generated += 1;
        if codec.eos_token_ids().contains(&id) {
            return self.finish(FinishReason::Stop).map(Some);
        }
        let name = |id| codec.tokenizer().token_text(id);
        let report = report.map(|(logprob, top)| TokenLogprob {
            token: name(id),
            id,
            logprob,
            top: top.into_iter().map(|(id, logprob)| (name(id), logprob)).collect(),
        });
        let mut piece = self.text.push(id, report)?;
        let mut ending = piece.stopped.then_some(FinishReason::Stop);
        if ending.is_none() && self.generated >= self.max_new {
            let rest = self.text.finish()?;
            ending = Some(if rest.stopped { FinishReason::Stop } else { FinishReason::Length });
            piece.text.push_str(&rest.text);
            piece.logprobs.extend(rest.logprobs);
        }
        self.sender.text(piece);
        self.next = [id];
        Ok(ending.map(Ending::Finished))
    }

    /// Hands out what was held back.
    fn finish(&mut self, reason: FinishReason) -> Result<Ending> {
        let rest = self.text.finish()?;
        self.sender.text(rest);
        Ok(Ending::Finished(reason))
    }

    /// Tells the reader how it ended.
    pub(super) fn end(self, ending: Ending) {
        let usage = Usage {
            prompt_tokens: u32::try_from(self.prompt.len()).unwrap_or(u32::MAX),
            completion_tokens: self.generated,
        };
        self.sender.end(ending, usage);
    }

    /// Ends it early, with the text that was held back where there is room for it.
    pub(super) fn cancel(mut self) {
        let ending = if self.sender.has_room() {
            self.finish(FinishReason::Cancelled).unwrap_or_else(Ending::Failed)
        } else {
            Ending::Finished(FinishReason::Cancelled)
        };
        self.end(ending);
    }
}
