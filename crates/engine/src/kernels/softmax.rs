//! Softmax and cross-entropy over one row.

use super::{
    activation::axpy,
    dispatch::{exp, vectorized},
};

vectorized! {
    /// Largest value of a row.
    fn maximum(x: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; 16];
        let (blocks, rest) = x.as_chunks::<16>();
        for block in blocks {
            for (lane, x) in lanes.iter_mut().zip(block) {
                *lane = if *x > *lane { *x } else { *lane };
            }
        }
        lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a })
    }
}

vectorized! {
    /// `x -> e^(x - shift)`; returns the sum.
    fn exponentiate(x: &mut [f32], shift: f32) -> f32 {
        let mut lanes = [0.0f32; 16];
        let (blocks, rest) = x.as_chunks_mut::<16>();
        for block in blocks {
            for (x, lane) in block.iter_mut().zip(&mut lanes) {
                *x = exp::<FMA>(*x - shift);
                *lane += *x;
            }
        }
        let mut sum: f32 = lanes.iter().sum();
        for x in rest {
            *x = exp::<FMA>(*x - shift);
            sum += *x;
        }
        sum
    }
}

vectorized! {
    /// `x *= factor`.
    fn scale(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }
}

/// Softmax of one row, in place. An empty row stays empty.
pub(crate) fn softmax_in_place(x: &mut [f32]) {
    let shift = maximum(x);
    let sum = exponentiate(x, shift);
    scale(x, 1.0 / sum);
}

/// Cross-entropy of one row of logits: returns the loss in nats and turns the logits into
/// `weight * (softmax(logits) - onehot(target))`, the gradient.
pub(crate) fn cross_entropy_row(logits: &mut [f32], target: usize, weight: f32) -> f32 {
    let shift = maximum(logits);
    let at_target = logits[target] - shift;
    let sum = exponentiate(logits, shift);
    scale(logits, weight / sum);
    logits[target] -= weight;
    sum.ln() - at_target
}

/// A mixture of cross-entropy and the divergence from a teacher (Hinton et al. 2015), of one row of logits `z`:
/// `(1 - share) · CE + share · KL(q ‖ softmax(z))` in nats, `q` being the teacher's probabilities. Turns the logits
/// into `weight * (softmax(z) - (1 - share) onehot(target) - share q)`, the gradient.
pub(crate) fn distillation_row(
    logits: &mut [f32],
    target: usize,
    teacher: &[f32],
    share: f32,
    weight: f32,
) -> f32 {
    let at_target = logits[target];
    // With `CE = ln Σ e^z - z_target`, the divergence is `Σ q ln q - Σ q (z - z_target) + CE`.
    let mut beside = 0.0f64;
    for (z, q) in logits.iter().zip(teacher).filter(|(_, q)| **q > 0.0) {
        beside += f64::from(*q) * f64::from(q.ln() - (z - at_target));
    }
    let nats = cross_entropy_row(logits, target, weight);
    logits[target] += share * weight;
    axpy(logits, -share * weight, teacher);
    #[allow(clippy::cast_possible_truncation, reason = "a loss is 32-bit like everything else of a row")]
    let divergence = beside as f32 + nats;
    (1.0 - share) * nats + share * divergence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_sums_to_one_and_keeps_order() {
        let mut x: Vec<f32> = (0..37).map(|i| (i % 7) as f32 * 3.0).collect();
        let largest = (-0.0f32).exp();
        softmax_in_place(&mut x);
        assert!((x.iter().sum::<f32>() - largest).abs() < 1e-5);
        assert!(x[6] > x[5] && x[5] > x[4]);
    }

    /// `torch.nn.functional.cross_entropy(torch.tensor([[1., 2., 0.5]]), torch.tensor([1]))` is 0.46436879.
    #[test]
    fn cross_entropy_equals_pytorch() {
        let mut logits = vec![1.0, 2.0, 0.5];
        let loss = cross_entropy_row(&mut logits, 1, 2.0);
        assert!((loss - 0.464_368_8).abs() < 1e-6, "{loss}");
        // 2 * (softmax - onehot)
        for (gradient, expected) in logits.iter().zip([0.462_447_8, -0.742_936_1, 0.280_488_8]) {
            assert!((gradient - expected).abs() < 1e-5, "{gradient} instead of {expected}");
        }
    }

    /// ```python
    /// z, q = torch.tensor([[1., 2., 0.5]], requires_grad=True), torch.tensor([[0.2, 0.3, 0.5]])
    /// kl = torch.nn.functional.kl_div(z.log_softmax(-1), q, reduction="sum")
    /// ce = torch.nn.functional.cross_entropy(z, torch.tensor([1]))
    /// loss = 2 * (0.25 * ce + 0.75 * kl); loss.backward()
    /// ```
    #[test]
    fn distillation_equals_pytorch() {
        let mut logits = vec![1.0, 2.0, 0.5];
        let loss = distillation_row(&mut logits, 1, &[0.2, 0.3, 0.5], 0.75, 2.0);
        assert!((loss - 0.404_629_05).abs() < 1e-6, "{loss}");
        for (gradient, expected) in logits.iter().zip([0.162_447_75, 0.307_063_37, -0.469_511_27]) {
            assert!((gradient - expected).abs() < 1e-5, "{gradient} instead of {expected}");
        }
    }
}
