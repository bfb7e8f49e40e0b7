//! Weights as ggml's `q8_0` in panels: blocks of 32 bytes along the input with a scale each, 8.5 bits a weight.
//!
//! Inputs become bytes too, and products of bytes are summed exactly within a block (AVX-512 VNNI); blocks are
//! summed as 32-bit floats.

use std::ops::Range;

use half::f16;

#[cfg(target_arch = "x86_64")]
use super::panels::{Ahead, fetch, load, store, with_rows};
use super::{
    Cpu,
    bytes::{self, BLOCK, Halves, PACKED},
    large::filled,
    panels::{Line, PANEL, Panels, Pass, Tile},
};

/// Bytes of a block as ggml stores it: the scale in half precision, then 32 signed bytes.
const STORED: usize = 34;

/// What the weights' bytes are moved by, as one side of the instruction's product is unsigned.
pub(super) const OFFSET: i32 = 128;

/// Four columns of each of a panel's 32 rows.
pub(super) type QuantLine = Line<[[u8; 4]; PANEL]>;

/// A matrix `[d_out, d_in]`, in blocks of 32 columns.
#[derive(Debug, Clone)]
pub(crate) struct Q8Panels {
    /// `[panels][blocks][8 groups][32 rows][4 columns]`, each byte moved by 128.
    quants: Vec<QuantLine>,
    /// `[panels][blocks]`.
    scales: Vec<Line<Halves>>,
    d_out: usize,
    d_in: usize,
}

impl Q8Panels {
    /// From `d_out` rows of `⌈d_in / 32⌉` blocks in ggml's form; `None` when there are fewer or more.
    pub(crate) fn from_blocks(stored: &[u8], d_out: usize, d_in: usize) -> Option<Self> {
        let blocks = d_in.div_ceil(BLOCK);
        if stored.len() != d_out.checked_mul(blocks)?.checked_mul(STORED)? || d_in == 0 {
            return None;
        }
        let panels = d_out.div_ceil(PANEL);
        let mut quants = filled(Line([[OFFSET as u8; 4]; PANEL]), panels * blocks * 8);
        let mut scales = filled(Line([0; PANEL]), panels * blocks);
        for (row, stored) in stored.chunks_exact(blocks * STORED).enumerate() {
            for (block, stored) in stored.as_chunks::<STORED>().0.iter().enumerate() {
                let at = row / PANEL * blocks + block;
                scales[at].0[row % PANEL] = u16::from_le_bytes([stored[0], stored[1]]);
                for (line, four) in quants[at * 8..].iter_mut().zip(stored[2..].as_chunks::<4>().0) {
                    line.0[row % PANEL] = four.map(|byte| byte ^ 0x80);
                }
            }
        }
        Some(Self { quants, scales, d_out, d_in })
    }

    /// Row `at` as floats.
    pub(crate) fn row(&self, at: usize, into: &mut [f32]) {
        let blocks = self.d_in.div_ceil(BLOCK);
        for (block, into) in into.chunks_mut(BLOCK).enumerate() {
            let at_block = at / PANEL * blocks + block;
            let scale = f16::from_bits(self.scales[at_block].0[at % PANEL]).to_f32();
            let lines = self.quants[at_block * 8..][..8].iter();
            for (into, byte) in into.iter_mut().zip(lines.flat_map(|line| line.0[at % PANEL])) {
                *into = scale * (i32::from(byte) - OFFSET) as f32;
            }
        }
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.quants.as_slice()) + size_of_val(self.scales.as_slice())
    }

    /// Eight lines and the scales of each of the blocks `steps` of a panel.
    pub(super) fn blocks(&self, panel: usize, steps: Range<usize>) -> (&[QuantLine], &[Line<Halves>]) {
        let blocks = self.d_in.div_ceil(BLOCK);
        let quants = &self.quants[panel * blocks * 8..][steps.start * 8..steps.end * 8];
        (quants, &self.scales[panel * blocks..][steps])
    }
}

