//! Loss and its gradients, written out by hand.
//!
//! One forward pass over a packed batch (sequences laid end to end, no padding) keeps, for each block, its
//! input, the rotated queries, keys and values, the attention's output, the middle of the residual stream and
//! the gate and up projections; norms, activations and attention probabilities are computed again on the way
//! back. With gradient checkpointing only the inputs of the blocks are kept. No gradient of a frozen weight is ever
//! formed.

use std::ops::Range;

use crate::{
    adapter::{AdapterWeights, LayerChange, SlotChange},
    kernels::{
        AttentionShape, Mat, MatMut, RotaryTable, Threads, Weights, add_assign, attention_backward,
        attention_forward, cross_entropy_row, matmul, rms_norm, rms_norm_backward, rotate, rotate_back,
        swiglu, swiglu_backward,
    },
    model::{Model, normalise_heads},
    scratch::{Buffer, Scratch},
    weights::{LayerWeights, Linear},
};

/// Rows of logits that are held at once.
const LOGIT_ROWS: usize = 256;

/// One supervised position: the token that should follow `row`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Target {
    /// Row of the packed batch.
    pub(crate) row: usize,
    /// The token that should come next.
    pub(crate) token: u32,
    /// Weight of its loss.
    pub(crate) weight: f32,
}

/// Sequences laid end to end.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct PackedBatch {
    pub(crate) tokens: Vec<u32>,
    pub(crate) sequences: Vec<Range<usize>>,
    pub(crate) targets: Vec<Target>,
}

impl PackedBatch {
    /// Appends a sequence; `targets` give the position in the sequence, the token after it, and the weight.
    pub(crate) fn push(&mut self, tokens: &[u32], targets: impl Iterator<Item = (usize, u32, f32)>) {
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.sequences.push(start..self.tokens.len());
        self.targets.extend(targets.map(|(at, token, weight)| Target { row: start + at, token, weight }));
    }
}

/// What the backward pass needs of one block.
struct Tape<'a> {
    input: Buffer<'a>,                 // [rows, hidden]
    qkv_raw: Option<Buffer<'a>>,       // [rows, qkv_width], before the head norms
    qkv: Buffer<'a>,                   // [rows, qkv_width], rotated
    attended: Buffer<'a>,              // [rows, query_width]
    branches: Option<[Buffer<'a>; 2]>, // [rows, hidden], attention's and feed-forward's before their norms
    middle: Buffer<'a>,                // [rows, hidden]
    gate_up: Buffer<'a>,               // [rows, 2 intermediate]
    low: [Vec<Buffer<'a>>; 4],         // `x Aᵀ` of each adapter of qkv, o, gate_up, down: [rows, rank]
}

/// A pass over one packed batch.
pub(crate) struct Pass<'a> {
    model: &'a Model,
    adapter: &'a AdapterWeights,
    threads: Threads,
    /// Called between blocks, so that training can stand aside for serving.
    pause: &'a (dyn Fn() + Sync),
    scratch: &'a Scratch,
    /// Whether blocks are computed again on the way back instead of being kept.
    checkpointing: bool,
}

