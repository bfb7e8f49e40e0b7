//! A decoder-only transformer of every [`Family`](crate::Family), which differ in options of [`ModelConfig`] only:
//! base weights, and a step of inference over sequences of different versions.

use std::{ops::Range, path::Path};

use autoglm_domain::{Adapter, ContentHash, HyperParameters};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::{
    Decoder, EngineError, ModelConfig, PagedCache, Result, SequenceStep, WeightFormat,
    adapter::{AdapterWeights, LayerChange, Slot},
    gguf,
    kernels::{
        AttentionShape, CachedSequence, Gated, KvPage, Matrix, PAGE_TOKENS, PANEL, RotaryTable, Threads,
        add_assign, attention_over_pages, rms_norm, rotate, share_rows, swiglu,
    },
    resident::{GatedChange, LowRank, ResidentAdapter, ResidentLayer},
    rope::rope_frequencies,
    scratch::{Buffer, Scratch},
    weights::{BaseWeights, LayerWeights, Linear},
};

/// A model's base weights, shared by everything that serves or trains it.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    weights: BaseWeights,
    frequencies: Vec<f32>, // [rotary_dim / 2]
    rotary_scale: f32,
    hash: ContentHash,
    scratch: Scratch,
}

/// Keys and values of one sequence.
pub type KvCache = PagedCache<KvPage>;

/// New tokens of one sequence in a step.
#[derive(Debug)]
pub struct SequenceInput<'a> {
    /// The tokens; they follow those in the cache.
    pub tokens: &'a [u32],
    /// The sequence's cache; the step appends to it.
    pub cache: &'a mut KvCache,
    /// The version's adapter; `None` is the base model.
    pub adapter: Option<&'a ResidentAdapter>,
    /// Which logits to compute.
    pub logits: WantedLogits,
}

/// Which logits a step computes for a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedLogits {
    /// None: more of the prompt follows.
    None,
    /// Those after the last token.
    Last,
    /// Those after every token.
    All,
}

impl WantedLogits {
    /// How many rows of logits that is for a sequence of `new` tokens.
    pub(crate) fn rows(self, new: usize) -> usize {
        match self {
            Self::None => 0,
            Self::Last => 1,
            Self::All => new,
        }
    }
}

/// Checks a sequence's part of a step: `tokens` behind a cache of `before`. `Request` when there are none or one is not
/// in the vocabulary, `PromptTooLong` when the context overflows.
pub(crate) fn check_tokens(config: &ModelConfig, before: usize, tokens: &[u32]) -> Result<()> {
    if tokens.is_empty() {
        return Err(EngineError::Request("a sequence of a step has no tokens".into()));
    }
    let (total, limit) = (before + tokens.len(), config.max_position_embeddings);
    if total > limit {
        return Err(EngineError::PromptTooLong { tokens: total, limit });
    }
    let size = config.vocab_size;
    match tokens.iter().find(|&&token| token as usize >= size) {
        Some(token) => Err(EngineError::Request(format!("token {token} is not in the vocabulary of {size}"))),
        None => Ok(()),
    }
}

/// Rows of a step that belong to one adapter.
struct Group<'a> {
    rows: Range<usize>,
    adapter: Option<&'a ResidentAdapter>,
}

impl Group<'_> {
    fn layer(&self, layer: usize) -> Option<&ResidentLayer> {
        self.adapter.and_then(|adapter| adapter.layers.get(layer))
    }

    /// What its adapter changes in a stacked matrix, if it does.
    fn change(&self, layer: usize, slot: Slot) -> Option<&LowRank> {
        self.layer(layer).map(|change| change.slot(slot)).filter(|change| !change.is_empty())
    }

    fn norms(&self, layer: usize) -> Option<&LayerChange> {
        self.layer(layer).map(|change| &change.norms)
    }
}

impl Model {
    /// Reads a GGUF file, or `config.json` and the weights of a folder, and keeps the matrices as they are stored: blocks
    /// of `q8_0` and `q4_K` as such, other blocks as `q8_0`, floats as `f32`.
    pub fn load(path: &Path) -> Result<Self> {
        Self::load_as(path, None)
    }

    /// As [`Model::load`], with all matrices in `format` where one is given.
    pub fn load_as(path: &Path, format: Option<WeightFormat>) -> Result<Self> {
        let (config, weights) = if path.is_file() {
            gguf::load(path, format)?
        } else {
            let config = ModelConfig::load(path)?;
            let weights = BaseWeights::load(path, &config, format)?;
            (config, weights)
        };
        Self::new(config, weights)
    }

