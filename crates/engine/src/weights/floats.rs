//! Tensors of floats as a safetensors file has them.

use std::{borrow::Cow, collections::HashMap};

use safetensors::{Dtype, SafeTensors};

use crate::{EngineError, Result};

/// One tensor of a file: its bytes, and what they mean.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Floats<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

/// The tensors of one safetensors file; `origin` names it in errors.
pub(crate) fn read_safetensors<'a>(bytes: &'a [u8], origin: &str) -> Result<HashMap<String, Floats<'a>>> {
    let pickled = bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(&[0x80, 0x02]);
    // A safetensors header of 640 bytes begins as a pickle does, but only it goes on as JSON.
    if pickled && bytes.get(8) != Some(&b'{') {
        return Err(EngineError::Weights(format!("{origin} is a pickled file; only safetensors are read")));
    }
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| EngineError::Weights(format!("{origin} is not whole safetensors: {error}")))?;
    let tensors = file.iter().map(|(name, view)| {
        let floats =
            Floats { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: Cow::Borrowed(view.data()) };
        (name.to_owned(), floats)
    });
    Ok(tensors.collect())
}

impl Floats<'_> {
    /// The lengths of its sides, outermost first.
    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Apart from the file's bytes, so that these can go.
    pub(crate) fn into_owned(self) -> Floats<'static> {
        Floats { bytes: Cow::Owned(self.bytes.into_owned()), ..self }
    }

    /// The values as `f32`, row-major; anything but floats and any value that is not a number is refused. `name` is
    /// the tensor's in errors.
    pub(crate) fn values(&self, name: &str) -> Result<Vec<f32>> {
        fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)).collect()
        }
        let values = match self.dtype {
            Dtype::F32 => each(&self.bytes, f32::from_le_bytes),
            Dtype::F64 => each(&self.bytes, |bytes| f64::from_le_bytes(bytes) as f32),
            Dtype::F16 => each(&self.bytes, |bytes| half::f16::from_le_bytes(bytes).to_f32()),
            Dtype::BF16 => each(&self.bytes, |bytes| half::bf16::from_le_bytes(bytes).to_f32()),
            other => return Err(EngineError::Weights(format!("`{name}` holds {other:?}, not floats"))),
        };
        finite(name, values)
    }
}

/// `values` where all are numbers.
pub(super) fn finite(name: &str, values: Vec<f32>) -> Result<Vec<f32>> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(EngineError::Weights(format!("`{name}` holds {} at position {at}", values[at]))),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::{TensorView, serialize};

    use super::*;

    /// A file of one tensor `w`, `[2]`.
    fn file(dtype: Dtype, bytes: &[u8]) -> Vec<u8> {
        let view = TensorView::new(dtype, vec![2], bytes).unwrap();
        serialize([("w", view)], None).unwrap()
    }

    #[test]
    fn floats_of_every_width_are_read_and_nothing_else() {
        // Python: [numpy.array([1.5, -2], d).tobytes().hex() for d in ("<f2", "<f4", "<f8")]; bfloat16 is the upper
        // half of float32.
        let same: [(Dtype, &[u8]); 4] = [
            (Dtype::F16, &[0x00, 0x3e, 0x00, 0xc0]),
            (Dtype::BF16, &[0xc0, 0x3f, 0x00, 0xc0]),
            (Dtype::F32, &[0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0]),
            (Dtype::F64, &[0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0xc0]),
        ];
        for (dtype, bytes) in same {
            let file = file(dtype, bytes);
            let tensors = read_safetensors(&file, "x").unwrap();
            assert_eq!(tensors["w"].shape(), [2]);
            assert_eq!(tensors["w"].values("w").unwrap(), [1.5, -2.0], "{dtype:?}");
            assert_eq!(tensors["w"].clone().into_owned(), tensors["w"]);
        }
        let of_bytes = file(Dtype::I8, &[1, 2]);
        let error = read_safetensors(&of_bytes, "x").unwrap()["w"].values("w").unwrap_err();
        assert_eq!(error.to_string(), "weights: `w` holds I8, not floats");
        let too_large = file(Dtype::F64, &[0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 0, 0, 0, 0, 0, 0, 0xf0, 0x7f]);
        let error = read_safetensors(&too_large, "x").unwrap()["w"].values("w").unwrap_err();
        assert_eq!(error.to_string(), "weights: `w` holds inf at position 1");
    }

    /// Its length in the first eight bytes is `80 02 00 …`, with which pickles of protocol 2 begin too.
    #[test]
    fn a_header_of_640_bytes_is_not_taken_for_a_pickle() {
        let mut header = r#"{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}"#.to_owned();
        header.extend(std::iter::repeat_n(' ', 640 - header.len()));
        let bytes = [&640u64.to_le_bytes()[..], header.as_bytes(), &1.5f32.to_le_bytes()].concat();
        let tensors = read_safetensors(&bytes, "x").unwrap();
        assert_eq!(tensors["x"].values("x").unwrap(), [1.5]);
    }
}
