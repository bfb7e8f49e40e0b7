//! One request that runs: its tokens, its pages, its sampler, its text.

use std::{sync::Arc, time::Instant};

use autoglm_domain::{FinishReason, TokenLogprob, Usage};

use super::{
    Waiting,
    events::EventSender,
    pool::{PageTable, Pool},
    queue::{Flight, Rank},
};
use crate::{Decoder, EngineError, Result, Sampled, Sampler, SequenceStep, TextCodec, TextStream};

/// How a sequence ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// With an answer.
    Finished(FinishReason),
    /// With an error.
    Failed(EngineError),
}

/// A sequence in the batch, or one that was taken out of it and waits to go on. Its pages can be given up at any
/// time: what is in them is computed again from its tokens, and sampler and text stay as they are.
pub(super) struct Sequence<D: Decoder> {
    rank: Rank,
    tokens: Vec<u32>, // prompt and answer so far
    prompt: usize,    // how many of them are the prompt
    table: PageTable<D::Page>,
    adapter: Option<Arc<D::Adapter>>,
    sampler: Sampler,
    text: TextStream,
    generated: u32,
    max_new: u32,
    sender: EventSender,
    stalled_since: Option<Instant>,
    deadline: Option<Instant>,
    timeout_ms: u64,
    _flight: Flight,
}

impl<D: Decoder> Sequence<D> {
    /// Prepares a request to run, in a context of `context` tokens; gives it back with an error when its sampling
    /// is out of range.
    pub(super) fn new(
        rank: Rank,
        waiting: Waiting<D>,
        pool: &Arc<Pool<D::Page>>,
        context: usize,
        codec: &TextCodec,
    ) -> std::result::Result<Self, (EventSender, EngineError)> {
        let Waiting { request, sender, flight, .. } = waiting;
        let mut sampler = match Sampler::new(&request.sampling, request.seed, &request.prompt) {
            Ok(sampler) => sampler,
            Err(error) => return Err((sender, error)),
        };
        sampler.constrain(request.constraint);
        let room = context.saturating_sub(request.prompt.len());
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        Ok(Self {
            rank,
            table: PageTable::new(Arc::clone(pool), request.adapter_id),
            adapter: request.adapter,
            sampler,
            text: TextStream::new(Arc::clone(codec.tokenizer()), request.sampling.stop)
                .reporting_every_token(request.sampling.token_ids)
                .showing(request.markers),
            generated: 0,
            max_new: request.sampling.max_tokens.map_or(room, |most| most.min(room)),
            prompt: request.prompt.len(),
            tokens: request.prompt,
            sender,
            stalled_since: None,
            deadline: request.deadline,
            timeout_ms: request.timeout_ms,
            _flight: flight,
        })
    }

    /// Whose turn it is.
    pub(super) fn rank(&self) -> Rank {
        self.rank
    }

    /// Pages that it would take from those available to go on.
    pub(super) fn need(&self) -> usize {
        self.table.need(&self.tokens)
    }

    /// Takes what is still known of its tokens, to go on from there.
    pub(super) fn open(&mut self) {
        self.table.open(&self.tokens);
    }

    /// Gives up its pages.
    pub(super) fn give_up(&mut self) {
        self.table.release();
    }

    /// Pages that it holds.
    pub(super) fn pages(&self) -> usize {
        self.table.pages()
    }

    /// Takes pages for `count` more tokens; `false` when there are not enough.
    pub(super) fn reserve(&mut self, count: usize) -> bool {
        self.table.reserve(count)
    }

    /// Tokens that it has pages for beyond those that are in the cache.
    pub(super) fn room(&self) -> usize {
        self.table.room()
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

    /// When its time is up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Tokens that are not in the cache yet, at least one; a draw follows the last one.
    pub(super) fn unfed(&self) -> usize {
        self.tokens.len().saturating_sub(self.table.tokens())
    }

    /// Its part of a step with `count` new tokens.
    pub(super) fn part(&mut self, count: usize) -> SequenceStep<'_, D::Page, D::Adapter> {
        let wants_logits = self.wants_logits(count);
        let fed = self.table.tokens();
        SequenceStep {
            tokens: self.tokens.get(fed..fed + count).unwrap_or_default(),
            cache: self.table.cache(),
            adapter: self.adapter.as_deref(),
            wants_logits,
        }
    }

    /// Whether a step with `count` new tokens ends in a draw.
    pub(super) fn wants_logits(&self, count: usize) -> bool {
        count >= self.unfed()
    }

    /// Notes that the step has filled its pages.
    pub(super) fn settle(&mut self) {
        self.table.settle(&self.tokens);
    }

    /// Draws the next token from `logits` and hands out its text; says when the answer has ended.
    pub(super) fn advance(&mut self, logits: &mut [f32], codec: &TextCodec) -> Option<Ending> {
        self.try_advance(logits, codec).unwrap_or_else(|error| Some(Ending::Failed(error)))
    }

    fn try_advance(&mut self, logits: &mut [f32], codec: &TextCodec) -> Result<Option<Ending>> {
        let Sampled { id, report } = self.sampler.sample(logits)?;
        self.generated += 1;
        let name = |id| codec.tokenizer().token_text(id);
        let report = report.map(|(logprob, top)| TokenLogprob {
            token: name(id),
            id,
            logprob,
            top: top.into_iter().map(|(id, logprob)| (name(id), logprob)).collect(),
        });
        if codec.eos_token_ids().contains(&id) {
            self.text.push_end(report);
            return self.finish(FinishReason::Stop).map(Some);
        }
        let mut piece = self.text.push(id, report)?;
        let mut ending = piece.stopped.then_some(FinishReason::Stop);
        if ending.is_none() && self.generated >= self.max_new {
            let rest = self.text.finish()?;
            ending = Some(if rest.stopped { FinishReason::Stop } else { FinishReason::Length });
            piece.text.push_str(&rest.text);
            piece.logprobs.extend(rest.logprobs);
        }
        self.sender.text(piece);
        self.tokens.push(id);
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
            prompt_tokens: u32::try_from(self.prompt).unwrap_or(u32::MAX),
            completion_tokens: self.generated,
        };
        self.sender.end(ending, usage);
    }

    /// Ends it early.
    pub(super) fn cancel(self) {
        self.cut(FinishReason::Cancelled);
    }

    /// Ends it because its time is up: with what there is of the answer, or with an error when there is nothing.
    pub(super) fn expire(self) {
        if self.generated == 0 {
            let error = EngineError::Overdue { timeout_ms: self.timeout_ms };
            return self.end(Ending::Failed(error));
        }
        self.cut(FinishReason::Length);
    }

    /// Ends it for `reason`, with the text that was held back where there is room for it.
    fn cut(mut self, reason: FinishReason) {
        let ending = if self.sender.has_room() {
            self.finish(reason).unwrap_or_else(Ending::Failed)
        } else {
            Ending::Finished(reason)
        };
        self.end(ending);
    }
}
