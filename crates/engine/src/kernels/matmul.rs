//! Matrix products over strided views, through `gemm`: attention, and weights that training changes.

use gemm::Parallelism;

/// Multiplications below which a second thread costs more than it brings.
const WORTH_A_THREAD: usize = 1 << 20;

/// Whether a product may use every thread of the current pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling thread alone.
    One,
    /// The current rayon pool, where the product is large enough.
    All,
}

/// A read-only matrix `[rows, cols]` in a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// A dense row-major matrix.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A row-major matrix whose rows begin `row_stride` apart.
    pub(crate) fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(cols <= row_stride || rows <= 1, "rows of {cols} overlap at a stride of {row_stride}");
        assert!(
            span(rows, cols, row_stride) <= data.len(),
            "{rows}x{cols} reaches past {} values",
            data.len()
        );
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose, without moving anything.
    pub(crate) fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// A matrix to write to, row-major.
#[derive(Debug)]
pub(crate) struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a> MatMut<'a> {
    /// A dense row-major matrix.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A row-major matrix whose rows begin `row_stride` apart.
    pub(crate) fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(cols <= row_stride || rows <= 1, "rows of {cols} overlap at a stride of {row_stride}");
        assert!(
            span(rows, cols, row_stride) <= data.len(),
            "{rows}x{cols} reaches past {} values",
            data.len()
        );
        Self { data, rows, cols, row_stride }
    }
}

/// Values from the first to one past the last of a row-major matrix.
fn span(rows: usize, cols: usize, row_stride: usize) -> usize {
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + cols }
}

/// `dst = keep * dst + scale * lhs rhs`: `[m, n] += [m, k] [k, n]`; `keep` is 0 or 1.
pub(crate) fn matmul(dst: MatMut<'_>, keep: bool, scale: f32, lhs: Mat<'_>, rhs: Mat<'_>, threads: Threads) {
    let (m, n, k) = (dst.rows, dst.cols, lhs.cols);
    assert!(lhs.rows == m && rhs.cols == n && rhs.rows == k, "shapes of a product do not fit");
    if m == 0 || n == 0 {
        return;
    }
    let large = threads == Threads::All && m * n * k >= WORTH_A_THREAD;
    let parallelism = if large { Parallelism::Rayon(0) } else { Parallelism::None };
    // SAFETY: `Mat` and `MatMut` checked that every index of their shapes lies within their slices, and `dst`
    // is borrowed mutably, so it overlaps neither operand.
    #[allow(unsafe_code, reason = "the library's entry point takes pointers")]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.data.as_mut_ptr(),
            1,
            dst.row_stride as isize,
            keep,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            if keep { 1.0 } else { 0.0 },
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(m: usize, n: usize, k: usize, x: &[f32], w: &[f32]) -> Vec<f32> {
        (0..m * n).map(|at| (0..k).map(|i| x[at / n * k + i] * w[at % n * k + i]).sum()).collect()
    }

    proptest! {
        #[test]
        fn a_product_equals_the_naive_one(m in 1usize..40, n in 1usize..40, k in 1usize..70, seed in 0u64..100) {
            let value = |i: usize| (((i as u64 * 2_654_435_761 + seed * 97) % 1000) as f32) / 500.0 - 1.0;
            let x: Vec<f32> = (0..m * k).map(value).collect();
            let w: Vec<f32> = (0..n * k).map(|i| value(i + 7919)).collect();
            let expected = naive(m, n, k, &x, &w);
            for threads in [Threads::One, Threads::All] {
                let mut y = vec![f32::NAN; m * n];
                matmul(MatMut::new(&mut y, m, n), false, 1.0, Mat::new(&x, m, k), Mat::new(&w, n, k).t(), threads);
                for (y, e) in y.iter().zip(&expected) {
                    prop_assert!((y - e).abs() < 1e-3, "{y} instead of {e}");
                }
                matmul(MatMut::new(&mut y, m, n), true, 2.0, Mat::new(&x, m, k), Mat::new(&w, n, k).t(), threads);
                for (y, e) in y.iter().zip(&expected) {
                    prop_assert!((y - 3.0 * e).abs() < 3e-3, "{y} instead of 3 * {e}");
                }
            }
        }
    }

    #[test]
    fn many_columns_on_every_thread_equal_one_thread() {
        let (m, n, k) = (3, 2048, 512);
        let x: Vec<f32> = (0..m * k).map(|i| (i % 17) as f32 - 8.0).collect();
        let w: Vec<f32> = (0..n * k).map(|i| (i % 13) as f32 - 6.0).collect();
        let run = |threads| {
            let mut y = vec![0.0; m * n];
            matmul(
                MatMut::new(&mut y, m, n),
                false,
                1.0,
                Mat::new(&x, m, k),
                Mat::new(&w, n, k).t(),
                threads,
            );
            y
        };
        assert_eq!(run(Threads::One), run(Threads::All));
    }
}
