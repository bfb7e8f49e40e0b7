//! What can go wrong between text and tensors.

use std::path::{Path, PathBuf};

use autoglm_domain::{Error, ErrorKind, Later, VersionNumber};

/// Result of an engine call.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// A failure of the engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// A file could not be read.
    #[error("cannot read `{}`: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// The operating system's reason.
        reason: String,
        /// Whether it is simply not there.
        missing: bool,
    },
    /// A file could not be written.
    #[error("cannot write `{}`: {reason}", path.display())]
    Unwritten {
        /// Which file.
        path: PathBuf,
        /// The operating system's reason.
        reason: String,
    },
    /// `config.json` is broken or describes a model that this engine does not compute.
    #[error("config.json: {message}")]
    Config {
        /// What is wrong; names the key.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A GGUF file is damaged or holds what this engine does not compute.
    #[error("`{file}` {message}")]
    Gguf {
        /// Which file.
        file: String,
        /// What is wrong, as the rest of a sentence about the file; names the key or tensor.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The weights do not fit the configuration or are damaged.
    #[error("weights: {0}")]
    Weights(String),
    /// The adapter does not fit the base model or is damaged.
    #[error("adapter: {0}")]
    Adapter(String),
    /// `tokenizer.json` is broken, or a text could not be encoded.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template is broken, loops, or refused the conversation.
    #[error("chat template: {0}")]
    Template(String),
    /// The request contradicts itself or a limit.
    #[error("{0}")]
    Request(String),
    /// The prompt leaves no room for an answer.
    #[error("the prompt has {tokens} tokens; the context holds {limit} with at least one for the answer")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that the context holds.
        limit: usize,
    },
    /// The named version is not loaded.
    #[error("version {0} is not resident")]
    NotResident(VersionNumber),
    /// Too many requests wait.
    #[error("the queue of {limit} requests is full")]
    QueueFull {
        /// Requests that the queue holds.
        limit: usize,
        /// Seconds until half of it will have left, at its present pace.
        retry_s: u32,
    },
    /// Those before the request would keep it waiting for too long.
    #[error("the request would wait for about {wait_s} s; the limit is {limit_s} s")]
    WaitTooLong {
        /// Seconds that it would wait.
        wait_s: u32,
        /// Seconds that a request may wait.
        limit_s: u64,
        /// Seconds until the wait will be within the limit.
        retry_s: u32,
    },
    /// The request's time was up before its answer began.
    #[error("no answer began within the {timeout_ms} ms that the request allows")]
    Overdue {
        /// The time that it allows.
        timeout_ms: u64,
    },
    /// Too many adapters are loaded.
    #[error("{limit} adapters are resident, which is the limit")]
    TooManyAdapters {
        /// Adapters that may be resident.
        limit: usize,
    },
    /// The engine is going down and takes nothing new.
    #[error("the engine is shutting down")]
    ShuttingDown,
    /// The model computed something that is not a number.
    #[error("the logits hold {count} values that are not numbers, the first at token {token}")]
    NotANumber {
        /// How many.
        count: usize,
        /// Index of the first.
        token: usize,
    },
    /// Neither a folder nor a model on the hub has this name.
    #[error("there is no model `{name}`")]
    ModelNotFound {
        /// What was asked for.
        name: String,
        /// What is missing or what to do about it.
        hint: String,
    },
    /// The model hub could not be reached.
    #[error("model hub: {0}")]
    Hub(String),
    /// An operation on a device failed.
    #[error("device: {0}")]
    DeviceFailed(String),
    /// A device that is to answer is not there, or does not hold the model.
    #[error("the device `{name}` {reason}")]
    Device {
        /// Which device.
        name: String,
        /// What is wrong, as the rest of a sentence about it.
        reason: String,
        /// What to do about it.
        hint: String,
    },
    /// Every page of the device's cache is taken.
    #[error("the device's cache of {pages} pages is full")]
    CacheFull {
        /// Pages of the cache.
        pages: usize,
    },
    /// A job was stopped by whoever started it.
    #[error("{0} was cancelled")]
    Cancelled(&'static str),
    /// The checkpoint of a training cannot be gone on from.
    #[error("the checkpoint cannot be used: {0}")]
    Checkpoint(String),
    /// A fault of ours.
    #[error("{0}")]
    Internal(String),
}

impl EngineError {
    /// A broken configuration, without a hint.
    pub fn config(message: impl Into<String>) -> Self {
        Self::Config { message: message.into(), hint: None }
    }

    /// A damaged GGUF file; `message` goes on after its name.
    pub fn gguf(file: impl Into<String>, message: impl Into<String>) -> Self {
        let hint = Some("copy or download the file again".into());
        Self::Gguf { file: file.into(), message: message.into(), hint }
    }

    /// A CUDA device in a build that has none.
    pub fn without_cuda(number: usize) -> Self {
        Self::Device {
            name: crate::ComputeDevice::Cuda(number).to_string(),
            reason: "is not in this build".into(),
            hint: "build with `--features cuda`, or answer on the processor (`engine.device = \"cpu\"`)"
                .into(),
        }
    }

    /// A file that could not be read.
    pub fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::File {
            path: path.to_path_buf(),
            reason: error.to_string(),
            missing: error.kind() == std::io::ErrorKind::NotFound,
        }
    }

    /// A file that could not be written.
    pub fn unwritten(path: &Path, error: &std::io::Error) -> Self {
        Self::Unwritten { path: path.to_path_buf(), reason: error.to_string() }
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::File { missing: true, .. } | Self::NotResident(_) | Self::ModelNotFound { .. } => {
                ErrorKind::NotFound
            }
            Self::Config { .. }
            | Self::Gguf { .. }
            | Self::Weights(_)
            | Self::Adapter(_)
            | Self::Tokenizer(_)
            | Self::Template(_)
            | Self::Request(_)
            | Self::Checkpoint(_)
            | Self::PromptTooLong { .. } => ErrorKind::Invalid,
            Self::Unwritten { .. }
            | Self::QueueFull { .. }
            | Self::WaitTooLong { .. }
            | Self::TooManyAdapters { .. }
            | Self::ShuttingDown
            | Self::Device { .. }
            | Self::CacheFull { .. }
            | Self::Hub(_) => ErrorKind::Unavailable,
            Self::Overdue { .. } => ErrorKind::TimedOut,
            Self::Cancelled(_) => ErrorKind::Conflict,
            Self::File { .. } | Self::NotANumber { .. } | Self::DeviceFailed(_) | Self::Internal(_) => {
                ErrorKind::Internal
            }
        }
    }

    /// What the person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config { hint, .. } | Self::Gguf { hint, .. } => hint.clone(),
            Self::ModelNotFound { hint, .. } | Self::Device { hint, .. } => Some(hint.clone()),
            Self::Weights(_) => Some("copy or download the model again".into()),
            Self::Adapter(_) => Some("an adapter fits only the base model that it was trained on".into()),
            Self::File { missing: true, .. } => Some("check the path".into()),
            Self::Unwritten { .. } => Some("check the path and the room on the disk".into()),
            Self::PromptTooLong { .. } => Some("shorten the conversation".into()),
            Self::QueueFull { retry_s, .. } | Self::WaitTooLong { retry_s, .. } => {
                Some(format!("try again in {retry_s} s"))
            }
            Self::Overdue { .. } => Some("allow more time, or try again when the server is less busy".into()),
            Self::TooManyAdapters { .. } => Some("unload versions that are no longer needed".into()),
            Self::CacheFull { .. } => Some("keep more tokens (`engine.max_cache_tokens`)".into()),
            Self::NotANumber { .. } => Some("the weights or the adapter are damaged".into()),
            _ => None,
        }
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        let later = match error {
            EngineError::QueueFull { retry_s, .. } | EngineError::WaitTooLong { retry_s, .. } => {
                Some(Later::Busy { after_s: retry_s })
            }
            _ => None,
        };
        Self { kind: error.kind(), message: error.to_string(), hint: error.hint(), later }
    }
}

#[cfg(feature = "accelerated")]
impl From<candle_core::Error> for EngineError {
    fn from(error: candle_core::Error) -> Self {
        Self::DeviceFailed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_crosses_the_port_with_kind_message_and_hint() {
        let error = Error::from(EngineError::QueueFull { limit: 3, retry_s: 7 });
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert_eq!(error.message, "the queue of 3 requests is full");
        assert_eq!(error.hint.as_deref(), Some("try again in 7 s"));
        assert_eq!(error.later, Some(Later::Busy { after_s: 7 }));
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_eq!(EngineError::file(Path::new("x"), &missing).kind(), ErrorKind::NotFound);
    }
}
