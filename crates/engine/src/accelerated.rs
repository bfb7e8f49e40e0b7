//! The decoder on tensors of `candle`, for devices that have kernels of their own: CUDA, and candle's own CPU device
//! as the twin that is tested where there is no other.
//!
//! Configuration, weights and adapters come from a [`Model`], which goes on to train and to embed beside it. Nothing
//! here has gradients: candle returns none, and no error, through its fused norms, rotations and softmax.
//!
//! A step is one ragged batch, as on the CPU: the rows of all sequences share the products with the base's matrices,
//! rows of one adapter lie side by side and take its low-rank products, and attention gathers each sequence's keys
//! and values from an [arena] of pages. Other than on the CPU, what shares a batch may change the last bits of a
//! logit, since a library chooses the order of its sums by the shape of a product.

mod adapter;
mod arena;
mod attention;
mod layout;
mod step;
mod weights;

use std::sync::Arc;

use autoglm_domain::Adapter;
use candle_core::{DType, Device};

pub use self::{adapter::DeviceAdapter, arena::DevicePage};
use self::{arena::Arena, layout::Sequence, weights::DeviceWeights};
use crate::{
    ComputeDevice, Decoder, EngineError, Model, PAGE_TOKENS, PagedCache, Result, SequenceStep, ServingConfig,
    WantedLogits, WeightFormat, kernels::AttentionShape, model::check_tokens, rope::rope_frequencies,
    score::CHUNK,
};

/// A model's base weights on a device, and room for the keys and values of its sequences.
#[derive(Debug)]
pub struct AcceleratedModel {
    model: Arc<Model>,
    weights: DeviceWeights,
    arena: Arena,
    device: Device,
    dtype: DType,
    frequencies: Vec<f32>, // [rotary_dim / 2]
    rotary_scale: f32,
}

impl AcceleratedModel {
    /// Puts `model` on `device`, with room for the keys and values of `serving`'s cache. What the model keeps in
    /// 32-bit floats stays in those, everything else becomes bfloat16.
    ///
    /// # Errors
    /// `Unavailable` when this build has no such device, or there is none, or its memory does not hold it all.
    pub fn open(model: Arc<Model>, device: ComputeDevice, serving: &ServingConfig) -> Result<Self> {
        let opened = match device {
            ComputeDevice::Cpu => Device::Cpu,
            ComputeDevice::Cuda(number) => cuda(number)?,
        };
        Self::on(model, opened, serving.pages()).map_err(|error| match error {
            EngineError::DeviceFailed(reason) => EngineError::Device {
                name: device.to_string(),
                reason: format!("cannot take the model: {reason}"),
                hint:
                    "keep fewer tokens (`engine.max_cache_tokens`), or halve the weights (`engine.weights`)"
                        .into(),
            },
            other => other,
        })
    }

    fn on(model: Arc<Model>, device: Device, pages: usize) -> Result<Self> {
        let dtype = match model.weights().embed.matrix.format() {
            WeightFormat::F32 => DType::F32,
            _ => DType::BF16,
        };
        let weights = DeviceWeights::new(model.weights(), dtype, &device)?;
        let shape = model.attention_shape();
        let arena = Arena::new(pages, model.config().num_layers, shape.kv_width(), dtype, &device)?;
        let (frequencies, rotary_scale) = rope_frequencies(model.config());
        Ok(Self { model, weights, arena, device, dtype, frequencies, rotary_scale })
    }

    /// The same model on the processor.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    fn shape(&self) -> AttentionShape {
        self.model.attention_shape()
    }

    /// Checks a step as the CPU's model does, and adds the pages that its caches lack.
    fn check(&self, batch: &mut [Sequence<'_>], arena: &Arena) -> Result<()> {
        for sequence in batch.iter() {
            check_tokens(self.model.config(), sequence.cache.tokens(), sequence.tokens)?;
        }
        for sequence in batch {
            sequence.cache.grow(sequence.tokens.len(), || arena.page());
            if !sequence.cache.is_writable(sequence.tokens.len()) {
                return Err(EngineError::Internal("a page of a cache is shared and not full".into()));
            }
        }
        Ok(())
    }
}

#[cfg(feature = "cuda")]
pub(crate) fn cuda(number: usize) -> Result<Device> {
    Device::new_cuda(number).map_err(|error| EngineError::Device {
        name: ComputeDevice::Cuda(number).to_string(),
        reason: format!("cannot be opened: {error}"),
        hint: "look at `nvidia-smi`, or answer on the processor (`engine.device = \"cpu\"`)".into(),
    })
}

#[cfg(not(feature = "cuda"))]
fn cuda(number: usize) -> Result<Device> {
    Err(EngineError::without_cuda(number))
}

impl Decoder for AcceleratedModel {
    type Page = DevicePage;
    type Adapter = DeviceAdapter;

    fn new_page(&self) -> DevicePage {
        self.arena.page()
    }

    fn step(&self, batch: &mut [SequenceStep<'_, DevicePage, DeviceAdapter>]) -> Result<Vec<f32>> {
        let mut sequences: Vec<_> = batch
            .iter_mut()
            .map(|sequence| Sequence {
                tokens: sequence.tokens,
                cache: sequence.cache,
                adapter: sequence.adapter,
                logits: if sequence.wants_logits { WantedLogits::Last } else { WantedLogits::None },
            })
            .collect();
        self.run(&mut sequences, &self.arena)
    }

    fn score(
        &self,
        tokens: &[u32],
        adapter: Option<&DeviceAdapter>,
        each: &mut dyn FnMut(usize, &mut [f32]),
    ) -> Result<()> {
        // An arena of its own: the batch's pages are all spoken for.
        let pages = tokens.len().div_ceil(PAGE_TOKENS);
        let layers = self.model.config().num_layers;
        let arena = Arena::new(pages, layers, self.shape().kv_width(), self.dtype, &self.device)?;
        let mut cache = PagedCache::default();
        // Nothing follows the last token.
        let fed = tokens.get(..tokens.len().saturating_sub(1)).unwrap_or_default();
        for (chunk, tokens) in fed.chunks(CHUNK).enumerate() {
            let sequence = Sequence { tokens, cache: &mut cache, adapter, logits: WantedLogits::All };
            let mut logits = self.run(&mut [sequence], &arena)?;
            for (index, row) in logits.chunks_exact_mut(self.vocab_size()).enumerate() {
                each(chunk * CHUNK + index + 1, row);
            }
        }
        Ok(())
    }

    fn load_adapter(&self, adapter: &Adapter) -> Result<DeviceAdapter> {
        let weights = crate::peft::read(&self.model, adapter)?;
        DeviceAdapter::new(&weights, self.model.config(), self.dtype, &self.device)
    }

    fn vocab_size(&self) -> usize {
        self.model.config().vocab_size
    }

    fn context_length(&self) -> usize {
        self.model.config().max_position_embeddings
    }
}
