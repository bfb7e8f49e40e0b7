//! Weights as 32-bit floats in panels.

use super::{
    Cpu,
    dispatch::multiply_add,
    panels::{LINES_AT_ONCE, Line, PANEL, Panels, Pass, Tile, fetch, load, store, with_rows},
};

/// Rows of input at once: 12 by 32 sums are 24 of AVX-512's 32 registers.
pub(super) const ROWS: usize = 12;

/// A matrix `[d_out, d_in]`: `[panels][d_in][32]`.
#[derive(Debug, Clone)]
pub(crate) struct F32Panels {
    lines: Vec<Line<[f32; PANEL]>>,
    d_out: usize,
    d_in: usize,
}

impl F32Panels {
    /// From row-major `values`.
    pub(crate) fn new(values: &[f32], d_out: usize, d_in: usize) -> Self {
        let mut lines = vec![Line([0.0; PANEL]); d_out.div_ceil(PANEL) * d_in];
        let rows_of_panels = values.chunks(PANEL * d_in.max(1));
        for (panel, values) in lines.chunks_exact_mut(d_in.max(1)).zip(rows_of_panels) {
            // As many lines as the first cache keeps while one row after another is written into them.
            for (at, lines) in panel.chunks_mut(LINES_AT_ONCE).enumerate() {
                for (row, values) in values.chunks_exact(d_in).enumerate() {
                    for (line, value) in lines.iter_mut().zip(&values[at * LINES_AT_ONCE..]) {
                        line.0[row] = *value;
                    }
                }
            }
        }
        Self { lines, d_out, d_in }
    }

    /// Row `at` as it was given.
    pub(crate) fn row(&self, at: usize, into: &mut [f32]) {
        let panel = &self.lines[at / PANEL * self.d_in..][..self.d_in];
        for (into, line) in into.iter_mut().zip(panel) {
            *into = line.0[at % PANEL];
        }
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.lines.as_slice())
    }
}

impl Panels for F32Panels {
    type Packed = f32;
    const ROWS: usize = ROWS;
    const STEP: usize = 1;
    const PACKED_PER_STEP: usize = 1;
    const BYTES_PER_STEP: usize = size_of::<Line<[f32; PANEL]>>();

    fn shape(&self) -> (usize, usize) {
        (self.d_out, self.d_in)
    }

    fn pack(&self, into: &mut [f32], x: &[f32], rows: usize, scale: f32) {
        pack(into, x, rows, scale);
    }

    fn kernel(&self, tile: &mut Tile, packed: &[f32], pass: Pass, cpu: Cpu) {
        let Pass { rows, panel, steps, ahead } = pass;
        let lines = &self.lines[panel * self.d_in..][steps.clone()];
        kernel(tile, &packed[steps.start * rows..steps.end * rows], rows, lines, ahead, cpu);
    }

    fn block(&self, panel: usize, columns: usize) -> [[f32; PANEL]; PANEL] {
        let mut block = [[0.0; PANEL]; PANEL];
        let lines = &self.lines[panel * self.d_in..][..self.d_in];
        for (into, line) in block.iter_mut().zip(&lines[(columns * PANEL).min(lines.len())..]) {
            *into = line.0;
        }
        block
    }
}

/// `x` `[rows, width]` to `[width][rows]`, times `scale`.
pub(super) fn pack(into: &mut [f32], x: &[f32], rows: usize, scale: f32) {
    /// Columns whose packed values stay in the first cache while one row after another is written into them.
    const COLUMNS: usize = 128;
    let width = x.len() / rows.max(1);
    for (at, into) in into.chunks_mut(COLUMNS * rows).enumerate() {
        for (row, x) in x.chunks_exact(width.max(1)).enumerate() {
            let x = &x[at * COLUMNS..][..into.len() / rows];
            for (into, x) in into[row..].iter_mut().step_by(rows).zip(x) {
                *into = x * scale;
            }
        }
    }
}

/// Adds `x · panelᵀ` to `tile`: `packed` `[width][rows]`, `lines` `[width][32]`; `ahead` as in [`Pass`].
pub(super) fn kernel(
    tile: &mut Tile,
    packed: &[f32],
    rows: usize,
    lines: &[Line<[f32; PANEL]>],
    ahead: usize,
    cpu: Cpu,
) {
    assert_eq!(packed.len(), lines.len() * rows, "packed rows do not fit the panel");
    #[cfg(target_arch = "x86_64")]
    if cpu.avx512 {
        // SAFETY: the processor has AVX-512, and the lengths were compared.
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

/// # Safety
/// The processor has AVX-512 F, and `packed` holds `ROWS` values for each line.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "vector loads take pointers")]
unsafe fn avx512<const ROWS: usize>(
    tile: &mut Tile,
    packed: &[f32],
    lines: &[Line<[f32; PANEL]>],
    ahead: usize,
) {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_load_ps, _mm512_set1_ps};
    // SAFETY: a tile's row and a line hold 32 values each, a line is aligned to 64 bytes, and the caller promises
    // `ROWS` packed values a line.
    unsafe {
        let mut sums = load::<ROWS>(tile);
        let mut x = packed.as_ptr();
        for line in lines {
            let (low, high) = (line.0.as_ptr(), line.0.as_ptr().add(16));
            fetch(low, ahead);
            fetch(high, ahead);
            let (low, high) = (_mm512_load_ps(low), _mm512_load_ps(high));
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*x.add(row));
                *sums = [_mm512_fmadd_ps(x, low, sums[0]), _mm512_fmadd_ps(x, high, sums[1])];
            }
            x = x.add(ROWS);
        }
        store(tile, sums);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(tile: &mut Tile, packed: &[f32], rows: usize, lines: &[Line<[f32; PANEL]>]) {
    portable::<true>(tile, packed, rows, lines);
}

/// Two rows at a time, in loops that become vectors of whatever width there is.
#[inline(always)]
fn portable<const FMA: bool>(tile: &mut Tile, packed: &[f32], rows: usize, lines: &[Line<[f32; PANEL]>]) {
    for first in (0..rows).step_by(2) {
        let second = (first + 1).min(rows - 1);
        let (mut one, mut two) = (tile[first], tile[second]);
        for (line, x) in lines.iter().zip(packed.chunks_exact(rows)) {
            let (x_one, x_two) = (x[first], x[second]);
            for lane in 0..PANEL {
                one[lane] = multiply_add::<FMA>(x_one, line.0[lane], one[lane]);
                two[lane] = multiply_add::<FMA>(x_two, line.0[lane], two[lane]);
            }
        }
        tile[second] = two;
        tile[first] = one;
    }
}
