//! A weight matrix in whichever format it is kept, and the products with it.

use std::ops::Range;

use super::{
    Bf16Panels, Cpu, F32Panels, Q4Panels, Q8Panels,
    gated::{Gated, is_gated, multiply_gated},
    matmul::{Mat, MatMut, Threads, matmul},
    panels::{Into, Panels as _, multiply, multiply_back, multiply_panels},
};
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::{bf16_tiles::Bf16Tiles, q8_tiles::Q8Tiles};

/// Rows up to which products with bytes are faster by vectors than by tiles, which take 16 rows at the price of one.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
const FEW_ROWS: usize = 8;

/// Weights `[d_out, d_in]` of a linear layer or an embedding table.
#[derive(Debug, Clone)]
pub(crate) enum Matrix {
    /// 32-bit floats.
    F32(F32Panels),
    /// bfloat16.
    Bf16(Bf16Panels),
    /// ggml's `q8_0`.
    Q8(Q8Panels),
    /// ggml's `q4_K`.
    Q4(Q4Panels),
}

/// How weights are kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightFormat {
    /// 32-bit floats: exact.
    #[default]
    F32,
    /// bfloat16, inputs too: half the memory, about twice the speed; what most models are published in.
    Bf16,
    /// ggml's `q8_0`: 8.5 bits a weight, inputs as bytes.
    Q8_0,
    /// ggml's `q4_K`: about 4.6 bits a weight, inputs as bytes.
    #[serde(rename = "q4_k")]
    Q4K,
}

impl WeightFormat {
    /// As settings and ggml write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4K => "q4_k",
        }
    }
}

/// Calls a method of whichever format `$matrix` has.
macro_rules! each_format {
    ($matrix:expr, $panels:ident => $body:expr) => {
        match $matrix {
            Matrix::F32($panels) => $body,
            Matrix::Bf16($panels) => $body,
            Matrix::Q8($panels) => $body,
            Matrix::Q4($panels) => $body,
        }
    };
}

/// As [`each_format`], of the best that `$cpu` has for the format and the rows of `$x`.
macro_rules! best_format {
    ($matrix:expr, $x:expr, $cpu:expr, $panels:ident => $body:expr) => {
        match $matrix {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Matrix::Bf16(panels) if $cpu.amx_bf16 => {
                let $panels = &Bf16Tiles(panels);
                $body
            }
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Matrix::Q8(panels) if $cpu.amx_int8 && $x.len() > FEW_ROWS * $matrix.shape().1 => {
                let $panels = &Q8Tiles(panels);
                $body
            }
            matrix => each_format!(matrix, $panels => $body),
        }
    };
}

impl Matrix {
    /// Row-major `values` in `format`, which is one of floats.
    pub(crate) fn new(values: &[f32], d_out: usize, d_in: usize, format: WeightFormat) -> Self {
        match format {
            WeightFormat::F32 => Self::f32(values, d_out, d_in),
            _ => Self::bf16(values, d_out, d_in),
        }
    }

    /// Row-major `values` as 32-bit floats.
    pub(crate) fn f32(values: &[f32], d_out: usize, d_in: usize) -> Self {
        Self::F32(F32Panels::new(values, d_out, d_in))
    }

    /// Row-major `values` rounded to bfloat16.
    pub(crate) fn bf16(values: &[f32], d_out: usize, d_in: usize) -> Self {
        Self::Bf16(Bf16Panels::new(values, d_out, d_in))
    }

    /// Rows and columns.
    pub(crate) fn shape(&self) -> (usize, usize) {
        each_format!(self, panels => panels.shape())
    }

    /// How it is kept.
    pub(crate) fn format(&self) -> WeightFormat {
        match self {
            Self::F32(_) => WeightFormat::F32,
            Self::Bf16(_) => WeightFormat::Bf16,
            Self::Q8(_) => WeightFormat::Q8_0,
            Self::Q4(_) => WeightFormat::Q4K,
        }
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
        self.product(
            Into { y, stride: self.shape().0, keep: false, scale: 1.0 },
            x,
            threads,
            Cpu::detected(),
        );
    }

