//! Why a hook cannot be used, or a request was not believed.

use std::path::PathBuf;

use autoglm_domain::{Error, ErrorKind};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, WebhookError>;

/// Why a hook cannot be used, or a request was not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// A setting cannot work.
    #[error("setting `webhook.{key}` {reason}")]
    Setting {
        /// Which.
        key: String,
        /// Why.
        reason: String,
    },
    /// The variable of a secret is not set.
    #[error("`webhook.{key}.secret_env` names the environment variable `{variable}`, which is not set")]
    NoVariable {
        /// Whose secret.
        key: String,
        /// The variable.
        variable: String,
    },
    /// The file of a secret cannot be read.
    #[error("`webhook.{key}.secret_file` names `{path}`, which cannot be read: {reason}", path = path.display())]
    NoFile {
        /// Whose secret.
        key: String,
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A secret that is soon guessed.
    #[error("the secret of `webhook.{key}` has {bytes} bytes, fewer than {least}")]
    ShortSecret {
        /// Whose secret.
        key: String,
        /// Its length.
        bytes: usize,
        /// The least.
        least: usize,
    },
    /// A request without timestamp or signature, or with a malformed one.
    #[error("the header `{0}` is missing or malformed")]
    Header(&'static str),
    /// A request whose timestamp is too far from now.
    #[error("the request was signed {away_s} s away from now, more than {tolerance_s} s")]
    Stale {
        /// How far.
        away_s: u64,
        /// How far it may be.
        tolerance_s: u64,
    },
    /// A request that somebody without the secret signed, or changed.
    #[error("the signature does not fit the body")]
    Forged,
    /// A request that came before.
    #[error("this very request was taken already")]
    Replayed,
}

impl WebhookError {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Setting { .. }
            | Self::NoVariable { .. }
            | Self::NoFile { .. }
            | Self::ShortSecret { .. } => ErrorKind::Invalid,
            Self::Header(_) | Self::Stale { .. } | Self::Forged => ErrorKind::Denied,
            Self::Replayed => ErrorKind::Conflict,
        }
    }

    /// What the person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Setting { .. } | Self::NoFile { .. } => None,
            Self::NoVariable { .. } => Some("set it where the server starts"),
            Self::ShortSecret { .. } => Some("make one with `openssl rand -hex 32`"),
            Self::Header(_) | Self::Forged => {
                Some("send `x-autoglm-timestamp` and `x-autoglm-signature: sha256=HEX`, see docs/webhooks.md")
            }
            Self::Stale { .. } => Some("check both clocks; `webhook.inbound.tolerance_s` sets the limit"),
            Self::Replayed => Some("to send it again, sign it with a new timestamp"),
        }
    }
}

impl From<WebhookError> for Error {
    fn from(error: WebhookError) -> Self {
        let plain = Self::new(error.kind(), error.to_string());
        match error.hint() {
            Some(hint) => plain.with_hint(hint),
            None => plain,
        }
    }
}