    /// Random weights, as pretraining begins with them: to measure with, or to train from nothing.
    pub fn random(config: ModelConfig, seed: u64) -> Result<Self> {
        Self::random_as(config, seed, WeightFormat::F32)
    }

    /// As [`Model::random`], with all matrices in `format`.
    pub fn random_as(config: ModelConfig, seed: u64, format: WeightFormat) -> Result<Self> {
        let weights = BaseWeights::random(&config, seed, format)?;
        Self::new(config, weights)
    }

    pub(crate) fn new(config: ModelConfig, weights: BaseWeights) -> Result<Self> {
        let (frequencies, rotary_scale) = rope_frequencies(&config);
        let hash = weights.hash();
        Ok(Self { config, weights, frequencies, rotary_scale, hash, scratch: Scratch::default() })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Hash of the base weights as they were read, whatever format they are kept in.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }

    /// Bytes of memory that the base's matrices take.
    pub fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }

    pub(crate) fn weights(&self) -> &BaseWeights {
        &self.weights
    }

    /// An adapter of random weights on every projection, as training would leave one: to measure with.
    pub fn random_adapter(&self, rank: u32, seed: u64) -> Result<Adapter> {
        let hyper =
            HyperParameters { rank, train_embedding: false, train_norms: false, ..Default::default() };
        let mut weights = AdapterWeights::fresh(self, &hyper, seed)?;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for (tensor, _) in weights.tensors_mut() {
            tensor.iter_mut().for_each(|value| *value += random.random_range(-0.01..0.01));
        }
        crate::peft::write(self, &weights)
    }

    pub(crate) fn attention_shape(&self) -> AttentionShape {
        AttentionShape {
            heads: self.config.num_heads,
            kv_heads: self.config.num_kv_heads,
            head_dim: self.config.head_dim,
        }
    }

    pub(crate) fn rotary_table(&self, positions: impl Iterator<Item = usize>) -> RotaryTable {
        let (dim, interleaved) = (self.config.head_dim, self.config.rope.interleaved);
        RotaryTable::new(positions, &self.frequencies, self.rotary_scale, dim, interleaved)
    }

    /// An empty cache for one sequence; a step adds the pages that it needs.
    pub fn new_cache(&self) -> KvCache {
        KvCache::default()
    }

    fn new_page(&self) -> KvPage {
        let format = self
            .weights
            .layers
            .first()
            .map_or_else(WeightFormat::default, |layer| layer.qkv.weight.matrix.format());
        KvPage::new(self.config.num_layers, self.attention_shape(), format)
    }

    /// Runs the new tokens of every sequence through the model, appending to the caches; where a cache has no
    /// page for them, pages are added.
    ///
    /// Returns the wanted logits, `[wanted rows, vocab]`, in the order of `batch`. Sequences of different
    /// adapters share the products with the base weights.
    ///
    /// # Errors
    /// `Request` when a token is not in the vocabulary, a sequence has no tokens, or its context overflows;
    /// `Internal` when a page that is to be written is shared. No cache has changed then.
    pub fn step(&self, batch: &mut [SequenceInput<'_>]) -> Result<Vec<f32>> {
        self.check(batch)?;
        // Once into the pool for the whole step: entering it for each product would wake it a hundred times.
        Ok(rayon::scope(|_| self.run(batch)))
    }

    fn run(&self, batch: &mut [SequenceInput<'_>]) -> Vec<f32> {
        // Sequences of one adapter lie side by side, so that each adapter is one product.
        let mut order: Vec<usize> = (0..batch.len()).collect();
        order.sort_by_key(|&at| batch[at].adapter.map_or(0, |adapter| std::ptr::from_ref(adapter) as usize));
        let (groups, starts) = lay_out(batch, &order);
        let positions = order.iter().flat_map(|&at| {
            let before = batch[at].cache.tokens();
            before..before + batch[at].tokens.len()
        });
        let rotary = self.rotary_table(positions);
        let mut x = self.embed(batch, &order, &groups);
        for layer in 0..self.config.num_layers {
            self.block(layer, &mut x, batch, &order, &starts, &groups, &rotary);
        }
        for sequence in batch.iter_mut() {
            sequence.cache.advance(sequence.tokens.len());
        }
        self.logits(&x, batch, &order, &starts)
    }

    /// Checks a step, and adds the pages that its caches lack.
    fn check(&self, batch: &mut [SequenceInput<'_>]) -> Result<()> {
        for sequence in batch.iter() {
            check_tokens(&self.config, sequence.cache.tokens(), sequence.tokens)?;
        }
        for sequence in batch {
            sequence.cache.grow(sequence.tokens.len(), || self.new_page());
            if !sequence.cache.is_writable(sequence.tokens.len()) {
                return Err(EngineError::Internal("a page of a cache is shared and not full".into()));
            }
        }
        Ok(())
    }

    /// Rows of the embedding table: `[rows, hidden]`.
    fn embed(&self, batch: &[SequenceInput<'_>], order: &[usize], groups: &[Group<'_>]) -> Buffer<'_> {
        let hidden = self.config.hidden_size;
        let rows = groups.last().map_or(0, |group| group.rows.end);
        let mut x = self.scratch.take(rows * hidden);
        let mut into = x.chunks_exact_mut(hidden);
        for &at in order {
            let table =
                batch[at].adapter.and_then(|a| a.embed.as_ref()).unwrap_or(&self.weights.embed.matrix);
            for (&token, row) in batch[at].tokens.iter().zip(into.by_ref()) {
                table.row(token as usize, row);
            }
        }
        x
    }

    /// One transformer block over all rows: `x` `[rows, hidden]` in place.
    #[allow(clippy::too_many_arguments, reason = "the layout of a step, computed once for all blocks")]
    fn block(
        &self,
        layer: usize,
        x: &mut [f32],
        batch: &mut [SequenceInput<'_>],
        order: &[usize],
        starts: &[usize],
        groups: &[Group<'_>],
        rotary: &RotaryTable,
    ) {
        let (weights, shape, eps) =
            (&self.weights.layers[layer], self.attention_shape(), self.config.rms_norm_eps);
        let (hidden, stride) = (self.config.hidden_size, shape.qkv_width());
        let rows = x.len() / hidden;
        let mut normed = self.scratch.take(x.len());
        norm_groups(&mut normed, x, groups, eps, hidden, |group| {
            group.norms(layer).and_then(|change| change.input_norm.as_deref()).unwrap_or(&weights.input_norm)
        });
        let mut qkv = self.linear(&normed, &weights.qkv, groups, layer, Slot::Qkv);
        self.normalise_heads(weights, layer, &mut qkv, groups);
        rotate(&mut qkv, stride, shape.heads + shape.kv_heads, rotary);

        let mut attended = self.scratch.take(rows * shape.query_width());
        let mut work = self.scratch.take(attended.len());
        for (&at, &start) in order.iter().zip(starts) {
            let new = batch[at].tokens.len();
            remember(batch[at].cache, layer, &qkv[start * stride..(start + new) * stride], shape);
        }
        let sequences: Vec<_> = order.iter().map(|&at| cached(&batch[at])).collect();
        attention_over_pages(
            &mut attended,
            &mut work,
            &qkv,
            &sequences,
            layer,
            shape,
            self.config.window(layer),
        );
        let branch = self.linear(&attended, &weights.o, groups, layer, Slot::O);
        self.add_branch(x, branch, weights.attention_out_norm.as_deref(), groups, |group| {
            group.norms(layer).and_then(|change| change.attention_out_norm.as_deref())
        });

        norm_groups(&mut normed, x, groups, eps, hidden, |group| {
            group.norms(layer).and_then(|change| change.post_norm.as_deref()).unwrap_or(&weights.post_norm)
        });
        let activated = self.feed_forward(&normed, &weights.gate_up, groups, layer);
        let branch = self.linear(&activated, &weights.down, groups, layer, Slot::Down);
        self.add_branch(x, branch, weights.mlp_out_norm.as_deref(), groups, |group| {
            group.norms(layer).and_then(|change| change.mlp_out_norm.as_deref())
        });
    }

    /// Adds what attention or feed-forward computed to the residual stream, through its norm where the family has
    /// one: `norm` the base's, `changed` a group's own.
    fn add_branch<'a>(
        &self,
        x: &mut [f32],
        branch: Buffer<'_>,
        norm: Option<&'a [f32]>,
        groups: &'a [Group<'a>],
        changed: impl Fn(&'a Group<'a>) -> Option<&'a [f32]>,
    ) {
        let (eps, hidden) = (self.config.rms_norm_eps, self.config.hidden_size);
        let add = |x: &mut [f32], branch: &[f32]| {
            share_rows(x, hidden, |first, x| add_assign(x, &branch[first * hidden..][..x.len()]));
        };
        let Some(norm) = norm else { return add(x, &branch) };
        let mut normed = self.scratch.take(branch.len());
        norm_groups(&mut normed, &branch, groups, eps, hidden, |group| changed(group).unwrap_or(norm));
        add(x, &normed);
    }

    /// `y = x Wᵀ + b`, with each group's low-rank change.
    fn linear(&self, x: &[f32], base: &Linear, groups: &[Group<'_>], layer: usize, slot: Slot) -> Buffer<'_> {
        /// Multiplications of the low-rank products below which groups are not shared out over threads.
        const WORTH_A_THREAD: usize = 1 << 17;
        let rows = x.len() / base.d_in;
        let mut y = self.scratch.take(rows * base.d_out);
        base.weight.matrix.multiply(&mut y, x, Threads::All);
        let mut changed = Vec::with_capacity(groups.len());
        let mut rest = &mut y[..];
        for group in groups {
            let (y, after) = rest.split_at_mut(group.rows.len() * base.d_out);
            rest = after;
            if let Some(change) = group.change(layer, slot) {
                changed.push((change, y, &x[group.rows.start * base.d_in..group.rows.end * base.d_in]));
            }
        }
        if changed.len() > 1 && rows * (base.d_in + base.d_out) * 16 >= WORTH_A_THREAD {
            changed.into_par_iter().for_each(|(change, y, x)| {
                change.add(y, base.d_out, x, &self.scratch, Threads::One);
            });
        } else {
            for (change, y, x) in changed {
                change.add(y, base.d_out, x, &self.scratch, Threads::All);
            }
        }
        if let Some(bias) = &base.bias {
            share_rows(&mut y, base.d_out, |_, rows| {
                rows.chunks_exact_mut(base.d_out).for_each(|row| add_assign(row, bias));
            });
        }
        y
    }

    /// Gate, up and SwiGLU: `[rows, intermediate_size]`.
    fn feed_forward(&self, x: &[f32], gate_up: &Linear, groups: &[Group<'_>], layer: usize) -> Buffer<'_> {
        let (d_in, width, matrix) = (gate_up.d_in, self.config.intermediate_size, &gate_up.weight.matrix);
        let rows = x.len() / d_in;
        let mut activated = self.scratch.take(rows * width);
        if let Some(changes) = self.gated_changes(x, gate_up, groups, layer) {
            let adjust = |gated: Gated<'_>| adjust(gated, &changes);
            matrix.multiply_gated(&mut activated, x, adjust, Threads::All);
        } else {
            let gate_up = self.linear(x, gate_up, groups, layer, Slot::GateUp);
            swiglu(&mut activated, &gate_up, width);
        }
        activated
    }

    /// What the groups change where gate, up and SwiGLU are best computed as one; `None` where they are not, as with many
    /// groups of few rows.
    fn gated_changes<'a>(
        &'a self,
        x: &[f32],
        gate_up: &Linear,
        groups: &'a [Group<'_>],
        layer: usize,
    ) -> Option<Vec<(Range<usize>, GatedChange<'a>)>> {
        /// Rows a group from which its change is worth the way through one panel after another.
        const MANY_ROWS: usize = 32;
        let rows = x.len() / gate_up.d_in;
        if gate_up.bias.is_some() || !gate_up.weight.matrix.is_gated(rows) || groups.len() * MANY_ROWS > rows
        {
            return None;
        }
        let changed =
            groups.iter().filter_map(|group| Some((&group.rows, group.change(layer, Slot::GateUp)?)));
        let gated = changed.map(|(rows, change)| {
            let x = &x[rows.start * gate_up.d_in..rows.end * gate_up.d_in];
            Some((rows.clone(), change.gated(self.config.intermediate_size, x, &self.scratch)?))
        });
        gated.collect()
    }

    /// RMSNorm of every query and key head, where the family has it.
    fn normalise_heads(&self, weights: &LayerWeights, layer: usize, qkv: &mut [f32], groups: &[Group<'_>]) {
        let (Some(q_norm), Some(k_norm)) = (&weights.q_norm, &weights.k_norm) else { return };
        let shape = self.attention_shape();
        for group in groups {
            let change = group.norms(layer);
            let q_norm = change.and_then(|change| change.q_norm.as_deref()).unwrap_or(q_norm);
            let k_norm = change.and_then(|change| change.k_norm.as_deref()).unwrap_or(k_norm);
            let stride = shape.qkv_width();
            let rows = &mut qkv[group.rows.start * stride..group.rows.end * stride];
            normalise_heads(rows, q_norm, k_norm, shape, self.config.rms_norm_eps);
        }
    }

    /// Final norm and output matrix over the wanted rows.
    fn logits(&self, x: &[f32], batch: &[SequenceInput<'_>], order: &[usize], starts: &[usize]) -> Vec<f32> {
        let (hidden, vocab) = (self.config.hidden_size, self.config.vocab_size);
        let wanted = |sequence: &SequenceInput<'_>| sequence.logits.rows(sequence.tokens.len());
        // Where each sequence's logits go in the caller's order.
        let mut places = Vec::with_capacity(batch.len());
        let mut total = 0;
        for sequence in batch {
            places.push(total);
            total += wanted(sequence);
        }
        let mut logits = vec![0.0; total * vocab];
        let mut at = 0;
        while at < order.len() {
            // Adapters that leave the output matrix alone share its product.
            let output = self.output(batch[order[at]].adapter);
            let mut rows: Vec<f32> = Vec::new();
            let mut targets = Vec::new();
            while at < order.len() && std::ptr::eq(self.output(batch[order[at]].adapter), output) {
                let sequence = &batch[order[at]];
                let count = wanted(sequence);
                let end = starts[at] + sequence.tokens.len();
                let norm = sequence.adapter.and_then(|a| a.norm.as_deref()).unwrap_or(&self.weights.norm);
                let from = rows.len();
                rows.resize(from + count * hidden, 0.0);
                let x = &x[(end - count) * hidden..end * hidden];
                rms_norm(&mut rows[from..], x, norm, self.config.rms_norm_eps);
                targets.extend(places[order[at]]..places[order[at]] + count);
                at += 1;
            }
            if targets.iter().enumerate().all(|(row, target)| row == *target) && targets.len() == total {
                output.multiply(&mut logits, &rows, Threads::All);
                return logits;
            }
            let mut part = self.scratch.take(targets.len() * vocab);
            output.multiply(&mut part, &rows, Threads::All);
            for (row, target) in part.chunks_exact(vocab).zip(targets) {
                logits[target * vocab..][..vocab].copy_from_slice(row);
            }
        }
        logits
    }

    /// The matrix that turns hidden states into logits, with the adapter's embedding where it is tied.
    fn output<'a>(&'a self, adapter: Option<&'a ResidentAdapter>) -> &'a Matrix {
        match (&self.weights.lm_head, adapter.and_then(|adapter| adapter.embed.as_ref())) {
            (None, Some(embed)) => embed,
            _ => self.weights.output(),
        }
    }

    /// Hidden states after the final norm, for every token of `tokens`: `[tokens, hidden]`.
    pub fn hidden_states(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let mut cache = self.new_cache();
        let mut batch =
            [SequenceInput { tokens, cache: &mut cache, adapter: None, logits: WantedLogits::None }];
        self.check(&mut batch)?;
        let rotary = self.rotary_table(0..tokens.len());
        let groups = [Group { rows: 0..tokens.len(), adapter: None }];
        let mut x = self.embed(&batch, &[0], &groups);
        for layer in 0..self.config.num_layers {
            self.block(layer, &mut x, &mut batch, &[0], &[0], &groups, &rotary);
        }
        let mut normed = vec![0.0; x.len()];
        rms_norm(&mut normed, &x, &self.weights.norm, self.config.rms_norm_eps);
        Ok(normed)
    }
}

/// Writes keys and values of rows `[queries | keys | values]` behind the tokens of the cache.
fn remember(cache: &mut KvCache, layer: usize, qkv: &[f32], shape: AttentionShape) {
    let before = cache.tokens();
    for (position, row) in (before..).zip(qkv.chunks_exact(shape.qkv_width())) {
        let (keys, values) = row[shape.query_width()..].split_at(shape.kv_width());
        // `check` found every page of the step writable.
        if let Some(page) = cache.page_mut(position / PAGE_TOKENS) {
            page.write(layer, position % PAGE_TOKENS, keys, values);
        }
    }
}

/// A sequence of a step as attention sees it, its new tokens written.
fn cached<'a>(sequence: &'a SequenceInput<'_>) -> CachedSequence<'a> {
    let new = sequence.tokens.len();
    CachedSequence { pages: sequence.cache.pages(), total: sequence.cache.tokens() + new, new }
}

/// Groups of rows by adapter and the first row of each sequence, both in `order`.
fn lay_out<'a>(batch: &[SequenceInput<'a>], order: &[usize]) -> (Vec<Group<'a>>, Vec<usize>) {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut starts = Vec::with_capacity(order.len());
    let mut row = 0;
    for &at in order {
        let end = row + batch[at].tokens.len();
        starts.push(row);
        match groups.last_mut() {
            Some(group) if same(group.adapter, batch[at].adapter) => group.rows.end = end,
            _ => groups.push(Group { rows: row..end, adapter: batch[at].adapter }),
        }
        row = end;
    }
    (groups, starts)
}

fn same(a: Option<&ResidentAdapter>, b: Option<&ResidentAdapter>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => std::ptr::eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// Adds to sums of gate and up what is changed for their rows.
fn adjust(gated: Gated<'_>, changes: &[(Range<usize>, GatedChange<'_>)]) {
    let Gated { first, panels, sums } = gated;
    let stride = 2 * panels.len() * PANEL;
    let end = first + sums.len() / stride;
    for (rows, change) in changes {
        let (from, to) = (rows.start.max(first), rows.end.min(end));
        if from < to {
            let sums = &mut sums[(from - first) * stride..(to - first) * stride];
            change.add(sums, from - rows.start..to - rows.start, panels.clone());
        }
    }
}

/// RMSNorm of each group's rows with the group's scale.
fn norm_groups<'a>(
    y: &mut [f32],
    x: &[f32],
    groups: &'a [Group<'a>],
    eps: f32,
    width: usize,
    scale: impl Fn(&'a Group<'a>) -> &'a [f32],
) {
    for group in groups {
        let range = group.rows.start * width..group.rows.end * width;
        let (x, scale) = (&x[range.clone()], scale(group));
        share_rows(&mut y[range], width, |first, y| {
            rms_norm(y, &x[first * width..][..y.len()], scale, eps);
        });
    }
}

