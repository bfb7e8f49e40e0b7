//! Why a query was refused or failed.

use autoglm_domain::{Error, ErrorKind};
use datafusion::{arrow::error::ArrowError, common::SchemaError, error::DataFusionError};

/// A failure of a query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LakeSqlError {
    /// The query is not understood, or asks what cannot be.
    #[error("the query is refused: {reason}")]
    Query {
        /// What is wrong with it.
        reason: String,
    },
    /// It would make, change or write something.
    #[error("the query is refused: only questions are answered, and this is none")]
    NoQuestion,
    /// It names a table that there is none of.
    #[error("the lake has no table `{name}`")]
    NoTable {
        /// The table.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// It names a column that there is none of.
    #[error("there is no column `{name}`")]
    NoColumn {
        /// The column.
        name: String,
        /// Those that could have been meant.
        known: Vec<String>,
    },
    /// It gives more rows than were asked for.
    #[error("the answer has more than {most} rows")]
    TooManyRows {
        /// Most rows that were wanted.
        most: usize,
    },
    /// It needs more memory than it may have.
    #[error("the query needs more than {limit_mib} MiB of memory")]
    TooLarge {
        /// The limit.
        limit_mib: usize,
    },
    /// A file of the list is no longer there.
    #[error("the lake's files changed while they were read")]
    Replaced,
    /// The lake could not be read.
    #[error(transparent)]
    Lake(Error),
    /// The engine failed, or met a file that is none of ours.
    #[error("the query failed: {reason}")]
    Failed {
        /// What the engine says.
        reason: String,
    },
}

impl LakeSqlError {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Query { .. } | Self::NoQuestion | Self::TooManyRows { .. } | Self::TooLarge { .. } => {
                ErrorKind::Invalid
            }
            Self::NoTable { .. } | Self::NoColumn { .. } => ErrorKind::NotFound,
            Self::Replaced => ErrorKind::Unavailable,
            Self::Lake(error) => error.kind,
            Self::Failed { .. } => ErrorKind::Internal,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Query { .. } => {
                "`show tables` lists the tables, `describe interaction` a table's columns".into()
            }
            Self::NoQuestion => "begin with `select`, `with`, `show tables`, `describe` or `explain`".into(),
            Self::NoTable { name, known } => meant(name, known, "the tables are"),
            Self::NoColumn { name, known } => meant(name, known, "the columns are"),
            Self::TooManyRows { .. } => "end the query with `limit`, or raise `--max-rows`".into(),
            Self::TooLarge { .. } => {
                "ask for fewer columns, or for fewer days with a condition on `date`".into()
            }
            Self::Replaced => "ask again".into(),
            Self::Lake(error) => return error.hint.clone(),
            Self::Failed { .. } => return None,
        })
    }

    /// What the engine says, as an error of ours.
    pub(crate) fn of(error: &DataFusionError, limit_mib: usize) -> Self {
        let root = error.find_root();
        let reason = reason(root);
        match root {
            DataFusionError::SchemaError(schema, _) => match &**schema {
                SchemaError::FieldNotFound { field, valid_fields } => Self::NoColumn {
                    name: field.flat_name(),
                    known: valid_fields.iter().map(|field| field.name.clone()).collect(),
                },
                _ => Self::Query { reason },
            },
            DataFusionError::ResourcesExhausted(_) => Self::TooLarge { limit_mib },
            DataFusionError::SQL(..)
            | DataFusionError::Plan(_)
            | DataFusionError::NotImplemented(_)
            | DataFusionError::Configuration(_)
            | DataFusionError::Execution(_) => Self::Query { reason },
            // Of values that the query made, not of what is in the files.
            DataFusionError::ArrowError(arrow, _) => match &**arrow {
                ArrowError::CastError(_)
                | ArrowError::ParseError(_)
                | ArrowError::ComputeError(_)
                | ArrowError::DivideByZero
                | ArrowError::ArithmeticOverflow(_)
                | ArrowError::InvalidArgumentError(_) => Self::Query { reason },
                _ => Self::Failed { reason },
            },
            _ => Self::Failed { reason },
        }
    }
}

/// The first line of what the engine says; what follows are plans and traces.
fn reason(root: &DataFusionError) -> String {
    let text = match root {
        DataFusionError::SQL(error, _) => error.to_string(),
        DataFusionError::ArrowError(error, _) => error.to_string(),
        other => other.message().into_owned(),
    };
    let line = text.lines().next().unwrap_or_default().trim_end_matches('.');
    line.strip_prefix("sql parser error: ").unwrap_or(line).to_owned()
}

/// The one that was probably meant, or all of them.
fn meant(name: &str, known: &[String], all: &str) -> String {
    let name = name.rsplit('.').next().unwrap_or(name).to_lowercase();
    let near = |known: &String| strsim::jaro_winkler(&name, known);
    match known.iter().max_by(|a, b| near(a).total_cmp(&near(b))) {
        Some(nearest) if near(nearest) > 0.8 => format!("did you mean `{nearest}`?"),
        _ => format!("{all} {}", known.join(", ")),
    }
}

impl From<LakeSqlError> for Error {
    fn from(error: LakeSqlError) -> Self {
        if let LakeSqlError::Lake(error) = error {
            return error;
        }
        let crossing = Self::new(error.kind(), error.to_string());
        match error.hint() {
            Some(hint) => crossing.with_hint(hint),
            None => crossing,
        }
    }
}
