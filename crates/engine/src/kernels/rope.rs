//! Rotary position embedding (Su et al. 2021), in the half-split form of Llama and Qwen.

use super::dispatch::vectorized;

/// Cosines and sines of the positions of one step, shared by all layers and heads.
#[derive(Debug, Default)]
pub(crate) struct RotaryTable {
    cos: Vec<f32>, // [tokens, head_dim / 2]
    sin: Vec<f32>, // [tokens, head_dim / 2]
    half: usize,
}

impl RotaryTable {
    /// The table for `positions`; `frequencies` is `[head_dim / 2]`, `scale` the attention scaling of YaRN.
    pub(crate) fn new(positions: impl Iterator<Item = usize>, frequencies: &[f32], scale: f32) -> Self {
        let half = frequencies.len();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in positions {
            for frequency in frequencies {
                let (s, c) = (position as f32 * frequency).sin_cos();
                cos.push(c * scale);
                sin.push(s * scale);
            }
        }
        Self { cos, sin, half }
    }
}

vectorized! {
    /// Rotates one head: `(l, r) -> (l cos - r sin, r cos + l sin)`.
    fn rotate_head(head: &mut [f32], cos: &[f32], sin: &[f32]) {
        let (left, right) = head.split_at_mut(cos.len());
        for (((l, r), c), s) in left.iter_mut().zip(right).zip(cos).zip(sin) {
            (*l, *r) = (*l * c - *r * s, *r * c + *l * s);
        }
    }
}

vectorized! {
    /// The transpose of [`rotate_head`], which is its gradient.
    fn rotate_head_back(head: &mut [f32], cos: &[f32], sin: &[f32]) {
        let (left, right) = head.split_at_mut(cos.len());
        for (((l, r), c), s) in left.iter_mut().zip(right).zip(cos).zip(sin) {
            (*l, *r) = (*l * c + *r * s, *r * c - *l * s);
        }
    }
}

/// Rotates the first `heads` heads of every row in place; rows are `stride` long.
pub(crate) fn rotate(rows: &mut [f32], stride: usize, heads: usize, table: &RotaryTable) {
    for_each_head(rows, stride, heads, table, rotate_head);
}

/// Gradient of [`rotate`], in place.
pub(crate) fn rotate_back(rows: &mut [f32], stride: usize, heads: usize, table: &RotaryTable) {
    for_each_head(rows, stride, heads, table, rotate_head_back);
}

fn for_each_head(
    rows: &mut [f32],
    stride: usize,
    heads: usize,
    table: &RotaryTable,
    apply: fn(&mut [f32], &[f32], &[f32]),
) {
    let half = table.half;
    let angles = table.cos.chunks_exact(half).zip(table.sin.chunks_exact(half));
    for (row, (cos, sin)) in rows.chunks_exact_mut(stride).zip(angles) {
        for head in row[..heads * 2 * half].chunks_exact_mut(2 * half) {
            apply(head, cos, sin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotating_back_undoes_rotating_and_leaves_other_heads_alone() {
        let table = RotaryTable::new([3, 70].into_iter(), &[1.0, 0.1, 0.01], 1.0);
        let original: Vec<f32> = (0..36).map(|i| i as f32 / 5.0 - 2.0).collect();
        let mut rows = original.clone();
        rotate(&mut rows, 18, 2, &table);
        assert!((rows[0] - (original[0] * 3f32.cos() - original[3] * 3f32.sin())).abs() < 1e-5);
        assert_eq!(rows[12..18], original[12..18]);
        rotate_back(&mut rows, 18, 2, &table);
        for (a, b) in rows.iter().zip(&original) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}
