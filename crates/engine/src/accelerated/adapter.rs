//! Adapters on a device.

use candle_core::{DType, Device, Tensor};

use super::weights::Upload;
use crate::{
    ModelConfig, Result,
    adapter::{AdapterWeights, LayerChange, Lora, Projection, Slot},
};

/// What a version changes in the base model, on the device.
#[derive(Debug)]
pub struct DeviceAdapter {
    pub(super) layers: Vec<DeviceChange>,
    pub(super) embed: Option<Tensor>, // [vocab, hidden]
    pub(super) norm: Option<Tensor>,  // [hidden]
}

/// What it changes in one block.
#[derive(Debug)]
pub(super) struct DeviceChange {
    qkv: Option<LowRank>,
    o: Option<LowRank>,
    gate_up: Option<LowRank>,
    down: Option<LowRank>,
    pub(super) input_norm: Option<Tensor>,
    pub(super) post_norm: Option<Tensor>,
    pub(super) q_norm: Option<Tensor>,
    pub(super) k_norm: Option<Tensor>,
    pub(super) attention_out_norm: Option<Tensor>,
    pub(super) mlp_out_norm: Option<Tensor>,
}

/// The low-rank changes of one stacked matrix as one: `y += (x Aᵀ) Bᵀ`.
///
/// The `A`s of its projections lie below each other; each `B` fills its projection's rows and its own ranks' columns of
/// the common one, which is zero elsewhere and holds the scale. That is two products where apart they would be two a
/// projection, and on a device the count is what costs.
#[derive(Debug)]
pub(super) struct LowRank {
    a: Tensor, // [ranks, d_in]
    b: Tensor, // [d_out, ranks]
}

impl LowRank {
    fn new(loras: &[Lora], scale: f32, d_out: usize, upload: Upload<'_>) -> Result<Option<Self>> {
        let ranks = loras.iter().map(|lora| lora.rank).sum::<usize>();
        if ranks == 0 {
            return Ok(None);
        }
        let a: Vec<f32> = loras.iter().flat_map(|lora| &lora.a).copied().collect();
        let mut b = vec![0.0; d_out * ranks];
        let mut first = 0;
        for lora in loras {
            for (row, values) in lora.rows.clone().zip(lora.b.chunks_exact(lora.rank)) {
                for (into, value) in b[row * ranks + first..].iter_mut().zip(values) {
                    *into = value * scale;
                }
            }
            first += lora.rank;
        }
        Ok(Some(Self { a: upload.matrix(&a, ranks)?, b: upload.matrix(&b, d_out)? }))
    }

    /// The change for `x`: `[rows, d_in] -> [rows, d_out]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.matmul(&self.a.t()?)?.matmul(&self.b.t()?)?)
    }
}

impl DeviceAdapter {
    /// Copies an adapter of a model of this `config` to the device.
    pub(super) fn new(
        weights: &AdapterWeights,
        config: &ModelConfig,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let upload = Upload { dtype, device };
        let layer = |change: &LayerChange| DeviceChange::new(change, weights.scale, config, upload);
        let embed = weights.embed.as_deref().map(|values| upload.matrix(values, config.vocab_size));
        Ok(Self {
            layers: weights.layers.iter().map(layer).collect::<Result<_>>()?,
            embed: embed.transpose()?,
            norm: upload.some(weights.norm.as_deref())?,
        })
    }
}

impl DeviceChange {
    fn new(change: &LayerChange, scale: f32, config: &ModelConfig, upload: Upload<'_>) -> Result<Self> {
        let slot = |slot: Slot| {
            let rows = Projection::all(config).iter().filter(|projection| projection.slot() == slot);
            let d_out = rows.map(|projection| projection.rows(config).end).max().unwrap_or(0);
            LowRank::new(&change.slot(slot).loras, scale, d_out, upload)
        };
        Ok(Self {
            qkv: slot(Slot::Qkv)?,
            o: slot(Slot::O)?,
            gate_up: slot(Slot::GateUp)?,
            down: slot(Slot::Down)?,
            input_norm: upload.some(change.input_norm.as_deref())?,
            post_norm: upload.some(change.post_norm.as_deref())?,
            q_norm: upload.some(change.q_norm.as_deref())?,
            k_norm: upload.some(change.k_norm.as_deref())?,
            attention_out_norm: upload.some(change.attention_out_norm.as_deref())?,
            mlp_out_norm: upload.some(change.mlp_out_norm.as_deref())?,
        })
    }

    pub(super) fn slot(&self, slot: Slot) -> Option<&LowRank> {
        match slot {
            Slot::Qkv => self.qkv.as_ref(),
            Slot::O => self.o.as_ref(),
            Slot::GateUp => self.gate_up.as_ref(),
            Slot::Down => self.down.as_ref(),
        }
    }
}
