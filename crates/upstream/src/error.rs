//! What can go wrong between autoglm and the server that answers for it. No message names its address: clients read
//! them.

use autoglm_domain::{Error, ErrorKind, VersionNumber};

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, UpstreamError>;

/// Why the upstream did not do what was asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum UpstreamError {
    /// A setting cannot work.
    #[error("setting `upstream.{key}` {reason}")]
    Setting {
        /// Which one.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Requests are refused without asking, for the upstream failed too often.
    #[error("the upstream failed too often and is left alone")]
    CircuitOpen {
        /// Seconds until it is asked again.
        after_s: u32,
    },
    /// No connection, or one that broke before an answer began.
    #[error("the upstream cannot be reached: {0}")]
    Unreachable(String),
    /// A limit of time has passed.
    #[error("the upstream gave {what} within {seconds} s")]
    TimedOut {
        /// What did not come.
        what: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// The request's own time is up.
    #[error("no answer began within the {ms} ms that the request has")]
    Overdue {
        /// How long it had.
        ms: u64,
    },
    /// It has too much to do.
    #[error("the upstream is busy ({status}): {message}")]
    Busy {
        /// HTTP status.
        status: u16,
        /// What it says.
        message: String,
        /// Seconds that it asks to wait.
        after_s: u32,
    },
    /// It failed.
    #[error("the upstream failed ({status}): {message}")]
    Failed {
        /// HTTP status.
        status: u16,
        /// What it says.
        message: String,
        /// Seconds to wait.
        after_s: u32,
    },
    /// It does not let us in.
    #[error("the upstream does not let us in ({status})")]
    Unauthorized {
        /// HTTP status. What it says stays here: it may hold a part of the key.
        status: u16,
    },
    /// The request is at fault.
    #[error("the upstream refused the request: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it says.
        message: String,
    },
    /// It lacks the model or the path.
    #[error("the upstream has no such thing: {message}")]
    NotThere {
        /// What it says.
        message: String,
    },
    /// The answer broke off.
    #[error("the upstream's answer broke off: {0}")]
    BrokenOff(String),
    /// The answer is not what the API promises.
    #[error("the upstream's answer cannot be read: {0}")]
    Malformed(String),
    /// Its embeddings cannot be had.
    #[error("the upstream's embeddings cannot be had: {0}")]
    Embeddings(String),
    /// The request asks for what cannot be handed on.
    #[error("{0}")]
    Unsupported(String),
    /// The version is not loaded there.
    #[error("version {0} is not resident")]
    NotResident(VersionNumber),
    /// The upstream takes no adapters.
    #[error("{version} cannot answer: {reason}")]
    NoAdapters {
        /// The version that was wanted.
        version: VersionNumber,
        /// Why only the base model can.
        reason: String,
    },
    /// An adapter that cannot be handed over.
    #[error("the adapter of {version} was not loaded: {reason}")]
    Adapter {
        /// The version it belongs to.
        version: VersionNumber,
        /// What is wrong.
        reason: String,
    },
    /// The adapter's files cannot be written.
    #[error("the adapter cannot be written to `{path}`: {reason}")]
    AdapterFiles {
        /// Where.
        path: String,
        /// What the system says.
        reason: String,
    },
}

impl UpstreamError {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Setting { .. }
            | Self::Refused { .. }
            | Self::Unsupported(_)
            | Self::NoAdapters { .. }
            | Self::Adapter { .. } => ErrorKind::Invalid,
            Self::NotResident(_) => ErrorKind::NotFound,
            Self::Overdue { .. } => ErrorKind::TimedOut,
            // A limit of the upstream's says that it is not well; the request, or the version, is not to blame.
            Self::TimedOut { .. }
            | Self::CircuitOpen { .. }
            | Self::Unreachable(_)
            | Self::Busy { .. }
            | Self::Failed { .. }
            | Self::Unauthorized { .. }
            | Self::NotThere { .. }
            | Self::BrokenOff(_)
            | Self::Malformed(_)
            | Self::Embeddings(_)
            | Self::AdapterFiles { .. } => ErrorKind::Unavailable,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::CircuitOpen { .. } | Self::Busy { .. } | Self::Failed { .. } => Some("try again shortly"),
            Self::Unreachable(_) => Some("check that it runs, and `upstream.base_url`"),
            Self::TimedOut { .. } => Some("`upstream.*_timeout_s` sets the limits"),
            Self::Unauthorized { .. } => {
                Some("put its API key into the variable that `upstream.api_key_env` names")
            }
            Self::NotThere { .. } => Some("check `upstream.model` and `upstream.base_url`"),
            Self::NoAdapters { .. } => Some("the base model answers under `base`"),
            Self::AdapterFiles { .. } => Some("`upstream.adapter_dir` names the folder"),
            _ => None,
        }
    }

    /// In a word, for metrics.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::CircuitOpen { .. } => "not_sent",
            Self::Unreachable(_) => "unreachable",
            Self::TimedOut { .. } => "timed_out",
            Self::Overdue { .. } => "overdue",
            Self::Busy { .. } => "busy",
            Self::Failed { .. } | Self::BrokenOff(_) | Self::Malformed(_) => "failed",
            _ => "refused",
        }
    }

    /// Whether the upstream itself is to blame, for the circuit breaker. A busy one is well.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_)
                | Self::TimedOut { .. }
                | Self::Failed { .. }
                | Self::BrokenOff(_)
                | Self::Malformed(_)
        )
    }
}

impl From<UpstreamError> for Error {
    fn from(error: UpstreamError) -> Self {
        let message = error.to_string();
        let ported = match (&error, error.kind()) {
            (UpstreamError::Busy { after_s, .. }, _) => Self::busy(message, *after_s),
            (UpstreamError::CircuitOpen { after_s, .. } | UpstreamError::Failed { after_s, .. }, _) => {
                Self::down(message, *after_s)
            }
            (_, ErrorKind::Unavailable) => Self::down(message, 1),
            (_, kind) => Self::new(kind, message),
        };
        match error.hint() {
            Some(hint) => ported.with_hint(hint),
            None => ported,
        }
    }
}