/// RMSNorm of each query and key head of rows `[queries | keys | values]`.
pub(crate) fn normalise_heads(
    qkv: &mut [f32],
    q_norm: &[f32],
    k_norm: &[f32],
    shape: AttentionShape,
    eps: f32,
) {
    let dim = shape.head_dim;
    let mut normed = vec![0.0; dim];
    for row in qkv.chunks_exact_mut(shape.qkv_width()) {
        for (head, values) in row.chunks_exact_mut(dim).take(shape.heads + shape.kv_heads).enumerate() {
            let scale = if head < shape.heads { q_norm } else { k_norm };
            rms_norm(&mut normed, values, scale, eps);
            values.copy_from_slice(&normed);
        }
    }
}

impl Decoder for Model {
    type Page = KvPage;
    type Adapter = ResidentAdapter;

    fn new_page(&self) -> KvPage {
        Model::new_page(self)
    }

    fn step(&self, batch: &mut [SequenceStep<'_, KvPage, ResidentAdapter>]) -> Result<Vec<f32>> {
        let mut inputs: Vec<SequenceInput<'_>> = batch
            .iter_mut()
            .map(|sequence| SequenceInput {
                tokens: sequence.tokens,
                cache: sequence.cache,
                adapter: sequence.adapter,
                logits: if sequence.wants_logits { WantedLogits::Last } else { WantedLogits::None },
            })
            .collect();
        Model::step(self, &mut inputs)
    }

    fn score(
        &self,
        tokens: &[u32],
        adapter: Option<&ResidentAdapter>,
        each: &mut dyn FnMut(usize, &mut [f32]),
    ) -> Result<()> {
        crate::score::score_each(self, adapter, tokens, each)
    }

    fn load_adapter(&self, adapter: &Adapter) -> Result<ResidentAdapter> {
        ResidentAdapter::read(self, adapter)
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn context_length(&self) -> usize {
        self.config.max_position_embeddings
    }
}
