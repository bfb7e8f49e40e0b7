//! Dot products.

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
