//! Weights as ggml's `q4_K` in panels: four bits each, in blocks of 32 along the input with a scale and a minimum
//! of six bits, whose units are shared by eight blocks; 4.6 bits a weight.
//!
//! `w = d · scale · q - d_min · min`. Inputs become bytes, as for `q8_0`. A row need not be a multiple of 256 long:
//! the last eight blocks may be incomplete here, though not in a file.

use half::f16;

#[cfg(target_arch = "x86_64")]
use super::panels::{fetch, load, store, with_rows};
use super::{
    Cpu,
    bytes::{self, BLOCK, Halves, PACKED},
    large::filled,
    panels::{Ahead, Line, PANEL, Panels, Pass, Tile},
};

/// Blocks that share their units.
const SHARING: usize = 8;

/// Columns of a stored super-block.
const SUPER_BLOCK: usize = SHARING * BLOCK;

/// Bytes of a super-block as ggml stores it: `d`, `d_min`, twelve bytes of scales and minima, 128 bytes of quants.
const STORED: usize = 144;

/// Scales and minima of a block, a byte each.
type Levels = [[u8; PANEL]; 2];

/// A matrix `[d_out, d_in]`, in blocks of 32 columns.
#[derive(Debug, Clone)]
pub(crate) struct Q4Panels {
    /// `[panels][blocks][4 pairs of groups][32 rows][4 columns]`: the first group in the low half of a byte.
    quants: Vec<Line<[[u8; 4]; PANEL]>>,
    /// `[panels][blocks]`.
    levels: Vec<Line<Levels>>,
    /// `[panels][⌈blocks / 8⌉]`: `d` and `d_min`.
    units: Vec<Line<[Halves; 2]>>,
    d_out: usize,
    d_in: usize,
}

impl Q4Panels {
    /// From `d_out` rows of `⌈d_in / 256⌉` super-blocks in ggml's form; `None` when there are fewer or more.
    pub(crate) fn from_blocks(stored: &[u8], d_out: usize, d_in: usize) -> Option<Self> {
        let (blocks, supers) = (d_in.div_ceil(BLOCK), d_in.div_ceil(SUPER_BLOCK));
        if stored.len() != d_out.checked_mul(supers)?.checked_mul(STORED)? || d_in == 0 {
            return None;
        }
        let panels = d_out.div_ceil(PANEL);
        let mut matrix = Self {
            quants: filled(Line([[0; 4]; PANEL]), panels * blocks * 4),
            levels: filled(Line([[0; PANEL]; 2]), panels * blocks),
            units: filled(Line([[0; PANEL]; 2]), panels * supers),
            d_out,
            d_in,
        };
        for (row, stored) in stored.chunks_exact(supers * STORED).enumerate() {
            for (at, stored) in stored.as_chunks::<STORED>().0.iter().enumerate() {
                matrix.set(row, at, stored);
            }
        }
        Some(matrix)
    }

    fn set(&mut self, row: usize, super_block: usize, stored: &[u8; STORED]) {
        let (blocks, supers) = (self.d_in.div_ceil(BLOCK), self.d_in.div_ceil(SUPER_BLOCK));
        let (panel, row) = (row / PANEL, row % PANEL);
        let units = &mut self.units[panel * supers + super_block].0;
        units[0][row] = u16::from_le_bytes([stored[0], stored[1]]);
        units[1][row] = u16::from_le_bytes([stored[2], stored[3]]);
        for (at, block) in (super_block * SHARING..blocks).take(SHARING).enumerate() {
            let (scale, min) = q4_levels(&stored[4..16], at);
            let into = &mut self.levels[panel * blocks + block].0;
            (into[0][row], into[1][row]) = (scale, min);
            // Two blocks of a super-block share 32 bytes: the even one has the low halves.
            let bytes = &stored[16 + at / 2 * BLOCK..][..BLOCK];
            let quant = |column: usize| if at % 2 == 0 { bytes[column] & 0x0f } else { bytes[column] >> 4 };
            let lines = &mut self.quants[(panel * blocks + block) * 4..][..4];
            for (pair, line) in lines.iter_mut().enumerate() {
                for (column, into) in line.0[row].iter_mut().enumerate() {
                    *into = quant(8 * pair + column) | quant(8 * pair + 4 + column) << 4;
                }
            }
        }
    }

    /// Scale and offset of each row of a panel in a block: `w = scale · q - offset`.
    #[inline(always)]
    fn scales(levels: &Levels, units: &[Halves; 2]) -> [[f32; PANEL]; 2] {
        [0, 1].map(|which| {
            let mut scales = [0.0; PANEL];
            for ((scale, level), unit) in scales.iter_mut().zip(levels[which]).zip(units[which]) {
                *scale = f16::from_bits(unit).to_f32() * f32::from(level);
            }
            scales
        })
    }

