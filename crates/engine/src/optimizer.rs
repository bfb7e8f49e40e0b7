//! AdamW (Loshchilov and Hutter 2019, algorithm 2), gradient clipping and the learning-rate schedule.

use crate::{
    adapter::AdapterWeights,
    kernels::{dot, vectorized},
};

/// First moment's decay, as PyTorch has it by default.
const BETA1: f32 = 0.9;
/// Added to the root of the second moment.
const EPSILON: f32 = 1e-8;

/// AdamW over all tensors of an adapter.
#[derive(Debug)]
pub(crate) struct AdamW {
    mean: AdapterWeights,
    variance: AdapterWeights,
    beta2: f32,
    weight_decay: f32,
    step: i32,
}

impl AdamW {
    pub(crate) fn new(like: &AdapterWeights, beta2: f32, weight_decay: f32) -> Self {
        Self { mean: like.zeros_like(), variance: like.zeros_like(), beta2, weight_decay, step: 0 }
    }

    /// One step with `gradients` at `learning_rate`. Norm scales are not decayed.
    pub(crate) fn step(&mut self, weights: &mut AdapterWeights, gradients: &mut AdapterWeights, learning_rate: f32) {
        self.step += 1;
        let correction1 = 1.0 - BETA1.powi(self.step);
        let correction2 = 1.0 - self.beta2.powi(self.step);
        let tensors = weights.tensors_mut().into_iter().zip(gradients.tensors_mut());
        let moments = self.mean.tensors_mut().into_iter().zip(self.variance.tensors_mut());
        for (((weights, decays), (gradients, _)), ((mean, _), (variance, _))) in tensors.zip(moments) {
            let decay = if decays { 1.0 - learning_rate * self.weight_decay } else { 1.0 };
            let rule = Rule { decay, learning_rate, correction1, correction2, beta2: self.beta2 };
            update(weights, gradients, mean, variance, rule);
        }
    }
}

/// The numbers of one AdamW step for one tensor.
#[derive(Clone, Copy)]
struct Rule {
    decay: f32,
    learning_rate: f32,
    correction1: f32,
    correction2: f32,
    beta2: f32,
}

vectorized! {
    fn update(weights: &mut [f32], gradients: &[f32], mean: &mut [f32], variance: &mut [f32], rule: Rule) {
        for (((w, g), m), v) in weights.iter_mut().zip(gradients).zip(mean).zip(variance) {
            *m += (1.0 - BETA1) * (*g - *m);
            *v += (1.0 - rule.beta2) * (*g * *g - *v);
            let step = (*m / rule.correction1) / ((*v / rule.correction2).sqrt() + EPSILON);
            *w = *w * rule.decay - rule.learning_rate * step;
        }
    }
}

/// Norm of all gradients together; scales them down to `limit` where it is exceeded (0 is no limit).
pub(crate) fn clip(gradients: &mut AdapterWeights, limit: f32) -> f32 {
    let squares: f64 = gradients.tensors_mut().iter().map(|(tensor, _)| f64::from(dot(tensor, tensor))).sum();
    let norm = squares.sqrt() as f32;
    if limit > 0.0 && norm > limit {
        let factor = limit / (norm + 1e-6);
        for (tensor, _) in gradients.tensors_mut() {
            tensor.iter_mut().for_each(|value| *value *= factor);
        }
    }
    norm
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
        for gradient in [[0.5, -1.0], [0.25, 3.0]] {
            optimizer.step(&mut weights, &mut one_tensor(gradient.to_vec()), 0.1);
        }
        let expected = PYTORCH_TWO_STEPS;
        for (ours, theirs) in weights.embed.unwrap().iter().zip(expected) {
            assert!((ours - theirs).abs() < 1e-6, "{ours} instead of {theirs}");
        }
    }
    const PYTORCH_TWO_STEPS: [f32; 2] = [0.804_883_06, -1.945_521];

    #[test]
    fn clipping_keeps_direction_and_reports_the_norm_before() {
        let mut gradients = one_tensor(vec![3.0, 4.0]);
        assert!((clip(&mut gradients, 1.0) - 5.0).abs() < 1e-6);
        assert!((gradients.embed.unwrap()[1] - 0.8).abs() < 1e-5);
    }

    #[test]
    fn the_schedule_rises_then_falls_to_its_floor() {
        assert_eq!(schedule(0.05, 0.1, 0.1), 0.5);
        assert!((schedule(0.1, 0.1, 0.1) - 1.0).abs() < 1e-6);
        assert!((schedule(1.0, 0.1, 0.1) - 0.1).abs() < 1e-6);
    }
}
