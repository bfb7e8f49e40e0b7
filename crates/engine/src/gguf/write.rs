//! Writing a GGUF file of version 3.

use std::io::{self, Write};

use super::{
    file::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC},
    metadata::{self, Array, Metadata, Value},
    tensor_type::TensorType,
};
use crate::Result;

const VERSION: u32 = 3;

/// A tensor that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its name in GGUF.
    pub(super) name: String,
    /// How its numbers are stored.
    pub(super) kind: TensorType,
    /// Dimensions, the one whose values lie side by side last.
    pub(super) shape: Vec<usize>,
}

impl Entry {
    /// Bytes that it takes. Rows hold whole blocks.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product::<usize>() / self.kind.block_len() * self.kind.block_bytes()
    }
}

/// Writes metadata and tensors; `bytes` gives those of each entry, in the order of `entries`.
///
/// # Errors
/// What `bytes` fails with, and what `failed` makes of an error of the output.
pub(super) fn write<W: Write>(
    out: &mut W,
    metadata: &Metadata,
    entries: &[Entry],
    failed: &dyn Fn(&io::Error) -> crate::EngineError,
    mut bytes: impl FnMut(&Entry) -> Result<Vec<u8>>,
) -> Result<()> {
    let alignment = metadata.unsigned(ALIGNMENT_KEY)?.unwrap_or(DEFAULT_ALIGNMENT) as usize;
    let header = header(metadata, entries, alignment);
    let mut put = |part: &[u8]| out.write_all(part).map_err(|error| failed(&error));
    put(&header)?;
    for entry in entries {
        let part = bytes(entry)?;
        put(&part)?;
        put(&vec![0; part.len().next_multiple_of(alignment) - part.len()])?;
    }
    Ok(())
}

/// Everything before the tensors' bytes, with the padding after it.
fn header(metadata: &Metadata, entries: &[Entry], alignment: usize) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend(VERSION.to_le_bytes());
    header.extend((entries.len() as u64).to_le_bytes());
    header.extend((metadata.iter().len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        put_text(&mut header, key);
        put_value(&mut header, value);
    }
    let mut offset = 0;
    for entry in entries {
        put_text(&mut header, &entry.name);
        header.extend((entry.shape.len() as u32).to_le_bytes());
        for size in entry.shape.iter().rev() {
            header.extend((*size as u64).to_le_bytes());
        }
        header.extend(entry.kind.id().to_le_bytes());
        header.extend((offset as u64).to_le_bytes());
        offset += entry.len().next_multiple_of(alignment);
    }
    header.resize(header.len().next_multiple_of(alignment), 0);
    header
}

fn put_text(header: &mut Vec<u8>, text: &str) {
    header.extend((text.len() as u64).to_le_bytes());
    header.extend(text.as_bytes());
}

fn put_value(header: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Scalar { kind, bits } => {
            header.extend(kind.id().to_le_bytes());
            header.extend(&bits.to_le_bytes()[..kind.bytes()]);
        }
        Value::Text(text) => {
            header.extend(metadata::TEXT.to_le_bytes());
            put_text(header, text);
        }
        Value::Array(array) => {
            header.extend(metadata::ARRAY.to_le_bytes());
            let kind = match array {
                Array::Texts(_) => metadata::TEXT,
                Array::Numbers { kind, .. } => kind.id(),
            };
            header.extend(kind.to_le_bytes());
            header.extend((array.len() as u64).to_le_bytes());
            match array {
                Array::Texts(texts) => texts.iter().for_each(|text| put_text(header, text)),
                Array::Numbers { bytes, .. } => header.extend(bytes),
            }
        }
    }
}
