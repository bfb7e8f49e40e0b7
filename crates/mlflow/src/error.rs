//! Why something did not get to MLflow.

use autoglm_domain::{Error, ErrorKind};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, MlflowError>;

/// Why something did not get to MLflow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MlflowError {
    /// A setting cannot work.
    #[error("setting `mlflow.{key}` {reason}")]
    Setting {
        /// Which.
        key: String,
        /// Why.
        reason: String,
    },
    /// The server does not answer.
    #[error("MLflow at {url} does not answer: {reason}")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What is known.
        reason: String,
    },
    /// The server answered without success.
    #[error("MLflow answered {status} to {call}: {message}")]
    Refused {
        /// What was asked.
        call: &'static str,
        /// The HTTP status.
        status: u16,
        /// MLflow's code, such as `RESOURCE_DOES_NOT_EXIST`; empty where there is none.
        code: String,
        /// What it says.
        message: String,
    },
    /// An answer that lacks what the interface says it has.
    #[error("MLflow's answer to {call} has no `{field}`")]
    Answer {
        /// What was asked.
        call: &'static str,
        /// What is missing.
        field: &'static str,
    },
    /// Store or artifacts of ours.
    #[error("{0}")]
    Ours(#[from] Error),
}

impl MlflowError {
    /// What sort of failure it is. What MLflow will refuse again is `Invalid`.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Setting { .. } => ErrorKind::Invalid,
            Self::Unreachable { .. } => ErrorKind::Unavailable,
            Self::Refused { code, .. } if code == "INVALID_PARAMETER_VALUE" => ErrorKind::Invalid,
            Self::Refused { code, .. } if code == "RESOURCE_DOES_NOT_EXIST" => ErrorKind::NotFound,
            Self::Refused { code, .. } if code == "RESOURCE_ALREADY_EXISTS" => ErrorKind::Conflict,
            Self::Refused { status: 401 | 403, .. } => ErrorKind::Denied,
            Self::Refused { status: 404, .. } => ErrorKind::NotFound,
            Self::Refused { .. } | Self::Answer { .. } => ErrorKind::Unavailable,
            Self::Ours(error) => error.kind,
        }
    }

    /// What the person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } => Some("nothing is lost: it is tried again until the server is there"),
            Self::Refused { status: 401 | 403, .. } => {
                Some("`mlflow.token_env`, or `mlflow.username` and `mlflow.password_env`, say who we are")
            }
            _ => None,
        }
    }
}

impl From<MlflowError> for Error {
    fn from(error: MlflowError) -> Self {
        let plain = match &error {
            MlflowError::Ours(ours) => return ours.clone(),
            error => Self::new(error.kind(), error.to_string()),
        };
        match error.hint() {
            Some(hint) => plain.with_hint(hint),
            None => plain,
        }
    }
}
