//! Weights as bfloat16 in panels: half the memory of 32-bit floats, and twice the speed where the processor
//! multiplies pairs of them (AVX-512 BF16).
//!
//! Inputs are rounded to bfloat16 too; sums are 32-bit floats.

#[cfg(target_arch = "x86_64")]
use super::panels::{Ahead, fetch, load, store, with_rows};
use super::{
    Cpu,
    dispatch::multiply_add,
    large::filled,
    panels::{LINES_AT_ONCE, Line, PANEL, Panels, Pass, Tile},
};

/// A matrix `[d_out, d_in]`: `[panels][height][32]` pairs, the value of the even column in the low half; what is beyond
/// `d_in` is zeros.
#[derive(Debug, Clone)]
pub(crate) struct Bf16Panels {
    lines: Vec<Line<[u32; PANEL]>>,
    d_out: usize,
    d_in: usize,
}

impl Bf16Panels {
    /// From row-major `values`, rounded to the nearest.
    pub(crate) fn new(values: &[f32], d_out: usize, d_in: usize) -> Self {
        let height = height(d_in);
        let mut lines = filled(Line([0; PANEL]), d_out.div_ceil(PANEL) * height);
        let rows_of_panels = values.chunks(PANEL * d_in.max(1));
        for (panel, values) in lines.chunks_exact_mut(height.max(1)).zip(rows_of_panels) {
            // As many lines as the first cache keeps while one row after another is written into them.
            for (at, lines) in panel.chunks_mut(LINES_AT_ONCE).enumerate() {
                for (row, values) in values.chunks_exact(d_in).enumerate() {
                    let values = &values[(2 * at * LINES_AT_ONCE).min(d_in)..];
                    for (line, pair) in lines.iter_mut().zip(values.chunks(2)) {
                        line.0[row] = join(pair[0], pair.get(1).copied().unwrap_or(0.0));
                    }
                }
            }
        }
        Self { lines, d_out, d_in }
    }

    /// Row `at` as floats.
    pub(crate) fn row(&self, at: usize, into: &mut [f32]) {
        for (into, line) in into.chunks_mut(2).zip(self.panel(at / PANEL)) {
            let (even, odd) = split(line.0[at % PANEL]);
            into[0] = even;
            if let Some(into) = into.get_mut(1) {
                *into = odd;
            }
        }
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.lines.as_slice())
    }

    /// The lines of a panel.
    pub(super) fn panel(&self, panel: usize) -> &[Line<[u32; PANEL]>] {
        let height = height(self.d_in);
        &self.lines[panel * height..][..height]
    }
}

/// Lines of a panel: whole steps of [`STEP_LINES`], or one shorter step.
fn height(d_in: usize) -> usize {
    let pairs = d_in.div_ceil(2);
    if pairs < STEP_LINES { pairs } else { pairs.next_multiple_of(STEP_LINES) }
}

/// Lines that a product of tiles covers.
pub(super) const STEP_LINES: usize = 16;

/// Two values, rounded to the nearest, as a pair.
#[inline(always)]
pub(super) fn join(even: f32, odd: f32) -> u32 {
    round(even) >> 16 | round(odd) & 0xffff_0000
}

/// To the nearest bfloat16, ties to even, in the upper half; numbers only.
#[inline(always)]
fn round(value: f32) -> u32 {
    let bits = value.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1))
}

fn split(pair: u32) -> (f32, f32) {
    (f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000))
}

impl Panels for Bf16Panels {
    type Packed = u32;
    type Session = ();
    const ROWS: usize = 12;
    const STEP: usize = 2;
    const PACKED_PER_STEP: usize = 1;
    const BYTES_PER_STEP: usize = size_of::<Line<[u32; PANEL]>>();

    fn shape(&self) -> (usize, usize) {
        (self.d_out, self.d_in)
    }

    fn session(&self) {}

    fn pack(&self, into: &mut [u32], x: &[f32], rows: usize, scale: f32) {
        /// Pairs whose packed values stay in the first cache while one row after another is written into them.
        const PAIRS: usize = 128;
        for (at, into) in into.chunks_mut(PAIRS * rows).enumerate() {
            for (row, x) in x.chunks_exact(self.d_in).enumerate() {
                let x = &x[2 * at * PAIRS..];
                let (pairs, rest) = x.as_chunks::<2>();
                let mut into = into[row..].iter_mut().step_by(rows);
                // The pairs first: the other way around, the end of the pairs would cost a place.
                for (pair, into) in pairs.iter().zip(into.by_ref()) {
                    *into = join(pair[0] * scale, pair[1] * scale);
                }
                if let (Some(into), [last]) = (into.next(), rest) {
                    *into = join(last * scale, 0.0);
                }
            }
        }
    }

