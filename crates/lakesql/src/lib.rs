//! SQL over the lake: what `autoglm lake sql` asks.
//!
//! In come tables, each with its columns and the files that hold its rows, a port that reads the bytes of those
//! files, and a query; out comes its answer. Only queries are taken: nothing is made, changed or written, and
//! nothing outside the tables is read.
//!
//! Only this crate knows DataFusion. Without the feature `datafusion` it is empty.

#[cfg(feature = "datafusion")]
mod answer;
#[cfg(feature = "datafusion")]
mod error;
#[cfg(feature = "datafusion")]
mod listed;
#[cfg(feature = "datafusion")]
mod query;
#[cfg(feature = "datafusion")]
mod table;

#[cfg(feature = "datafusion")]
pub use answer::Answer;
#[cfg(feature = "datafusion")]
pub use error::LakeSqlError;
#[cfg(feature = "datafusion")]
pub use query::query;
#[cfg(feature = "datafusion")]
pub use table::{File, Files, Table};
