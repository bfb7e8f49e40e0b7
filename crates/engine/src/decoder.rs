//! What generation needs of a model, and nothing else of it.

use autoglm_domain::Adapter;

use crate::Result;

/// A model that decodes: tokens of many sequences in, logits out. The batcher calls it from one thread.
pub trait Decoder: Send + Sync + 'static {
    /// Keys and values of one sequence.
    type Cache: Send;
    /// A resident adapter.
    type Adapter: Send + Sync;

    /// An empty cache that will hold at most `capacity_tokens`.
    fn new_cache(&self, capacity_tokens: usize) -> Self::Cache;

    /// Runs one ragged step: each sequence's tokens (a chunk of its prompt, or its last token) are appended to
    /// its cache. Returns the logits after the last token of each sequence with `wants_logits`, in order:
    /// `[wanting sequences, vocab]`, row-major.
    ///
    /// An error ends every sequence of the batch; their caches are not used again.
    fn step(&self, batch: &mut [SequenceStep<'_, Self::Cache, Self::Adapter>]) -> Result<Vec<f32>>;

    /// Checks an adapter and makes it ready. `Invalid` when it does not fit the model or is damaged.
    fn load_adapter(&self, adapter: &Adapter) -> Result<Self::Adapter>;

    /// Length of a row of logits.
    fn vocab_size(&self) -> usize;

    /// Most tokens of a sequence.
    fn context_length(&self) -> usize;
}

/// One sequence's part of a step.
#[derive(Debug)]
pub struct SequenceStep<'a, C, A> {
    /// New tokens, at least one.
    pub tokens: &'a [u32],
    /// Cache of the tokens before them.
    pub cache: &'a mut C,
    /// The adapter of the sequence's version; `None` is the base model.
    pub adapter: Option<&'a A>,
    /// Whether logits after the last of the tokens are needed.
    pub wants_logits: bool,
}
