//! AdamW (Loshchilov and Hutter 2019, algorithm 2), gradient clipping and the learning-rate schedule.
//!
//! Everything goes over the tensors in pieces that the threads of the current rayon pool share, and sums are
//! taken piece by piece in a fixed order, so that a run can be repeated to the bit.

use rayon::prelude::*;

use crate::{
    adapter::AdapterWeights,
    kernels::{add_assign, dot, vectorized},
};

/// First moment's decay, as PyTorch has it by default.
const BETA1: f32 = 0.9;
/// Added to the root of the second moment.
const EPSILON: f32 = 1e-8;
/// Values that one thread takes at a time.
const PIECE: usize = 1 << 15;

/// AdamW over all tensors of an adapter.
#[derive(Debug)]
pub(crate) struct AdamW {
    mean: AdapterWeights,
    variance: AdapterWeights,
    beta2: f32,
    weight_decay: f32,
    pub(crate) step: i32,
}

impl AdamW {
    pub(crate) fn new(like: &AdapterWeights, beta2: f32, weight_decay: f32) -> Self {
        Self { mean: like.zeros_like(), variance: like.zeros_like(), beta2, weight_decay, step: 0 }
    }

    /// First and second moments.
    pub(crate) fn moments_mut(&mut self) -> (&mut AdapterWeights, &mut AdapterWeights) {
        (&mut self.mean, &mut self.variance)
    }

    /// One step at `learning_rate` with `factor` times the `gradients`, which are zero afterwards. Norm scales
    /// are not decayed.
    pub(crate) fn step(
        &mut self,
        weights: &mut AdapterWeights,
        gradients: &mut AdapterWeights,
        factor: f32,
        learning_rate: f32,
    ) {
        self.step += 1;
        let rule = Rule {
            factor,
            learning_rate,
            decay: 1.0 - learning_rate * self.weight_decay,
            correction1: 1.0 - BETA1.powi(self.step),
            correction2: 1.0 - self.beta2.powi(self.step),
            beta2: self.beta2,
        };
        let mut work = Vec::new();
        let tensors = weights.tensors_mut().into_iter().zip(gradients.tensors_mut());
        let moments = self.mean.tensors_mut().into_iter().zip(self.variance.tensors_mut());
        for (((weights, decays), (gradients, _)), ((mean, _), (variance, _))) in tensors.zip(moments) {
            let rule = if decays { rule } else { Rule { decay: 1.0, ..rule } };
            let pieces = weights.chunks_mut(PIECE).zip(gradients.chunks_mut(PIECE));
            let moments = mean.chunks_mut(PIECE).zip(variance.chunks_mut(PIECE));
            work.extend(pieces.zip(moments).map(|((w, g), (m, v))| (w, g, m, v, rule)));
        }
        work.into_par_iter().for_each(|(weights, gradients, mean, variance, rule)| {
            update(weights, gradients, mean, variance, rule);
            gradients.fill(0.0);
        });
    }
}

/// The numbers of one AdamW step for one tensor.
#[derive(Clone, Copy)]
struct Rule {
    factor: f32,
    decay: f32,
    learning_rate: f32,
    correction1: f32,
    correction2: f32,
    beta2: f32,
}

vectorized! {
    fn update(weights: &mut [f32], gradients: &[f32], mean: &mut [f32], variance: &mut [f32], rule: Rule) {
        for (((w, g), m), v) in weights.iter_mut().zip(gradients).zip(mean).zip(variance) {
            let g = g * rule.factor;
            *m += (1.0 - BETA1) * (g - *m);
            *v += (1.0 - rule.beta2) * (g * g - *v);
            let step = (*m / rule.correction1) / ((*v / rule.correction2).sqrt() + EPSILON);
            *w = *w * rule.decay - rule.learning_rate * step;
        }
    }
}

