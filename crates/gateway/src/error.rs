//! Everything that can go wrong at the edge, and its form in HTTP: `{"error": {message, type, param, code}}`.

use std::time::Duration;

use autoglm_domain::{Error, ErrorKind, Later};
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// Why a request was not answered, or the server did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// The body is not JSON.
    #[error("the request body is not valid JSON: {0} (hint: send one JSON object)")]
    MalformedJson(String),
    /// A field is missing, unknown, of the wrong type, out of range, or contradicts another.
    #[error("{message}")]
    InvalidField {
        /// What is wrong.
        message: String,
        /// The field, as a path: `messages[0].content`.
        param: String,
        /// OpenAI's code for it.
        code: &'static str,
    },
    /// The prompt does not fit the model's context.
    #[error("{message}")]
    ContextLength {
        /// Tokens and limit.
        message: String,
        /// `messages`, `prompt` or `input`.
        param: &'static str,
    },
    /// The engine or another port refused the request.
    #[error("{0}")]
    Refused(String),
    /// No version answers under this name.
    #[error("{0}")]
    UnknownModel(String),
    /// What was named does not exist.
    #[error("{0}")]
    NotFound(String),
    /// No such path.
    #[error(
        "there is no `{method} {path}` (hint: the paths are those of OpenAI's API, such as `POST /v1/chat/completions`)"
    )]
    UnknownRoute {
        /// The request's method.
        method: String,
        /// The request's path.
        path: String,
    },
    /// The path exists, but not with this method.
    #[error("`{path}` does not take `{method}`")]
    WrongMethod {
        /// The request's method.
        method: String,
        /// The request's path.
        path: String,
    },
    /// No API key, or one that is not configured.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// A webhook that is not to be believed.
    #[error("{0}")]
    BadSignature(String),
    /// The principal may not do this.
    #[error("{0}")]
    Denied(String),
    /// The state does not allow it now.
    #[error("{0}")]
    Conflict(String),
    /// The body is larger than allowed.
    #[error(
        "the request body is larger than the limit of {limit} bytes (hint: `server.max_body_bytes` sets it)"
    )]
    BodyTooLarge {
        /// The limit.
        limit: usize,
    },
    /// The client did not send its body in time.
    #[error("the request body did not arrive within {seconds} s")]
    BodyTimeout {
        /// The limit.
        seconds: u64,
    },
    /// The client stopped in the middle of its body.
    #[error("the request body broke off: {0}")]
    BodyBroken(String),
    /// Too many requests are being answered, or the engine's queue is full.
    #[error("{message} (hint: try again shortly)")]
    Busy {
        /// Which limit.
        message: String,
        /// Seconds to wait.
        after_s: u32,
    },
    /// A dependency stands in the way.
    #[error("{message}")]
    Unavailable {
        /// What is not there.
        message: String,
        /// Seconds to wait.
        after_s: u32,
    },
    /// The answer could not be recorded, so it is not given.
    #[error("the answer could not be recorded and is withheld (hint: try again shortly)")]
    NotRecorded,
    /// The answer took too long.
    #[error(
        "the answer took longer than {} s (hint: ask for fewer tokens, or allow more time with the header `x-request-timeout-ms` and `server.request_timeout_s`)",
        *limit_ms as f64 / 1e3
    )]
    TimedOut {
        /// The limit.
        limit_ms: u64,
    },
    /// Another port did not answer in time.
    #[error("{0}")]
    Overdue(String),
    /// The server is being stopped.
    #[error("the server is shutting down")]
    Stopping,
    /// A fault of ours; the text is for the log alone.
    #[error("{0}")]
    Internal(String),
    /// Somebody else has the port.
    #[error(
        "{address} is in use by another process (hint: stop it, or choose another address with `server.listen`)"
    )]
    PortInUse {
        /// The address.
        address: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on `{address}`: {reason}")]
    Bind {
        /// The address.
        address: String,
        /// What the system says.
        reason: String,
    },
}

/// What a 500 hides from the client, for the log; carried beside the response.
#[derive(Debug, Clone)]
pub(crate) struct Hidden(pub(crate) String);

impl GatewayError {
    pub(crate) fn field(param: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self::InvalidField { message: message.into(), param: param.into(), code }
    }

