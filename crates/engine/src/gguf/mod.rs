//! GGUF, the one-file format of llama.cpp and its relatives: a model with its tokenizer and chat template in,
//! a [`Model`](crate::Model) and a [`TextCodec`](crate::TextCodec) out, and the other way round.
//!
//! The files come from strangers, so every count, length, offset and dimension in them is held against the
//! size of the file before anything is allocated or read. The header is read once and the tensors one at a
//! time, so that a file and its values are never in memory together.

mod architecture;
mod convert;
mod cursor;
mod dequantize;
mod file;
mod metadata;
mod model;
mod names;
mod q4_k;
mod quantize;
mod tensor_type;
mod tokenizer;
mod write;

use std::{
    io::{Read, Seek},
    path::Path,
    sync::Arc,
};

use autoglm_domain::Clock;

pub(crate) use self::file::GgufFile;
pub use self::{
    convert::{Conversion, convert},
    tensor_type::TensorType,
};
pub(crate) use self::{dequantize::dequantize, quantize::quantize};
use crate::{ChatTemplate, ModelConfig, Result, Tokenizer, WeightFormat, weights::BaseWeights};

pub(crate) use self::model::read as read_model;

/// Configuration and weights of a GGUF file.
pub(crate) fn load(path: &Path, format: Option<WeightFormat>) -> Result<(ModelConfig, BaseWeights)> {
    read_model(&mut GgufFile::open(path)?, format)
}

/// The tokenizer of a GGUF file.
pub(crate) fn load_tokenizer(path: &Path) -> Result<Tokenizer> {
    read_tokenizer(&GgufFile::open(path)?)
}

/// The chat template of a GGUF file.
pub(crate) fn load_template(path: &Path, clock: Arc<dyn Clock>) -> Result<Option<ChatTemplate>> {
    read_template(&GgufFile::open(path)?, clock)
}

/// The tokenizer of an open file.
pub(crate) fn read_tokenizer<R: Read + Seek>(file: &GgufFile<R>) -> Result<Tokenizer> {
    tokenizer::read(file.metadata())
}

/// The chat template of an open file.
pub(crate) fn read_template<R: Read + Seek>(
    file: &GgufFile<R>,
    clock: Arc<dyn Clock>,
) -> Result<Option<ChatTemplate>> {
    tokenizer::template(file.metadata(), clock)
}

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod tests;