/// What is kept of one block until the way back.
enum Kept<'a> {
    /// Everything that its backward pass needs.
    Tape(Tape<'a>),
    /// Its input `[rows, hidden]`, from which the tape is made again (Chen et al. 2016).
    Input(Buffer<'a>),
}

impl<'a> Pass<'a> {
    pub(crate) fn new(
        model: &'a Model,
        adapter: &'a AdapterWeights,
        threads: Threads,
        pause: &'a (dyn Fn() + Sync),
        scratch: &'a Scratch,
    ) -> Self {
        Self { model, adapter, threads, pause, scratch, checkpointing: false }
    }

    /// The same with gradient checkpointing or without.
    pub(crate) fn checkpointing(self, checkpointing: bool) -> Self {
        Self { checkpointing, ..self }
    }

    /// Sum of `weight · loss` over the targets, in nats; adds its gradients to `gradients`.
    pub(crate) fn run(&self, batch: &PackedBatch, gradients: &mut AdapterWeights) -> f64 {
        let rotary = self.rotary(batch);
        let mut x = self.embed(batch);
        let layers = self.model.config().num_layers;
        let mut kept = Vec::with_capacity(layers);
        for layer in 0..layers {
            (self.pause)();
            let tape = self.forward_block(layer, &mut x, batch, &rotary);
            kept.push(if self.checkpointing { Kept::Input(tape.input) } else { Kept::Tape(tape) });
        }
        let mut dx = self.scratch.zeros(x.len());
        let loss = self.output_backward(&x, batch, &mut dx, Some(gradients));
        drop(x);
        for layer in (0..layers).rev() {
            (self.pause)();
            let tape = match kept.pop() {
                Some(Kept::Tape(tape)) => tape,
                Some(Kept::Input(mut x)) => self.forward_block(layer, &mut x, batch, &rotary),
                None => break,
            };
            self.backward_block(layer, tape, &mut dx, batch, &rotary, &mut gradients.layers[layer]);
        }
        if let Some(d_embed) = &mut gradients.embed {
            let hidden = self.model.config().hidden_size;
            for (token, dx) in batch.tokens.iter().zip(dx.chunks_exact(hidden)) {
                add_assign(&mut d_embed[*token as usize * hidden..][..hidden], dx);
            }
        }
        loss
    }

    /// The loss alone.
    pub(crate) fn loss(&self, batch: &PackedBatch) -> f64 {
        let rotary = self.rotary(batch);
        let mut x = self.embed(batch);
        for layer in 0..self.model.config().num_layers {
            (self.pause)();
            self.forward_block(layer, &mut x, batch, &rotary);
        }
        let mut unused = self.scratch.zeros(x.len());
        self.output_backward(&x, batch, &mut unused, None)
    }

    fn rotary(&self, batch: &PackedBatch) -> RotaryTable {
        self.model.rotary_table(batch.sequences.iter().flat_map(|range| 0..range.len()))
    }

    fn embed(&self, batch: &PackedBatch) -> Buffer<'a> {
        let hidden = self.model.config().hidden_size;
        let table = Weights::of(&self.model.weights().embed, self.adapter.embed.as_deref());
        let mut x = self.scratch.take(batch.tokens.len() * hidden);
        for (x, &token) in x.chunks_exact_mut(hidden).zip(&batch.tokens) {
            table.row(token as usize, x);
        }
        x
    }

    /// One block forward: `x` `[rows, hidden]` in place.
    fn forward_block(
        &self,
        layer: usize,
        x: &mut Buffer<'a>,
        batch: &PackedBatch,
        rotary: &RotaryTable,
    ) -> Tape<'a> {
        let (config, shape) = (self.model.config(), self.model.attention_shape());
        let (base, change) = (&self.model.weights().layers[layer], &self.adapter.layers[layer]);
        let rows = batch.tokens.len();
        let mut normed = self.scratch.take(x.len());
        rms_norm(
            &mut normed,
            x,
            change.input_norm.as_deref().unwrap_or(&base.input_norm),
            config.rms_norm_eps,
        );
        let (mut qkv, low_qkv) = self.linear(&normed, &base.qkv, &change.qkv);
        let qkv_raw = base.q_norm.is_some().then(|| self.scratch.copy(&qkv));
        if let Some((q_norm, k_norm)) = head_norms(base, change) {
            normalise_heads(&mut qkv, q_norm, k_norm, shape, config.rms_norm_eps);
        }
        rotate(&mut qkv, shape.qkv_width(), shape.heads + shape.kv_heads, rotary);
        let mut attended = self.scratch.take(rows * shape.query_width());
        for range in &batch.sequences {
            let out = &mut attended[range.start * shape.query_width()..range.end * shape.query_width()];
            let qkv = &qkv[range.start * shape.qkv_width()..range.end * shape.qkv_width()];
            attention_forward(out, qkv, range.len(), shape, config.window(layer));
        }
        let (branch, low_o) = self.linear(&attended, &base.o, &change.o);
        let norms = branch_norms(base, change);
        let (mut middle, attention_branch) = self.through_norm(branch, norms.map(|(norm, _)| norm));
        add_assign(&mut middle, x);

        let post_norm = change.post_norm.as_deref().unwrap_or(&base.post_norm);
        rms_norm(&mut normed, &middle, post_norm, config.rms_norm_eps);
        let (gate_up, low_gate_up) = self.linear(&normed, &base.gate_up, &change.gate_up);
        let mut activated = self.scratch.take(rows * config.intermediate_size);
        swiglu(&mut activated, &gate_up, config.intermediate_size);
        let (branch, low_down) = self.linear(&activated, &base.down, &change.down);
        let (mut output, mlp_branch) = self.through_norm(branch, norms.map(|(_, norm)| norm));
        add_assign(&mut output, &middle);
        let input = std::mem::replace(x, output);
        let branches = attention_branch.zip(mlp_branch).map(<[_; 2]>::from);
        let low = [low_qkv, low_o, low_gate_up, low_down];
        Tape { input, qkv_raw, qkv, attended, branches, middle, gate_up, low }
    }

    /// What a branch adds to the residual stream, and what it was before its norm, where it has one.
    fn through_norm(&self, branch: Buffer<'a>, norm: Option<&[f32]>) -> (Buffer<'a>, Option<Buffer<'a>>) {
        let Some(norm) = norm else { return (branch, None) };
        let mut normed = self.scratch.take(branch.len());
        rms_norm(&mut normed, &branch, norm, self.model.config().rms_norm_eps);
        (normed, Some(branch))
    }

    /// Gradient of a branch before its norm, from that of what it added; `d_norm` grows.
    fn branch_backward(
        &self,
        dx: &[f32],
        branch: &[f32],
        norm: &[f32],
        d_norm: Option<&mut [f32]>,
    ) -> Buffer<'a> {
        let mut d_branch = self.scratch.zeros(dx.len());
        rms_norm_backward(&mut d_branch, d_norm, dx, branch, norm, self.model.config().rms_norm_eps);
        d_branch
    }

    /// One block backward: `dx` `[rows, hidden]` from the gradient of its output to that of its input.
    fn backward_block(
        &self,
        layer: usize,
        tape: Tape<'a>,
        dx: &mut [f32],
        batch: &PackedBatch,
        rotary: &RotaryTable,
        gradients: &mut LayerChange,
    ) {
        let (config, shape) = (self.model.config(), self.model.attention_shape());
        let (base, change) = (&self.model.weights().layers[layer], &self.adapter.layers[layer]);
        let (rows, width, eps) = (batch.tokens.len(), config.intermediate_size, config.rms_norm_eps);
        let [low_qkv, low_o, low_gate_up, low_down] = &tape.low;

        let mut activated = self.scratch.take(rows * width);
        swiglu(&mut activated, &tape.gate_up, width);
        let norms = branch_norms(base, change);
        let branches = norms.zip(tape.branches.as_ref());
        let d_branch = branches.map(|((_, norm), [_, branch])| {
            self.branch_backward(dx, branch, norm, gradients.mlp_out_norm.as_deref_mut())
        });
        let d_activated = self.linear_backward(
            d_branch.as_deref().unwrap_or(dx),
            &activated,
            &base.down,
            &change.down,
            low_down,
            &mut gradients.down,
        );
        drop(d_branch);
        drop(activated);
        let mut d_gate_up = self.scratch.take(rows * 2 * width);
        swiglu_backward(&mut d_gate_up, &d_activated, &tape.gate_up, width);
        drop(d_activated);
        let post_norm = change.post_norm.as_deref().unwrap_or(&base.post_norm);
        let mut normed = self.scratch.take(dx.len());
        rms_norm(&mut normed, &tape.middle, post_norm, eps);
        let d_normed = self.linear_backward(
            &d_gate_up,
            &normed,
            &base.gate_up,
            &change.gate_up,
            low_gate_up,
            &mut gradients.gate_up,
        );
        drop(d_gate_up);
        rms_norm_backward(dx, gradients.post_norm.as_deref_mut(), &d_normed, &tape.middle, post_norm, eps);

        let d_branch = branches.map(|((norm, _), [branch, _])| {
            self.branch_backward(dx, branch, norm, gradients.attention_out_norm.as_deref_mut())
        });
        let d_attended = self.linear_backward(
            d_branch.as_deref().unwrap_or(dx),
            &tape.attended,
            &base.o,
            &change.o,
            low_o,
            &mut gradients.o,
        );
        drop(d_branch);
        let mut d_qkv = self.scratch.zeros(tape.qkv.len());
        for range in &batch.sequences {
            let wide = range.start * shape.qkv_width()..range.end * shape.qkv_width();
            let d_out = &d_attended[range.start * shape.query_width()..range.end * shape.query_width()];
            let qkv = &tape.qkv[wide.clone()];
            attention_backward(&mut d_qkv[wide], d_out, qkv, range.len(), shape, config.window(layer));
        }
        rotate_back(&mut d_qkv, shape.qkv_width(), shape.heads + shape.kv_heads, rotary);
        if let (Some(raw), Some(norms)) = (&tape.qkv_raw, head_norms(base, change)) {
            let d_norms = (gradients.q_norm.as_deref_mut(), gradients.k_norm.as_deref_mut());
            head_norms_backward(&mut d_qkv, raw, norms, d_norms, shape, eps);
        }
        let input_norm = change.input_norm.as_deref().unwrap_or(&base.input_norm);
        rms_norm(&mut normed, &tape.input, input_norm, eps);
        let d_normed =
            self.linear_backward(&d_qkv, &normed, &base.qkv, &change.qkv, low_qkv, &mut gradients.qkv);
        rms_norm_backward(dx, gradients.input_norm.as_deref_mut(), &d_normed, &tape.input, input_norm, eps);
    }

    /// Final norm, logits of the supervised rows, cross-entropy, and their gradients into `dx` and
    /// `gradients`; without `gradients` the loss alone.
    fn output_backward(
        &self,
        x: &[f32],
        batch: &PackedBatch,
        dx: &mut [f32],
        mut gradients: Option<&mut AdapterWeights>,
    ) -> f64 {
        let config = self.model.config();
        let (hidden, vocab, eps) = (config.hidden_size, config.vocab_size, config.rms_norm_eps);
        let norm = self.adapter.norm.as_deref().unwrap_or(&self.model.weights().norm);
        let output = self.model.output(Some(self.adapter));
        let tied = self.model.weights().lm_head.is_none();
        let mut loss = 0.0;
        let mut logits = self.scratch.take(LOGIT_ROWS.min(batch.targets.len()) * vocab);
        for targets in batch.targets.chunks(LOGIT_ROWS) {
            (self.pause)();
            let count = targets.len();
            let mut rows = self.scratch.take(count * hidden);
            for (row, target) in rows.chunks_exact_mut(hidden).zip(targets) {
                row.copy_from_slice(&x[target.row * hidden..][..hidden]);
            }
            let mut normed = self.scratch.take(rows.len());
            rms_norm(&mut normed, &rows, norm, eps);
            let logits = &mut logits[..count * vocab];
            let normed_view = Mat::new(&normed, count, hidden);
            output.multiply(logits, &normed, hidden, self.threads);
            for (logits, target) in logits.chunks_exact_mut(vocab).zip(targets) {
                let nats = cross_entropy_row(logits, target.token as usize, target.weight);
                loss += f64::from(nats) * f64::from(target.weight);
            }
            let Some(gradients) = gradients.as_deref_mut() else { continue };
            let d_logits = Mat::new(logits, count, vocab);
            let mut d_normed = self.scratch.take(rows.len());
            output.multiply_back(&mut d_normed, logits, hidden, self.threads);
            if let (true, Some(d_embed)) = (tied, &mut gradients.embed) {
                matmul(
                    MatMut::new(d_embed, vocab, hidden),
                    true,
                    1.0,
                    d_logits.t(),
                    normed_view,
                    self.threads,
                );
            }
            let mut d_rows = self.scratch.zeros(rows.len());
            rms_norm_backward(&mut d_rows, gradients.norm.as_deref_mut(), &d_normed, &rows, norm, eps);
            for (target, d_row) in targets.iter().zip(d_rows.chunks_exact(hidden)) {
                add_assign(&mut dx[target.row * hidden..][..hidden], d_row);
            }
        }
        loss
    }

    /// `y = x Wᵀ + b + Σ scale · (x Aᵀ) Bᵀ`, and each `x Aᵀ`.
    fn linear(&self, x: &[f32], base: &Linear, change: &SlotChange) -> (Buffer<'a>, Vec<Buffer<'a>>) {
        let rows = x.len() / base.d_in;
        let mut y = self.scratch.take(rows * base.d_out);
        let weight = Weights::of(&base.weight, change.replacement.as_deref());
        weight.multiply(&mut y, x, base.d_in, self.threads);
        let x = Mat::new(x, rows, base.d_in);
        let mut lows = Vec::with_capacity(change.loras.len());
        for lora in &change.loras {
            let mut low = self.scratch.take(rows * lora.rank);
            let a = Mat::new(&lora.a, lora.rank, base.d_in).t();
            matmul(MatMut::new(&mut low, rows, lora.rank), false, 1.0, x, a, self.threads);
            let part = MatMut::strided(&mut y[lora.rows.start..], rows, lora.rows.len(), base.d_out);
            let b = Mat::new(&lora.b, lora.rows.len(), lora.rank).t();
            matmul(part, true, self.adapter.scale, Mat::new(&low, rows, lora.rank), b, self.threads);
            lows.push(low);
        }
        if let Some(bias) = &base.bias {
            y.chunks_exact_mut(base.d_out).for_each(|row| add_assign(row, bias));
        }
        (y, lows)
    }

    /// Gradient of [`Pass::linear`]: returns `∂L/∂x` and adds those of the change's tensors.
    ///
    /// With `u = x Aᵀ` and `du = scale · dy B`: `dB += scale · dyᵀ u`, `dA += duᵀ x`, `dx = dy W + du A`.
    fn linear_backward(
        &self,
        dy: &[f32],
        x: &[f32],
        base: &Linear,
        change: &SlotChange,
        lows: &[Buffer<'_>],
        gradients: &mut SlotChange,
    ) -> Buffer<'a> {
        let rows = x.len() / base.d_in;
        let weight = Weights::of(&base.weight, change.replacement.as_deref());
        let mut dx = self.scratch.take(x.len());
        weight.multiply_back(&mut dx, dy, base.d_in, self.threads);
        let x = Mat::new(x, rows, base.d_in);
        let dy_view = Mat::new(dy, rows, base.d_out);
        if let Some(d_weight) = &mut gradients.replacement {
            matmul(MatMut::new(d_weight, base.d_out, base.d_in), true, 1.0, dy_view.t(), x, self.threads);
        }
        for ((lora, low), gradient) in change.loras.iter().zip(lows).zip(&mut gradients.loras) {
            let (out, rank) = (lora.rows.len(), lora.rank);
            let dy = Mat::strided(&dy[lora.rows.start..], rows, out, base.d_out);
            let low = Mat::new(low, rows, rank);
            let mut d_low = self.scratch.take(rows * rank);
            let b = Mat::new(&lora.b, out, rank);
            matmul(MatMut::new(&mut d_low, rows, rank), false, self.adapter.scale, dy, b, self.threads);
            let d_b = MatMut::new(&mut gradient.b, out, rank);
            matmul(d_b, true, self.adapter.scale, dy.t(), low, self.threads);
            let d_low = Mat::new(&d_low, rows, rank);
            matmul(MatMut::new(&mut gradient.a, rank, base.d_in), true, 1.0, d_low.t(), x, self.threads);
            let a = Mat::new(&lora.a, rank, base.d_in);
            matmul(MatMut::new(&mut dx, rows, base.d_in), true, 1.0, d_low, a, self.threads);
        }
        dx
    }
}

