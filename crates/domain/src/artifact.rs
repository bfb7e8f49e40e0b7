//! Large things, kept under the hash of their content.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result};

/// BLAKE3 of some bytes, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The first 12 digits, for people.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}
impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}
impl FromStr for ContentHash {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes())).map_err(|_| {
            Error::invalid(format!("`{text}` is not a content hash")).with_hint("64 hexadecimal digits")
        })
    }
}
impl Serialize for ContentHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Port: artifacts by content hash.
#[async_trait::async_trait]
pub trait ArtifactStore: Send + Sync {
    /// Stores `bytes` durably and returns their hash; storing the same bytes again is free.
    async fn put(&self, bytes: Vec<u8>) -> Result<ContentHash>;

    /// The bytes under `hash`, verified against it. `NotFound` when absent, `Internal` when damaged.
    async fn get(&self, hash: ContentHash) -> Result<Vec<u8>>;

    /// Whether something is stored under `hash`.
    async fn contains(&self, hash: ContentHash) -> Result<bool>;
}

/// An adapter in PEFT's format: the two files' bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    /// `adapter_config.json`
    pub config: Vec<u8>,
    /// `adapter_model.safetensors`
    pub weights: Vec<u8>,
}

impl Adapter {
    /// Both files in one artifact: the configuration's length (little-endian u64), the configuration, the
    /// weights.
    pub fn pack(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + self.config.len() + self.weights.len());
        bytes.extend_from_slice(&(self.config.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&self.config);
        bytes.extend_from_slice(&self.weights);
        bytes
    }

    /// Undoes [`Adapter::pack`]; `Invalid` when the bytes are not of that form.
    pub fn unpack(bytes: &[u8]) -> Result<Self> {
        let damaged = || Error::invalid(format!("{} bytes are not a packed adapter", bytes.len()));
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| damaged())?;
        let (config, weights) = rest.split_at_checked(length).ok_or_else(damaged)?;
        Ok(Self { config: config.to_vec(), weights: weights.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_adapter_unpacks_and_a_truncated_one_is_refused() {
        let adapter = Adapter { config: b"{}".to_vec(), weights: vec![1, 2, 3] };
        let packed = adapter.pack();
        assert_eq!(Adapter::unpack(&packed), Ok(adapter));
        assert_eq!(Adapter::unpack(&packed[..9]).unwrap_err().message, "9 bytes are not a packed adapter");
    }

    #[test]
    fn a_hash_reads_back_what_it_writes() {
        let hash = ContentHash::of(b"autoglm");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(hash.short().len(), 12);
    }
}
