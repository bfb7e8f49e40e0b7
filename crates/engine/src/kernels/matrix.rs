//! A weight matrix in whichever format it is kept, and the products with it.

use super::{
    Cpu, F32Panels,
    matmul::{Mat, MatMut, Threads, matmul},
    panels::{Into, Panels as _, multiply, multiply_back},
};

/// Weights `[d_out, d_in]` of a linear layer or an embedding table.
#[derive(Debug, Clone)]
pub(crate) enum Matrix {
    /// 32-bit floats.
    F32(F32Panels),
}

/// Calls a method of whichever format `$matrix` has.
macro_rules! each_format {
    ($matrix:expr, $panels:ident => $body:expr) => {
        match $matrix {
            Matrix::F32($panels) => $body,
        }
    };
}

impl Matrix {
    /// Row-major `values` as 32-bit floats.
    pub(crate) fn f32(values: &[f32], d_out: usize, d_in: usize) -> Self {
        Self::F32(F32Panels::new(values, d_out, d_in))
    }

    /// Rows and columns.
    pub(crate) fn shape(&self) -> (usize, usize) {
        each_format!(self, panels => panels.shape())
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        each_format!(self, panels => panels.bytes())
    }

    /// Row `at`, which must be there, as floats: `[d_in]`.
    pub(crate) fn row(&self, at: usize, into: &mut [f32]) {
        each_format!(self, panels => panels.row(at, into));
    }

    /// All values, row-major.
    pub(crate) fn to_rows(&self) -> Vec<f32> {
        let (d_out, d_in) = self.shape();
        let mut values = vec![0.0; d_out * d_in];
        for (at, row) in values.chunks_exact_mut(d_in.max(1)).enumerate() {
            self.row(at, row);
        }
        values
    }

    /// `y = x Wᵀ`: `[rows, d_in] -> [rows, d_out]`.
    pub(crate) fn multiply(&self, y: &mut [f32], x: &[f32], threads: Threads) {
        let into = Into { y, stride: self.shape().0, keep: false, scale: 1.0 };
        each_format!(self, panels => multiply(panels, into, x, threads, Cpu::detected()));
    }

    /// `dx = dy W`: `[rows, d_out] -> [rows, d_in]`.
    pub(crate) fn multiply_back(&self, dx: &mut [f32], dy: &[f32], threads: Threads) {
        each_format!(self, panels => multiply_back(panels, dx, dy, threads, Cpu::detected()));
    }
}

