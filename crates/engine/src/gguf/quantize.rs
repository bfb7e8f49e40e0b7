//! From `f32` to stored numbers.

use half::{bf16, f16};
use rayon::prelude::*;

use super::{q4_k, tensor_type::TensorType};

/// The blocks of `values`, row by row; rows are whole numbers of blocks, so that they need no care here.
/// `None` for the types that are only read, and when `values` fill no whole number of blocks.
pub(crate) fn quantize(kind: TensorType, values: &[f32]) -> Option<Vec<u8>> {
    let (block, width) = (kind.block_len(), kind.block_bytes());
    let encode: fn(&[f32], &mut [u8]) = match kind {
        TensorType::F32 => |values, bytes| bytes.copy_from_slice(&values[0].to_le_bytes()),
        TensorType::F16 => |values, bytes| bytes.copy_from_slice(&f16::from_f32(values[0]).to_le_bytes()),
        TensorType::Bf16 => |values, bytes| bytes.copy_from_slice(&bf16::from_f32(values[0]).to_le_bytes()),
        TensorType::Q8_0 => q8_0,
        TensorType::Q4K => q4_k::encode,
        TensorType::Q4_0 | TensorType::Q6K => return None,
    };
    let mut bytes = vec![0; values.len().is_multiple_of(block).then_some(values.len() / block * width)?];
    // Blocks a task: enough that handing them out costs nothing.
    let blocks = 4096 / block.min(4096);
    bytes.par_chunks_mut(blocks * width).zip(values.par_chunks(blocks * block)).for_each(
        |(bytes, values)| {
            for (bytes, values) in bytes.chunks_exact_mut(width).zip(values.chunks_exact(block)) {
                encode(values, bytes);
            }
        },
    );
    Some(bytes)
}

/// As ggml does it (`quantize_row_q8_0_ref`): the largest value becomes ±127, ties are rounded away from 0.
fn q8_0(values: &[f32], bytes: &mut [u8]) {
    let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    bytes[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (byte, value) in bytes[2..].iter_mut().zip(values) {
        *byte = ((value * inverse).round() as i8).cast_unsigned();
    }
}
