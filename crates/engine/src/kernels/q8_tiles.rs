//! Products of many rows with weights of `q8_0` by AMX, 32 rows of input by 32 of the weights at once.
//!
//! A block's sums of bytes are exact, and scaled and added as the vector kernel does it: results are the same to the last
//! bit, and a product takes whichever is faster for its number of rows.

use std::arch::{
    asm,
    x86_64::{
        __m256i, __m512, __m512i, _mm256_load_si256, _mm512_add_epi32, _mm512_cvtepi32_ps, _mm512_cvtph_ps,
        _mm512_fmadd_ps, _mm512_load_si512, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps,
    },
};

use super::{
    Cpu, Q8Panels,
    bytes::{self, BLOCK, Halves, PACKED},
    panels::{Ahead, Line, PANEL, Panels, Pass, Tile, fetch, load, store},
    q8_panels::{OFFSET, QuantLine},
    tiles::TileSession,
};

/// Rows of a tile.
const ROWS: usize = 16;

/// Values of 16 rows of a block: a tile of eight groups of four bytes a row, the scales, the corrections.
const GROUP: usize = PACKED * ROWS;

/// Where a block's scales begin, as the bits of `f32`.
const SCALES: usize = bytes::SCALE * ROWS;

/// Where what is added to a row's sums of bytes begins, as the weights are moved.
const CORRECTIONS: usize = bytes::SUM * ROWS;

/// Blocks whose sums of bytes are kept before they are scaled: 8 KiB.
const KEPT: usize = 4;

/// Rows whose sums stay in registers while they are scaled.
const SCALED: usize = 8;

/// [`Q8Panels`], multiplied by tiles.
#[derive(Debug)]
pub(super) struct Q8Tiles<'a>(pub(super) &'a Q8Panels);

/// Sums of bytes of a block: 16 rows by 32 columns.
type Dots = Line<[[i32; PANEL]; ROWS]>;

impl Panels for Q8Tiles<'_> {
    type Packed = u32;
    type Session = TileSession;
    const ROWS: usize = 2 * ROWS;
    const ROWS_MULTIPLE: usize = ROWS;
    const STEP: usize = BLOCK;
    const PACKED_PER_STEP: usize = PACKED;
    const BYTES_PER_STEP: usize = <Q8Panels as Panels>::BYTES_PER_STEP;
    const BLOCK_BYTES: usize = 32 << 10;

    fn shape(&self) -> (usize, usize) {
        self.0.shape()
    }

    fn session(&self) -> TileSession {
        TileSession::new(BLOCK / 4)
    }

    /// `[⌈rows / 16⌉][blocks][GROUP]`; rows that are not there are zeros.
    fn pack(&self, into: &mut [u32], x: &[f32], _: usize, scale: f32) {
        let d_in = self.shape().1;
        into.fill(0);
        for (row, x) in x.chunks_exact(d_in).enumerate() {
            let into = &mut into[row / ROWS * self.packed_width() * ROWS..];
            let row = row % ROWS;
            for (into, x) in into.chunks_exact_mut(GROUP).zip(x.chunks(BLOCK)) {
                let (bytes, unit, sum) = bytes::quantize_block(x);
                for (into, four) in into[row * BLOCK / 4..].iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *into = u32::from_le_bytes(four.map(i8::cast_unsigned));
                }
                into[SCALES + row] = (unit * scale).to_bits();
                into[CORRECTIONS + row] = (-OFFSET * sum).cast_unsigned();
            }
        }
    }

    fn kernel(&self, tile: &mut Tile, packed: &[u32], pass: Pass, _: Cpu) {
        let Pass { panel, steps, next, .. } = pass;
        let ahead = next.halves();
        let (quants, scales) = self.0.blocks(panel, steps.clone());
        let halves = packed.chunks_exact(self.packed_width() * ROWS);
        for (tile, x) in tile.chunks_exact_mut(ROWS).zip(halves) {
            let x = &x[steps.start * GROUP..steps.end * GROUP];
            let mut dots = [const { Line([[0; PANEL]; ROWS]) }; KEPT];
            let blocks = quants.chunks(8 * KEPT).zip(scales.chunks(KEPT)).zip(x.chunks(KEPT * GROUP));
            for ((quants, scales), x) in blocks {
                // SAFETY: the processor has tiles and AVX-512, for these panels are made only there, and the caller
                // has begun a session; the slices were cut to the same blocks.
                #[allow(unsafe_code, reason = "calls functions for detected CPU features")]
                unsafe {
                    let parts = quants.as_chunks::<8>().0.iter().zip(x.as_chunks::<GROUP>().0);
                    for (dots, (quants, x)) in dots.iter_mut().zip(parts) {
                        multiply_bytes(dots, x, quants, ahead);
                    }
                    for (at, tile) in tile.chunks_exact_mut(SCALED).enumerate() {
                        scale_and_add(tile, &dots, at * SCALED, x, scales);
                    }
                }
            }
        }
    }

    fn block(&self, panel: usize, columns: usize) -> [[f32; PANEL]; PANEL] {
        self.0.block(panel, columns)
    }
}

