//! One ragged step of the decoder on a device.

use candle_core::Tensor;
use candle_nn::{
    ops::{rms_norm, swiglu},
    rotary_emb::{rope, rope_i},
};

use super::{
    AcceleratedModel, DeviceAdapter,
    adapter::DeviceChange,
    arena::Arena,
    layout::{Group, Layout, Sequence, Shape},
    weights::{DeviceLayer, DeviceLinear},
};
use crate::{EngineError, Result, adapter::Slot};

impl AcceleratedModel {
    /// Runs the new tokens of every sequence through the model, appending to the caches, whose pages are of `arena`.
    ///
    /// Returns the wanted logits, `[wanted rows, vocab]`, in the order of `batch`. No cache has changed after an error.
    pub(super) fn run(&self, batch: &mut [Sequence<'_>], arena: &Arena) -> Result<Vec<f32>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.check(batch, arena)?;
        let config = self.model.config();
        let layout = Layout::new(
            batch,
            arena,
            &Shape {
                frequencies: &self.frequencies,
                rotary_scale: self.rotary_scale,
                kv_width: self.shape().kv_width(),
                windows: (0..config.num_layers).map(|layer| config.window(layer)).collect(),
                dtype: self.dtype,
                device: &self.device,
            },
        )?;
        let mut x = self.embed(&layout)?;
        for layer in 0..config.num_layers {
            x = self.block(layer, &x, &layout, arena)?;
        }
        let logits = self.logits(&x, batch, &layout)?;
        for sequence in batch {
            sequence.cache.advance(sequence.tokens.len());
        }
        Ok(logits)
    }

    /// Rows of the embedding table: `[rows, hidden]`.
    fn embed(&self, layout: &Layout<'_>) -> Result<Tensor> {
        by_group(
            &layout.tokens,
            layout,
            |group| group.embed().is_some(),
            |tokens, group| {
                let table = group.and_then(Group::embed).unwrap_or(&self.weights.embed);
                Ok(table.index_select(tokens, 0)?)
            },
        )
    }

    /// One transformer block: `[rows, hidden] -> [rows, hidden]`.
    fn block(&self, layer: usize, x: &Tensor, layout: &Layout<'_>, arena: &Arena) -> Result<Tensor> {
        let (weights, shape) = (&self.weights.layers[layer], self.shape());
        let normed = self.norm(x, &weights.input_norm, layer, layout, |change| change.input_norm.as_ref())?;
        let qkv = linear(&normed, &weights.qkv, layer, Slot::Qkv, layout)?;
        let (queries, keys_and_values) = self.rotated(&qkv, layer, weights, layout)?;
        arena.write(layer, &layout.into, &keys_and_values)?;
        let plan = layout
            .plan(self.model.config().window(layer).is_some())
            .ok_or_else(|| EngineError::Internal(format!("no plan for the attention of layer {layer}")))?;
        let attended = plan.attend(&queries, layer, arena, shape)?;
        let branch = linear(&attended, &weights.o, layer, Slot::O, layout)?;
        let branch = match &weights.attention_out_norm {
            Some(norm) => {
                self.norm(&branch, norm, layer, layout, |change| change.attention_out_norm.as_ref())?
            }
            None => branch,
        };
        let x = (x + branch)?;
        let normed = self.norm(&x, &weights.post_norm, layer, layout, |change| change.post_norm.as_ref())?;
        let gate_up = linear(&normed, &weights.gate_up, layer, Slot::GateUp, layout)?;
        let branch = linear(&swiglu(&gate_up)?, &weights.down, layer, Slot::Down, layout)?;
        let branch = match &weights.mlp_out_norm {
            Some(norm) => self.norm(&branch, norm, layer, layout, |change| change.mlp_out_norm.as_ref())?,
            None => branch,
        };
        Ok((x + branch)?)
    }

    /// Splits `[rows, queries | keys | values]` into the queries and what the cache keeps, `[rows, keys | values]`; queries
    /// and keys normalised by head, where the family does that, and rotated to their positions.
    fn rotated(
        &self,
        qkv: &Tensor,
        layer: usize,
        weights: &DeviceLayer,
        layout: &Layout<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let (shape, rows) = (self.shape(), layout.rows);
        let (heads, kv_heads, dim) = (shape.heads, shape.kv_heads, shape.head_dim);
        let rotating = qkv.narrow(1, 0, (heads + kv_heads) * dim)?.contiguous()?;
        let rotating = rotating.reshape((rows, heads + kv_heads, dim))?;
        let rotating = match (&weights.q_norm, &weights.k_norm) {
            (Some(q_norm), Some(k_norm)) => {
                let queries = rotating.narrow(1, 0, heads)?;
                let keys = rotating.narrow(1, heads, kv_heads)?;
                let queries = self.norm(&queries, q_norm, layer, layout, |change| change.q_norm.as_ref())?;
                let keys = self.norm(&keys, k_norm, layer, layout, |change| change.k_norm.as_ref())?;
                Tensor::cat(&[queries, keys], 1)?
            }
            _ => rotating,
        };
        let rotated = self.rotate(&rotating, layout)?;
        let queries = rotated.narrow(1, 0, heads)?.contiguous()?.reshape((rows, heads * dim))?;
        let keys = rotated.narrow(1, heads, kv_heads)?.contiguous()?.reshape((rows, kv_heads * dim))?;
        let values = qkv.narrow(1, (heads + kv_heads) * dim, kv_heads * dim)?;
        Ok((queries, Tensor::cat(&[keys, values], 1)?))
    }

    /// Rotates the first values of every head of `[rows, heads, head_dim]`.
    fn rotate(&self, x: &Tensor, layout: &Layout<'_>) -> Result<Tensor> {
        let (width, dim) = (2 * self.frequencies.len(), self.shape().head_dim);
        // To the rotation each row is a batch of its own, one token long, with its own cosines and sines.
        let whole = x.unsqueeze(2)?; // [rows, heads, 1, head_dim]
        let part = if width == dim { whole } else { whole.narrow(3, 0, width)? }.contiguous()?;
        let turn = if self.model.config().rope.interleaved { rope_i } else { rope };
        let turned = turn(&part, &layout.cos, &layout.sin)?.squeeze(2)?;
        Ok(if width == dim { turned } else { Tensor::cat(&[turned, x.narrow(2, width, dim - width)?], 2)? })
    }

    /// RMSNorm over the last dimension with `base`, or with what a group's adapter has in its place.
    fn norm(
        &self,
        x: &Tensor,
        base: &Tensor,
        layer: usize,
        layout: &Layout<'_>,
        own: impl Fn(&DeviceChange) -> Option<&Tensor>,
    ) -> Result<Tensor> {
        by_group(
            x,
            layout,
            |group| group.change(layer).is_some_and(|change| own(change).is_some()),
            |x, group| {
                let own = group.and_then(|group| group.change(layer)).and_then(&own);
                Ok(rms_norm(&x.contiguous()?, own.unwrap_or(base), self.model.config().rms_norm_eps)?)
            },
        )
    }

    /// Final norm and output matrix over the wanted rows.
    fn logits(&self, x: &Tensor, batch: &[Sequence<'_>], layout: &Layout<'_>) -> Result<Vec<f32>> {
        let (vocab, eps) = (self.vocab(), self.model.config().rms_norm_eps);
        let wanted = |sequence: &Sequence<'_>| sequence.logits.rows(sequence.tokens.len());
        // Where each sequence's logits go in the caller's order.
        let mut places = Vec::with_capacity(batch.len());
        let mut total = 0;
        for sequence in batch {
            places.push(total);
            total += wanted(sequence);
        }
        // Adapters that leave the output matrix alone share its product.
        let mut products: Vec<(&Tensor, Vec<Tensor>, Vec<usize>)> = Vec::new();
        for group in &layout.groups {
            let (mut rows, mut targets) = (Vec::new(), Vec::new());
            for span in &group.spans {
                let (count, end) = (wanted(&batch[span.sequence]), span.start + span.new);
                rows.extend((end - count..end).map(|row| row as u32));
                targets.extend(places[span.sequence]..places[span.sequence] + count);
            }
            if rows.is_empty() {
                continue;
            }
            let hidden = x.index_select(&Tensor::new(rows, &self.device)?, 0)?;
            let norm = group.adapter.and_then(|adapter| adapter.norm.as_ref()).unwrap_or(&self.weights.norm);
            let hidden = rms_norm(&hidden, norm, eps)?;
            let output = self.output(group.adapter);
            match products.iter_mut().find(|(other, ..)| std::ptr::eq(*other, output)) {
                Some((_, parts, all)) => {
                    parts.push(hidden);
                    all.extend(targets);
                }
                None => products.push((output, vec![hidden], targets)),
            }
        }
        let mut logits = vec![0.0; total * vocab];
        for (output, hidden, targets) in products {
            let product = Tensor::cat(&hidden, 0)?.matmul(&output.t()?)?;
            let product = product.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            for (row, target) in product.chunks_exact(vocab).zip(targets) {
                logits[target * vocab..][..vocab].copy_from_slice(row);
            }
        }
        Ok(logits)
    }

    /// The matrix that turns hidden states into logits, with the adapter's embedding where it is tied.
    fn output<'a>(&'a self, adapter: Option<&'a DeviceAdapter>) -> &'a Tensor {
        match (&self.weights.lm_head, adapter.and_then(|adapter| adapter.embed.as_ref())) {
            (None, Some(embed)) => embed,
            _ => self.weights.output(),
        }
    }

    fn vocab(&self) -> usize {
        self.model.config().vocab_size
    }
}

/// `y = x Wᵀ + b`, with each group's low-rank change.
fn linear(x: &Tensor, base: &DeviceLinear, layer: usize, slot: Slot, layout: &Layout<'_>) -> Result<Tensor> {
    let y = base.forward(x)?;
    let changes: Vec<_> = layout
        .groups
        .iter()
        .map(|group| (group, group.change(layer).and_then(|change| change.slot(slot))))
        .collect();
    if changes.iter().all(|(_, change)| change.is_none()) {
        return Ok(y);
    }
    let mut parts = Vec::with_capacity(changes.len());
    for (group, change) in changes {
        let part = y.narrow(0, group.start, group.rows)?;
        parts.push(match change {
            Some(change) => (part + change.forward(&x.narrow(0, group.start, group.rows)?)?)?,
            None => part,
        });
    }
    Ok(Tensor::cat(&parts, 0)?)
}

/// Computes `x`, whose first dimension is the step's rows, at once where no group is `special`, else group by group.
fn by_group(
    x: &Tensor,
    layout: &Layout<'_>,
    special: impl Fn(&Group<'_>) -> bool,
    compute: impl Fn(&Tensor, Option<&Group<'_>>) -> Result<Tensor>,
) -> Result<Tensor> {
    if !layout.groups.iter().any(special) {
        return compute(x, None);
    }
    let parts = layout
        .groups
        .iter()
        .map(|group| compute(&x.narrow(0, group.start, group.rows)?, Some(group)))
        .collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&parts, 0)?)
}
