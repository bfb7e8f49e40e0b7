//! A model's base weights from a GGUF file.

use std::{
    collections::HashMap,
    io::{Read, Seek},
};

use super::{architecture, file::GgufFile, names};
use crate::{
    Family, ModelConfig, Result, WeightFormat,
    weights::{BaseWeights, Stored},
};

/// Reads configuration and weights of `file`, to be kept in `format`, or as they are stored.
///
/// # Errors
/// `Invalid` when the file's parts do not fit together or hold what is not computed here.
pub(crate) fn read<R: Read + Seek>(
    file: &mut GgufFile<R>,
    format: Option<WeightFormat>,
) -> Result<(ModelConfig, BaseWeights)> {
    let config = architecture::read(file)?;
    let stored: Vec<String> =
        file.tensors().keys().filter(|name| *name != names::ROPE_FACTORS).cloned().collect();
    let mut tensors = HashMap::new();
    for name in stored {
        let folder = names::to_folder(&name, config.fused_gate_up)
            .ok_or_else(|| file.error(format!("has the tensor `{name}`, for which there is no place")))?;
        let (info, bytes) = file.read(&name)?;
        let bytes = match rotated_heads(&config, &folder) {
            Some(heads) => unpermute(bytes, heads, config.head_dim),
            None => bytes,
        };
        tensors.insert(folder, Stored::Rows { kind: info.kind, shape: info.shape, bytes });
    }
    let weights = BaseWeights::from_tensors(tensors, &config, format)?;
    Ok((config, weights))
}

/// How many heads the rows of this tensor are, where converters reorder them: llama.cpp rotates neighbouring
/// dimensions of a head of Llama or Mistral, transformers the first half against the second.
pub(super) fn rotated_heads(config: &ModelConfig, folder_name: &str) -> Option<usize> {
    if !matches!(config.family, Family::Llama | Family::Mistral) {
        return None;
    }
    let stem = folder_name.trim_end_matches(".weight").trim_end_matches(".bias");
    match stem.rsplit('.').next() {
        Some("q_proj") => Some(config.num_heads),
        Some("k_proj") => Some(config.num_kv_heads),
        _ => None,
    }
}

/// Rows in the order of transformers: of each head the even ones, then the odd ones. Rows are bytes, whatever
/// is in them; a number of bytes that is no whole number of rows is left as it is, to be refused by its shape.
fn unpermute(bytes: Vec<u8>, heads: usize, head_dim: usize) -> Vec<u8> {
    reorder(bytes, heads, head_dim, |row| if row < head_dim / 2 { 2 * row } else { 2 * row + 1 - head_dim })
}

/// The inverse of [`unpermute`].
pub(super) fn permute(bytes: Vec<u8>, heads: usize, head_dim: usize) -> Vec<u8> {
    reorder(bytes, heads, head_dim, |row| row / 2 + (row % 2) * (head_dim / 2))
}

/// Rows of each head in another order: row `row` of the result was row `from(row)`.
fn reorder(bytes: Vec<u8>, heads: usize, head_dim: usize, from: impl Fn(usize) -> usize) -> Vec<u8> {
    let rows = heads * head_dim;
    if rows == 0 || !bytes.len().is_multiple_of(rows) {
        return bytes;
    }
    let width = bytes.len() / rows;
    let mut ordered = Vec::with_capacity(bytes.len());
    for head in bytes.chunks_exact((head_dim * width).max(1)) {
        for row in 0..head_dim {
            ordered.extend_from_slice(&head[from(row) * width..][..width]);
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    // Python: permute of llama.cpp's converter over np.arange(16).reshape(8, 2) with two heads:
    // w.reshape(2, 2, 2, 2).swapaxes(1, 2).reshape(8, 2)[:, 0] // 2 == [0, 2, 1, 3, 4, 6, 5, 7]
    #[test]
    fn rows_of_heads_come_back_in_order() {
        let rows: Vec<u8> = (0..8u8).flat_map(|row| [row, row + 100]).collect();
        let there = permute(rows.clone(), 2, 4);
        let order: Vec<u8> = there.chunks_exact(2).map(|row| row[0]).collect();
        assert_eq!(order, [0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(unpermute(there, 2, 4), rows);
    }
}