    fn kernel(&self, tile: &mut Tile, packed: &[u32], pass: Pass, cpu: Cpu) {
        let Pass { rows, panel, steps, next } = pass;
        let ahead = next.halves();
        let lines = &self.panel(panel)[steps.clone()];
        let packed = &packed[steps.start * rows..steps.end * rows];
        #[cfg(target_arch = "x86_64")]
        if cpu.avx512_bf16 {
            // SAFETY: the processor has AVX-512 BF16, and `packed` was cut to `rows` values a line.
            #[allow(unsafe_code, reason = "calls a function compiled for detected CPU features")]
            return unsafe { with_rows!(rows, avx512, tile, packed, lines, ahead) };
        }
        #[cfg(target_arch = "x86_64")]
        if cpu.avx2 {
            // SAFETY: the processor has AVX2 and FMA.
            #[allow(unsafe_code, reason = "calls a function compiled for detected CPU features")]
            return unsafe { avx2(tile, packed, rows, lines) };
        }
        let _ = (cpu, ahead);
        portable::<false>(tile, packed, rows, lines);
    }

    fn block(&self, panel: usize, columns: usize) -> [[f32; PANEL]; PANEL] {
        let mut block = [[0.0; PANEL]; PANEL];
        for (into, line) in block.chunks_exact_mut(2).zip(&self.panel(panel)[columns * PANEL / 2..]) {
            for (row, pair) in line.0.iter().enumerate() {
                (into[0][row], into[1][row]) = split(*pair);
            }
        }
        block
    }
}

/// # Safety
/// The processor has AVX-512 F and BF16, and `packed` holds `ROWS` pairs for each line.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
#[allow(unsafe_code, reason = "vector loads take pointers")]
unsafe fn avx512<const ROWS: usize>(
    tile: &mut Tile,
    packed: &[u32],
    lines: &[Line<[u32; PANEL]>],
    ahead: Ahead,
) {
    use std::{
        arch::x86_64::{__m512bh, __m512i, _mm512_dpbf16_ps, _mm512_load_si512, _mm512_set1_epi32},
        mem::transmute,
    };
    // SAFETY: a tile's row and a line hold 32 values each, a line is aligned to 64 bytes, the caller promises
    // `ROWS` packed pairs a line, and both vector types are 512 bits that mean what the instruction makes of them.
    unsafe {
        let mut sums = load::<ROWS>(tile);
        let mut x = packed.as_ptr().cast::<i32>();
        for line in lines {
            let at = line.0.as_ptr().cast::<__m512i>();
            fetch(at, ahead);
            let low: __m512bh = transmute(_mm512_load_si512(at));
            let high: __m512bh = transmute(_mm512_load_si512(at.add(1)));
            for (row, sums) in sums.iter_mut().enumerate() {
                let x: __m512bh = transmute(_mm512_set1_epi32(*x.add(row)));
                *sums = [_mm512_dpbf16_ps(sums[0], x, low), _mm512_dpbf16_ps(sums[1], x, high)];
            }
            x = x.add(ROWS);
        }
        store(tile, sums);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(tile: &mut Tile, packed: &[u32], rows: usize, lines: &[Line<[u32; PANEL]>]) {
    portable::<true>(tile, packed, rows, lines);
}

/// A row at a time, in loops that become vectors of whatever width there is.
#[inline(always)]
fn portable<const FMA: bool>(tile: &mut Tile, packed: &[u32], rows: usize, lines: &[Line<[u32; PANEL]>]) {
    for (row, sums) in tile.iter_mut().take(rows).enumerate() {
        let mut sum = *sums;
        for (line, x) in lines.iter().zip(packed.chunks_exact(rows)) {
            let (even, odd) = split(x[row]);
            for (sum, pair) in sum.iter_mut().zip(line.0) {
                let (w_even, w_odd) = split(pair);
                *sum = multiply_add::<FMA>(odd, w_odd, *sum);
                *sum = multiply_add::<FMA>(even, w_even, *sum);
            }
        }
        *sums = sum;
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rounding_is_that_of_the_library(even in -1e30f32..1e30, odd in -1f32..1.0) {
            let pair = super::join(even, odd);
            prop_assert_eq!(super::split(pair), (bf16::from_f32(even).to_f32(), bf16::from_f32(odd).to_f32()));
        }
    }
}
