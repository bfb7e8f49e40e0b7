//! The lake: the journal as Parquet files in an object store, one table an event, for DuckDB, Spark, pandas and the like.
//!
//! In come the journal's events, through a [`Store`](autoglm_domain::Store); out go files
//! `event=interaction/date=2026-11-29/0000000000000001-0000000000000256.parquet`, named by the positions that they
//! cover. A file is a function of the journal and its name, so writing it again changes nothing. Small files are replaced
//! by the file of the [window](windows) around them as soon as the window is full; of two files that cover the same
//! positions the wider one counts ([`counting`]), and the narrower one is about to be deleted.
//!
//! Without the feature `parquet` there are the settings, the names and the columns, and no files.

mod config;
mod error;
mod name;
mod table;
pub mod windows;

#[cfg(feature = "parquet")]
mod address;
#[cfg(feature = "parquet")]
mod decode;
#[cfg(feature = "parquet")]
mod encode;
#[cfg(feature = "parquet")]
mod files;
#[cfg(feature = "parquet")]
mod lake;

pub use config::Config;
pub use error::LakeError;
pub use name::{FileName, counting};
pub use table::{Cell, Column, ColumnKind, TABLES, Table, cells, table};

#[cfg(feature = "parquet")]
pub use address::shown;
#[cfg(feature = "parquet")]
pub use files::{LakeFile, LakeFiles};
#[cfg(feature = "parquet")]
pub use lake::Lake;
