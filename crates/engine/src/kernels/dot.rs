//! Dot products: the few-row matrix product of decoding is made of them.

use super::dispatch::{multiply_add, vectorized};

const LANES: usize = 16;

vectorized! {
    /// `Σ xᵢ yᵢ` over two slices of one length.
    #[allow(clippy::needless_range_loop, reason = "a fixed number of lanes, which the compiler turns into vectors")]
    pub(crate) fn dot(x: &[f32], y: &[f32]) -> f32 {
        let mut sums = [[0.0f32; LANES]; 4];
        let (x_blocks, x_rest) = x.as_chunks::<{ 4 * LANES }>();
        let (y_blocks, y_rest) = y.as_chunks::<{ 4 * LANES }>();
        for (x, y) in x_blocks.iter().zip(y_blocks) {
            for (part, sum) in sums.iter_mut().enumerate() {
                for lane in 0..LANES {
                    let at = part * LANES + lane;
                    sum[lane] = multiply_add::<FMA>(x[at], y[at], sum[lane]);
                }
            }
        }
        let mut total = 0.0;
        for lane in 0..LANES {
            total += (sums[0][lane] + sums[1][lane]) + (sums[2][lane] + sums[3][lane]);
        }
        for (x, y) in x_rest.iter().zip(y_rest) {
            total = multiply_add::<FMA>(*x, *y, total);
        }
        total
    }
}

vectorized! {
    /// Rows of `w` `[n, k]` times rows of `x` `[m, k]`, for few rows of `x`: writes `y[i * stride + j] = w_j · x_i`.
    ///
    /// Each row of `w` is read from memory once and meets every row of `x` while it is in the first cache.
    #[allow(clippy::needless_range_loop, reason = "a fixed number of lanes, which the compiler turns into vectors")]
    pub(super) fn rows_times_few(w: &[f32], x: &[f32], k: usize, y: &mut [f32], stride: usize) {
        for (j, w_row) in w.chunks_exact(k).enumerate() {
            let mut i = 0;
            let mut rows = x.chunks_exact(4 * k);
            for four in rows.by_ref() {
                let mut sums = [[0.0f32; LANES]; 4];
                let (w_blocks, w_rest) = w_row.as_chunks::<LANES>();
                let (x0, rest) = four.split_at(k);
                let (x1, rest) = rest.split_at(k);
                let (x2, x3) = rest.split_at(k);
                let x0 = x0.as_chunks::<LANES>();
                let x1 = x1.as_chunks::<LANES>();
                let x2 = x2.as_chunks::<LANES>();
                let x3 = x3.as_chunks::<LANES>();
                for (block, w) in w_blocks.iter().enumerate() {
                    for lane in 0..LANES {
                        sums[0][lane] = multiply_add::<FMA>(w[lane], x0.0[block][lane], sums[0][lane]);
                        sums[1][lane] = multiply_add::<FMA>(w[lane], x1.0[block][lane], sums[1][lane]);
                        sums[2][lane] = multiply_add::<FMA>(w[lane], x2.0[block][lane], sums[2][lane]);
                        sums[3][lane] = multiply_add::<FMA>(w[lane], x3.0[block][lane], sums[3][lane]);
                    }
                }
                for (row, (sum, x)) in sums.iter().zip([x0.1, x1.1, x2.1, x3.1]).enumerate() {
                    let mut total: f32 = sum.iter().sum();
                    for (w, x) in w_rest.iter().zip(x) {
                        total = multiply_add::<FMA>(*w, *x, total);
                    }
                    y[(i + row) * stride + j] = total;
                }
                i += 4;
            }
            for x_row in rows.remainder().chunks_exact(k) {
                let mut sums = [[0.0f32; LANES]; 2];
                let (w_blocks, w_rest) = w_row.as_chunks::<{ 2 * LANES }>();
                let (x_blocks, x_rest) = x_row.as_chunks::<{ 2 * LANES }>();
                for (w, x) in w_blocks.iter().zip(x_blocks) {
                    for lane in 0..LANES {
                        sums[0][lane] = multiply_add::<FMA>(w[lane], x[lane], sums[0][lane]);
                        sums[1][lane] = multiply_add::<FMA>(w[lane + LANES], x[lane + LANES], sums[1][lane]);
                    }
                }
                let mut total = 0.0;
                for lane in 0..LANES {
                    total += sums[0][lane] + sums[1][lane];
                }
                for (w, x) in w_rest.iter().zip(x_rest) {
                    total = multiply_add::<FMA>(*w, *x, total);
                }
                y[i * stride + j] = total;
                i += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn dot_equals_the_plain_sum(values in prop::collection::vec((-2.0f32..2.0, -2.0f32..2.0), 0..300)) {
            let (x, y): (Vec<f32>, Vec<f32>) = values.into_iter().unzip();
            let plain: f64 = x.iter().zip(&y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            prop_assert!((f64::from(super::dot(&x, &y)) - plain).abs() < 1e-3);
        }
    }
}
