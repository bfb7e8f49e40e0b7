//! Losses over the supervised positions and what of them flows back into the last hidden states.
//!
//! Three of them, freely mixed in one batch: cross-entropy; a mixture of it with the divergence from a teacher; and
//! preference of one answer over another (DPO). All end as a weight for each position's `softmax - wanted`.

use std::{borrow::Cow, ops::Range};

use crate::{
    adapter::AdapterWeights,
    gradients::{PackedBatch, Pass, Target},
    kernels::{
        Mat, MatMut, add_assign, cross_entropy_row, distillation_row, matmul, rms_norm, rms_norm_backward,
        softmax_in_place,
    },
    scratch::Buffer,
};

/// Rows of logits that are held at once.
const LOGIT_ROWS: usize = 256;

/// Whose answers are imitated: its hidden states after the last block, and what it changes after them.
#[derive(Clone, Copy)]
pub(crate) struct Teacher<'t> {
    pub(crate) adapter: &'t AdapterWeights,
    pub(crate) x: &'t [f32], // [rows, hidden]
}

impl<'a> Pass<'a> {
    /// Final norm, logits of the supervised rows, the losses, and their gradients into `dx` and `gradients`;
    /// without `gradients` the loss alone. `x` and, where a target has a share of the teacher's, `teacher` are
    /// hidden states after the last block: `[rows, hidden]`.
    pub(crate) fn output_backward(
        &self,
        x: &[f32],
        teacher: Option<Teacher<'_>>,
        batch: &PackedBatch,
        dx: &mut [f32],
        mut gradients: Option<&mut AdapterWeights>,
    ) -> f64 {
        let (hidden, vocab) = (self.model.config().hidden_size, self.model.config().vocab_size);
        let eps = self.model.config().rms_norm_eps;
        let norm = self.adapter.norm.as_deref().unwrap_or(&self.model.weights().norm);
        let output = self.adapter.output(self.model.weights());
        let tied = self.model.weights().lm_head.is_none();
        let (targets, mut loss) = self.weigh_pairs(x, batch);
        let mut logits = self.scratch.take(LOGIT_ROWS.min(targets.len()) * vocab);
        for (targets, given) in targets.chunks(LOGIT_ROWS).zip(batch.targets.chunks(LOGIT_ROWS)) {
            (self.pause)();
            let count = targets.len();
            let logits = &mut logits[..count * vocab];
            let rows = self.gather(x, targets);
            let normed = self.logits(self.adapter, &rows, logits);
            let nats = self.losses_of_rows(logits, teacher, targets);
            loss += nats
                .iter()
                .zip(given)
                .map(|(nats, given)| f64::from(*nats) * f64::from(given.weight))
                .sum::<f64>();
            let Some(gradients) = gradients.as_deref_mut() else { continue };
            let mut d_normed = self.scratch.take(rows.len());
            output.multiply_back(&mut d_normed, logits, hidden, self.threads);
            if let (true, Some(d_embed)) = (tied, &mut gradients.embed) {
                let (d_embed, normed) =
                    (MatMut::new(d_embed, vocab, hidden), Mat::new(&normed, count, hidden));
                let d_logits = Mat::new(logits, count, vocab);
                matmul(d_embed, true, 1.0, d_logits.t(), normed, self.threads);
            }
            let mut d_rows = self.scratch.zeros(rows.len());
            rms_norm_backward(&mut d_rows, gradients.norm.as_deref_mut(), &d_normed, &rows, norm, eps);
            for (target, d_row) in targets.iter().zip(d_rows.chunks_exact(hidden)) {
                add_assign(&mut dx[target.row * hidden..][..hidden], d_row);
            }
        }
        loss
    }

    /// Log-probabilities of the targets' tokens, in nats, in the order of the targets.
    pub(crate) fn log_probabilities(&self, x: &[f32], targets: &[Target]) -> Vec<f32> {
        let vocab = self.model.config().vocab_size;
        let mut found = Vec::with_capacity(targets.len());
        let mut logits = self.scratch.take(LOGIT_ROWS.min(targets.len()) * vocab);
        for targets in targets.chunks(LOGIT_ROWS) {
            (self.pause)();
            let logits = &mut logits[..targets.len() * vocab];
            self.logits(self.adapter, &self.gather(x, targets), logits);
            for (row, target) in logits.chunks_exact_mut(vocab).zip(targets) {
                found.push(-cross_entropy_row(row, target.token as usize, 0.0));
            }
        }
        found
    }

