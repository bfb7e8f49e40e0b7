//! How the rows of a step lie, worked out once for all blocks.

use candle_core::{DType, Device, Tensor};

use super::{DeviceAdapter, DevicePage, adapter::DeviceChange, arena::Arena, attention::Plan};
use crate::{PagedCache, Result, WantedLogits};

/// New tokens of one sequence.
pub(super) struct Sequence<'a> {
    /// They follow those in the cache.
    pub(super) tokens: &'a [u32],
    /// The step appends to it.
    pub(super) cache: &'a mut PagedCache<DevicePage>,
    /// `None` is the base model.
    pub(super) adapter: Option<&'a DeviceAdapter>,
    /// Which logits to compute.
    pub(super) logits: WantedLogits,
}

/// A sequence's rows in a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// Its index in the batch.
    pub(super) sequence: usize,
    /// First row of the step.
    pub(super) start: usize,
    /// Rows.
    pub(super) new: usize,
    /// Tokens before them.
    pub(super) before: usize,
}

/// Rows of a step that belong to one adapter.
pub(super) struct Group<'a> {
    pub(super) start: usize,
    pub(super) rows: usize,
    pub(super) adapter: Option<&'a DeviceAdapter>,
    pub(super) spans: Vec<Span>,
}

impl<'a> Group<'a> {
    /// What its adapter changes in a block.
    pub(super) fn change(&self, layer: usize) -> Option<&'a DeviceChange> {
        self.adapter?.layers.get(layer)
    }

    /// The embedding of its adapter.
    pub(super) fn embed(&self) -> Option<&'a Tensor> {
        self.adapter?.embed.as_ref()
    }
}

/// The layout of a step.
pub(super) struct Layout<'a> {
    pub(super) groups: Vec<Group<'a>>,
    pub(super) rows: usize,
    pub(super) tokens: Tensor, // [rows]
    pub(super) cos: Tensor,    // [rows, 1, rotary_dim / 2]
    pub(super) sin: Tensor,    // [rows, 1, rotary_dim / 2]
    pub(super) into: Tensor,   // [rows, keys and values], rows of the arena
    full: Option<Plan>,
    windowed: Option<Plan>,
}

/// What a layout needs to know of its model.
pub(super) struct Shape<'a> {
    pub(super) frequencies: &'a [f32], // [rotary_dim / 2]
    pub(super) rotary_scale: f32,
    pub(super) kv_width: usize,
    /// The windows of the blocks; `None` is a block that sees everything.
    pub(super) windows: Vec<Option<usize>>,
    pub(super) dtype: DType,
    pub(super) device: &'a Device,
}

impl<'a> Layout<'a> {
    /// Lays out a step whose caches have pages for its tokens.
    pub(super) fn new(batch: &[Sequence<'a>], arena: &Arena, shape: &Shape<'_>) -> Result<Self> {
        let groups = group(batch);
        let spans: Vec<Span> = groups.iter().flat_map(|group| group.spans.iter().copied()).collect();
        let rows = spans.iter().map(|span| span.new).sum();
        let device = shape.device;
        let tokens = spans.iter().flat_map(|span| batch[span.sequence].tokens).copied().collect::<Vec<_>>();
        let (cos, sin) = rotations(&spans, shape)?;
        let mut into = Vec::with_capacity(rows);
        for span in &spans {
            let pages = batch[span.sequence].cache.pages();
            into.extend(arena.rows(pages, span.before..span.before + span.new)?);
        }
        let into = Tensor::from_vec(into, (rows, 1), device)?;
        let plan = |window: Option<usize>| {
            let pages = |sequence: usize| batch[sequence].cache.pages();
            Plan::new(&spans, &pages, window, arena, device)
        };
        let window = shape.windows.iter().flatten().next();
        Ok(Self {
            groups,
            rows,
            tokens: Tensor::from_vec(tokens, rows, device)?,
            cos,
            sin,
            into: into.broadcast_as((rows, 2 * shape.kv_width))?.contiguous()?,
            full: shape.windows.contains(&None).then(|| plan(None)).transpose()?,
            windowed: window.map(|window| plan(Some(*window))).transpose()?,
        })
    }

    /// How blocks with or without a window attend.
    pub(super) fn plan(&self, windowed: bool) -> Option<&Plan> {
        if windowed { self.windowed.as_ref() } else { self.full.as_ref() }
    }
}

/// The sequences of each adapter side by side.
fn group<'a>(batch: &[Sequence<'a>]) -> Vec<Group<'a>> {
    let address = |at: &usize| batch[*at].adapter.map_or(0, |adapter| std::ptr::from_ref(adapter) as usize);
    let mut order: Vec<usize> = (0..batch.len()).collect();
    order.sort_by_key(address);
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut start = 0;
    for part in order.chunk_by(|a, b| address(a) == address(b)) {
        let first = start;
        let spans = part.iter().map(|&sequence| {
            let (new, before) = (batch[sequence].tokens.len(), batch[sequence].cache.tokens());
            start += new;
            Span { sequence, start: start - new, new, before }
        });
        let spans = spans.collect();
        groups.push(Group { start: first, rows: start - first, adapter: batch[part[0]].adapter, spans });
    }
    groups
}

/// Cosines and sines of every row's position, computed as the CPU's kernels compute them.
fn rotations(spans: &[Span], shape: &Shape<'_>) -> Result<(Tensor, Tensor)> {
    let rows = spans.iter().map(|span| span.new).sum::<usize>();
    let (mut cos, mut sin) = (Vec::new(), Vec::new());
    for position in spans.iter().flat_map(|span| span.before..span.before + span.new) {
        for frequency in shape.frequencies {
            let (s, c) = (position as f32 * frequency).sin_cos();
            cos.push(c * shape.rotary_scale);
            sin.push(s * shape.rotary_scale);
        }
    }
    let upload = |values: Vec<f32>| -> Result<Tensor> {
        let half = shape.frequencies.len();
        let table = Tensor::from_vec(values, (rows, 1, half), shape.device)?;
        Ok(table.to_dtype(shape.dtype)?)
    };
    Ok((upload(cos)?, upload(sin)?))
}
