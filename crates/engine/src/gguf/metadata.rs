//! Keys and values of a GGUF file.

use std::{
    collections::BTreeMap,
    io::{Read, Seek},
};

use super::cursor::Cursor;
use crate::{EngineError, Result};

/// Longest name of a key; the format's own limit.
const MAX_KEY: usize = 65_535;

/// What a key holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// A number or truth value as it stands in the file.
    Scalar {
        /// Its type.
        kind: Scalar,
        /// Little-endian, in as many of the lower bytes as the type takes.
        bits: u64,
    },
    /// `string`
    Text(String),
    /// `array`
    Array(Array),
}

impl Value {
    /// A `uint32`.
    pub(crate) fn u32(value: u32) -> Self {
        Self::Scalar { kind: Scalar::U32, bits: u64::from(value) }
    }

    /// A `float32`.
    pub(crate) fn f32(value: f32) -> Self {
        Self::Scalar { kind: Scalar::F32, bits: u64::from(value.to_bits()) }
    }

    /// A `bool`.
    pub(crate) fn flag(value: bool) -> Self {
        Self::Scalar { kind: Scalar::Bool, bits: u64::from(value) }
    }

    /// A `string`.
    pub(crate) fn text(value: impl Into<String>) -> Self {
        Self::Text(value.into())
    }

    /// The number, where it is one.
    fn number(&self) -> Option<Number> {
        match self {
            Self::Scalar { kind, bits } => Some(kind.number(*bits)),
            Self::Text(_) | Self::Array(_) => None,
        }
    }
}

/// A scalar by what can be done with it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Number {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
}

/// A list of values of one type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Array {
    /// Texts.
    Texts(Vec<String>),
    /// Numbers as they stand in the file: a list of small ones must not grow when it is read.
    Numbers {
        /// Their type.
        kind: Scalar,
        /// Little-endian, one after another.
        bytes: Vec<u8>,
    },
}

impl Array {
    /// How many values.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Numbers { kind, bytes } => bytes.len() / kind.bytes(),
        }
    }
}

/// Types of fixed size (`enum gguf_metadata_value_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    /// `uint8`
    U8,
    /// `int8`
    I8,
    /// `uint16`
    U16,
    /// `int16`
    I16,
    /// `uint32`
    U32,
    /// `int32`
    I32,
    /// `float32`
    F32,
    /// `bool`
    Bool,
    /// `uint64`
    U64,
    /// `int64`
    I64,
    /// `float64`
    F64,
}

/// Numbers of the types that are no scalars.
pub(super) const TEXT: u32 = 8;
pub(super) const ARRAY: u32 = 9;

impl Scalar {
    const ALL: [Self; 11] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// The number that stands in files.
    pub(super) fn id(self) -> u32 {
        match self {
            Self::U8 => 0,
            Self::I8 => 1,
            Self::U16 => 2,
            Self::I16 => 3,
            Self::U32 => 4,
            Self::I32 => 5,
            Self::F32 => 6,
            Self::Bool => 7,
            Self::U64 => 10,
            Self::I64 => 11,
            Self::F64 => 12,
        }
    }

    fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|scalar| scalar.id() == id)
    }

    /// Bytes of a value.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The number in the lower bytes of `bits`.
    fn number(self, bits: u64) -> Number {
        // Shifted up and down again, so that the sign fills the upper bits.
        let shift = 64 - 8 * self.bytes() as u32;
        match self {
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => Number::Unsigned(bits),
            Self::I8 | Self::I16 | Self::I32 | Self::I64 => Number::Signed(((bits << shift) as i64) >> shift),
            Self::F32 => Number::Float(f64::from(f32::from_bits(bits as u32))),
            Self::F64 => Number::Float(f64::from_bits(bits)),
            Self::Bool => Number::Bool(bits != 0),
        }
    }
}

/// Up to eight little-endian bytes as the lower bytes of a number.
fn bits(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |bits, byte| (bits << 8) | u64::from(*byte))
}

/// The metadata of one file.
#[derive(Debug, Clone)]
pub(crate) struct Metadata {
    /// Names the file in errors.
    file: String,
    values: BTreeMap<String, Value>,
}

impl Metadata {
    /// Reads `count` keys with their values.
    pub(super) fn read<R: Read + Seek>(cursor: &mut Cursor<R>, count: u64, file: &str) -> Result<Self> {
        let mut values = BTreeMap::new();
        for _ in 0..count {
            let key = cursor.text("the name of a key")?;
            if key.len() > MAX_KEY {
                return Err(cursor.error(format!("has a key of {} bytes; {MAX_KEY} is the limit", key.len())));
            }
            let value = read_value(cursor, &key)?;
            if values.insert(key.clone(), value).is_some() {
                return Err(cursor.error(format!("has the key `{key}` twice")));
            }
        }
        Ok(Self { file: file.to_owned(), values })
    }