/// The query and key norms of a block, where the family has them.
fn head_norms<'a>(base: &'a LayerWeights, change: &'a LayerChange) -> Option<(&'a [f32], &'a [f32])> {
    let q = change.q_norm.as_deref().or(base.q_norm.as_deref())?;
    let k = change.k_norm.as_deref().or(base.k_norm.as_deref())?;
    Some((q, k))
}

/// The norms of what attention and feed-forward add, where the family has them.
fn branch_norms<'a>(base: &'a LayerWeights, change: &'a LayerChange) -> Option<(&'a [f32], &'a [f32])> {
    let attention = change.attention_out_norm.as_deref().or(base.attention_out_norm.as_deref())?;
    let mlp = change.mlp_out_norm.as_deref().or(base.mlp_out_norm.as_deref())?;
    Some((attention, mlp))
}

/// Gradient of [`normalise_heads`], in place on `d_qkv`.
fn head_norms_backward(
    d_qkv: &mut [f32],
    raw: &[f32],
    (q_norm, k_norm): (&[f32], &[f32]),
    (mut d_q_norm, mut d_k_norm): (Option<&mut [f32]>, Option<&mut [f32]>),
    shape: AttentionShape,
    eps: f32,
) {
    let (dim, stride) = (shape.head_dim, shape.qkv_width());
    let mut dx = vec![0.0; dim];
    for (d_row, row) in d_qkv.chunks_exact_mut(stride).zip(raw.chunks_exact(stride)) {
        let heads = d_row.chunks_exact_mut(dim).zip(row.chunks_exact(dim));
        for (head, (dy, x)) in heads.take(shape.heads + shape.kv_heads).enumerate() {
            let (norm, d_norm) = if head < shape.heads {
                (q_norm, d_q_norm.as_deref_mut())
            } else {
                (k_norm, d_k_norm.as_deref_mut())
            };
            dx.fill(0.0);
            rms_norm_backward(&mut dx, d_norm, dy, x, norm, eps);
            dy.copy_from_slice(&dx);
        }
    }
}