    /// Row `at` as floats.
    pub(crate) fn row(&self, at: usize, into: &mut [f32]) {
        for (block, into) in into.chunks_mut(BLOCK).enumerate() {
            for (into, values) in into.iter_mut().zip(self.block(at / PANEL, block)) {
                *into = values[at % PANEL];
            }
        }
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.quants.as_slice())
            + size_of_val(self.levels.as_slice())
            + size_of_val(self.units.as_slice())
    }
}

/// Six-bit scale and minimum of block `at` from twelve bytes: those of the first four blocks whole, of the others
/// four bits apart and the upper two in the bits that the first leave free.
pub(crate) fn q4_levels(packed: &[u8], at: usize) -> (u8, u8) {
    if at < 4 {
        (packed[at] & 63, packed[at + 4] & 63)
    } else {
        (packed[at + 4] & 15 | packed[at - 4] >> 6 << 4, packed[at + 4] >> 4 | packed[at] >> 6 << 4)
    }
}

impl Panels for Q4Panels {
    type Packed = u32;
    type Session = ();
    const ROWS: usize = 8;
    const STEP: usize = BLOCK;
    const PACKED_PER_STEP: usize = PACKED;
    const BYTES_PER_STEP: usize = 4 * size_of::<Line<[[u8; 4]; PANEL]>>();

    fn shape(&self) -> (usize, usize) {
        (self.d_out, self.d_in)
    }

    fn session(&self) {}

    fn pack(&self, into: &mut [u32], x: &[f32], rows: usize, scale: f32) {
        bytes::pack(into, x, rows, self.d_in, scale);
    }

    fn kernel(&self, tile: &mut Tile, packed: &[u32], pass: Pass, cpu: Cpu) {
        let Pass { rows, panel, steps, next } = pass;
        let ahead = next.halves();
        let (blocks, supers) = (self.d_in.div_ceil(BLOCK), self.d_in.div_ceil(SUPER_BLOCK));
        let part = Part {
            quants: &self.quants[panel * blocks * 4..][steps.start * 4..steps.end * 4],
            levels: &self.levels[panel * blocks..][steps.clone()],
            units: &self.units[panel * supers..][..supers],
            first: steps.start,
            packed: &packed[steps.start * PACKED * rows..steps.end * PACKED * rows],
            ahead,
        };
        #[cfg(target_arch = "x86_64")]
        if cpu.avx512_vnni {
            // SAFETY: the processor has AVX-512 VNNI, and the slices were cut to the same blocks.
            #[allow(unsafe_code, reason = "calls a function compiled for detected CPU features")]
            return unsafe { with_rows!(rows, avx512, tile, &part) };
        }
        #[cfg(target_arch = "x86_64")]
        if cpu.avx2 {
            // SAFETY: the processor has AVX2 and FMA.
            #[allow(unsafe_code, reason = "calls a function compiled for detected CPU features")]
            return unsafe { avx2(tile, &part, rows) };
        }
        let _ = cpu;
        portable(tile, &part, rows);
    }

    fn block(&self, panel: usize, columns: usize) -> [[f32; PANEL]; PANEL] {
        let (blocks, supers) = (self.d_in.div_ceil(BLOCK), self.d_in.div_ceil(SUPER_BLOCK));
        let at = panel * blocks + columns;
        let units = &self.units[panel * supers + columns / SHARING].0;
        let [scales, offsets] = Self::scales(&self.levels[at].0, units);
        let mut block = [[0.0; PANEL]; PANEL];
        for (into, line) in block.as_chunks_mut::<8>().0.iter_mut().zip(&self.quants[at * 4..][..4]) {
            for (row, four) in line.0.iter().enumerate() {
                for (column, byte) in four.iter().enumerate() {
                    into[column][row] = scales[row] * f32::from(byte & 0x0f) - offsets[row];
                    into[column + 4][row] = scales[row] * f32::from(byte >> 4) - offsets[row];
                }
            }
        }
        block
    }
}

/// Some blocks of a panel and of the rows of input.
struct Part<'a> {
    quants: &'a [Line<[[u8; 4]; PANEL]>], // [blocks][4]
    levels: &'a [Line<Levels>],           // [blocks]
    units: &'a [Line<[Halves; 2]>],       // of the whole panel
    first: usize,                         // block of the panel
    packed: &'a [u32],                    // [blocks][PACKED][rows]
    ahead: Ahead,                         // as in `fetch`
}

