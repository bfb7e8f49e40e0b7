//! Inputs as bytes, for products with weights of few bits.

use super::{dispatch::vectorized, panels::PANEL};

/// Inputs that share one scale, as many as a block of `q8_0` weights holds.
pub(super) const BLOCK: usize = 32;

/// Packed values a row and block: eight groups of four bytes, the scale, the sum of the bytes.
pub(super) const PACKED: usize = 10;

/// Where in a block's packed values the scale lies, as the bits of an `f32`.
pub(super) const SCALE: usize = 8;

/// Where the sum of the bytes lies, as an `i32`.
pub(super) const SUM: usize = 9;

/// `x` `[rows, d_in]` times `scale` as bytes: `[blocks][PACKED][rows]`, each block of 32 with a scale of its own so that its
/// largest value is ±127 (ggml's `q8_0` without the rounding of the scale).
pub(super) fn pack(into: &mut [u32], x: &[f32], rows: usize, d_in: usize, scale: f32) {
    for (row, x) in x.chunks_exact(d_in).enumerate() {
        for (into, x) in into.chunks_exact_mut(PACKED * rows).zip(x.chunks(BLOCK)) {
            let (bytes, unit, sum) = quantize_block(x);
            for (group, bytes) in bytes.as_chunks::<4>().0.iter().enumerate() {
                into[group * rows + row] = u32::from_le_bytes(bytes.map(i8::cast_unsigned));
            }
            into[SCALE * rows + row] = (unit * scale).to_bits();
            into[SUM * rows + row] = sum.cast_unsigned();
        }
    }
}

/// A block of at most 32 values: its bytes, its scale, and the sum of the bytes.
pub(super) fn quantize_block(x: &[f32]) -> ([i8; BLOCK], f32, i32) {
    let mut block = [0.0; BLOCK];
    block[..x.len()].copy_from_slice(x);
    let mut bytes = [0; BLOCK];
    let (unit, sum) = quantize(&block, &mut bytes);
    (bytes, unit, sum)
}

vectorized! {
    /// Bytes of a block; its scale and the sum of the bytes.
    fn quantize(x: &[f32; BLOCK], bytes: &mut [i8; BLOCK]) -> (f32, i32) {
        let mut largest = 0.0f32;
        for x in x {
            largest = largest.max(x.abs());
        }
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let mut sum = 0;
        for (byte, x) in bytes.iter_mut().zip(x) {
            // To the nearest, by the trick of adding 1.5 · 2²³: what remains in the low bits is the integer.
            let rounded = (x * inverse + 12_582_912.0).to_bits() as i32 - 0x4b40_0000;
            *byte = rounded as i8;
            sum += rounded;
        }
        (largest / 127.0, sum)
    }
}

/// The four bytes of group `group` of a row.
#[inline(always)]
pub(super) fn group(packed: &[u32], rows: usize, group: usize, row: usize) -> [i8; 4] {
    packed[group * rows + row].to_le_bytes().map(u8::cast_signed)
}

/// Scale and sum of a row's block.
#[inline(always)]
pub(super) fn scale_and_sum(packed: &[u32], rows: usize, row: usize) -> (f32, i32) {
    (f32::from_bits(packed[SCALE * rows + row]), packed[SUM * rows + row].cast_signed())
}

/// One value for each row of a panel, as the bits of half-precision floats.
pub(super) type Halves = [u16; PANEL];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_keeps_every_value_within_half_a_unit() {
        let (rows, d_in) = (3, 70usize);
        let x: Vec<f32> = (0..rows * d_in).map(|i| ((i * 7919 % 1000) as f32 - 500.0) / 130.0).collect();
        let blocks = d_in.div_ceil(BLOCK);
        let mut packed = vec![u32::MAX; blocks * PACKED * rows];
        pack(&mut packed, &x, rows, d_in, 2.0);
        for row in 0..rows {
            for (at, packed) in packed.chunks_exact(PACKED * rows).enumerate() {
                let (scale, sum) = scale_and_sum(packed, rows, row);
                let bytes: Vec<i8> = (0..8).flat_map(|g| group(packed, rows, g, row)).collect();
                assert_eq!(bytes.iter().map(|byte| i32::from(*byte)).sum::<i32>(), sum);
                for (i, byte) in bytes.iter().enumerate() {
                    let column = at * BLOCK + i;
                    let expected = if column < d_in { 2.0 * x[row * d_in + column] } else { 0.0 };
                    assert!(
                        (f32::from(*byte) * scale - expected).abs() <= scale * 0.501,
                        "{byte} for {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_block_of_zeros_stays_zeros() {
        let mut packed = [u32::MAX; PACKED];
        pack(&mut packed, &[0.0; 32], 1, 32, 1.0);
        assert_eq!(packed, [0; PACKED]);
    }
}
