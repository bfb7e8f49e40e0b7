//! Weights as 32-bit floats in panels.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::panels::{fetch, fetch_near, load, store, with_rows};
use super::{
    Cpu,
    dispatch::multiply_add,
    large::filled,
    panels::{Ahead, LINES_AT_ONCE, Line, PANEL, Panels, Pass, Tile},
};

/// Rows of input at once: 12 by 32 sums are 24 of AVX-512's 32 registers.
pub(super) const ROWS: usize = 12;

/// Rows of input that meet a panel once when they are all: two halves of them by turns.
const ROWS_ALONE: usize = 2 * ROWS;

/// Lines that one half of the rows meets before the other half does: 8 KiB, which stay in the first cache.
const TURN: usize = 64;

/// A matrix `[d_out, d_in]`: `[panels][d_in][32]`, `d_in` filled up to pairs.
///
/// A last panel of at most 16 rows, as low-rank matrices are, is *folded*: its lines hold the 16 values of one column
/// and behind them those of the next, so that no memory is read for rows that are not there.
#[derive(Debug, Clone)]
pub(crate) struct F32Panels {
    lines: Vec<Line<[f32; PANEL]>>,
    d_out: usize,
    d_in: usize,
}

/// Most rows of a panel that is folded.
const FOLDED: usize = PANEL / 2;

impl F32Panels {
    /// From row-major `values`.
    pub(crate) fn new(values: &[f32], d_out: usize, d_in: usize) -> Self {
        let mut matrix = Self { lines: Vec::new(), d_out, d_in };
        let panels = d_out.div_ceil(PANEL);
        matrix.lines = filled(Line([0.0; PANEL]), matrix.lines_of(panels.saturating_sub(1)).end);
        for (panel, values) in values.chunks(PANEL * d_in.max(1)).enumerate().take(panels) {
            let (folded, range) = (matrix.is_folded(panel), matrix.lines_of(panel));
            let columns_at_once = if folded { 2 * LINES_AT_ONCE } else { LINES_AT_ONCE };
            // As many lines as the first cache keeps while one row after another is written into them.
            for (at, lines) in matrix.lines[range].chunks_mut(LINES_AT_ONCE).enumerate() {
                for (row, values) in values.chunks_exact(d_in.max(1)).enumerate() {
                    let values = &values[(at * columns_at_once).min(d_in)..];
                    if folded {
                        for (line, pair) in lines.iter_mut().zip(values.chunks(2)) {
                            line.0[row] = pair[0];
                            line.0[FOLDED + row] = pair.get(1).copied().unwrap_or(0.0);
                        }
                    } else {
                        for (line, value) in lines.iter_mut().zip(values) {
                            line.0[row] = *value;
                        }
                    }
                }
            }
        }
        matrix
    }

    /// Whether this panel is the last and folded.
    fn is_folded(&self, panel: usize) -> bool {
        self.d_out.saturating_sub(panel * PANEL) <= FOLDED
    }

    /// Where a panel's lines are. Only the last is shorter.
    fn lines_of(&self, panel: usize) -> Range<usize> {
        let pairs = self.d_in.div_ceil(2);
        let begin = panel * 2 * pairs;
        begin..begin + if self.is_folded(panel) { pairs } else { 2 * pairs }
    }

    /// The values of a column in a panel, of 16 rows where it is folded.
    fn column(&self, panel: usize, column: usize) -> &[f32] {
        let lines = &self.lines[self.lines_of(panel)];
        if self.is_folded(panel) {
            &lines[column / 2].0[column % 2 * FOLDED..][..FOLDED]
        } else {
            &lines[column].0
        }
    }

    /// Row `at` as it was given.
    pub(crate) fn row(&self, at: usize, into: &mut [f32]) {
        for (column, into) in into.iter_mut().enumerate().take(self.d_in) {
            *into = self.column(at / PANEL, column)[at % PANEL];
        }
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.lines.as_slice())
    }
}

