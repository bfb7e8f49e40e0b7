//! Causal attention of a ragged step over the pages of an arena.

use std::{collections::BTreeMap, sync::Arc};

use candle_core::{DType, Device, Tensor};
use candle_nn::ops::softmax_last_dim;

use super::{DevicePage, arena::Arena, layout::Span};
use crate::{PAGE_TOKENS, Result, kernels::AttentionShape};

/// How the rows of a step attend, the same in every block with the same window.
///
/// Sequences with one new token whose keys fill about as many pages (up to the next power of two) are padded to one
/// rectangle, so that none is computed more than twice over; a part of a prompt is a rectangle of its own.
pub(super) struct Plan {
    rectangles: Vec<Rectangle>,
    /// For each row of the step, where the rectangles together have it; `None` where that is its own place.
    back: Option<Tensor>, // [rows]
}

/// Sequences that attend together, padded to as many keys as the longest has.
struct Rectangle {
    rows: Option<Tensor>, // [sequences queries], of the step; `None` where it is all of them in order
    sequences: usize,
    queries: usize, // of each
    keys: usize,    // of each
    from: Tensor,   // [sequences keys], rows of the arena
    /// What is added to the scores: 0 where a query sees a key, else -∞. `None` where all is seen.
    mask: Option<Tensor>, // [sequences, 1, queries, keys]
}

impl Plan {
    /// The plan for `spans`, the pages of whose sequences `pages` gives.
    pub(super) fn new<'p>(
        spans: &[Span],
        pages: &impl Fn(usize) -> &'p [Arc<DevicePage>],
        window: Option<usize>,
        arena: &Arena,
        device: &Device,
    ) -> Result<Self> {
        let mut alike: BTreeMap<usize, Vec<Span>> = BTreeMap::new();
        let mut parts: Vec<Vec<Span>> = Vec::new();
        for span in spans {
            if span.new == 1 {
                let seen = (span.before + 1).min(window.unwrap_or(usize::MAX));
                let size = seen.div_ceil(PAGE_TOKENS).next_power_of_two();
                alike.entry(size).or_default().push(*span);
            } else {
                parts.push(vec![*span]);
            }
        }
        parts.extend(alike.into_values());
        let rows = |spans: &[Span]| -> Vec<u32> {
            spans.iter().flat_map(|span| span.start as u32..(span.start + span.new) as u32).collect()
        };
        let all: Vec<u32> = parts.iter().flat_map(|spans| rows(spans)).collect();
        let in_order = all.iter().enumerate().all(|(at, row)| at == *row as usize);
        let mut back = vec![0; all.len()];
        for (at, row) in all.iter().enumerate() {
            back[*row as usize] = at as u32;
        }
        let index = |rows: Vec<u32>| Tensor::new(rows, device);
        let single = parts.len() == 1 && in_order;
        let mut rectangles = Vec::with_capacity(parts.len());
        for spans in &parts {
            let picked = if single { None } else { Some(index(rows(spans))?) };
            rectangles.push(Rectangle::new(spans, picked, pages, window, arena, device)?);
        }
        Ok(Self { rectangles, back: if in_order { None } else { Some(index(back)?) } })
    }

    /// Attention of `queries` `[rows, query_width]` over what the arena holds: `[rows, query_width]`.
    pub(super) fn attend(
        &self,
        queries: &Tensor,
        layer: usize,
        arena: &Arena,
        shape: AttentionShape,
    ) -> Result<Tensor> {
        let mut attended = Vec::with_capacity(self.rectangles.len());
        for rectangle in &self.rectangles {
            attended.push(rectangle.attend(queries, layer, arena, shape)?);
        }
        let together = Tensor::cat(&attended, 0)?;
        Ok(match &self.back {
            Some(back) => together.index_select(back, 0)?,
            None => together,
        })
    }
}

impl Rectangle {
    fn new<'p>(
        spans: &[Span],
        rows: Option<Tensor>,
        pages: &impl Fn(usize) -> &'p [Arc<DevicePage>],
        window: Option<usize>,
        arena: &Arena,
        device: &Device,
    ) -> Result<Self> {
        let window = window.unwrap_or(usize::MAX);
        let seen = |span: &Span| (span.before + 1).saturating_sub(window)..span.before + span.new;
        let keys = spans.iter().map(|span| seen(span).len()).max().unwrap_or(0);
        let queries = spans.first().map_or(0, |span| span.new);
        let mut from = Vec::with_capacity(spans.len() * keys);
        let mut mask = Vec::with_capacity(spans.len() * queries * keys);
        for span in spans {
            let seen = seen(span);
            // The padding is the sequence's own: what another's keys hold must not reach it, not even times zero.
            let padding = std::iter::repeat_n(seen.start, keys - seen.len());
            from.extend(arena.rows(pages(span.sequence), seen.clone().chain(padding))?);
            for position in span.before..span.before + queries {
                let visible = |key: usize| key < seen.end && key <= position && position - key < window;
                let score = |key| if visible(key) { 0.0f32 } else { f32::NEG_INFINITY };
                mask.extend((seen.start..seen.start + keys).map(score));
            }
        }
        let mask = if mask.iter().all(|score| *score == 0.0) {
            None
        } else {
            Some(Tensor::from_vec(mask, (spans.len(), 1, queries, keys), device)?)
        };
        Ok(Self { rows, sequences: spans.len(), queries, keys, from: Tensor::new(from, device)?, mask })
    }

    /// `[rows of the step, query_width] -> [sequences queries, query_width]`
    fn attend(&self, queries: &Tensor, layer: usize, arena: &Arena, shape: AttentionShape) -> Result<Tensor> {
        let AttentionShape { heads, kv_heads, head_dim: dim } = shape;
        let (count, new, keys, group) = (self.sequences, self.queries, self.keys, heads / kv_heads);
        let queries = match &self.rows {
            Some(rows) => queries.index_select(rows, 0)?,
            None => queries.clone(),
        };
        // The queries of a key head lie below each other.
        let queries = queries.reshape((count, new, kv_heads, group, dim))?.permute((0, 2, 3, 1, 4))?;
        let queries = queries.contiguous()?.reshape((count, kv_heads, group * new, dim))?;
        let cached = arena.read(layer, &self.from)?.reshape((count, keys, 2, kv_heads, dim))?;
        let cached = cached.permute((2, 0, 3, 1, 4))?.contiguous()?; // [2, count, kv_heads, keys, dim]
        let (cached_keys, cached_values) = (cached.get(0)?, cached.get(1)?);

        let scores = queries.matmul(&cached_keys.t()?)?.to_dtype(DType::F32)?;
        let scores = (scores * f64::from(shape.scale()))?.reshape((count, heads, new, keys))?;
        let scores = match &self.mask {
            Some(mask) => scores.broadcast_add(mask)?,
            None => scores,
        };
        let weights = softmax_last_dim(&scores)?.to_dtype(queries.dtype())?;
        let attended = weights.reshape((count, kv_heads, group * new, keys))?.matmul(&cached_values)?;
        let attended = attended.reshape((count, heads, new, dim))?.transpose(1, 2)?;
        Ok(attended.contiguous()?.reshape((count * new, heads * dim))?)
    }
}
