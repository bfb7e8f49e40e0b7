//! Why the settings could not be read.

use std::{fmt, path::PathBuf};

use autoglm_domain::{Error, ErrorKind};

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In the file, at a line.
    File {
        /// The file.
        path: PathBuf,
        /// From 1; 0 where it is not known.
        line: usize,
    },
    /// In an environment variable.
    Environment(String),
    /// By a flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// Why the settings could not be read.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the settings in {path}: {reason}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        reason: String,
        /// Whether there is no such file.
        missing: bool,
    },
    /// The file is not TOML.
    #[error("{path}:{line}: {reason}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// There is no such key.
    #[error("unknown setting `{key}` ({origin})")]
    Unknown {
        /// The key.
        key: String,
        /// Where it was given.
        origin: Origin,
        /// The nearest key that exists.
        nearest: Option<String>,
    },
    /// A variable that names no key.
    #[error("unknown environment variable {name}")]
    Variable {
        /// Its name.
        name: String,
        /// The nearest variable that means something.
        nearest: Option<String>,
    },
    /// A value of the wrong kind.
    #[error("setting `{key}` is {given}, {expected} ({origin})")]
    Value {
        /// The key.
        key: String,
        /// What was given.
        given: String,
        /// What it should be, or what is wrong with it.
        expected: String,
        /// Where it was given.
        origin: Origin,
    },
    /// `--set` without `=`.
    #[error("`--set {given}` sets nothing")]
    Assignment {
        /// What was given.
        given: String,
    },
}

impl SettingsError {
    /// What sort of failure.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::File { missing: true, .. } => ErrorKind::NotFound,
            _ => ErrorKind::Invalid,
        }
    }

    /// What a person can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::File { missing: true, .. } => Some("leave `--config` out to use the defaults".into()),
            Self::Unknown { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Self::Variable { nearest: Some(nearest), .. } => Some(format!("did you mean {nearest}?")),
            Self::Unknown { .. } | Self::Variable { .. } => {
                Some("`autoglm config --reference` lists every setting".into())
            }
            Self::Assignment { .. } => {
                Some("write `--set KEY=VALUE`, as in `--set server.listen=0.0.0.0:80`".into())
            }
            _ => None,
        }
    }
}

impl From<SettingsError> for Error {
    fn from(error: SettingsError) -> Self {
        Self { kind: error.kind(), message: error.to_string(), hint: error.hint(), later: None }
    }
}