#[cfg(test)]
mod tests {
    use autoglm_domain::HyperParameters;
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::{
        Family, ModelConfig, RopeConfig, RopeScaling, SequenceInput, WantedLogits, weights::BaseWeights,
    };

    const FAMILIES: [Family; 3] = [Family::Llama, Family::Qwen3, Family::Glm4];

    /// A model with every option that `family` brings, and a window in its second block.
    fn tiny_model(family: Family) -> Model {
        let glm = family == Family::Glm4;
        let config = ModelConfig {
            family,
            vocab_size: 23,
            hidden_size: 16,
            intermediate_size: 24,
            num_layers: 2,
            num_heads: 4,
            num_kv_heads: 2,
            head_dim: 4,
            rms_norm_eps: 1e-5,
            rope: RopeConfig {
                partial_rotary_factor: if glm { 0.5 } else { 1.0 },
                interleaved: glm,
                ..RopeConfig::whole(10_000.0, RopeScaling::None)
            },
            tie_word_embeddings: true,
            attention_bias: glm,
            attention_out_bias: false,
            mlp_bias: false,
            qk_norm: family == Family::Qwen3,
            branch_norms: glm,
            fused_gate_up: glm,
            sliding_window: Some(2),
            windowed_layers: vec![false, true],
            max_position_embeddings: 32,
            bos_token_id: None,
            eos_token_ids: vec![1],
            initializer_range: 0.3,
        };
        let weights = BaseWeights::random(&config, 7);
        Model::new(config, weights).unwrap()
    }

