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
        attention_forward, matmul, rms_norm, rms_norm_backward, rotate, rotate_back, swiglu, swiglu_backward,
    },
    loss::Teacher,
    model::{Model, normalise_heads},
    scratch::{Buffer, Scratch},
    weights::{LayerWeights, Linear},
};

/// One supervised position: the token that should follow `row`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Target {
    /// Row of the packed batch.
    pub(crate) row: usize,
    /// The token that should come next.
    pub(crate) token: u32,
    /// Weight of its loss.
    pub(crate) weight: f32,
    /// Share of the loss that is the divergence from the teacher instead of cross-entropy, 0 to 1.
    pub(crate) teacher_share: f32,
}

/// Two answers to one prompt, of which one is preferred (DPO, Rafailov et al. 2023).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pair {
    /// Targets that are the preferred answer.
    pub(crate) chosen: Range<usize>,
    /// Targets that are the other one; their own weight is 0.
    pub(crate) rejected: Range<usize>,
    /// `log π(chosen) - log π(rejected)` of the reference model.
    pub(crate) reference: f64,
    /// How strongly the log-probabilities are held to the reference.
    pub(crate) beta: f32,
    /// Weight of its loss.
    pub(crate) weight: f64,
}

/// Sequences laid end to end.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct PackedBatch {
    pub(crate) tokens: Vec<u32>,
    pub(crate) sequences: Vec<Range<usize>>,
    pub(crate) targets: Vec<Target>,
    pub(crate) pairs: Vec<Pair>,
    /// What the sum of its losses is divided by for their mean.
    pub(crate) weight: f64,
}

impl PackedBatch {
    /// Appends a sequence; `targets` give the position in the sequence, the token after it, and the weight.
    pub(crate) fn push(&mut self, tokens: &[u32], targets: impl Iterator<Item = (usize, u32, f32)>) {
        self.push_distilled(tokens, targets, 0.0);
    }

    /// [`PackedBatch::push`] with `teacher_share` of the loss being the divergence from the teacher.
    pub(crate) fn push_distilled(
        &mut self,
        tokens: &[u32],
        targets: impl Iterator<Item = (usize, u32, f32)>,
        teacher_share: f32,
    ) {
        let added = self.append(tokens, targets, teacher_share);
        self.weight += self.targets[added].iter().map(|target| f64::from(target.weight)).sum::<f64>();
    }

    /// Appends two answers to one prompt; `pair` says the rest. A pair counts as much as its weight says.
    pub(crate) fn push_pair(
        &mut self,
        chosen: (&[u32], impl Iterator<Item = (usize, u32, f32)>),
        rejected: (&[u32], impl Iterator<Item = (usize, u32, f32)>),
        pair: Pair,
    ) {
        let chosen = self.append(chosen.0, chosen.1, 0.0);
        let rejected = self.append(rejected.0, rejected.1, 0.0);
        self.weight += pair.weight;
        self.pairs.push(Pair { chosen, rejected, ..pair });
    }

    /// Appends a sequence and returns which targets are its.
    fn append(
        &mut self,
        tokens: &[u32],
        targets: impl Iterator<Item = (usize, u32, f32)>,
        teacher_share: f32,
    ) -> Range<usize> {
        let (start, first) = (self.tokens.len(), self.targets.len());
        self.tokens.extend_from_slice(tokens);
        self.sequences.push(start..self.tokens.len());
        let target = |(at, token, weight)| Target { row: start + at, token, weight, teacher_share };
        self.targets.extend(targets.map(target));
        first..self.targets.len()
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
    pub(crate) model: &'a Model,
    pub(crate) adapter: &'a AdapterWeights,
    pub(crate) threads: Threads,
    /// Called between blocks, so that training can stand aside for serving.
    pub(crate) pause: &'a (dyn Fn() + Sync),
    pub(crate) scratch: &'a Scratch,
    /// What the model is that is imitated, where a target asks for it.
    teacher: Option<&'a AdapterWeights>,
    /// Whether blocks are computed again on the way back instead of being kept.
    checkpointing: bool,
}

/// What is kept of one block until the way back.
enum Kept<'a> {
    /// Everything that its backward pass needs.
    Tape(Box<Tape<'a>>),
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
        Self { model, adapter, threads, pause, scratch, teacher: None, checkpointing: false }
    }