/// The weights that a layer computes with: the base's, or trained ones in its place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Weights<'a> {
    /// The base's.
    Base(&'a Matrix),
    /// Row-major `[d_out, d_in]`: weights that training changes at every step.
    Trained(&'a [f32]),
}

impl<'a> Weights<'a> {
    /// `trained` where it is there.
    pub(crate) fn of(base: &'a Matrix, trained: Option<&'a [f32]>) -> Self {
        trained.map_or(Self::Base(base), Self::Trained)
    }

    /// Whether both are the same weights in memory.
    pub(crate) fn is(self, other: Self) -> bool {
        match (self, other) {
            (Self::Base(one), Self::Base(two)) => std::ptr::eq(one, two),
            (Self::Trained(one), Self::Trained(two)) => std::ptr::eq(one, two),
            _ => false,
        }
    }

    /// `y = x Wᵀ`: `[rows, d_in] -> [rows, d_out]`.
    pub(crate) fn multiply(self, y: &mut [f32], x: &[f32], d_in: usize, threads: Threads) {
        match self {
            Self::Base(matrix) => matrix.multiply(y, x, threads),
            Self::Trained(values) => {
                let (rows, d_out) = (x.len() / d_in, values.len() / d_in);
                let weight = Mat::new(values, d_out, d_in).t();
                matmul(MatMut::new(y, rows, d_out), false, 1.0, Mat::new(x, rows, d_in), weight, threads);
            }
        }
    }

    /// `dx = dy W`: `[rows, d_out] -> [rows, d_in]`.
    pub(crate) fn multiply_back(self, dx: &mut [f32], dy: &[f32], d_in: usize, threads: Threads) {
        match self {
            Self::Base(matrix) => matrix.multiply_back(dx, dy, threads),
            Self::Trained(values) => {
                let (rows, d_out) = (dx.len() / d_in, values.len() / d_in);
                let weight = Mat::new(values, d_out, d_in);
                matmul(MatMut::new(dx, rows, d_in), false, 1.0, Mat::new(dy, rows, d_out), weight, threads);
            }
        }
    }

    /// Row `at`, which must be there, as floats: `[d_in]`.
    pub(crate) fn row(self, at: usize, into: &mut [f32]) {
        match self {
            Self::Base(matrix) => matrix.row(at, into),
            Self::Trained(values) => into.copy_from_slice(&values[at * into.len()..][..into.len()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Values between -1 and 1 that follow from `seed`.
    fn values(count: usize, seed: u64) -> Vec<f32> {
        let value =
            |i: u64| ((i.wrapping_mul(2_654_435_761).wrapping_add(seed * 97)) % 1000) as f32 / 500.0 - 1.0;
        (0..count as u64).map(value).collect()
    }

    fn naive(x: &[f32], w: &[f32], d_in: usize) -> Vec<f64> {
        let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
        x.chunks_exact(d_in).flat_map(|x| w.chunks_exact(d_in).map(move |w| dot(x, w))).collect()
    }

    fn close(found: &[f32], expected: &[f64], tolerance: f64) -> std::result::Result<(), TestCaseError> {
        prop_assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            prop_assert!((f64::from(*found) - expected).abs() <= tolerance, "{found} instead of {expected}");
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn products_of_f32_panels_equal_the_naive_ones(
            rows in 1usize..40, d_out in 1usize..100, d_in in 1usize..150, seed in 0u64..100,
        ) {
            let (x, w, dy) = (values(rows * d_in, seed), values(d_out * d_in, seed + 1), values(rows * d_out, seed + 2));
            let panels = F32Panels::new(&w, d_out, d_in);
            prop_assert_eq!(&Matrix::F32(panels.clone()).to_rows(), &w);
            let turned: Vec<f32> = (0..d_in * d_out).map(|at| w[at % d_out * d_in + at / d_out]).collect();
            for cpu in Cpu::each() {
                let mut y = vec![f32::NAN; rows * d_out];
                multiply(&panels, Into { y: &mut y, stride: d_out, keep: false, scale: 1.0 }, &x, Threads::All, cpu);
                let expected = naive(&x, &w, d_in);
                close(&y, &expected, 1e-4)?;
                multiply(&panels, Into { y: &mut y, stride: d_out, keep: true, scale: 2.0 }, &x, Threads::One, cpu);
                close(&y, &expected.iter().map(|y| 3.0 * y).collect::<Vec<_>>(), 3e-4)?;
                let mut dx = vec![f32::NAN; rows * d_in];
                multiply_back(&panels, &mut dx, &dy, Threads::All, cpu);
                close(&dx, &naive(&dy, &turned, d_out), 1e-4)?;
            }
        }

        /// Whatever shares its step, a row's result is the same to the last bit.
        #[test]
        fn a_row_does_not_depend_on_the_others(rows in 1usize..60, d_in in 1usize..3000, seed in 0u64..100) {
            let d_out = 69;
            let (x, w) = (values(rows * d_in, seed), values(d_out * d_in, seed + 1));
            let matrix = Matrix::f32(&w, d_out, d_in);
            let mut together = vec![f32::NAN; rows * d_out];
            matrix.multiply(&mut together, &x, Threads::All);
            for (x, together) in x.chunks_exact(d_in).zip(together.chunks_exact(d_out)) {
                let mut alone = vec![f32::NAN; d_out];
                matrix.multiply(&mut alone, x, Threads::One);
                prop_assert_eq!(&alone, together);
            }
        }
    }

    #[test]
    fn a_product_that_takes_several_blocks_equals_the_naive_one() {
        let (rows, d_out, d_in) = (30, 1100, 2100);
        let (x, w, dy) = (values(rows * d_in, 3), values(d_out * d_in, 4), values(rows * d_out, 5));
        let matrix = Matrix::f32(&w, d_out, d_in);
        let mut y = vec![f32::NAN; rows * d_out];
        matrix.multiply(&mut y, &x, Threads::All);
        close(&y, &naive(&x, &w, d_in), 2e-3).unwrap();
        let turned: Vec<f32> = (0..d_in * d_out).map(|at| w[at % d_out * d_in + at / d_out]).collect();
        let mut dx = vec![f32::NAN; rows * d_in];
        matrix.multiply_back(&mut dx, &dy, Threads::All);
        close(&dx, &naive(&dy, &turned, d_out), 2e-3).unwrap();
    }
}
