//! An adapter as a step of inference computes with it: its low-rank matrices in panels, those of one input side by
//! side, so that requests of different versions share a step at the cost of few small products each.

use std::{borrow::Cow, ops::Range};

use crate::{
    adapter::{AdapterWeights, LayerChange, Lora, Slot},
    kernels::{Matrix, Threads, WeightFormat},
    scratch::Scratch,
};

/// What a version changes in the base model, ready to serve.
#[derive(Debug)]
pub struct ResidentAdapter {
    pub(crate) layers: Vec<ResidentLayer>,
    pub(crate) embed: Option<Matrix>,  // [vocab, hidden]
    pub(crate) norm: Option<Vec<f32>>, // [hidden]
}

/// What it changes in one block.
#[derive(Debug)]
pub(crate) struct ResidentLayer {
    slots: [LowRank; 4],
    /// The norms; its slots are empty.
    pub(crate) norms: LayerChange,
}

/// The low-rank changes of one stacked matrix: `y += scale · (x Aᵀ) Bᵀ` for each of its parts.
#[derive(Debug, Default)]
pub(crate) struct LowRank {
    a: Option<Matrix>, // [ranks of all parts, d_in]
    parts: Vec<Part>,
    scale: f32,
}

#[derive(Debug)]
struct Part {
    rank: usize,
    rows: Range<usize>, // of the stacked matrix
    b: Matrix,          // [rows, rank]
}

const SLOTS: [Slot; 4] = [Slot::Qkv, Slot::O, Slot::GateUp, Slot::Down];

impl ResidentAdapter {
    /// Lays out `weights`: in 32-bit floats over a base of those, else in bfloat16. An embedding is `hidden` wide.
    pub(crate) fn new(weights: AdapterWeights, format: WeightFormat, hidden: usize) -> Self {
        let format = if format == WeightFormat::F32 { format } else { WeightFormat::Bf16 };
        let scale = weights.scale;
        let layer = |mut norms: LayerChange| ResidentLayer {
            slots: SLOTS.map(|slot| LowRank::new(&std::mem::take(norms.slot_mut(slot)).loras, scale, format)),
            norms,
        };
        let matrix = |values: Vec<f32>| Matrix::new(&values, values.len() / hidden, hidden, format);
        Self {
            layers: weights.layers.into_iter().map(layer).collect(),
            embed: weights.embed.map(matrix),
            norm: weights.norm,
        }
    }

    /// Bytes of memory that its matrices take.
    pub fn bytes(&self) -> usize {
        let slot = |slot: &LowRank| {
            slot.a.as_ref().map_or(0, Matrix::bytes)
                + slot.parts.iter().map(|part| part.b.bytes()).sum::<usize>()
        };
        let layers = self.layers.iter().flat_map(|layer| &layer.slots).map(slot).sum::<usize>();
        layers + self.embed.as_ref().map_or(0, Matrix::bytes)
    }
}

impl ResidentLayer {
    pub(crate) fn slot(&self, slot: Slot) -> &LowRank {
        match slot {
            Slot::Qkv => &self.slots[0],
            Slot::O => &self.slots[1],
            Slot::GateUp => &self.slots[2],
            Slot::Down => &self.slots[3],
        }
    }
}

impl LowRank {
    fn new(loras: &[Lora], scale: f32, format: WeightFormat) -> Self {
        let ranks = loras.iter().map(|lora| lora.rank).sum::<usize>();
        // Of several parts the rows lie one below the other.
        let a: Cow<'_, [f32]> = match loras {
            [only] => Cow::Borrowed(&only.a),
            _ => Cow::Owned(loras.iter().flat_map(|lora| &lora.a).copied().collect()),
        };
        let part = |lora: &Lora| Part {
            rank: lora.rank,
            rows: lora.rows.clone(),
            b: Matrix::new(&lora.b, lora.rows.len(), lora.rank, format),
        };
        Self {
            a: (ranks > 0).then(|| Matrix::new(&a, ranks, a.len() / ranks, format)),
            parts: loras.iter().map(part).collect(),
            scale,
        }
    }

    /// Whether it changes anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Adds the change for `x` `[rows, d_in]` to `y` `[rows, d_out]`.
    pub(crate) fn add(&self, y: &mut [f32], d_out: usize, x: &[f32], scratch: &Scratch, threads: Threads) {
        let Some(a) = &self.a else { return };
        let (ranks, d_in) = a.shape();
        let rows = x.len() / d_in;
        let mut low = scratch.take(rows * ranks);
        a.multiply(&mut low, x, threads);
        let mut first = 0;
        for part in &self.parts {
            let y = &mut y[part.rows.start..];
            if self.parts.len() == 1 {
                part.b.add_product(y, d_out, self.scale, &low, threads);
            } else {
                let mut own = scratch.take(rows * part.rank);
                for (own, low) in own.chunks_exact_mut(part.rank).zip(low.chunks_exact(ranks)) {
                    own.copy_from_slice(&low[first..first + part.rank]);
                }
                part.b.add_product(y, d_out, self.scale, &own, threads);
            }
            first += part.rank;
        }
    }
}