impl Panels for F32Panels {
    type Packed = f32;
    type Session = ();
    const ROWS: usize = ROWS;
    const ROWS_ALONE: usize = ROWS_ALONE;
    const STEP: usize = 2;
    const PACKED_PER_STEP: usize = 2;
    const BYTES_PER_STEP: usize = 2 * size_of::<Line<[f32; PANEL]>>();

    fn shape(&self) -> (usize, usize) {
        (self.d_out, self.d_in)
    }

    fn session(&self) {}

    fn pack(&self, into: &mut [f32], x: &[f32], rows: usize, scale: f32) {
        let (whole, filled_up) = into.split_at_mut(self.d_in * rows);
        pack(whole, x, rows, scale);
        filled_up.fill(0.0);
    }

    fn kernel(&self, tile: &mut Tile, packed: &[f32], pass: Pass, cpu: Cpu) {
        let Pass { rows, panel, steps, next } = pass;
        let ahead = next.halves();
        let (lines, packed) =
            (&self.lines[self.lines_of(panel)], &packed[2 * steps.start * rows..2 * steps.end * rows]);
        if self.is_folded(panel) {
            folded_kernel(tile, packed, rows, &lines[steps], cpu);
        } else {
            kernel(tile, packed, rows, &lines[2 * steps.start..2 * steps.end], ahead, cpu);
        }
    }