/// `dots` `[16, 32] = x wᵀ` over one block of 32 signed bytes of `x` and unsigned ones of `w`; `ahead` as in [`fetch`].
///
/// # Safety
/// A session with tiles 8 deep is on this thread.
#[allow(unsafe_code, reason = "instructions that have no stable name")]
unsafe fn multiply_bytes(dots: &mut Dots, x: &[u32; GROUP], w: &[QuantLine; 8], ahead: Ahead) {
    for line in w {
        fetch(line, ahead);
    }
    // SAFETY: a session is there; 16 rows of 128 bytes are written, of 32 bytes and eight of 128 bytes read.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tileloadd tmm4, [{x} + {row}*1]",
            "tileloadd tmm6, [{w} + {line}*1]",
            "tdpbsud tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w} + {line}*1 + 64]",
            "tdpbsud tmm1, tmm4, tmm7",
            "tilestored [{dots} + {line}*1], tmm0",
            "tilestored [{dots} + {line}*1 + 64], tmm1",
            dots = in(reg) dots,
            line = in(reg) 4 * PANEL,
            row = in(reg) BLOCK,
            x = in(reg) x,
            w = in(reg) w,
            options(nostack),
        );
    }
}

/// Adds the sums of bytes in rows `first ..` of `dots`, times the scales of both sides, to `tile`, block after block as the
/// vector kernel does; `x` are the blocks' packed values.
///
/// # Safety
/// The processor has AVX-512 F; there are no more of `scales` than of `dots` and of whole `GROUP`s of `x`.
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "vector loads take pointers")]
unsafe fn scale_and_add(tile: &mut Tile, dots: &[Dots], first: usize, x: &[u32], scales: &[Line<Halves>]) {
    // SAFETY: a tile's row and a row of `dots` hold 32 values, a line of scales 64 bytes; the caller promises the lengths.
    unsafe {
        let mut sums = load::<SCALED>(tile);
        let mut x = x.as_ptr().cast::<i32>().add(first);
        for (dots, scale) in dots.iter().zip(scales) {
            let halves = scale.0.as_ptr().cast::<__m256i>();
            let scale: [__m512; 2] = [0, 1].map(|half| _mm512_cvtph_ps(_mm256_load_si256(halves.add(half))));
            for (row, sums) in sums.iter_mut().enumerate() {
                let dots = dots.0[first + row].as_ptr().cast::<__m512i>();
                let correction = _mm512_set1_epi32(*x.add(CORRECTIONS + row));
                let unit = _mm512_set1_ps(f32::from_bits((*x.add(SCALES + row)).cast_unsigned()));
                for half in 0..2 {
                    let dots = _mm512_add_epi32(_mm512_load_si512(dots.add(half)), correction);
                    let product = _mm512_mul_ps(_mm512_cvtepi32_ps(dots), scale[half]);
                    sums[half] = _mm512_fmadd_ps(product, unit, sums[half]);
                }
            }
            x = x.add(GROUP);
        }
        store(tile, sums);
    }
}