    fn batch() -> PackedBatch {
        let mut batch = PackedBatch::default();
        batch.push(&[3, 9, 14, 2, 7], [(2, 5, 0.4), (3, 11, 0.3), (4, 1, 0.3)].into_iter());
        batch.push(&[8, 8, 20], [(1, 6, 0.5), (2, 1, 0.5)].into_iter());
        batch
    }

    /// Compares the gradient with central differences at a sample of positions of every tensor.
    fn check(model: &Model, mut weights: AdapterWeights) {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        for (tensor, _) in weights.tensors_mut() {
            tensor.iter_mut().for_each(|value| *value += random.random_range(-0.1..0.1));
        }
        let (batch, pause, scratch) = (batch(), || (), Scratch::default());
        let mut gradients = weights.zeros_like();
        let loss = Pass::new(model, &weights, Threads::One, &pause, &scratch).run(&batch, &mut gradients);
        assert!(
            (loss - Pass::new(model, &weights, Threads::One, &pause, &scratch).loss(&batch)).abs() < 1e-6
        );
        let h = 5e-3;
        let tensors = gradients.tensors_mut().len();
        for tensor in 0..tensors {
            let length = weights.tensors_mut()[tensor].0.len();
            for _ in 0..6 {
                let at = random.random_range(0..length);
                let mut losses = [0.0; 2];
                for (loss, step) in losses.iter_mut().zip([h, -h]) {
                    weights.tensors_mut()[tensor].0[at] += step;
                    *loss = Pass::new(model, &weights, Threads::One, &pause, &scratch).loss(&batch);
                    weights.tensors_mut()[tensor].0[at] -= step;
                }
                let expected = (losses[0] - losses[1]) / f64::from(2.0 * h);
                let ours = f64::from(gradients.tensors_mut()[tensor].0[at]);
                assert!(
                    (ours - expected).abs() < 2e-3 + 0.02 * expected.abs(),
                    "tensor {tensor} at {at}: {ours} instead of {expected}"
                );
            }
        }
    }