/// Adds the gradients of every other shard to those of the first, leaving the others zero; returns the norm of
/// the sum.
pub(crate) fn gather(total: &mut AdapterWeights, others: &mut [AdapterWeights]) -> f32 {
    for other in others {
        let mut work = Vec::new();
        for ((total, _), (part, _)) in total.tensors_mut().into_iter().zip(other.tensors_mut()) {
            work.extend(total.chunks_mut(PIECE).zip(part.chunks_mut(PIECE)));
        }
        work.into_par_iter().for_each(|(total, part)| {
            add_assign(total, part);
            part.fill(0.0);
        });
    }
    let mut pieces = Vec::new();
    for (tensor, _) in total.tensors_mut() {
        pieces.extend(tensor.chunks(PIECE));
    }
    let squares: Vec<f64> = pieces.into_par_iter().map(|piece| f64::from(dot(piece, piece))).collect();
    squares.iter().sum::<f64>().sqrt() as f32
}

/// By what a gradient of `norm` is multiplied to keep within `limit` (0 is no limit).
pub(crate) fn clipping(norm: f32, limit: f32) -> f32 {
    if limit > 0.0 && norm > limit { limit / (norm + 1e-6) } else { 1.0 }
}

/// Linear warm-up over `warmup` of the run, then a cosine down to `floor` of the peak.
///
/// `done` runs from 0 to 1.
pub(crate) fn schedule(done: f32, warmup: f32, floor: f32) -> f32 {
    if done < warmup {
        return done / warmup;
    }
    let along = ((done - warmup) / (1.0 - warmup).max(1e-6)).clamp(0.0, 1.0);
    floor + (1.0 - floor) * 0.5 * (1.0 + (std::f32::consts::PI * along).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_tensor(values: Vec<f32>) -> AdapterWeights {
        AdapterWeights { embed: Some(values), ..AdapterWeights::default() }
    }

    /// ```python
    /// w = torch.tensor([1.0, -2.0], requires_grad=True)
    /// o = torch.optim.AdamW([w], lr=0.1, betas=(0.9, 0.999), weight_decay=0.01)
    /// for g in ([0.5, -1.0], [0.25, 3.0]): w.grad = torch.tensor(g); o.step()
    /// ```
    #[test]
    fn two_steps_equal_pytorch() {
        let mut weights = one_tensor(vec![1.0, -2.0]);
        let mut optimizer = AdamW::new(&weights, 0.999, 0.01);
        for gradient in [[1.0, -2.0], [0.5, 6.0]] {
            let mut gradient = one_tensor(gradient.to_vec());
            optimizer.step(&mut weights, &mut gradient, 0.5, 0.1);
            assert_eq!(gradient.embed.unwrap(), [0.0, 0.0]);
        }
        for (ours, theirs) in weights.embed.unwrap().iter().zip([0.804_883_06, -1.945_521]) {
            assert!((ours - theirs).abs() < 1e-6, "{ours} instead of {theirs}");
        }
    }

    #[test]
    fn shards_are_summed_and_clipping_knows_the_norm_of_the_sum() {
        let mut total = one_tensor(vec![1.0, 4.0]);
        let mut others = [one_tensor(vec![2.0, 0.0])];
        let norm = gather(&mut total, &mut others);
        assert!((norm - 5.0).abs() < 1e-6);
        assert_eq!(
            (total.embed.unwrap(), others[0].embed.clone().unwrap()),
            (vec![3.0, 4.0], vec![0.0, 0.0])
        );
        assert!((clipping(norm, 1.0) - 0.2).abs() < 1e-6);
        assert_eq!((clipping(norm, 0.0), clipping(0.5, 1.0)), (1.0, 1.0));
    }

    #[test]
    fn the_schedule_rises_then_falls_to_its_floor() {
        assert_eq!(schedule(0.05, 0.1, 0.1), 0.5);
        assert!((schedule(0.1, 0.1, 0.1) - 1.0).abs() < 1e-6);
        assert!((schedule(1.0, 0.1, 0.1) - 0.1).abs() < 1e-6);
    }
}
