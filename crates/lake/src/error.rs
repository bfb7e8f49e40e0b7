//! Why the lake refused or failed.

use autoglm_domain::{Error, ErrorKind};

/// A failure of the lake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LakeError {
    /// A setting is beyond its limit.
    #[error("setting `lake.{key}` {reason}")]
    Setting {
        /// Its name.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The address names no place that files can go to.
    #[error("`{url}` is no place for a lake: {reason}")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The object store refuses us.
    #[error("the lake's object store refuses `{path}`: {reason}")]
    Refused {
        /// What was to be written or read.
        path: String,
        /// What it says.
        reason: String,
    },
    /// The object store fails, or does not answer.
    #[error("the lake's object store failed: {reason}")]
    Unavailable {
        /// What it says.
        reason: String,
    },
    /// The disk, or what one may take up of it, is full.
    #[error("the lake has no room: {reason}")]
    Full {
        /// What is full.
        reason: String,
    },
    /// There is no such file, or no such bucket.
    #[error("the lake's object store has no `{path}`: {reason}")]
    Missing {
        /// What was looked for.
        path: String,
        /// What it says.
        reason: String,
    },
    /// A wider file took the place of one that was about to be read.
    #[error("`{path}` was replaced while the lake was read")]
    Replaced {
        /// The file.
        path: String,
    },
    /// The lake holds another journal's events.
    #[error("the lake at `{url}` holds the events of another journal")]
    Foreign {
        /// Where it is.
        url: String,
    },
    /// The lake was written by a newer autoglm.
    #[error("the lake at `{url}` has format {found}, newer than {known}, the latest that this autoglm knows")]
    Newer {
        /// Where it is.
        url: String,
        /// Its format.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// A fault of ours.
    #[error("a file of the lake could not be made: {reason}")]
    Encoding {
        /// What the encoder says.
        reason: String,
    },
    /// The journal could not be read.
    #[error(transparent)]
    Journal(#[from] Error),
}

impl LakeError {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Setting { .. } | Self::Address { .. } | Self::Newer { .. } => ErrorKind::Invalid,
            Self::Refused { .. } => ErrorKind::Denied,
            Self::Unavailable { .. } | Self::Full { .. } | Self::Replaced { .. } => ErrorKind::Unavailable,
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::Foreign { .. } => ErrorKind::Conflict,
            Self::Encoding { .. } => ErrorKind::Internal,
            Self::Journal(error) => error.kind,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&str> {
        Some(match self {
            Self::Address { .. } => {
                "it looks like /data/lake, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
            }
            Self::Refused { .. } => {
                "check the credentials and what they allow, or who may write to the folder"
            }
            Self::Unavailable { .. } => "what is missing is written when it is back",
            Self::Full { .. } => "make room; what is missing is written then",
            Self::Replaced { .. } => "ask again",
            Self::Missing { .. } => "make the bucket; autoglm makes folders, but no buckets",
            Self::Foreign { .. } => "give this database a lake of its own: `lake.url` with another prefix",
            Self::Newer { .. } => "use that newer autoglm, or another prefix",
            Self::Journal(error) => return error.hint.as_deref(),
            _ => return None,
        })
    }
}

impl From<LakeError> for Error {
    fn from(error: LakeError) -> Self {
        if let LakeError::Journal(error) = error {
            return error;
        }
        let crossing = Self::new(error.kind(), error.to_string());
        match error.hint() {
            Some(hint) => crossing.with_hint(hint),
            None => crossing,
        }
    }
}
