//! The error that crosses ports: a kind for the machine, a message and a hint for the person.

/// What sort of failure it was; the edges map it to an HTTP status and an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The caller's input is wrong; the same call will fail again (HTTP 400, exit 2).
    Invalid,
    /// What was named does not exist (HTTP 404, exit 3).
    NotFound,
    /// The caller may not do this (HTTP 403, exit 4).
    Denied,
    /// The state does not allow it now (HTTP 409, exit 5).
    Conflict,
    /// A limit or a dependency stands in the way; trying later may help (HTTP 503 or 429, exit 6).
    Unavailable,
    /// It took longer than it was allowed to (HTTP 504, exit 6).
    TimedOut,
    /// A fault of ours (HTTP 500, exit 1).
    Internal,
}

impl ErrorKind {
    /// The exit code of a command that ends with this kind of error.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Invalid => 2,
            Self::NotFound => 3,
            Self::Denied => 4,
            Self::Conflict => 5,
            Self::Unavailable | Self::TimedOut => 6,
        }
    }
}

/// Why the same call may succeed later, and when that is worth a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Later {
    /// More is asked than a limit allows right now (HTTP 429).
    Busy {
        /// Seconds to wait.
        after_s: u32,
    },
    /// Something that is needed does not answer (HTTP 503).
    Down {
        /// Seconds to wait.
        after_s: u32,
    },
}

/// A failure as it is handed through a port. Crates keep enums of their own and turn them into this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What sort of failure.
    pub kind: ErrorKind,
    /// Lowercase, without a full stop; names the thing and the limit it broke.
    pub message: String,
    /// What the person can do about it.
    pub hint: Option<String>,
    /// Whether and when to try again, where that is known; only with [`ErrorKind::Unavailable`].
    pub later: Option<Later>,
}

/// Result of a port call.
pub type Result<T> = std::result::Result<T, Error>;

/// What a port found; `None` where it says `NotFound`.
///
/// # Errors
/// Every other error of `result`.
pub fn if_found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

impl Error {
    /// An error of `kind` with `message`, without a hint.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, later: None }
    }

    /// Shorthand for [`ErrorKind::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Shorthand for [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// Shorthand for [`ErrorKind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// Shorthand for [`ErrorKind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// [`ErrorKind::Unavailable`] because too much is asked; worth a try in `after_s` seconds.
    pub fn busy(message: impl Into<String>, after_s: u32) -> Self {
        Self { later: Some(Later::Busy { after_s }), ..Self::unavailable(message) }
    }

    /// [`ErrorKind::Unavailable`] because something does not answer; worth a try in `after_s` seconds.
    pub fn down(message: impl Into<String>, after_s: u32) -> Self {
        Self { later: Some(Later::Down { after_s }), ..Self::unavailable(message) }
    }

    /// Shorthand for [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The same error with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