    /// Metadata to be written.
    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), values: BTreeMap::new() }
    }

    /// Sets a key.
    pub(crate) fn set(&mut self, key: impl Into<String>, value: Value) {
        self.values.insert(key.into(), value);
    }

    /// Keys and values in the keys' order.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// The file's name.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// An error about this file.
    pub(crate) fn error(&self, message: impl Into<String>) -> EngineError {
        EngineError::gguf(&self.file, message)
    }

    fn wrong(&self, key: &str, wanted: &str) -> EngineError {
        self.error(format!("the value of `{key}` is not {wanted}"))
    }

    /// The error of a key that must be there.
    pub(crate) fn missing(&self, key: &str) -> EngineError {
        self.error(format!("`{key}` is missing"))
    }

    /// A whole number that is not negative.
    pub(crate) fn unsigned(&self, key: &str) -> Result<Option<u64>> {
        match self.get(key).map(Value::number) {
            None => Ok(None),
            Some(Some(Number::Unsigned(value))) => Ok(Some(value)),
            Some(Some(Number::Signed(value))) if value >= 0 => Ok(Some(value.unsigned_abs())),
            Some(_) => Err(self.wrong(key, "a whole number from 0 on")),
        }
    }

    /// A finite number.
    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key).map(Value::number) {
            None => Ok(None),
            Some(Some(Number::Float(value))) if value.is_finite() => Ok(Some(value)),
            Some(Some(Number::Unsigned(value))) => Ok(Some(value as f64)),
            Some(Some(Number::Signed(value))) => Ok(Some(value as f64)),
            Some(_) => Err(self.wrong(key, "a finite number")),
        }
    }

    /// A truth value.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key).map(Value::number) {
            None => Ok(None),
            Some(Some(Number::Bool(value))) => Ok(Some(value)),
            Some(_) => Err(self.wrong(key, "a boolean")),
        }
    }

    /// A text.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(value)) => Ok(Some(value)),
            Some(_) => Err(self.wrong(key, "a text")),
        }
    }

    /// A list of texts.
    pub(crate) fn texts(&self, key: &str) -> Result<Option<&[String]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::Texts(texts))) => Ok(Some(texts)),
            // A list of nothing may be of any type.
            Some(Value::Array(array)) if array.len() == 0 => Ok(Some(&[])),
            Some(_) => Err(self.wrong(key, "a list of texts")),
        }
    }

    /// A list of numbers of any type.
    pub(crate) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let (kind, bytes) = match self.get(key) {
            None => return Ok(None),
            Some(Value::Array(Array::Numbers { kind, bytes })) if *kind != Scalar::Bool => (kind, bytes),
            Some(Value::Array(array)) if array.len() == 0 => return Ok(Some(Vec::new())),
            Some(_) => return Err(self.wrong(key, "a list of numbers")),
        };
        let number = |bytes| match kind.number(bits(bytes)) {
            Number::Unsigned(value) => value as f64,
            Number::Signed(value) => value as f64,
            Number::Float(value) => value,
            Number::Bool(value) => f64::from(u8::from(value)),
        };
        Ok(Some(bytes.chunks_exact(kind.bytes()).map(number).collect()))
    }
}

fn read_value<R: Read + Seek>(cursor: &mut Cursor<R>, key: &str) -> Result<Value> {
    let what = format!("the value of `{key}`");
    match cursor.u32(&what)? {
        TEXT => cursor.text(&what).map(Value::Text),
        ARRAY => read_array(cursor, &what).map(Value::Array),
        id => match Scalar::from_id(id) {
            Some(kind) => Ok(Value::Scalar { kind, bits: bits(&cursor.bytes(kind.bytes() as u64, &what)?) }),
            None => Err(cursor.error(format!("{what} has the type {id}, which does not exist"))),
        },
    }
}

fn read_array<R: Read + Seek>(cursor: &mut Cursor<R>, what: &str) -> Result<Array> {
    match cursor.u32(what)? {
        TEXT => {
            let count = cursor.count(8, &format!("the number of texts in {what}"))?;
            let texts = (0..count).map(|at| cursor.text(&format!("text {at} of {what}")));
            texts.collect::<Result<_>>().map(Array::Texts)
        }
        ARRAY => Err(cursor.error(format!("{what} is a list of lists, which no model needs"))),
        id => {
            let kind = Scalar::from_id(id)
                .ok_or_else(|| cursor.error(format!("{what} lists the type {id}, which does not exist")))?;
            let width = kind.bytes() as u64;
            let count = cursor.count(width, &format!("the number of values in {what}"))?;
            Ok(Array::Numbers { kind, bytes: cursor.bytes(count * width, what)? })
        }
    }
}
