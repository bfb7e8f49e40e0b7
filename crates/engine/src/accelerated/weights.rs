//! Base weights on a device.

use candle_core::{DType, Device, Tensor};

use crate::{
    Result,
    weights::{BaseWeights, LayerWeights, Linear},
};

/// All weights of a model.
#[derive(Debug)]
pub(super) struct DeviceWeights {
    pub(super) embed: Tensor, // [vocab, hidden]
    pub(super) layers: Vec<DeviceLayer>,
    pub(super) norm: Tensor,            // [hidden]
    pub(super) lm_head: Option<Tensor>, // [vocab, hidden]; `None` when tied to `embed`
}

/// Weights of one block; the names are those of the CPU's.
#[derive(Debug)]
pub(super) struct DeviceLayer {
    pub(super) input_norm: Tensor, // [hidden]
    pub(super) qkv: DeviceLinear,
    pub(super) q_norm: Option<Tensor>, // [head_dim]
    pub(super) k_norm: Option<Tensor>, // [head_dim]
    pub(super) o: DeviceLinear,
    pub(super) attention_out_norm: Option<Tensor>, // [hidden]
    pub(super) post_norm: Tensor,                  // [hidden]
    pub(super) gate_up: DeviceLinear,
    pub(super) down: DeviceLinear,
    pub(super) mlp_out_norm: Option<Tensor>, // [hidden]
}

/// One linear layer `y = x Wᵀ + b`.
#[derive(Debug)]
pub(super) struct DeviceLinear {
    weight: Tensor,       // [d_out, d_in]
    bias: Option<Tensor>, // [d_out]
}

impl DeviceLinear {
    /// `[rows, d_in] -> [rows, d_out]`
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&self.weight.t()?)?;
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }
}

/// Where tensors go, and as what.
#[derive(Clone, Copy)]
pub(super) struct Upload<'a> {
    pub(super) dtype: DType,
    pub(super) device: &'a Device,
}

impl Upload<'_> {
    /// Row-major `values` of this shape. They are narrowed before they cross over.
    pub(super) fn matrix(self, values: &[f32], rows: usize) -> Result<Tensor> {
        let host = Tensor::from_slice(values, (rows, values.len() / rows.max(1)), &Device::Cpu)?;
        Ok(host.to_dtype(self.dtype)?.to_device(self.device)?)
    }

    pub(super) fn vector(self, values: &[f32]) -> Result<Tensor> {
        Ok(self.matrix(values, 1)?.flatten_all()?)
    }

    pub(super) fn some(self, values: Option<&[f32]>) -> Result<Option<Tensor>> {
        values.map(|values| self.vector(values)).transpose()
    }

    fn linear(self, linear: &Linear) -> Result<DeviceLinear> {
        Ok(DeviceLinear {
            weight: self.matrix(&linear.weight.matrix.to_rows(), linear.d_out)?,
            bias: self.some(linear.bias.as_deref())?,
        })
    }

    fn layer(self, layer: &LayerWeights) -> Result<DeviceLayer> {
        Ok(DeviceLayer {
            input_norm: self.vector(&layer.input_norm)?,
            qkv: self.linear(&layer.qkv)?,
            q_norm: self.some(layer.q_norm.as_deref())?,
            k_norm: self.some(layer.k_norm.as_deref())?,
            o: self.linear(&layer.o)?,
            attention_out_norm: self.some(layer.attention_out_norm.as_deref())?,
            post_norm: self.vector(&layer.post_norm)?,
            gate_up: self.linear(&layer.gate_up)?,
            down: self.linear(&layer.down)?,
            mlp_out_norm: self.some(layer.mlp_out_norm.as_deref())?,
        })
    }
}

impl DeviceWeights {
    /// Copies `base` to `device` as `dtype`, matrix by matrix.
    pub(super) fn new(base: &BaseWeights, dtype: DType, device: &Device) -> Result<Self> {
        let upload = Upload { dtype, device };
        let rows = |laid_out: &crate::weights::LaidOut| {
            upload.matrix(&laid_out.matrix.to_rows(), laid_out.matrix.shape().0)
        };
        Ok(Self {
            embed: rows(&base.embed)?,
            layers: base.layers.iter().map(|layer| upload.layer(layer)).collect::<Result<_>>()?,
            norm: upload.vector(&base.norm)?,
            lm_head: base.lm_head.as_ref().map(rows).transpose()?,
        })
    }

    /// The matrix that turns hidden states into logits: `[vocab, hidden]`.
    pub(super) fn output(&self) -> &Tensor {
        self.lm_head.as_ref().unwrap_or(&self.embed)
    }
}