    /// `y = silu(gate) ∘ up` of the product with stacked gate and up projections, whose sums `adjust` may add to first:
    /// `[rows, d_in] -> [rows, d_out / 2]`. Only where [`Matrix::is_gated`].
    pub(crate) fn multiply_gated(
        &self,
        y: &mut [f32],
        x: &[f32],
        adjust: impl Fn(Gated<'_>) + Sync,
        threads: Threads,
    ) {
        let cpu = Cpu::detected();
        best_format!(self, x, cpu, panels => multiply_gated(panels, y, x, adjust, threads, cpu));
    }

    /// Whether SwiGLU of so many rows is best done as part of the product.
    pub(crate) fn is_gated(&self, rows: usize) -> bool {
        is_gated(self.shape(), rows)
    }

    /// As [`Matrix::add_product`] on this thread, with `panels` of 32 rows of the matrix only: `[rows, d_in] -> [rows, columns]`.
    pub(crate) fn add_panels(
        &self,
        y: &mut [f32],
        stride: usize,
        scale: f32,
        x: &[f32],
        panels: Range<usize>,
    ) {
        let cpu = Cpu::detected();
        let into = Into { y, stride, keep: true, scale };
        best_format!(self, x, cpu, matrix => multiply_panels(matrix, into, x, panels, cpu));
    }

    /// `y += scale · x Wᵀ`: `[rows, d_in] -> [rows, d_out]`, the rows of `y` `stride` apart.
    pub(crate) fn add_product(&self, y: &mut [f32], stride: usize, scale: f32, x: &[f32], threads: Threads) {
        self.product(Into { y, stride, keep: true, scale }, x, threads, Cpu::detected());
    }

    /// The product by the best that `cpu` has for this format and number of rows.
    fn product(&self, into: Into<'_>, x: &[f32], threads: Threads, cpu: Cpu) {
        best_format!(self, x, cpu, panels => multiply(panels, into, x, threads, cpu));
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
    use half::f16;
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

    /// Rows in ggml's `q8_0`, of any bytes: scales between 2⁻⁸ and 2⁻⁶.
    fn stored_q8(d_out: usize, d_in: usize, seed: u64) -> Vec<u8> {
        stored(d_out * d_in.div_ceil(32), 34, &[0], seed)
    }

    /// Rows in ggml's `q4_K`.
    fn stored_q4(d_out: usize, d_in: usize, seed: u64) -> Vec<u8> {
        stored(d_out * d_in.div_ceil(256), 144, &[0, 2], seed)
    }

    /// Blocks of pseudo-random bytes with sensible half-precision floats at `halves`.
    fn stored(blocks: usize, bytes: usize, halves: &[usize], seed: u64) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let mut all: Vec<u8> = (0..blocks * bytes).map(|_| random()).collect();
        for block in all.chunks_exact_mut(bytes) {
            for at in halves {
                block[at + 1] = 0x1c + random() % 8; // exponents of 2⁻⁸ to 2⁻⁶
            }
        }
        all
    }

    /// Both products of `matrix` against those of the values that it says it holds.
    fn check(
        matrix: &Matrix,
        rows: usize,
        seed: u64,
        relative: f64,
    ) -> std::result::Result<(), TestCaseError> {
        let (d_out, d_in) = matrix.shape();
        let (x, dy) = (values(rows * d_in, seed), values(rows * d_out, seed + 2));
        let w = matrix.to_rows();
        let turned: Vec<f32> = (0..d_in * d_out).map(|at| w[at % d_out * d_in + at / d_out]).collect();
        let expected = naive(&x, &w, d_in);
        // Errors of rounded inputs grow with the length of what is summed, not with the sum.
        let largest = w.iter().fold(0.0, |most: f32, w| most.max(w.abs()));
        let tolerance = relative * f64::from(largest) * (d_in as f64).sqrt().max(1.0);
        for cpu in Cpu::each() {
            let mut y = vec![f32::NAN; rows * d_out];
            let into = Into { y: &mut y, stride: d_out, keep: false, scale: 1.0 };
            matrix.product(into, &x, Threads::All, cpu);
            close(&y, &expected, tolerance)?;
            let into = Into { y: &mut y, stride: d_out, keep: true, scale: 2.0 };
            matrix.product(into, &x, Threads::One, cpu);
            close(&y, &expected.iter().map(|y| 3.0 * y).collect::<Vec<_>>(), 3.0 * tolerance)?;
            let mut dx = vec![f32::NAN; rows * d_in];
            each_format!(matrix, panels => multiply_back(panels, &mut dx, &dy, Threads::All, cpu));
            let tolerance = 1e-5 * f64::from(largest) * d_out as f64 + 1e-6;
            close(&dx, &naive(&dy, &turned, d_out), tolerance)?;
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn products_of_f32_panels_equal_the_naive_ones(
            rows in 1usize..40, d_out in 1usize..100, d_in in 1usize..150, seed in 0u64..100,
        ) {
            let w = values(d_out * d_in, seed + 1);
            let matrix = Matrix::f32(&w, d_out, d_in);
            prop_assert_eq!(&matrix.to_rows(), &w);
            check(&matrix, rows, seed, 1e-5)?;
        }

        #[test]
        fn products_of_bf16_panels_equal_the_naive_ones(
            rows in 1usize..70, d_out in 1usize..100, d_in in 1usize..150, seed in 0u64..100,
        ) {
            let w = values(d_out * d_in, seed + 1);
            let matrix = Matrix::bf16(&w, d_out, d_in);
            for (kept, w) in matrix.to_rows().iter().zip(&w) {
                prop_assert!((kept - w).abs() <= w.abs() / 256.0, "{kept} for {w}");
            }
            // Inputs keep eight bits: they are off by up to 2⁻⁹, and on average far less.
            check(&matrix, rows, seed, 4e-3)?;
        }

        #[test]
        fn products_of_q8_panels_equal_the_naive_ones(
            rows in 1usize..70, d_out in 1usize..80, d_in in 1usize..300, seed in 0u64..100,
        ) {
            let panels = Q8Panels::from_blocks(&stored_q8(d_out, d_in, seed), d_out, d_in).unwrap();
            check(&Matrix::Q8(panels), rows, seed, 8e-3)?;
        }

        #[test]
        fn products_of_q4_panels_equal_the_naive_ones(
            rows in 1usize..30, d_out in 1usize..80, d_in in 1usize..600, seed in 0u64..100,
        ) {
            let panels = Q4Panels::from_blocks(&stored_q4(d_out, d_in, seed), d_out, d_in).unwrap();
            check(&Matrix::Q4(panels), rows, seed, 8e-3)?;
        }

        /// Whatever shares its step, a row's result is the same to the last bit.
        #[test]
        fn a_row_does_not_depend_on_the_others(rows in 1usize..60, d_in in 1usize..3000, seed in 0u64..100) {
            let d_out = 69;
            let (x, w) = (values(rows * d_in, seed), values(d_out * d_in, seed + 1));
            let q8 = Q8Panels::from_blocks(&stored_q8(d_out, d_in, seed), d_out, d_in).unwrap();
            let q4 = Q4Panels::from_blocks(&stored_q4(d_out, d_in, seed), d_out, d_in).unwrap();
            for matrix in [Matrix::f32(&w, d_out, d_in), Matrix::bf16(&w, d_out, d_in), Matrix::Q8(q8), Matrix::Q4(q4)] {
                let mut together = vec![f32::NAN; rows * d_out];
                matrix.multiply(&mut together, &x, Threads::All);
                for (x, together) in x.chunks_exact(d_in).zip(together.chunks_exact(d_out)) {
                    let mut alone = vec![f32::NAN; d_out];
                    matrix.multiply(&mut alone, x, Threads::One);
                    prop_assert_eq!(&alone, together);
                }
            }
        }
    }

    /// A super-block whose values can be worked out by hand.
    #[test]
    fn blocks_mean_what_ggml_means() {
        let mut q8 = f16::from_f32(0.5).to_le_bytes().to_vec();
        q8.extend((0..32).map(|i| (i as i8 - 16).cast_unsigned()));
        let mut row = [0.0; 32];
        Matrix::Q8(Q8Panels::from_blocks(&q8, 1, 32).unwrap()).row(0, &mut row);
        assert_eq!((row[0], row[15], row[31]), (-8.0, -0.5, 7.5));

        let mut q4 = f16::from_f32(0.25).to_le_bytes().to_vec();
        q4.extend(f16::from_f32(0.5).to_le_bytes());
        // Block 1: scale 3, minimum 2. Block 5: scale 0b10_0001 = 33, minimum 0b01_0010 = 18.
        q4.extend([0, 3 | 0b10 << 6, 0, 0, 0, 2 | 0b01 << 6, 0, 0, 0, 0b0010_0001, 0, 0]);
        q4.extend((0..128).map(|i| (i % 16) as u8 | 7 << 4));
        let mut row = [0.0; 256];
        Matrix::Q4(Q4Panels::from_blocks(&q4, 1, 256).unwrap()).row(0, &mut row);
        assert_eq!(row[0], 0.0);
        assert_eq!(row[32], 0.25 * 3.0 * 7.0 - 0.5 * 2.0);
        assert_eq!(row[5 * 32 + 9], 0.25 * 33.0 * 7.0 - 0.5 * 18.0);
    }

    #[test]
    fn blocks_that_are_too_few_or_too_many_are_refused() {
        let stored = stored_q8(3, 64, 1);
        assert!(Q8Panels::from_blocks(&stored, 3, 64).is_some());
        assert!(Q8Panels::from_blocks(&stored, 3, 96).is_none());
        assert!(Q8Panels::from_blocks(&stored[1..], 3, 64).is_none());
        assert!(Q4Panels::from_blocks(&stored, 3, 64).is_none());
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
