//! What can go wrong in the memory.

use autoglm_domain::{Error, ErrorKind};

/// A failure of the memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A setting is out of its range.
    #[error("`{setting}` is {value}, which is not between {low} and {high}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// Its value.
        value: f64,
        /// Smallest value allowed.
        low: f64,
        /// Largest value allowed.
        high: f64,
    },
    /// The embedder gave something that cannot be used.
    #[error("the embedder gave {found}, not {expected}")]
    Embedding {
        /// What it gave.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// A line of an import cannot be used.
    #[error("line {line} is not an experience: {reason}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Reading an import or writing an export failed.
    #[error("experiences could not be read or written: {0}")]
    Io(#[from] std::io::Error),
    /// The store or the embedder failed.
    #[error(transparent)]
    Port(#[from] Error),
}

impl MemoryError {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Setting { .. } | Self::Line { .. } => ErrorKind::Invalid,
            Self::Embedding { .. } => ErrorKind::Internal,
            Self::Io(_) => ErrorKind::Unavailable,
            Self::Port(error) => error.kind,
        }
    }
}

impl From<MemoryError> for Error {
    fn from(error: MemoryError) -> Self {
        let hint = match &error {
            MemoryError::Port(error) => return error.clone(),
            MemoryError::Line { .. } => Some("`keep_going` imports the other lines"),
            _ => None,
        };
        let plain = Self::new(error.kind(), error.to_string());
        match hint {
            Some(hint) => plain.with_hint(hint),
            None => plain,
        }
    }
}
