//! What happens to every request: an id, a principal, the reading of its body, and headers and metrics at
//! its end.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use autoglm_domain::{InteractionId, Timestamp, VersionNumber};
use axum::{
    body::{Body, HttpBody as _},
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use bytes::{Bytes, BytesMut};
use futures::{FutureExt as _, StreamExt as _};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::{
    Config, GatewayError,
    error::Hidden,
    gateway::Shared,
    principal::{self, Caller},
    response_body::response_id,
    webhooks,
};

pub(crate) const VERSION_HEADER: HeaderName = HeaderName::from_static("x-autoglm-model-version");
const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-request-timeout-ms");
pub(crate) const REQUEST_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// What is known of a request before its body is read.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// The id of the answer, if it becomes one.
    pub(crate) id: InteractionId,
    /// When it came in.
    pub(crate) at: Timestamp,
    /// The same on a clock that never steps back.
    pub(crate) started: Instant,
    /// Who asks.
    pub(crate) caller: Caller,
    /// The conversation, where the client names it.
    pub(crate) session: Option<String>,
    /// How long the answer may take, where the client says so.
    pub(crate) timeout: Option<Duration>,
}

impl Arrival {
    /// How long the answer may take from the request on: as long as the client says, but no longer than any.
    pub(crate) fn limit(&self, config: &Config) -> Duration {
        let most = Duration::from_secs(config.request_timeout_s);
        self.timeout.map_or(most, |own| own.min(most))
    }

    /// Milliseconds since the request came in.
    pub(crate) fn elapsed_ms(&self) -> f64 {
        self.started.elapsed().as_secs_f64() * 1e3
    }
}

/// The middleware around every route.
pub(crate) async fn intake(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = InteractionId::next(&*shared.gateway.ids);
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| Arc::from("unmatched"), |path| Arc::<str>::from(path.as_str()));
    let method = name_of(request.method());
    let api = request.uri().path().starts_with("/v1/");
    // Its requests are signed in place of a key.
    let signed = request.uri().path() == webhooks::MODEL;
    let identified =
        if api && !signed { identify(&shared, request.headers()) } else { Ok(Caller::Anyone(None)) };
    let known = identified.and_then(|caller| Ok((caller, own_timeout(request.headers())?)));
    let mut response = match known {
        Err(refusal) => refusal.into_response(),
        Ok((caller, timeout)) => {
            let session = principal::session(request.headers());
            let at = shared.gateway.clock.now();
            request.extensions_mut().insert(Arrival { id, at, started, caller, session, timeout });
            let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
            answer.unwrap_or_else(|_| GatewayError::Internal("a handler panicked".into()).into_response())
        }
    };
    let request_id = if &*route == "/v1/chat/completions" || &*route == "/v1/completions" {
        id.to_string()
    } else if &*route == "/v1/responses" {
        response_id(id)
    } else {
        format!("req_{}", id.uuid().simple())
    };
    if let Some(Hidden(fault)) = response.extensions_mut().remove::<Hidden>() {
        tracing::error!(request = %request_id, %route, %fault, "a request failed");
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        headers.insert(REQUEST_HEADER, value);
    }
    if api
        && !headers.contains_key(VERSION_HEADER)
        && let Ok(champion) = shared.gateway.aliases.resolve("champion")
    {
        headers.insert(VERSION_HEADER, version_value(champion));
    }
    let status = response.status().as_u16().to_string();
    metrics::counter!("autoglm_http_requests_total", "route" => route.clone(), "method" => method, "status" => status)
        .increment(1);
    metrics::histogram!("autoglm_http_response_seconds", "route" => route)
        .record(started.elapsed().as_secs_f64());
    response
}

/// The caller. A page of a strange site must not speak for the person whose browser shows it: a server on
/// `localhost` without keys would otherwise take feedback and orders from it.
fn identify(shared: &Shared, headers: &HeaderMap) -> Result<Caller, GatewayError> {
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return Err(GatewayError::Denied("requests from pages of other sites are not answered".into()));
    }
    shared.principals.identify(headers)
}

/// What `x-request-timeout-ms` says, in milliseconds.
fn own_timeout(headers: &HeaderMap) -> Result<Option<Duration>, GatewayError> {
    let Some(value) = headers.get(TIMEOUT_HEADER) else { return Ok(None) };
    let ms = value.to_str().ok().and_then(|value| value.trim().parse::<u64>().ok()).filter(|ms| *ms > 0);
    let refused = || {
        GatewayError::value(
            TIMEOUT_HEADER.as_str(),
            "the header `x-request-timeout-ms` is not a whole number of milliseconds above 0",
        )
    };
    ms.map(|ms| Some(Duration::from_millis(ms))).ok_or_else(refused)
}

/// `v3` as a header.
pub(crate) fn version_value(version: VersionNumber) -> HeaderValue {
    HeaderValue::from_str(&version.to_string()).unwrap_or(HeaderValue::from_static("unknown"))
}

/// A label of bounded cardinality: clients may send any word as method.
fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The body as JSON, within the limits of size and time.
pub(crate) async fn read_json(body: Body, config: &Config) -> Result<Value, GatewayError> {
    parse(&read_bytes(body, config).await?)
}

/// Bytes as JSON.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, GatewayError> {
    serde_json::from_slice(bytes).map_err(|error| GatewayError::MalformedJson(error.to_string()))
}

/// The body as it came, within the limits of size and time.
pub(crate) async fn read_bytes(body: Body, config: &Config) -> Result<Bytes, GatewayError> {
    let limit = config.max_body_bytes;
    if body.size_hint().lower() > limit as u64 {
        return Err(GatewayError::BodyTooLarge { limit });
    }
    let whole = timeout(Duration::from_secs(config.body_timeout_s), read(body, limit));
    whole.await.map_err(|_| GatewayError::BodyTimeout { seconds: config.body_timeout_s })?
}

/// A body that comes in one piece, as most do, is not copied.
async fn read(body: Body, limit: usize) -> Result<Bytes, GatewayError> {
    let mut pieces = body.into_data_stream();
    let mut first: Option<Bytes> = None;
    let mut whole = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| GatewayError::BodyBroken(error.to_string()))?;
        let length = first.as_ref().map_or(whole.len(), Bytes::len);
        if length.saturating_add(piece.len()) > limit {
            return Err(GatewayError::BodyTooLarge { limit });
        }
        match first.take() {
            None if whole.is_empty() => first = Some(piece),
            None => whole.extend_from_slice(&piece),
            Some(start) => {
                whole.extend_from_slice(&start);
                whole.extend_from_slice(&piece);
            }
        }
    }
    Ok(first.unwrap_or_else(|| whole.freeze()))
}