    /// The targets with the weights that their pairs give them, and the loss of the pairs.
    ///
    /// With `m = β (log π(chosen) - log π(rejected) - reference)` a pair's loss is `-ln σ(m)` (Rafailov et al. 2023,
    /// eq. 7). Its gradient after a log-probability of the chosen answer is `-β σ(-m)`, of the rejected one
    /// `β σ(-m)`; that of a cross-entropy of weight `w` is `-w`, so the pair is a weight of `±β σ(-m)`.
    fn weigh_pairs<'b>(&self, x: &[f32], batch: &'b PackedBatch) -> (Cow<'b, [Target]>, f64) {
        if batch.pairs.is_empty() {
            return (Cow::Borrowed(&batch.targets), 0.0);
        }
        let mut targets = batch.targets.clone();
        let answers = batch.pairs.iter().flat_map(|pair| [&pair.chosen, &pair.rejected]);
        let of_pairs: Vec<Target> = answers.flat_map(|range| batch.targets[range.clone()].to_vec()).collect();
        let mut found = self.log_probabilities(x, &of_pairs).into_iter().map(f64::from);
        let mut sum = |range: &Range<usize>| -> f64 { found.by_ref().take(range.len()).sum() };
        let mut loss = 0.0;
        for pair in &batch.pairs {
            let difference = sum(&pair.chosen) - sum(&pair.rejected);
            let margin = f64::from(pair.beta) * (difference - pair.reference);
            loss += pair.weight * negative_log_sigmoid(margin);
            #[allow(clippy::cast_possible_truncation, reason = "the arithmetic of targets is 32-bit")]
            let push = (pair.weight * f64::from(pair.beta) / (1.0 + margin.exp())) as f32;
            targets[pair.chosen.clone()].iter_mut().for_each(|target| target.weight += push);
            targets[pair.rejected.clone()].iter_mut().for_each(|target| target.weight -= push);
        }
        (Cow::Owned(targets), loss)
    }

    /// Losses of one chunk, in nats before weighting; turns its logits into weighted gradients.
    fn losses_of_rows(
        &self,
        logits: &mut [f32],
        teacher: Option<Teacher<'_>>,
        targets: &[Target],
    ) -> Vec<f32> {
        let vocab = self.model.config().vocab_size;
        let distilled = targets.iter().any(|target| target.teacher_share > 0.0);
        let wanted = teacher.filter(|_| distilled).map(|teacher| {
            let mut wanted = self.scratch.take(logits.len());
            self.logits(teacher.adapter, &self.gather(teacher.x, targets), &mut wanted);
            wanted.chunks_exact_mut(vocab).for_each(softmax_in_place);
            wanted
        });
        let one_row = |(at, (logits, target)): (usize, (&mut [f32], &Target))| {
            let token = target.token as usize;
            match &wanted {
                Some(wanted) if target.teacher_share > 0.0 => {
                    let wanted = &wanted[at * vocab..][..vocab];
                    distillation_row(logits, token, wanted, target.teacher_share, target.weight)
                }
                _ => cross_entropy_row(logits, token, target.weight),
            }
        };
        logits.chunks_exact_mut(vocab).zip(targets).enumerate().map(one_row).collect()
    }

    /// The rows of `x` that the targets are at: `[targets, hidden]`.
    fn gather(&self, x: &[f32], targets: &[Target]) -> Buffer<'a> {
        let hidden = self.model.config().hidden_size;
        let mut rows = self.scratch.take(targets.len() * hidden);
        for (row, target) in rows.chunks_exact_mut(hidden).zip(targets) {
            row.copy_from_slice(&x[target.row * hidden..][..hidden]);
        }
        rows
    }

    /// Writes the logits `[count, vocab]` of hidden states `rows` `[count, hidden]` as `adapter` changes the norm and
    /// the output matrix; returns the normed rows.
    fn logits(&self, adapter: &AdapterWeights, rows: &[f32], logits: &mut [f32]) -> Buffer<'a> {
        let hidden = self.model.config().hidden_size;
        let norm = adapter.norm.as_deref().unwrap_or(&self.model.weights().norm);
        let mut normed = self.scratch.take(rows.len());
        rms_norm(&mut normed, rows, norm, self.model.config().rms_norm_eps);
        adapter.output(self.model.weights()).multiply(logits, &normed, hidden, self.threads);
        normed
    }
}

/// `-ln σ(x)`, without overflow on either side.
fn negative_log_sigmoid(x: f64) -> f64 {
    (-x.abs()).exp().ln_1p() + (-x).max(0.0)
}