    /// A limit that is reached for the moment.
    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self::Busy { message: message.into(), after_s: 1 }
    }

    /// An answer that took longer than `limit`.
    pub(crate) fn timed_out(limit: Duration) -> Self {
        Self::TimedOut { limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) }
    }

    /// A field whose value cannot be used.
    pub(crate) fn value(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::field(param, "invalid_value", message)
    }

    /// A field that is understood but cannot be honoured.
    pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::field(param, "unsupported_value", message)
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::MalformedJson(_)
            | Self::InvalidField { .. }
            | Self::ContextLength { .. }
            | Self::Refused(_)
            | Self::WrongMethod { .. }
            | Self::BodyTooLarge { .. }
            | Self::BodyTimeout { .. }
            | Self::BodyBroken(_)
            | Self::Bind { .. } => ErrorKind::Invalid,
            Self::UnknownModel(_) | Self::NotFound(_) | Self::UnknownRoute { .. } => ErrorKind::NotFound,
            Self::Unauthorized(_) | Self::BadSignature(_) | Self::Denied(_) => ErrorKind::Denied,
            Self::Conflict(_) | Self::PortInUse { .. } => ErrorKind::Conflict,
            Self::Busy { .. } | Self::Unavailable { .. } | Self::NotRecorded | Self::Stopping => {
                ErrorKind::Unavailable
            }
            Self::TimedOut { .. } | Self::Overdue(_) => ErrorKind::TimedOut,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Unauthorized(_) | Self::BadSignature(_) => StatusCode::UNAUTHORIZED,
            Self::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
            _ => match self.kind() {
                ErrorKind::Invalid => StatusCode::BAD_REQUEST,
                ErrorKind::NotFound => StatusCode::NOT_FOUND,
                ErrorKind::Denied => StatusCode::FORBIDDEN,
                ErrorKind::Conflict => StatusCode::CONFLICT,
                ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
                ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
                ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }

    /// The body as OpenAI writes it.
    pub(crate) fn body(&self) -> Value {
        let status = self.status();
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS => "requests",
            StatusCode::FORBIDDEN => "permission_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let param = match self {
            Self::InvalidField { param, .. } => Some(param.as_str()),
            Self::ContextLength { param, .. } => Some(*param),
            Self::UnknownModel(_) => Some("model"),
            _ => None,
        };
        let message = match self {
            Self::Internal(_) => {
                "the server had an error while answering (hint: its log names this request's id)".to_owned()
            }
            other => other.to_string(),
        };
        json!({"error": {"message": message, "type": kind, "param": param, "code": self.code()}})
    }

    fn code(&self) -> Option<&'static str> {
        match self {
            Self::InvalidField { code, .. } => Some(code),
            Self::ContextLength { .. } => Some("context_length_exceeded"),
            Self::UnknownModel(_) => Some("model_not_found"),
            Self::UnknownRoute { .. } => Some("unknown_url"),
            Self::WrongMethod { .. } => Some("method_not_allowed"),
            Self::BadSignature(_) => Some("invalid_signature"),
            Self::Unauthorized(_) => Some("invalid_api_key"),
            Self::BodyTooLarge { .. } => Some("request_too_large"),
            Self::BodyTimeout { .. } | Self::TimedOut { .. } | Self::Overdue(_) => Some("timeout"),
            Self::Busy { .. } => Some("rate_limit_exceeded"),
            Self::NotRecorded => Some("not_recorded"),
            Self::Stopping => Some("shutting_down"),
            Self::NotFound(_) => Some("not_found"),
            Self::Conflict(_) => Some("conflict"),
            _ => None,
        }
    }
}

/// The message with its hint, as one line.
pub(crate) fn with_hint(error: &Error) -> String {
    match &error.hint {
        Some(hint) => format!("{} (hint: {hint})", error.message),
        None => error.message.clone(),
    }
}

impl From<Error> for GatewayError {
    fn from(error: Error) -> Self {
        let message = with_hint(&error);
        match error.kind {
            ErrorKind::Invalid => Self::Refused(message),
            ErrorKind::NotFound => Self::NotFound(message),
            ErrorKind::Denied => Self::Denied(message),
            ErrorKind::Conflict => Self::Conflict(message),
            ErrorKind::Unavailable => match error.later {
                Some(Later::Busy { after_s }) => Self::Busy { message: error.message, after_s },
                Some(Later::Down { after_s }) => Self::Unavailable { message, after_s },
                None => Self::Unavailable { message, after_s: 1 },
            },
            ErrorKind::TimedOut => Self::Overdue(message),
            ErrorKind::Internal => Self::Internal(message),
        }
    }
}

impl From<GatewayError> for Error {
    fn from(error: GatewayError) -> Self {
        let (kind, message) = (error.kind(), error.to_string());
        match message.split_once(" (hint: ") {
            Some((text, hint)) => Self::new(kind, text).with_hint(hint.trim_end_matches(')')),
            None => Self::new(kind, message),
        }
    }
}

impl IntoResponse for GatewayError {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(self.body())).into_response();
        let headers = response.headers_mut();
        match &self {
            Self::Busy { after_s, .. } | Self::Unavailable { after_s, .. } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(*after_s));
            }
            Self::NotRecorded => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Unauthorized(_) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Internal(hidden) => {
                let hidden = Hidden(hidden.clone());
                response.extensions_mut().insert(hidden);
            }
            _ => {}
        }
        response
    }
}
