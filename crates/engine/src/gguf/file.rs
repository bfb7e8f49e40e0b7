//! A GGUF file: its metadata, what its tensors are called, and their bytes one tensor at a time.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use super::{cursor::Cursor, dequantize::dequantize, metadata::Metadata, tensor_type::TensorType};
use crate::{EngineError, Result};

/// The first four bytes.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";
/// Tensors begin at multiples of this where the metadata do not say otherwise.
pub(super) const DEFAULT_ALIGNMENT: u64 = 32;
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";
/// Most dimensions of a tensor; ggml's own limit.
const MAX_DIMENSIONS: u32 = 4;
/// Longest name of a tensor. ggml stops at 64.
const MAX_NAME: usize = 1024;
/// A key: its length, its type and one byte of value.
const LEAST_KEY: u64 = 8 + 4 + 1;
/// A tensor: the length of its name, its number of dimensions, its type and its offset.
const LEAST_TENSOR: u64 = 8 + 4 + 4 + 8;

/// A file whose header has been read and found consistent.
#[derive(Debug)]
pub(crate) struct GgufFile<R> {
    source: BufReader<R>,
    file: String,
    metadata: Metadata,
    tensors: BTreeMap<String, TensorInfo>,
}

/// Where a tensor lies and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorInfo {
    /// How its numbers are stored.
    pub(crate) kind: TensorType,
    /// Dimensions, the one whose values lie side by side last.
    pub(crate) shape: Vec<usize>,
    /// From the beginning of the file.
    start: u64,
    /// Bytes.
    len: u64,
}

impl GgufFile<File> {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// `NotFound` without the file; `Invalid` when it is no GGUF, contradicts itself or its size, or holds a
    /// type of tensor that this engine does not read.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let source = File::open(path).map_err(|error| EngineError::file(path, &error))?;
        Self::new(source, &path.display().to_string())
    }
}

impl<R: Read + Seek> GgufFile<R> {
    /// Reads the header of `source`, which errors call `file`.
    pub(crate) fn new(source: R, file: &str) -> Result<Self> {
        let mut cursor = Cursor::new(source, file)?;
        if cursor.array("the mark `GGUF`")? != MAGIC {
            return Err(cursor.error("does not begin with `GGUF`"));
        }
        check_version(&mut cursor)?;
        let tensors = cursor.count(LEAST_TENSOR, "the number of tensors")?;
        let keys = cursor.count(LEAST_KEY, "the number of keys")?;
        let metadata = Metadata::read(&mut cursor, keys, file)?;
        let alignment = alignment(&metadata)?;
        let mut infos = BTreeMap::new();
        for _ in 0..tensors {
            let (name, info) = read_info(&mut cursor, alignment)?;
            if infos.insert(name.clone(), info).is_some() {
                return Err(cursor.error(format!("has the tensor `{name}` twice")));
            }
        }
        place(&cursor, &mut infos, alignment)?;
        Ok(Self { source: cursor.into_source(), file: file.to_owned(), metadata, tensors: infos })
    }

    /// Keys and values.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What the tensors are.
    pub(crate) fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// An error about this file.
    pub(crate) fn error(&self, message: impl Into<String>) -> EngineError {
        EngineError::gguf(&self.file, message)
    }

    /// The values of the tensor `name`.
    pub(crate) fn values(&mut self, name: &str) -> Result<Vec<f32>> {
        self.read(name).map(|(info, bytes)| dequantize(info.kind, &bytes))
    }

    /// The bytes of the tensor `name`, as the file holds them.
    pub(crate) fn read(&mut self, name: &str) -> Result<(TensorInfo, Vec<u8>)> {
        let info = self
            .tensors
            .get(name)
            .cloned()
            .ok_or_else(|| self.error(format!("the tensor `{name}` is missing")))?;
        let mut bytes = Vec::new();
        let read = self
            .source
            .seek(SeekFrom::Start(info.start))
            .and_then(|_| (&mut self.source).take(info.len).read_to_end(&mut bytes));
        match read {
            Ok(read) if read as u64 == info.len => Ok((info, bytes)),
            // The file was whole when it was opened.
            Ok(_) => Err(self.error(format!("became shorter while `{name}` was read"))),
            Err(error) => Err(self.error(format!("the tensor `{name}` cannot be read: {error}"))),
        }
    }
}

