//! Why Kafka refused or failed.

use autoglm_domain::{Error, ErrorKind};

/// A failure of the broker or of a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KafkaError {
    /// A setting is beyond its limit.
    #[error("setting `kafka.{key}` {reason}")]
    Setting {
        /// Its name.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The broker fails, or does not answer.
    #[error("kafka at `{brokers}` does not take messages: {reason}")]
    Unavailable {
        /// Where it is.
        brokers: String,
        /// What the client says.
        reason: String,
    },
    /// The broker refuses us.
    #[error("kafka at `{brokers}` refuses us: {reason}")]
    Refused {
        /// Where it is.
        brokers: String,
        /// What the broker says.
        reason: String,
    },
    /// The broker and we do not come to trust one another.
    #[error("no TLS with kafka at `{brokers}`: {reason}")]
    Untrusted {
        /// Where it is.
        brokers: String,
        /// What the client says.
        reason: String,
    },
    /// A message that nothing can be made of.
    #[error("{reason}")]
    Message {
        /// Why.
        reason: String,
    },
    /// A fault of ours.
    #[error("an event could not be written as a message: {reason}")]
    Encoding {
        /// What the encoder says.
        reason: String,
    },
    /// The journal could not be read.
    #[error(transparent)]
    Journal(#[from] Error),
}

impl KafkaError {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Setting { .. } | Self::Message { .. } => ErrorKind::Invalid,
            Self::Unavailable { .. } | Self::Untrusted { .. } => ErrorKind::Unavailable,
            Self::Refused { .. } => ErrorKind::Denied,
            Self::Encoding { .. } => ErrorKind::Internal,
            Self::Journal(error) => error.kind,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&str> {
        Some(match self {
            Self::Unavailable { .. } => "what is missing is sent when it is back",
            Self::Refused { .. } => "check the credentials in `kafka.options` and what they allow",
            Self::Untrusted { .. } => {
                "check `security.protocol` and `ssl.ca.location` in `kafka.options`, and the names in the broker's certificate"
            }
            Self::Journal(error) => return error.hint.as_deref(),
            _ => return None,
        })
    }
}

impl From<KafkaError> for Error {
    fn from(error: KafkaError) -> Self {
        if let KafkaError::Journal(error) = error {
            return error;
        }
        let crossing = Self::new(error.kind(), error.to_string());
        match error.hint() {
            Some(hint) => crossing.with_hint(hint),
            None => crossing,
        }
    }
}