impl Panels for Q8Panels {
    type Packed = u32;
    type Session = ();
    const ROWS: usize = 8;
    const STEP: usize = BLOCK;
    const PACKED_PER_STEP: usize = PACKED;
    const BYTES_PER_STEP: usize = 8 * size_of::<QuantLine>();

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
        let (quants, scales) = self.blocks(panel, steps.clone());
        let packed = &packed[steps.start * PACKED * rows..steps.end * PACKED * rows];
        #[cfg(target_arch = "x86_64")]
        if cpu.avx512_vnni {
            // SAFETY: the processor has AVX-512 VNNI, and all three slices were cut to the same blocks.
            #[allow(unsafe_code, reason = "calls a function compiled for detected CPU features")]
            return unsafe { with_rows!(rows, avx512, tile, packed, quants, scales, ahead) };
        }
        #[cfg(target_arch = "x86_64")]
        if cpu.avx2 {
            // SAFETY: the processor has AVX2 and FMA.
            #[allow(unsafe_code, reason = "calls a function compiled for detected CPU features")]
            return unsafe { avx2(tile, packed, rows, quants, scales) };
        }
        let _ = (cpu, ahead);
        portable(tile, packed, rows, quants, scales);
    }

    fn block(&self, panel: usize, columns: usize) -> [[f32; PANEL]; PANEL] {
        let mut block = [[0.0; PANEL]; PANEL];
        let at = panel * self.d_in.div_ceil(BLOCK) + columns;
        let scales = self.scales[at].0.map(|bits| f16::from_bits(bits).to_f32());
        for (into, line) in block.as_chunks_mut::<4>().0.iter_mut().zip(&self.quants[at * 8..][..8]) {
            for (row, four) in line.0.iter().enumerate() {
                for (into, byte) in into.iter_mut().zip(four) {
                    into[row] = scales[row] * (i32::from(*byte) - OFFSET) as f32;
                }
            }
        }
        block
    }
}

/// # Safety
/// The processor has AVX-512 F and VNNI; for each of `scales` there are eight of `quants` and `PACKED · ROWS` of
/// `packed`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
#[allow(unsafe_code, reason = "vector loads take pointers")]
#[allow(clippy::needless_range_loop, reason = "a half of a panel is an offset of every pointer too")]
unsafe fn avx512<const ROWS: usize>(
    tile: &mut Tile,
    packed: &[u32],
    quants: &[QuantLine],
    scales: &[Line<Halves>],
    ahead: Ahead,
) {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm256_load_si256, _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_dpbusd_epi32,
        _mm512_fmadd_ps, _mm512_load_si512, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps,
    };
    // SAFETY: lines are aligned to 64 bytes and hold 128 bytes (quants) or 64 (scales), a tile's row holds 32
    // values, and the caller promises the lengths.
    unsafe {
        let mut sums = load::<ROWS>(tile);
        let (mut x, mut w) = (packed.as_ptr().cast::<i32>(), quants.as_ptr().cast::<__m512i>());
        for scale in scales {
            for half in 0..2 {
                let mut dots = [_mm512_set1_epi32(0); ROWS];
                for (row, dots) in dots.iter_mut().enumerate() {
                    *dots = _mm512_set1_epi32(-OFFSET * *x.add(bytes::SUM * ROWS + row));
                }
                for group in 0..8 {
                    let w = w.add(2 * group + half);
                    if half == 0 {
                        fetch(w, ahead);
                    }
                    let w = _mm512_load_si512(w);
                    for (row, dots) in dots.iter_mut().enumerate() {
                        *dots = _mm512_dpbusd_epi32(*dots, w, _mm512_set1_epi32(*x.add(group * ROWS + row)));
                    }
                }
                let scale = _mm512_cvtph_ps(_mm256_load_si256(scale.0.as_ptr().cast::<__m256i>().add(half)));
                for (row, dots) in dots.iter().enumerate() {
                    let x = f32::from_bits((*x.add(bytes::SCALE * ROWS + row)).cast_unsigned());
                    let product = _mm512_mul_ps(_mm512_cvtepi32_ps(*dots), scale);
                    sums[row][half] = _mm512_fmadd_ps(product, _mm512_set1_ps(x), sums[row][half]);
                }
            }
            (x, w) = (x.add(PACKED * ROWS), w.add(16));
        }
        store(tile, sums);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(tile: &mut Tile, packed: &[u32], rows: usize, quants: &[QuantLine], scales: &[Line<Halves>]) {
    portable(tile, packed, rows, quants, scales);
}

/// A row at a time, in loops that become vectors of whatever width there is.
#[inline(always)]
fn portable(tile: &mut Tile, packed: &[u32], rows: usize, quants: &[QuantLine], scales: &[Line<Halves>]) {
    let blocks = scales.iter().zip(quants.as_chunks::<8>().0).zip(packed.chunks_exact(PACKED * rows));
    for ((scales, quants), packed) in blocks {
        let scales = scales.0.map(|bits| f16::from_bits(bits).to_f32());
        for (row, sums) in tile.iter_mut().take(rows).enumerate() {
            let (scale, sum) = bytes::scale_and_sum(packed, rows, row);
            let mut dots = [-OFFSET * sum; PANEL];
            for (group, line) in quants.iter().enumerate() {
                let x = bytes::group(packed, rows, group, row).map(i32::from);
                for (dot, w) in dots.iter_mut().zip(&line.0) {
                    for (w, x) in w.iter().zip(x) {
                        *dot += i32::from(*w) * x;
                    }
                }
            }
            for ((sum, dot), weight_scale) in sums.iter_mut().zip(dots).zip(scales) {
                *sum += dot as f32 * weight_scale * scale;
            }
        }
    }
}
