//! From stored numbers to `f32`, as ggml's reference computes them (`ggml-quants.c`, `dequantize_row_*`).

use rayon::prelude::*;

use super::tensor_type::TensorType;
use crate::kernels::q4_levels;

/// Values that one task of the pool decodes: a multiple of every block.
const CHUNK: usize = 1 << 16;

/// The values of whole blocks. Bytes that fill no block are left out.
pub(crate) fn dequantize(kind: TensorType, bytes: &[u8]) -> Vec<f32> {
    let (block, width) = (kind.block_len(), kind.block_bytes());
    let mut values = vec![0.0; bytes.len() / width * block];
    values.par_chunks_mut(CHUNK).zip(bytes.par_chunks(CHUNK / block * width)).for_each(|(values, bytes)| {
        for (values, bytes) in values.chunks_exact_mut(block).zip(bytes.chunks_exact(width)) {
            dequantize_block(kind, bytes, values);
        }
    });
    values
}

/// One block: `bytes` holds [`TensorType::block_bytes`], `values` [`TensorType::block_len`].
fn dequantize_block(kind: TensorType, bytes: &[u8], values: &mut [f32]) {
    match kind {
        TensorType::F32 => values[0] = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        TensorType::F16 => values[0] = f16(bytes),
        TensorType::Bf16 => values[0] = half::bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        TensorType::Q4_0 => q4_0(bytes, values),
        TensorType::Q8_0 => q8_0(bytes, values),
        TensorType::Q4K => q4_k(bytes, values),
        TensorType::Q6K => q6_k(bytes, values),
    }
}

fn f16(bytes: &[u8]) -> f32 {
    half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// `d (q - 8)`; the lower halves of the bytes are the first 16 values.
fn q4_0(bytes: &[u8], values: &mut [f32]) {
    let scale = f16(bytes);
    let (low, high) = values.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(&bytes[2..]) {
        *low = (f32::from(byte & 15) - 8.0) * scale;
        *high = (f32::from(byte >> 4) - 8.0) * scale;
    }
}

/// `d q`
fn q8_0(bytes: &[u8], values: &mut [f32]) {
    let scale = f16(bytes);
    for (value, byte) in values.iter_mut().zip(&bytes[2..]) {
        *value = f32::from(byte.cast_signed()) * scale;
    }
}

/// `d scale q - dmin min` with 6-bit scales and minima; each 32 bytes are two groups of 32 values, the first in
/// the lower halves.
fn q4_k(bytes: &[u8], values: &mut [f32]) {
    let (d, d_min) = (f16(bytes), f16(&bytes[2..]));
    let groups = q4_k_scales(&bytes[4..16]);
    let codes = bytes[16..].chunks_exact(32);
    for ((pair, codes), values) in groups.chunks_exact(2).zip(codes).zip(values.chunks_exact_mut(64)) {
        let (low, high) = values.split_at_mut(32);
        for ((scale, min), (values, shift)) in pair.iter().zip([(low, 0), (high, 4)]) {
            let (scale, min) = (d * f32::from(*scale), d_min * f32::from(*min));
            for (value, code) in values.iter_mut().zip(codes) {
                *value = scale * f32::from((code >> shift) & 15) - min;
            }
        }
    }
}

/// Scale and minimum of each group.
pub(super) fn q4_k_scales(packed: &[u8]) -> [(u8, u8); 8] {
    std::array::from_fn(|group| q4_levels(packed, group))
}

/// `d scale (q - 32)`: of each half of 128 values the lower four bits lie in 64 bytes, the upper two in 32, and
/// a scale belongs to 16 values.
fn q6_k(bytes: &[u8], values: &mut [f32]) {
    let (low, rest) = bytes.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(16);
    let d = f16(d);
    for (half, values) in values.chunks_exact_mut(128).enumerate() {
        let (low, high) = (&low[half * 64..], &high[half * 32..]);
        for (at, value) in values.iter_mut().enumerate() {
            let (quarter, lane) = (at / 32, at % 32);
            let nibble = low[lane + 32 * (quarter % 2)] >> (4 * (quarter / 2)) & 15;
            let code = i16::from(nibble | (high[lane] >> (2 * quarter) & 3) << 4) - 32;
            let scale = scales[half * 8 + at / 16].cast_signed();
            *value = d * f32::from(scale) * f32::from(code);
        }
    }
}
