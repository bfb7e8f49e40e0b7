//! A position in a file that knows how much is left: nothing is believed to be longer than that.

use std::io::{BufReader, Read, Seek, SeekFrom};

use crate::{EngineError, Result};

/// Longest header that is read: names, metadata and the tokenizer of the largest known models take a tenth.
const MAX_HEADER: u64 = 256 << 20;

/// Reads little-endian values from the beginning of a file.
#[derive(Debug)]
pub(super) struct Cursor<R> {
    source: BufReader<R>,
    file: String,
    at: u64,
    /// Bytes of the file.
    len: u64,
    /// Where the header must have ended.
    end: u64,
}

impl<R: Read + Seek> Cursor<R> {
    /// At the beginning of `source`, which errors call `file`.
    pub(super) fn new(mut source: R, file: &str) -> Result<Self> {
        let found = source.seek(SeekFrom::End(0)).and_then(|len| source.rewind().map(|()| len));
        let len = found.map_err(|error| EngineError::gguf(file, format!("cannot be read: {error}")))?;
        let (source, file) = (BufReader::new(source), file.to_owned());
        Ok(Self { source, file, at: 0, len, end: len.min(MAX_HEADER) })
    }

    /// Bytes before the position.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The file's name.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// An error about this file.
    pub(super) fn error(&self, message: impl Into<String>) -> EngineError {
        EngineError::gguf(&self.file, message)
    }

    /// The reader, for what follows the header.
    pub(super) fn into_source(self) -> BufReader<R> {
        self.source
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        self.check(N as u64, what)?;
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(|error| self.failed(what, &error))?;
        self.at += N as u64;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A number of things that take at least `least` bytes each.
    pub(super) fn count(&mut self, least: u64, what: &str) -> Result<u64> {
        let count = self.u64(what)?;
        let room = self.end - self.at;
        if count > room / least {
            return Err(self.error(format!(
                "says that {what} is {count}, but the {room} bytes left hold at most {}",
                room / least
            )));
        }
        Ok(count)
    }

    /// `len` bytes.
    pub(super) fn bytes(&mut self, len: u64, what: &str) -> Result<Vec<u8>> {
        self.check(len, what)?;
        let mut bytes = Vec::new();
        let read = (&mut self.source).take(len).read_to_end(&mut bytes);
        match read {
            Ok(read) if read as u64 == len => {}
            Ok(read) => return Err(self.error(format!("ends {read} bytes into {what} of {len}"))),
            Err(error) => return Err(self.failed(what, &error)),
        }
        self.at += len;
        Ok(bytes)
    }

    /// A text with its length before it.
    pub(super) fn text(&mut self, what: &str) -> Result<String> {
        let len = self.u64(what)?;
        let bytes = self.bytes(len, what)?;
        String::from_utf8(bytes).map_err(|error| self.error(format!("has {what} that is no UTF-8: {error}")))
    }

    fn check(&self, len: u64, what: &str) -> Result<()> {
        let room = self.end - self.at;
        if len <= room {
            return Ok(());
        }
        let limit = if self.len > MAX_HEADER { ", the most that is read as a header," } else { "" };
        Err(self.error(format!(
            "ends before {what}: {len} bytes are wanted at {}, {room} are left of {}{limit}",
            self.at, self.end
        )))
    }

    fn failed(&self, what: &str, error: &std::io::Error) -> EngineError {
        self.error(format!("{what} cannot be read: {error}"))
    }
}
