//! Rotary position embedding (Su et al. 2021): of whole heads or of their first values only, with the two values
//! of a pair half the rotated width apart (Llama, Mistral, Qwen) or side by side (GLM).

use super::{dispatch::vectorized, rows::share_rows};

/// Cosines and sines of the positions of one step, shared by all layers and heads.
#[derive(Debug, Default)]
pub(crate) struct RotaryTable {
    cos: Vec<f32>, // [tokens, rotary_dim / 2]
    sin: Vec<f32>, // [tokens, rotary_dim / 2]
    half: usize,
    head_dim: usize,
    interleaved: bool,
}

impl RotaryTable {
    /// The table for `positions`; `frequencies` is `[rotary_dim / 2]`, `scale` the attention scaling of YaRN.
    /// Of each head of `head_dim` values the first `rotary_dim` are rotated, in pairs that lie side by side if
    /// `interleaved`.
    pub(crate) fn new(
        positions: impl Iterator<Item = usize>,
        frequencies: &[f32],
        scale: f32,
        head_dim: usize,
        interleaved: bool,
    ) -> Self {
        let half = frequencies.len();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in positions {
            for frequency in frequencies {
                let (s, c) = (position as f32 * frequency).sin_cos();
                cos.push(c * scale);
                sin.push(s * scale);
            }
        }
        Self { cos, sin, half, head_dim, interleaved }
    }
}

vectorized! {
    /// Rotates halves: `(l, r) -> (l cos - r sin, r cos + l sin)`.
    fn rotate_halves(head: &mut [f32], cos: &[f32], sin: &[f32]) {
        let (left, right) = head.split_at_mut(cos.len());
        for (((l, r), c), s) in left.iter_mut().zip(right).zip(cos).zip(sin) {
            (*l, *r) = (*l * c - *r * s, *r * c + *l * s);
        }
    }
}

vectorized! {
    /// The transpose of [`rotate_halves`], which is its gradient.
    fn rotate_halves_back(head: &mut [f32], cos: &[f32], sin: &[f32]) {
        let (left, right) = head.split_at_mut(cos.len());
        for (((l, r), c), s) in left.iter_mut().zip(right).zip(cos).zip(sin) {
            (*l, *r) = (*l * c + *r * s, *r * c - *l * s);
        }
    }
}

vectorized! {
    /// Rotates pairs of neighbours: `(l, r) -> (l cos - r sin, r cos + l sin)`.
    fn rotate_neighbours(head: &mut [f32], cos: &[f32], sin: &[f32]) {
        for ((pair, c), s) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
            (pair[0], pair[1]) = (pair[0] * c - pair[1] * s, pair[1] * c + pair[0] * s);
        }
    }
}

vectorized! {
    /// The transpose of [`rotate_neighbours`], which is its gradient.
    fn rotate_neighbours_back(head: &mut [f32], cos: &[f32], sin: &[f32]) {
        for ((pair, c), s) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
            (pair[0], pair[1]) = (pair[0] * c + pair[1] * s, pair[1] * c - pair[0] * s);
        }
    }
}

/// Rotates the first `heads` heads of every row in place; rows are `stride` long.
pub(crate) fn rotate(rows: &mut [f32], stride: usize, heads: usize, table: &RotaryTable) {
    let apply = if table.interleaved { rotate_neighbours } else { rotate_halves };
    for_each_head(rows, stride, heads, table, apply);
}

/// Gradient of [`rotate`], in place.
pub(crate) fn rotate_back(rows: &mut [f32], stride: usize, heads: usize, table: &RotaryTable) {
    let apply = if table.interleaved { rotate_neighbours_back } else { rotate_halves_back };
    for_each_head(rows, stride, heads, table, apply);
}

fn for_each_head(
    rows: &mut [f32],
    stride: usize,
    heads: usize,
    table: &RotaryTable,
    apply: fn(&mut [f32], &[f32], &[f32]),
) {
    let (half, dim) = (table.half, table.head_dim);
    share_rows(rows, stride, |first, rows| {
        let angles = table.cos.chunks_exact(half).zip(table.sin.chunks_exact(half)).skip(first);
        for (row, (cos, sin)) in rows.chunks_exact_mut(stride).zip(angles) {
            for head in row[..heads * dim].chunks_exact_mut(dim) {
                apply(&mut head[..2 * half], cos, sin);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREQUENCIES: [f32; 3] = [1.0, 0.1, 0.01];

    /// Every pair of every head turned on its own, by its own angle.
    fn naive(rows: &[f32], head_dim: usize, positions: [usize; 2], interleaved: bool) -> Vec<f32> {
        let mut out = rows.to_vec();
        for (row, position) in positions.into_iter().enumerate() {
            for head in 0..2 {
                for (pair, frequency) in FREQUENCIES.iter().enumerate() {
                    let at = row * 3 * head_dim + head * head_dim;
                    let (l, r) = if interleaved {
                        (at + 2 * pair, at + 2 * pair + 1)
                    } else {
                        (at + pair, at + pair + 3)
                    };
                    let (sin, cos) = (position as f32 * frequency).sin_cos();
                    out[l] = rows[l] * cos - rows[r] * sin;
                    out[r] = rows[r] * cos + rows[l] * sin;
                }
            }
        }
        out
    }

    /// Rows of two heads to rotate and one to leave alone, of whole heads and of heads with a rest that passes.
    #[test]
    fn rotating_equals_turning_each_pair_and_rotating_back_undoes_it() {
        for (head_dim, interleaved) in [(6, false), (6, true), (10, false), (10, true)] {
            let positions = [3, 70];
            let table = RotaryTable::new(positions.into_iter(), &FREQUENCIES, 1.0, head_dim, interleaved);
            let original: Vec<f32> = (0..6 * head_dim).map(|i| i as f32 / 5.0 - 2.0).collect();
            let mut rows = original.clone();
            rotate(&mut rows, 3 * head_dim, 2, &table);
            let expected = naive(&original, head_dim, positions, interleaved);
            for (at, (a, b)) in rows.iter().zip(&expected).enumerate() {
                assert!((a - b).abs() < 1e-4, "{head_dim}, {interleaved}: {a} instead of {b} at {at}");
            }
            rotate_back(&mut rows, 3 * head_dim, 2, &table);
            for (a, b) in rows.iter().zip(&original) {
                assert!((a - b).abs() < 1e-4);
            }
        }
    }
}