    #[test]
    fn gradients_of_a_whole_adapter_equal_finite_differences() {
        let hyper = HyperParameters {
            rank: 3,
            alpha: 6.0,
            train_embedding: true,
            train_norms: true,
            ..Default::default()
        };
        for family in FAMILIES {
            let model = tiny_model(family);
            check(&model, AdapterWeights::fresh(&model, &hyper, 1).unwrap());
        }
    }

    #[test]
    fn gradients_of_every_base_weight_equal_finite_differences() {
        for family in FAMILIES {
            let model = tiny_model(family);
            check(&model, AdapterWeights::everything(&model));
        }
    }

    /// Computed again, a block is what it was: the gradients are the same to the bit, for a part of the memory.
    #[test]
    fn gradient_checkpointing_changes_memory_alone() {
        let config = ModelConfig { num_layers: 8, ..tiny_model(true).config().clone() };
        let model = Model::new(config.clone(), BaseWeights::random(&config, 7)).unwrap();
        let hyper =
            HyperParameters { rank: 3, train_embedding: true, train_norms: true, ..Default::default() };
        let mut weights = AdapterWeights::fresh(&model, &hyper, 1).unwrap();
        let mut random = ChaCha8Rng::seed_from_u64(3);
        for (tensor, _) in weights.tensors_mut() {
            tensor.iter_mut().for_each(|value| *value += random.random_range(-0.1..0.1));
        }
        let run = |checkpointing: bool| {
            let (scratch, mut gradients) = (Scratch::default(), weights.zeros_like());
            let pass = Pass::new(&model, &weights, Threads::One, &|| (), &scratch);
            let loss = pass.checkpointing(checkpointing).run(&batch(), &mut gradients);
            (loss, gradients, scratch.peak_bytes())
        };
        let (loss, gradients, bytes) = run(false);
        let (loss_again, gradients_again, fewer_bytes) = run(true);
        assert_eq!(loss, loss_again);
        assert_eq!(gradients, gradients_again);
        assert!(3 * fewer_bytes < bytes, "{fewer_bytes} of {bytes} bytes");
    }

