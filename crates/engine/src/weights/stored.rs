//! From a tensor as its file has it to a matrix as it is computed with.

use autoglm_domain::ContentHash;

use super::floats::{Floats, finite};
use crate::{
    EngineError, Result,
    gguf::{TensorType, dequantize, quantize},
    kernels::{Matrix, Q4Panels, Q8Panels, WeightFormat},
};

/// A tensor as its file has it.
#[derive(Debug)]
pub(crate) enum Stored {
    /// Floats of some width.
    Floats(Floats<'static>),
    /// Rows of a GGUF file.
    Rows {
        /// Their type.
        kind: TensorType,
        /// Rows and columns.
        shape: Vec<usize>,
        /// Row by row.
        bytes: Vec<u8>,
    },
}

impl Stored {
    pub(super) fn shape(&self) -> &[usize] {
        match self {
            Self::Floats(tensor) => tensor.shape(),
            Self::Rows { shape, .. } => shape,
        }
    }

    /// The values as `f32`; any that is not a number is refused.
    pub(super) fn values(&self, name: &str) -> Result<Vec<f32>> {
        match self {
            Self::Floats(tensor) => tensor.values(name),
            Self::Rows { kind, bytes, .. } => finite(name, dequantize(*kind, bytes)),
        }
    }

    /// The type of its blocks, where it is quantised.
    fn kind(&self) -> Option<TensorType> {
        match self {
            Self::Rows { kind, .. } if kind.block_len() > 1 => Some(*kind),
            _ => None,
        }
    }
}

/// A matrix and the BLAKE3 of its values, as little-endian `f32`, before they were laid out.
#[derive(Debug, Clone)]
pub(crate) struct LaidOut {
    pub(crate) matrix: Matrix,
    pub(crate) digest: ContentHash,
}

impl LaidOut {
    /// Row-major `values` in `format`.
    ///
    /// Rows are filled up with zeros to whole blocks, so that no width is a trap.
    pub(crate) fn new(values: &[f32], d_out: usize, d_in: usize, format: WeightFormat) -> Result<Self> {
        let blocks = |kind: TensorType| {
            let width = d_in.next_multiple_of(kind.block_len());
            let mut padded = Vec::new();
            let rows = if width == d_in {
                values
            } else {
                padded.resize(d_out * width, 0.0);
                for (into, row) in padded.chunks_exact_mut(width).zip(values.chunks_exact(d_in)) {
                    into[..d_in].copy_from_slice(row);
                }
                &padded
            };
            quantize(kind, rows)
                .ok_or_else(|| EngineError::Internal(format!("`{}` is only read", kind.name())))
        };
        let matrix = match format {
            WeightFormat::F32 | WeightFormat::Bf16 => Matrix::new(values, d_out, d_in, format),
            WeightFormat::Q8_0 => of_blocks(TensorType::Q8_0, &blocks(TensorType::Q8_0)?, d_out, d_in)?,
            WeightFormat::Q4K => of_blocks(TensorType::Q4K, &blocks(TensorType::Q4K)?, d_out, d_in)?,
        };
        Ok(Self { matrix, digest: digest(values) })
    }