/// # Safety
/// The processor has AVX-512 F, BW and VNNI; the lengths in `part` agree, with `ROWS` rows.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[allow(unsafe_code, reason = "vector loads take pointers")]
#[allow(clippy::needless_range_loop, reason = "a half of a panel is an offset of every pointer too")]
unsafe fn avx512<const ROWS: usize>(tile: &mut Tile, part: &Part<'_>) {
    use std::arch::x86_64::{
        __m128i, __m256i, __m512i, _mm_load_si128, _mm256_load_si256, _mm512_and_si512, _mm512_cvtepi32_ps,
        _mm512_cvtepu8_epi32, _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_fnmadd_ps,
        _mm512_load_si512, _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps,
        _mm512_srli_epi16,
    };
    // SAFETY: lines are aligned to 64 bytes and hold what their types say, a tile's row holds 32 values, and the
    // caller promises the lengths.
    unsafe {
        let low_half = _mm512_set1_epi8(0x0f);
        let mut sums = load::<ROWS>(tile);
        let (mut x, mut w) = (part.packed.as_ptr().cast::<i32>(), part.quants.as_ptr().cast::<__m512i>());
        for (at, levels) in part.levels.iter().enumerate() {
            let units = &part.units[(part.first + at) / SHARING].0;
            for half in 0..2 {
                let mut dots = [_mm512_set1_epi32(0); ROWS];
                for pair in 0..4 {
                    let both = w.add(2 * pair + half);
                    if half == 0 {
                        fetch(both, part.ahead);
                    }
                    let both = _mm512_load_si512(both);
                    let low = _mm512_and_si512(both, low_half);
                    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(both), low_half);
                    for (row, dots) in dots.iter_mut().enumerate() {
                        let x = x.add(2 * pair * ROWS + row);
                        *dots = _mm512_dpbusd_epi32(*dots, low, _mm512_set1_epi32(*x));
                        *dots = _mm512_dpbusd_epi32(*dots, high, _mm512_set1_epi32(*x.add(ROWS)));
                    }
                }
                let [scale, offset] = [0, 1].map(|which| {
                    let unit = _mm256_load_si256(units[which].as_ptr().cast::<__m256i>().add(half));
                    let level = _mm_load_si128(levels.0[which].as_ptr().cast::<__m128i>().add(half));
                    _mm512_mul_ps(_mm512_cvtph_ps(unit), _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(level)))
                });
                for (row, dots) in dots.iter().enumerate() {
                    let unit = f32::from_bits((*x.add(bytes::SCALE * ROWS + row)).cast_unsigned());
                    let sum = *x.add(bytes::SUM * ROWS + row) as f32 * unit;
                    let product = _mm512_mul_ps(_mm512_cvtepi32_ps(*dots), scale);
                    let with_dots = _mm512_fmadd_ps(product, _mm512_set1_ps(unit), sums[row][half]);
                    sums[row][half] = _mm512_fnmadd_ps(offset, _mm512_set1_ps(sum), with_dots);
                }
            }
            (x, w) = (x.add(PACKED * ROWS), w.add(8));
        }
        store(tile, sums);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(tile: &mut Tile, part: &Part<'_>, rows: usize) {
    portable(tile, part, rows);
}

/// A row at a time, in loops that become vectors of whatever width there is.
#[inline(always)]
fn portable(tile: &mut Tile, part: &Part<'_>, rows: usize) {
    let blocks =
        part.levels.iter().zip(part.quants.as_chunks::<4>().0).zip(part.packed.chunks_exact(PACKED * rows));
    for (at, ((levels, quants), packed)) in blocks.enumerate() {
        let [scales, offsets] = Q4Panels::scales(&levels.0, &part.units[(part.first + at) / SHARING].0);
        for (row, sums) in tile.iter_mut().take(rows).enumerate() {
            let (unit, sum) = bytes::scale_and_sum(packed, rows, row);
            let mut dots = [0i32; PANEL];
            for (pair, line) in quants.iter().enumerate() {
                let low = bytes::group(packed, rows, 2 * pair, row).map(i32::from);
                let high = bytes::group(packed, rows, 2 * pair + 1, row).map(i32::from);
                for (dot, w) in dots.iter_mut().zip(&line.0) {
                    for ((w, low), high) in w.iter().zip(low).zip(high) {
                        *dot += i32::from(w & 0x0f) * low + i32::from(w >> 4) * high;
                    }
                }
            }
            for (lane, result) in sums.iter_mut().enumerate() {
                *result += dots[lane] as f32 * scales[lane] * unit - offsets[lane] * (sum as f32 * unit);
            }
        }
    }
}