    #[test]
    fn gradients_of_some_projections_of_some_layers_equal_finite_differences() {
        let model = tiny_model(true);
        let hyper = HyperParameters {
            rank: 3,
            alpha: 3.0,
            use_rslora: true,
            target_modules: vec!["v_proj".into(), "down_proj".into()],
            layers_to_transform: vec![1],
            ..Default::default()
        };
        let adapter = AdapterWeights::fresh(&model, &hyper, 1).unwrap();
        assert!((adapter.scale - 3.0f32.sqrt()).abs() < 1e-6);
        assert_eq!(adapter.parameters(), 3 * (16 + 8 + 24 + 16));
        check(&model, adapter);
    }

    /// The step that serves and the pass that trains compute the same function.
    #[test]
    fn serving_in_chunks_and_training_agree() {
        for family in FAMILIES {
            serve_and_train(&tiny_model(family));
        }
    }

    fn serve_and_train(model: &Model) {
        let hyper = HyperParameters {
            rank: 3,
            alpha: 6.0,
            train_embedding: true,
            train_norms: true,
            ..Default::default()
        };
        let mut adapter = AdapterWeights::fresh(model, &hyper, 1).unwrap();
        let mut random = ChaCha8Rng::seed_from_u64(5);
        for (tensor, _) in adapter.tensors_mut() {
            tensor.iter_mut().for_each(|value| *value += random.random_range(-0.2..0.2));
        }
        let tokens = [3, 9, 14, 2, 7, 21, 4];
        let mut cache = model.new_cache();
        let mut other = model.new_cache();
        let mut logits = Vec::new();
        for chunk in [&tokens[..4], &tokens[4..6], &tokens[6..]] {
            let mut batch = [
                SequenceInput { tokens: chunk, cache: &mut other, adapter: None, logits: WantedLogits::Last },
                SequenceInput {
                    tokens: chunk,
                    cache: &mut cache,
                    adapter: Some(&adapter),
                    logits: WantedLogits::All,
                },
            ];
            let step = model.step(&mut batch).unwrap();
            logits.extend_from_slice(&step[23..]);
        }
        let mut packed = PackedBatch::default();
        packed.push(&tokens, (0..7).map(|at| (at, (at as u32 * 5) % 23, 1.0)));
        let expected: f64 = packed
            .targets
            .iter()
            .map(|target| {
                let mut row = logits[target.row * 23..][..23].to_vec();
                f64::from(cross_entropy_row(&mut row, target.token as usize, 1.0))
            })
            .sum();
        let loss = Pass::new(model, &adapter, Threads::One, &|| (), &Scratch::default()).loss(&packed);
        assert!((loss - expected).abs() < 1e-4, "{loss} instead of {expected}");
    }
}