fn check_version<R: Read + Seek>(cursor: &mut Cursor<R>) -> Result<()> {
    match cursor.u32("the version")? {
        2 | 3 => Ok(()),
        version if version != 0 && version.swap_bytes() <= 0xFFFF => {
            Err(cursor.error("is big-endian; only little-endian files are read"))
        }
        version => Err(cursor.error(format!("has version {version} of GGUF; versions 2 and 3 are read"))),
    }
}

fn alignment(metadata: &Metadata) -> Result<u64> {
    let alignment = metadata.unsigned(ALIGNMENT_KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
    if alignment.is_power_of_two() && alignment <= 1 << 31 {
        return Ok(alignment);
    }
    Err(metadata.error(format!("`{ALIGNMENT_KEY}` is {alignment}; it must be a power of two up to 2^31")))
}

/// One tensor's name, shape and place; its start is still that within the tensors' part.
fn read_info<R: Read + Seek>(cursor: &mut Cursor<R>, alignment: u64) -> Result<(String, TensorInfo)> {
    let name = cursor.text("the name of a tensor")?;
    if name.len() > MAX_NAME {
        return Err(
            cursor.error(format!("has a tensor's name of {} bytes; {MAX_NAME} is the limit", name.len()))
        );
    }
    let what = format!("the tensor `{name}`");
    let dimensions = cursor.u32(&what)?;
    if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        return Err(
            cursor.error(format!("{what} has {dimensions} dimensions; 1 to {MAX_DIMENSIONS} are read"))
        );
    }
    // The innermost comes first in the file and last in a shape.
    let mut shape = (0..dimensions)
        .map(|_| cursor.u64(&what).map(|size| usize::try_from(size).unwrap_or(usize::MAX)))
        .collect::<Result<Vec<_>>>()?;
    shape.reverse();
    let kind = TensorType::from_id(cursor.u32(&what)?).map_err(|name| EngineError::Gguf {
        file: cursor.file().to_owned(),
        message: format!("{what} has the type {name}, which is not read"),
        hint: Some(format!("types that are read: {}", TensorType::ALL.map(TensorType::name).join(", "))),
    })?;
    let offset = cursor.u64(&what)?;
    if offset % alignment != 0 {
        return Err(cursor.error(format!("{what} begins at {offset}, which is no multiple of {alignment}")));
    }
    let columns = shape.last().copied().unwrap_or(0);
    if shape.contains(&0) {
        return Err(cursor.error(format!("{what} has a dimension of 0: {shape:?}")));
    }
    let row = kind.row_bytes(columns).ok_or_else(|| {
        let (name, block) = (kind.name(), kind.block_len());
        cursor.error(format!("{what} of type {name} has rows of {columns}, no multiple of {block}"))
    })?;
    let rows = shape[..shape.len() - 1].iter().try_fold(1usize, |rows, &size| rows.checked_mul(size));
    let len = rows
        .and_then(|rows| rows.checked_mul(row))
        .ok_or_else(|| cursor.error(format!("{what} has the shape {shape:?}, more than can be counted")))?;
    Ok((name, TensorInfo { kind, shape, start: offset, len: len as u64 }))
}

/// Puts the tensors where the header ends, and refuses those that reach beyond the file or into one another.
fn place<R: Read + Seek>(
    cursor: &Cursor<R>,
    infos: &mut BTreeMap<String, TensorInfo>,
    alignment: u64,
) -> Result<()> {
    // At most 2^28 + 2^31: the header is bounded.
    let begin = cursor.at().next_multiple_of(alignment);
    for (name, info) in infos.iter_mut() {
        let start = begin.checked_add(info.start);
        let end = start.and_then(|start| start.checked_add(info.len)).filter(|end| *end <= cursor.len());
        let (Some(start), Some(_)) = (start, end) else {
            return Err(cursor.error(format!(
                "the tensor `{name}` of {} bytes at {} after the header's {begin} reaches beyond the file's {} bytes",
                info.len,
                info.start,
                cursor.len()
            )));
        };
        info.start = start;
    }
    let mut order: Vec<_> = infos.iter().collect();
    order.sort_by_key(|(_, info)| info.start);
    for pair in order.windows(2) {
        if let [(one, before), (other, after)] = pair
            && before.start + before.len > after.start
        {
            return Err(cursor.error(format!("the tensors `{one}` and `{other}` overlap")));
        }
    }
    Ok(())
}
