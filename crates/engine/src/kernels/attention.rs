//! Causal attention with grouped queries, forward and backward for training. That of serving is in `paged`.

use super::{
    dot::dot,
    matmul::{Mat, MatMut, Threads, matmul},
    softmax::softmax_in_place,
};

/// Sizes of one attention layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionShape {
    /// Query heads.
    pub(crate) heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub(crate) kv_heads: usize,
    /// Width of a head.
    pub(crate) head_dim: usize,
}

impl AttentionShape {
    /// Width of the queries of a token.
    pub(crate) fn query_width(self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of the keys (or the values) of a token.
    pub(crate) fn kv_width(self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Width of `[queries | keys | values]` of a token.
    pub(crate) fn qkv_width(self) -> usize {
        self.query_width() + 2 * self.kv_width()
    }

    /// What scores are multiplied by before the softmax (Vaswani et al. 2017, eq. 1).
    pub(crate) fn scale(self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// The key head that query head `head` looks at.
    fn kv_head(self, head: usize) -> usize {
        head / (self.heads / self.kv_heads)
    }
}

/// The first key that the token at `position` may look at.
fn first_seen(position: usize, window: Option<usize>) -> usize {
    window.map_or(0, |window| (position + 1).saturating_sub(window))
}

/// Softmax of each row over the keys up to its own position and within the window; the others get
/// probability 0.
fn mask_and_normalise(scores: &mut [f32], width: usize, first_position: usize, window: Option<usize>) {
    for (row, scores) in scores.chunks_exact_mut(width).enumerate() {
        let position = first_position + row;
        let (seen, later) = scores.split_at_mut((position + 1).min(width));
        let (earlier, seen) = seen.split_at_mut(first_seen(position, window));
        softmax_in_place(seen);
        earlier.fill(0.0);
        later.fill(0.0);
    }
}

/// Attention of one whole sequence for training: `qkv` `[time, qkv_width]` to `out` `[time, query_width]`.
/// With a `window`, each token sees itself and the `window - 1` before it.
pub(crate) fn attention_forward(
    out: &mut [f32],
    qkv: &[f32],
    time: usize,
    shape: AttentionShape,
    window: Option<usize>,
) {
    let (dim, stride, width) = (shape.head_dim, shape.qkv_width(), shape.query_width());
    let mut probabilities = vec![0.0; time * time];
    for head in 0..shape.heads {
        let (_, _, value) = views(qkv, time, head, shape);
        attention_probabilities(&mut probabilities, qkv, time, head, shape, window);
        let out = MatMut::strided(&mut out[head * dim..], time, dim, width);
        matmul(out, false, 1.0, Mat::new(&probabilities, time, time), value, Threads::One);
    }
    debug_assert_eq!(qkv.len(), time * stride);
}

/// Query, key and value of one head as `[time, head_dim]` views.
fn views(qkv: &[f32], time: usize, head: usize, shape: AttentionShape) -> (Mat<'_>, Mat<'_>, Mat<'_>) {
    let (dim, stride) = (shape.head_dim, shape.qkv_width());
    let key_at = shape.query_width() + shape.kv_head(head) * dim;
    let value_at = key_at + shape.kv_width();
    let view = |at: usize| Mat::strided(&qkv[at..], time, dim, stride);
    (view(head * dim), view(key_at), view(value_at))
}

/// `softmax(Q Kᵀ / √d)` of one head, causal and within the window: `[time, time]`.
fn attention_probabilities(
    p: &mut [f32],
    qkv: &[f32],
    time: usize,
    head: usize,
    shape: AttentionShape,
    window: Option<usize>,
) {
    let (query, key, _) = views(qkv, time, head, shape);
    matmul(MatMut::new(p, time, time), false, shape.scale(), query, key.t(), Threads::One);
    mask_and_normalise(p, time, 0, window);
}

/// Gradient of [`attention_forward`]: adds `∂L/∂qkv` to `d_qkv` from `d_out` `[time, query_width]`.
///
/// The probabilities are computed again rather than kept. With `P` the probabilities and `dP = dO Vᵀ`:
/// `dV = Pᵀ dO`, `dS = P ∘ (dP - rowsum(P ∘ dP))`, `dQ = dS K / √d`, `dK = dSᵀ Q / √d`.
pub(crate) fn attention_backward(
    d_qkv: &mut [f32],
    d_out: &[f32],
    qkv: &[f32],
    time: usize,
    shape: AttentionShape,
    window: Option<usize>,
) {
    let (dim, stride, width) = (shape.head_dim, shape.qkv_width(), shape.query_width());
    let (mut p, mut ds) = (vec![0.0; time * time], vec![0.0; time * time]);
    for head in 0..shape.heads {
        let (query, key, value) = views(qkv, time, head, shape);
        let key_at = width + shape.kv_head(head) * dim;
        let value_at = key_at + shape.kv_width();
        attention_probabilities(&mut p, qkv, time, head, shape, window);
        let d_head = Mat::strided(&d_out[head * dim..], time, dim, width);
        matmul(MatMut::new(&mut ds, time, time), false, 1.0, d_head, value.t(), Threads::One);
        let probabilities = Mat::new(&p, time, time);
        let d_value = MatMut::strided(&mut d_qkv[value_at..], time, dim, stride);
        matmul(d_value, true, 1.0, probabilities.t(), d_head, Threads::One);
        for (ds, p) in ds.chunks_exact_mut(time).zip(p.chunks_exact(time)) {
            let along = dot(ds, p);
            for (ds, p) in ds.iter_mut().zip(p) {
                *ds = p * (*ds - along);
            }
        }
        let d_scores = Mat::new(&ds, time, time);
        let d_query = MatMut::strided(&mut d_qkv[head * dim..], time, dim, stride);
        matmul(d_query, true, shape.scale(), d_scores, key, Threads::One);
        let d_key = MatMut::strided(&mut d_qkv[key_at..], time, dim, stride);
        matmul(d_key, true, shape.scale(), d_scores.t(), query, Threads::One);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: AttentionShape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 8 };

    fn values(count: usize, step: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * step % 41) as f32 - 20.0) / 14.0).collect()
    }

