//! What can be asked about: tables, their files, and the bytes of these.

use std::ops::Range;

use arrow_schema::SchemaRef;
use bytes::Bytes;

/// A table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its columns but for `date`, which is in the paths. A file that lacks one of them, as it was written before the column
    /// was there, has nulls in it.
    pub columns: SchemaRef,
    /// Where its rows are; none is a table without rows.
    pub files: Vec<File>,
}

/// A file of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// `event=TABLE/date=DAY/NAME.parquet`.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether it stays. One that does not may be gone at any moment, when a wider file has its rows.
    pub stays: bool,
}

/// Port: the bytes of the files.
#[async_trait::async_trait]
pub trait Files: Send + Sync {
    /// A stretch of the file at `path`. `NotFound` says that the list of files is out of date.
    async fn read(&self, path: &str, range: Range<u64>) -> autoglm_domain::Result<Bytes>;
}
