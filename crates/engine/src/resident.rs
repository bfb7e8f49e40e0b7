//! An adapter as a step of inference computes with it: its low-rank matrices in panels, those of one input side by
//! side, so that requests of different versions share a step at the cost of few small products each.

use std::{borrow::Cow, ops::Range};

use autoglm_domain::Adapter;

use crate::{
    Result,
    adapter::{AdapterWeights, LayerChange, Lora, Slot},
    kernels::{Matrix, Threads, WeightFormat},
    model::Model,
    peft,
    scratch::{Buffer, Scratch},
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
    /// Reads `adapter` and lays it out: in 32-bit floats over a base of those, else in bfloat16.
    ///
    /// # Errors
    /// As [`peft::read`].
    pub(crate) fn read(model: &Model, adapter: &Adapter) -> Result<Self> {
        let format = format(model);
        let weights = peft::read_as(model, adapter, |layer, scale| ResidentLayer::new(layer, scale, format))?;
        Ok(Self::assemble(weights, model))
    }

    /// Lays out weights that are here already, as [`ResidentAdapter::read`] does.
    #[cfg(test)]
    pub(crate) fn new(weights: AdapterWeights, model: &Model) -> Self {
        let AdapterWeights { scale, alpha, stabilised, layers, embed, norm } = weights;
        let format = format(model);
        let layers = layers.into_iter().map(|layer| ResidentLayer::new(layer, scale, format)).collect();
        Self::assemble(AdapterWeights { scale, alpha, stabilised, layers, embed, norm }, model)
    }

    fn assemble(weights: AdapterWeights<ResidentLayer>, model: &Model) -> Self {
        let hidden = model.config().hidden_size;
        let matrix = |values: Vec<f32>| Matrix::new(&values, values.len() / hidden, hidden, format(model));
        Self { layers: weights.layers, embed: weights.embed.map(matrix), norm: weights.norm }
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

/// How matrices of an adapter of this model are kept.
fn format(model: &Model) -> WeightFormat {
    match model.weights().embed.matrix.format() {
        WeightFormat::F32 => WeightFormat::F32,
        _ => WeightFormat::Bf16,
    }
}

impl ResidentLayer {
    fn new(mut change: LayerChange, scale: f32, format: WeightFormat) -> Self {
        let slots =
            SLOTS.map(|slot| LowRank::new(&std::mem::take(change.slot_mut(slot)).loras, scale, format));
        Self { slots, norms: change }
    }

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
            _ => Cow::Owned(loras.iter().map(|lora| lora.a.as_slice()).collect::<Vec<_>>().concat()),
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
        for (part, low) in self.parts.iter().zip(self.low(x, scratch, threads)) {
            part.b.add_product(&mut y[part.rows.start..], d_out, self.scale, &low, threads);
        }
    }

    /// `x Aᵀ` of each part: `[rows, rank]`.
    fn low<'a>(&self, x: &[f32], scratch: &'a Scratch, threads: Threads) -> Vec<Buffer<'a>> {
        let Some(a) = &self.a else { return Vec::new() };
        let (ranks, d_in) = a.shape();
        let mut low = scratch.take(x.len() / d_in * ranks);
        a.multiply(&mut low, x, threads);
        if self.parts.len() == 1 {
            return vec![low];
        }
        let mut first = 0;
        let own = |part: &Part| {
            let mut own = scratch.take(low.len() / ranks * part.rank);
            for (own, low) in own.chunks_exact_mut(part.rank).zip(low.chunks_exact(ranks)) {
                own.copy_from_slice(&low[first..first + part.rank]);
            }
            first += part.rank;
            own
        };
        self.parts.iter().map(own).collect()
    }

    /// What changes stacked gate and up projections of `width` for `x`, a few panels at a time; `None` where a part is not the
    /// whole of one of them.
    pub(crate) fn gated<'a>(
        &'a self,
        width: usize,
        x: &[f32],
        scratch: &'a Scratch,
    ) -> Option<GatedChange<'a>> {
        let is_half = |part: &Part| part.rows.len() == width && part.rows.start.is_multiple_of(width);
        let low = self.parts.iter().all(is_half).then(|| self.low(x, scratch, Threads::All))?;
        Some(GatedChange { change: self, low })
    }
}

/// The change of gate and up for some rows.
#[derive(Debug)]
pub(crate) struct GatedChange<'a> {
    change: &'a LowRank,
    low: Vec<Buffer<'a>>, // of each part
}

impl GatedChange<'_> {
    /// Adds it for `rows` of its own to `sums`, which has those rows and, of gate and of up, the columns of `panels`.
    pub(crate) fn add(&self, sums: &mut [f32], rows: Range<usize>, panels: Range<usize>) {
        let stride = sums.len() / rows.len();
        for (part, low) in self.change.parts.iter().zip(&self.low) {
            let low = &low[rows.start * part.rank..rows.end * part.rank];
            let half = if part.rows.start == 0 { 0 } else { stride / 2 };
            part.b.add_panels(&mut sums[half..], stride, self.change.scale, low, panels.clone());
        }
    }
}