    /// Straight from the definition, one scalar at a time.
    fn naive(qkv: &[f32], time: usize, window: usize) -> Vec<f32> {
        let (dim, stride) = (SHAPE.head_dim, SHAPE.qkv_width());
        let mut out = vec![0.0; time * SHAPE.query_width()];
        for head in 0..SHAPE.heads {
            let (k, v) = (
                SHAPE.query_width() + SHAPE.kv_head(head) * dim,
                SHAPE.query_width() + SHAPE.kv_width() + SHAPE.kv_head(head) * dim,
            );
            for t in 0..time {
                let weights: Vec<f32> = (0..=t)
                    .map(|s| {
                        if t - s >= window {
                            return 0.0;
                        }
                        let score: f32 = (0..dim)
                            .map(|i| qkv[t * stride + head * dim + i] * qkv[s * stride + k + i])
                            .sum();
                        (score / (dim as f32).sqrt()).exp()
                    })
                    .collect();
                let sum: f32 = weights.iter().sum();
                for i in 0..dim {
                    out[t * SHAPE.query_width() + head * dim + i] =
                        (0..=t).map(|s| weights[s] / sum * qkv[s * stride + v + i]).sum();
                }
            }
        }
        out
    }

    /// A window as long as the text or longer is none; one of 1 sees the token itself alone.
    #[test]
    fn forward_equals_the_naive_definition() {
        let time = 11;
        let qkv = values(time * SHAPE.qkv_width(), 17);
        for window in [None, Some(1), Some(2), Some(3), Some(7), Some(11), Some(500)] {
            let expected = naive(&qkv, time, window.unwrap_or(time));
            let mut out = vec![0.0; expected.len()];
            attention_forward(&mut out, &qkv, time, SHAPE, window);
            for (out, expected) in out.iter().zip(&expected) {
                assert!((out - expected).abs() < 1e-5, "{window:?}: {out} instead of {expected}");
            }
        }
    }

    #[test]
    fn backward_equals_finite_differences() {
        let time = 5;
        let qkv = values(time * SHAPE.qkv_width(), 23);
        let weight = values(time * SHAPE.query_width(), 11);
        for window in [None, Some(2)] {
            let loss = |qkv: &[f32]| -> f64 {
                let out = naive(qkv, time, window.unwrap_or(time));
                out.iter().zip(&weight).map(|(o, w)| f64::from(o * w)).sum()
            };
            let mut gradient = vec![0.0; qkv.len()];
            attention_backward(&mut gradient, &weight, &qkv, time, SHAPE, window);
            let h = 1e-2;
            for i in 0..qkv.len() {
                let (mut up, mut down) = (qkv.clone(), qkv.clone());
                up[i] += h;
                down[i] -= h;
                let expected = (loss(&up) - loss(&down)) / f64::from(2.0 * h);
                let ours = f64::from(gradient[i]);
                assert!((ours - expected).abs() < 2e-3, "{window:?} at {i}: {ours} instead of {expected}");
            }
        }
    }
}
