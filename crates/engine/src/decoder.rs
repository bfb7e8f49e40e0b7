//! What generation needs of a model, and nothing else of it.

use autoglm_domain::Adapter;

use crate::{PagedCache, Result};

/// A model that decodes: tokens of many sequences in, logits out. The batcher calls it from one thread.
pub trait Decoder: Send + Sync + 'static {
    /// Keys and values of [`PAGE_TOKENS`](crate::PAGE_TOKENS) tokens.
    type Page: Send + Sync;
    /// A resident adapter.
    type Adapter: Send + Sync;

    /// An empty page. One that another sequence has left is taken again as it is: what it holds beyond a cache's
    /// tokens means nothing.
    fn new_page(&self) -> Self::Page;

    /// Runs one ragged step: each sequence's tokens (a chunk of its prompt, or its last token) are appended to
    /// its cache, which has pages for them. Returns the logits after the last token of each sequence with
    /// `wants_logits`, in order: `[wanting sequences, vocab]`, row-major.
    ///
    /// An error ends every sequence of the batch; their caches are not used again.
    fn step(&self, batch: &mut [SequenceStep<'_, Self::Page, Self::Adapter>]) -> Result<Vec<f32>>;

    /// Runs `tokens` on their own and calls `each` with the index of every token but the first and the logits
    /// `[vocab]` before it, in order. Not part of the batch: any thread may call it.
    fn score(
        &self,
        tokens: &[u32],
        adapter: Option<&Self::Adapter>,
        each: &mut dyn FnMut(usize, &mut [f32]),
    ) -> Result<()>;

    /// Checks an adapter and makes it ready. `Invalid` when it does not fit the model or is damaged.
    fn load_adapter(&self, adapter: &Adapter) -> Result<Self::Adapter>;

    /// Length of a row of logits.
    fn vocab_size(&self) -> usize;

    /// Most tokens of a sequence.
    fn context_length(&self) -> usize;
}

/// One sequence's part of a step.
#[derive(Debug)]
pub struct SequenceStep<'a, P, A> {
    /// New tokens, at least one.
    pub tokens: &'a [u32],
    /// Cache of the tokens before them.
    pub cache: &'a mut PagedCache<P>,
    /// The adapter of the sequence's version; `None` is the base model.
    pub adapter: Option<&'a A>,
    /// Whether logits after the last of the tokens are needed.
    pub wants_logits: bool,
}