    fn block(&self, panel: usize, columns: usize) -> [[f32; PANEL]; PANEL] {
        let mut block = [[0.0; PANEL]; PANEL];
        for (into, column) in block.iter_mut().zip(columns * PANEL..self.d_in) {
            let values = self.column(panel, column);
            into[..values.len()].copy_from_slice(values);
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

/// Adds `x · panelᵀ` to `tile`: `packed` `[width][rows]`, `lines` `[width][32]`; `ahead` as in [`fetch`].
pub(super) fn kernel(
    tile: &mut Tile,
    packed: &[f32],
    rows: usize,
    lines: &[Line<[f32; PANEL]>],
    ahead: Ahead,
    cpu: Cpu,
) {
    assert_eq!(packed.len(), lines.len() * rows, "packed rows do not fit the panel");
    #[cfg(target_arch = "x86_64")]
    if cpu.avx512 {
        // SAFETY: the processor has AVX-512, and the lengths were compared.
        #[allow(unsafe_code, reason = "calls a function compiled for detected CPU features")]
        return unsafe { by_turns(tile, packed, rows, lines, ahead) };
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

/// All rows where they fit the registers, else one half of them after the other, a few lines at a time: so that memory brings
/// the panel at the pace at which both halves compute.
///
/// # Safety
/// The processor has AVX-512 F, and `packed` holds `rows` values, at most [`ROWS_ALONE`], for each line.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "the halves' values begin at pointers")]
unsafe fn by_turns(tile: &mut Tile, packed: &[f32], rows: usize, lines: &[Line<[f32; PANEL]>], ahead: Ahead) {
    let x = packed.as_ptr();
    // SAFETY: the caller's promise; the second half's values lie behind the first half's, and the next line's `rows` on.
    unsafe {
        if rows <= ROWS {
            return with_rows!(rows, avx512, tile, x, rows, lines, ahead);
        }
        let half = rows.div_ceil(2);
        let (first, second) = tile.split_at_mut(half);
        for (turn, lines) in lines.chunks(TURN).enumerate() {
            let x = x.add(turn * TURN * rows);
            with_rows!(half, avx512, first, x, rows, lines, ahead);
            with_rows!(rows - half, avx512, second, x.add(half), rows, lines, [0; 2]);
        }
    }
}

/// `ROWS` rows whose values lie `stride` apart from one line to the next.
///
/// # Safety
/// The processor has AVX-512 F, and from `x` on there are `ROWS` values for each line.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "vector loads take pointers")]
unsafe fn avx512<const ROWS: usize>(
    tile: &mut Tile,
    mut x: *const f32,
    stride: usize,
    lines: &[Line<[f32; PANEL]>],
    ahead: Ahead,
) {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_load_ps, _mm512_set1_ps};
    // SAFETY: a tile's row and a line hold 32 values each, a line is aligned to 64 bytes, and the caller promises
    // `ROWS` values a line.
    unsafe {
        let mut sums = load::<ROWS>(tile);
        for line in lines {
            let (low, high) = (line.0.as_ptr(), line.0.as_ptr().add(16));
            fetch(low, ahead);
            fetch_near(low);
            fetch_near(high);
            let (low, high) = (_mm512_load_ps(low), _mm512_load_ps(high));
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*x.add(row));
                *sums = [_mm512_fmadd_ps(x, low, sums[0]), _mm512_fmadd_ps(x, high, sums[1])];
            }
            x = x.wrapping_add(stride); // past the values of this half behind the last line
        }
        store(tile, sums);
    }
}

/// Adds `x · panelᵀ` of a folded panel to `tile`: `packed` `[2 lines][rows]`.
fn folded_kernel(tile: &mut Tile, packed: &[f32], rows: usize, lines: &[Line<[f32; PANEL]>], cpu: Cpu) {
    assert_eq!(packed.len(), 2 * lines.len() * rows, "packed rows do not fit the panel");
    #[cfg(target_arch = "x86_64")]
    if cpu.avx512 {
        // SAFETY: the processor has AVX-512, and the lengths were compared.
        #[allow(unsafe_code, reason = "calls a function compiled for detected CPU features")]
        return unsafe {
            let x = packed.as_ptr();
            if rows <= ROWS {
                with_rows!(rows, folded_avx512, tile, x, rows, lines);
            } else {
                let half = rows.div_ceil(2);
                let (first, second) = tile.split_at_mut(half);
                with_rows!(half, folded_avx512, first, x, rows, lines);
                with_rows!(rows - half, folded_avx512, second, x.add(half), rows, lines);
            }
        };
    }
    let _ = cpu;
    folded_portable(tile, packed, rows, lines);
}

/// # Safety
/// The processor has AVX-512 F, and from `x` on there are two times `ROWS` values for each line, `stride` apart.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "vector loads take pointers")]
unsafe fn folded_avx512<const ROWS: usize>(
    tile: &mut Tile,
    mut x: *const f32,
    stride: usize,
    lines: &[Line<[f32; PANEL]>],
) {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_load_ps, _mm512_set1_ps};
    // SAFETY: a tile's row and a line hold 32 values each, a line is aligned to 64 bytes, and the caller promises
    // the values of both columns.
    unsafe {
        let mut sums = load::<ROWS>(tile);
        for line in lines {
            let (first, second) = (line.0.as_ptr(), line.0.as_ptr().add(FOLDED));
            let (first, second) = (_mm512_load_ps(first), _mm512_load_ps(second));
            // One sum for both columns: the order is that of the input, wherever a block of steps ends.
            for (row, sums) in sums.iter_mut().enumerate() {
                sums[0] = _mm512_fmadd_ps(_mm512_set1_ps(*x.add(row)), first, sums[0]);
                sums[0] = _mm512_fmadd_ps(_mm512_set1_ps(*x.add(stride + row)), second, sums[0]);
            }
            x = x.wrapping_add(2 * stride);
        }
        store(tile, sums);
    }
}

/// A row at a time, in loops that become vectors of whatever width there is.
fn folded_portable(tile: &mut Tile, packed: &[f32], rows: usize, lines: &[Line<[f32; PANEL]>]) {
    for (row, sums) in tile.iter_mut().take(rows).enumerate() {
        for (line, x) in lines.iter().zip(packed.chunks_exact(2 * rows)) {
            let (first, second) = line.0.split_at(FOLDED);
            for ((sum, first), second) in sums.iter_mut().zip(first).zip(second) {
                *sum += x[row] * first;
                *sum += x[rows + row] * second;
            }
        }
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