    /// The same with gradient checkpointing or without.
    pub(crate) fn checkpointing(self, checkpointing: bool) -> Self {
        Self { checkpointing, ..self }
    }

    /// The same with a model to imitate.
    pub(crate) fn teacher(self, teacher: Option<&'a AdapterWeights>) -> Self {
        Self { teacher, ..self }
    }

    /// Sum of `weight · loss` over the targets, in nats; adds its gradients to `gradients`.
    pub(crate) fn run(&self, batch: &PackedBatch, gradients: &mut AdapterWeights) -> f64 {
        let rotary = self.rotary(batch);
        let taught = self.taught(batch, &rotary);
        let mut x = self.embed(batch);
        let layers = self.model.config().num_layers;
        let mut kept = Vec::with_capacity(layers);
        for layer in 0..layers {
            (self.pause)();
            let tape = self.forward_block(layer, &mut x, batch, &rotary);
            kept.push(if self.checkpointing { Kept::Input(tape.input) } else { Kept::Tape(Box::new(tape)) });
        }
        let mut dx = self.scratch.zeros(x.len());
        let teacher = taught.as_ref().map(|(adapter, x)| Teacher { adapter, x });
        let loss = self.output_backward(&x, teacher, batch, &mut dx, Some(gradients));
        drop((x, taught));
        for layer in (0..layers).rev() {
            (self.pause)();
            let tape = match kept.pop() {
                Some(Kept::Tape(tape)) => *tape,
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
        let taught = self.taught(batch, &rotary);
        let x = self.last_states(batch, &rotary);
        let mut unused = self.scratch.zeros(x.len());
        let teacher = taught.as_ref().map(|(adapter, x)| Teacher { adapter, x });
        self.output_backward(&x, teacher, batch, &mut unused, None)
    }

    /// Log-probabilities of every target's token, in nats.
    pub(crate) fn score(&self, batch: &PackedBatch) -> Vec<f32> {
        self.log_probabilities(&self.last_states(batch, &self.rotary(batch)), &batch.targets)
    }

    /// Hidden states after the last block: `[rows, hidden]`.
    fn last_states(&self, batch: &PackedBatch, rotary: &RotaryTable) -> Buffer<'a> {
        let mut x = self.embed(batch);
        for layer in 0..self.model.config().num_layers {
            (self.pause)();
            self.forward_block(layer, &mut x, batch, rotary);
        }
        x
    }

    /// The teacher with its last states, where a target asks for it.
    fn taught(&self, batch: &PackedBatch, rotary: &RotaryTable) -> Option<(&'a AdapterWeights, Buffer<'a>)> {
        let wanted = batch.targets.iter().any(|target| target.teacher_share > 0.0);
        let adapter = self.teacher.filter(|_| wanted)?;
        let Self { model, threads, pause, scratch, .. } = *self;
        let pass = Pass::new(model, adapter, threads, pause, scratch);
        Some((adapter, pass.last_states(batch, rotary)))
    }

    fn rotary(&self, batch: &PackedBatch) -> RotaryTable {
        self.model.rotary_table(batch.sequences.iter().flat_map(|range| 0..range.len()))
    }

    fn embed(&self, batch: &PackedBatch) -> Buffer<'a> {
        let hidden = self.model.config().hidden_size;
        let table = Weights::of(&self.model.weights().embed.matrix, self.adapter.embed.as_deref());
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

    /// `y = x Wᵀ + b + Σ scale · (x Aᵀ) Bᵀ`, and each `x Aᵀ`.
    fn linear(&self, x: &[f32], base: &Linear, change: &SlotChange) -> (Buffer<'a>, Vec<Buffer<'a>>) {
        let rows = x.len() / base.d_in;
        let mut y = self.scratch.take(rows * base.d_out);
        let weight = Weights::of(&base.weight.matrix, change.replacement.as_deref());
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
        let weight = Weights::of(&base.weight.matrix, change.replacement.as_deref());
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
mod tests;