    /// The rows of `parts`, with the names that errors call them by, one below the other.
    ///
    /// Without a `format`, blocks of `q8_0` and `q4_K` stay as they are, other blocks and mixtures become `q8_0`, floats
    /// `f32`.
    pub(super) fn stack(
        parts: &[(String, Stored)],
        d_out: usize,
        d_in: usize,
        format: Option<WeightFormat>,
    ) -> Result<Self> {
        let mut values = Vec::with_capacity(d_out * d_in);
        for (name, part) in parts {
            values.extend(part.values(name)?);
        }
        let kind = parts.first().and_then(|(_, part)| part.kind());
        let alike = parts.iter().all(|(_, part)| part.kind() == kind);
        let as_stored = match kind {
            Some(TensorType::Q8_0) => Some(WeightFormat::Q8_0),
            Some(TensorType::Q4K) => Some(WeightFormat::Q4K),
            _ => None,
        };
        if let (true, Some(kind), Some(stored)) = (alike, kind, as_stored)
            && format.is_none_or(|format| format == stored)
        {
            let mut rows = Vec::new();
            for (_, part) in parts {
                if let Stored::Rows { bytes, .. } = part {
                    rows.extend_from_slice(bytes);
                }
            }
            return Ok(Self { matrix: of_blocks(kind, &rows, d_out, d_in)?, digest: digest(&values) });
        }
        let floats = parts.iter().all(|(_, part)| part.kind().is_none());
        let otherwise = if floats { WeightFormat::F32 } else { WeightFormat::Q8_0 };
        Self::new(&values, d_out, d_in, format.unwrap_or(otherwise))
    }
}

fn of_blocks(kind: TensorType, bytes: &[u8], d_out: usize, d_in: usize) -> Result<Matrix> {
    let matrix = match kind {
        TensorType::Q4K => Q4Panels::from_blocks(bytes, d_out, d_in).map(Matrix::Q4),
        _ => Q8Panels::from_blocks(bytes, d_out, d_in).map(Matrix::Q8),
    };
    matrix.ok_or_else(|| {
        EngineError::Weights(format!(
            "{} bytes are no {d_out} rows of {d_in} in {}",
            bytes.len(),
            kind.name()
        ))
    })
}

pub(super) fn digest(values: &[f32]) -> ContentHash {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    ContentHash::of(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 % 2003) as f32 - 1001.0) / 4000.0).collect()
    }

    /// Rows of 896 are three and a half super-blocks, rows of 50 no whole number of blocks of any type.
    #[test]
    fn every_width_can_be_kept_in_every_format() {
        for d_in in [896, 50, 32, 256] {
            let w = values(5 * d_in);
            for (format, worst) in [
                (WeightFormat::F32, 0.0),
                (WeightFormat::Bf16, 0.001),
                (WeightFormat::Q8_0, 0.0011),
                (WeightFormat::Q4K, 0.025),
            ] {
                let laid = LaidOut::new(&w, 5, d_in, format).unwrap();
                assert_eq!((laid.matrix.format(), laid.matrix.shape()), (format, (5, d_in)));
                assert_eq!(laid.digest, LaidOut::new(&w, 5, d_in, WeightFormat::F32).unwrap().digest);
                for (kept, w) in laid.matrix.to_rows().iter().zip(&w) {
                    assert!((kept - w).abs() <= worst, "{format:?} {d_in}: {kept} for {w}");
                }
            }
        }
    }

    #[test]
    fn blocks_stay_blocks_and_mixtures_become_q8_0() {
        let w = values(4 * 256);
        let part = |kind: TensorType| {
            let bytes = quantize(kind, &w).unwrap();
            ("w".to_owned(), Stored::Rows { kind, shape: vec![4, 256], bytes })
        };
        let q4 = dequantize(TensorType::Q4K, &quantize(TensorType::Q4K, &w).unwrap());
        let alike = LaidOut::stack(&[part(TensorType::Q4K), part(TensorType::Q4K)], 8, 256, None).unwrap();
        assert_eq!(alike.matrix.format(), WeightFormat::Q4K);
        assert_eq!(alike.matrix.to_rows(), [q4.clone(), q4.clone()].concat());
        let mixed = LaidOut::stack(&[part(TensorType::Q8_0), part(TensorType::Q4K)], 8, 256, None).unwrap();
        assert_eq!(mixed.matrix.format(), WeightFormat::Q8_0);
        let wished = LaidOut::stack(&[part(TensorType::Q4K)], 4, 256, Some(WeightFormat::F32)).unwrap();
        assert_eq!((wished.matrix.format(), wished.matrix.to_rows()), (WeightFormat::F32, q4));
    }
}
