//! Requests over HTTP: addresses, the key, attempts, and what an answer without success means.

use std::{sync::Arc, time::Duration};

use autoglm_domain::Clock;
use bytes::Bytes;
use reqwest::{
    Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{
    Config, Result, UpstreamError,
    breaker::{Breaker, Permit},
    retry::Retries,
    retry_after::retry_after_s,
};

/// Most bytes of an answer that is not streamed, such as an error or the list of models.
pub(crate) const MAX_BODY: usize = 1 << 20;
/// Longest to read such an answer.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Most characters of what an upstream says that are passed on.
const MAX_MESSAGE: usize = 400;

/// The way to one upstream.
pub(crate) struct Transport {
    http: reqwest::Client,
    base: String,
    key: Option<HeaderValue>,
    clock: Arc<dyn Clock>,
    pub(crate) breaker: Arc<Breaker>,
    retries: Arc<Retries>,
}

/// An answer that has begun with success.
pub(crate) struct Opened {
    pub(crate) response: Response,
    pub(crate) permit: Permit,
}

/// When a request has to be given up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    limit: Duration,
    /// What has not come by then; `None` where the limit is the request's own and the upstream is not to blame.
    what: Option<&'static str>,
}

impl Deadline {
    pub(crate) fn after(limit: Duration, what: &'static str) -> Self {
        Self { at: Instant::now() + limit, limit, what: Some(what) }
    }

    /// The request's own limit.
    pub(crate) fn of_request(limit: Duration) -> Self {
        // A century is as good as for ever, and can be added to any moment.
        Self { at: Instant::now() + limit.min(Duration::from_secs(3_155_760_000)), limit, what: None }
    }

    /// Whether the limit is the request's own.
    pub(crate) fn is_of_request(&self) -> bool {
        self.what.is_none()
    }

    /// The earlier of the two.
    pub(crate) fn or(self, other: Option<Self>) -> Self {
        other.filter(|other| other.at < self.at).unwrap_or(self)
    }

    pub(crate) fn passed(&self) -> UpstreamError {
        match self.what {
            Some(what) => UpstreamError::TimedOut { what, seconds: self.limit.as_secs() },
            None => UpstreamError::Overdue { ms: u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX) },
        }
    }
}

/// An answer without success.
struct Refusal {
    error: UpstreamError,
    /// Whether the same request may be sent again.
    again: bool,
    retry_after_s: Option<u64>,
}

impl Refusal {
    /// One after which nothing is tried again.
    fn last(error: UpstreamError) -> Self {
        Self { error, again: false, retry_after_s: None }
    }
}

impl Transport {
    pub(crate) fn new(config: &Config, key: Option<&str>, clock: Arc<dyn Clock>, seed: u64) -> Result<Self> {
        let base = config.base()?.as_str().trim_end_matches('/').to_owned();
        let key = key.map(|key| {
            let mut value = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| {
                let reason = "names a variable whose value cannot stand in an HTTP header".into();
                UpstreamError::Setting { key: "api_key_env".into(), reason }
            })?;
            value.set_sensitive(true);
            Ok::<_, UpstreamError>(value)
        });
        Ok(Self {
            http: client(config)?,
            breaker: Breaker::new(base.clone(), config.circuit.clone(), Arc::clone(&clock)),
            retries: Arc::new(Retries::new(config.retry.clone(), seed)),
            key: key.transpose()?,
            base,
            clock,
        })
    }

    /// The same way with connections of its own, for another runtime: a connection is driven by the runtime that made
    /// it.
    pub(crate) fn apart(&self, config: &Config) -> Result<Self> {
        Ok(Self {
            http: client(config)?,
            base: self.base.clone(),
            key: self.key.clone(),
            clock: Arc::clone(&self.clock),
            breaker: Arc::clone(&self.breaker),
            retries: Arc::clone(&self.retries),
        })
    }

    /// The address of the API, without a slash at its end.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The address of the server: the API's without `/v1`.
    pub(crate) fn root(&self) -> &str {
        self.base.strip_suffix("/v1").unwrap_or(&self.base)
    }

    /// Sends `body` to `path` of the API until an answer begins with success. What may be tried again is, as long as
    /// attempts, budget and `deadline` allow.
    pub(crate) async fn open(&self, path: &str, body: Bytes, deadline: Deadline) -> Result<Opened> {
        self.retries.begin();
        let url = format!("{}{path}", self.base);
        for attempt in 1.. {
            let refusal = match self.attempt(&url, body.clone(), deadline).await {
                Ok(opened) => {
                    count("answered");
                    return Ok(opened);
                }
                Err(refusal) => refusal,
            };
            count(refusal.error.outcome());
            let pause =
                refusal.again.then(|| self.retries.pause_ms(attempt, refusal.retry_after_s)).flatten();
            let Some(pause) = pause.map(Duration::from_millis) else { return Err(refusal.error) };
            if Instant::now() + pause >= deadline.at {
                return Err(refusal.error);
            }
            tracing::debug!(error = %refusal.error, attempt, ?pause, "the upstream is asked again");
            sleep(pause).await;
        }
        Err(UpstreamError::BrokenOff("no attempt was made".into()))
    }

    /// One attempt.
    async fn attempt(
        &self,
        url: &str,
        body: Bytes,
        deadline: Deadline,
    ) -> std::result::Result<Opened, Refusal> {
        let permit = self.breaker.admit().map_err(Refusal::last)?;
        let request = self.request(self.http.post(url)).header(CONTENT_TYPE, "application/json").body(body);
        let refusal = match timeout_at(deadline.at, request.send()).await {
            Ok(Ok(response)) if response.status().is_success() => return Ok(Opened { response, permit }),
            Ok(Ok(response)) => self.refusal(response).await,
            // No byte of an answer has come: nobody has seen anything.
            Ok(Err(error)) => Refusal {
                error: UpstreamError::Unreachable(reason(&error)),
                again: true,
                retry_after_s: None,
            },
            Err(_) => Refusal::last(deadline.passed()),
        };
        permit.ended_with(&refusal.error);
        Err(refusal)
    }

    /// `GET`: a JSON answer.
    pub(crate) async fn get(&self, url: &str, limit: Duration) -> Result<Value> {
        let permit = self.breaker.admit()?;
        let answered = self.exchange(self.request(self.http.get(url)), limit).await;
        self.settle(permit, answered).and_then(|text| {
            serde_json::from_str(&text)
                .map_err(|error| UpstreamError::Malformed(format!("not JSON: {error}")))
        })
    }

    /// `POST` of `body`, once: the answer's text. Anything but success is an error.
    pub(crate) async fn post(&self, url: &str, body: &Value, limit: Duration) -> Result<String> {
        let permit = self.breaker.admit()?;
        let answered = self.exchange(self.request(self.http.post(url)).json(body), limit).await;
        self.settle(permit, answered)
    }

    fn settle(&self, permit: Permit, answered: Result<String>) -> Result<String> {
        match &answered {
            Ok(_) => permit.succeeded(),
            Err(error) => permit.ended_with(error),
        }
        answered
    }

    async fn exchange(&self, request: reqwest::RequestBuilder, limit: Duration) -> Result<String> {
        let deadline = Deadline::after(limit, "no answer");
        let response = match timeout_at(deadline.at, request.send()).await {
            Ok(sent) => sent.map_err(|error| UpstreamError::Unreachable(reason(&error)))?,
            Err(_) => return Err(deadline.passed()),
        };
        if !response.status().is_success() {
            return Err(self.refusal(response).await.error);
        }
        match timeout_at(deadline.at, text(response, MAX_BODY)).await {
            Ok(text) => text,
            Err(_) => Err(deadline.passed()),
        }
    }

    fn request(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.key {
            Some(key) => request.header(AUTHORIZATION, key.clone()),
            None => request,
        }
    }

    /// What an answer without success means.
    async fn refusal(&self, response: Response) -> Refusal {
        let status = response.status();
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after_s = asked.and_then(|value| retry_after_s(value, self.clock.now()));
        let after_s = retry_after_s.map_or(1, |wait| u32::try_from(wait).unwrap_or(u32::MAX).max(1));
        let said = timeout(BODY_TIMEOUT, text(response, MAX_BODY)).await;
        let message =
            said.ok().and_then(std::result::Result::ok).map_or_else(String::new, |text| message(&text));
        let message = if message.is_empty() { reason_phrase(status) } else { message };
        let status = status.as_u16();
        let error = match status {
            401 | 403 => {
                tracing::warn!(status, "the upstream does not let us in");
                UpstreamError::Unauthorized { status }
            }
            404 | 405 => UpstreamError::NotThere { message },
            429 => UpstreamError::Busy { status, message, after_s },
            408 | 500.. => UpstreamError::Failed { status, message, after_s },
            400..500 => UpstreamError::Refused { status, message },
            _ => UpstreamError::Failed { status, message: format!("not an answer: {message}"), after_s },
        };
        let again = matches!(status, 408 | 429 | 500 | 502 | 503 | 504);
        Refusal { error, again, retry_after_s }
    }
}

/// Counts an attempt by what came of it, up to the head of an answer.
fn count(outcome: &'static str) {
    metrics::counter!("autoglm_upstream_attempts_total", "outcome" => outcome).increment(1);
}

fn client(config: &Config) -> Result<reqwest::Client> {
    #[cfg(feature = "tls")]
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have been quicker, which is as well.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
    reqwest::Client::builder()
        .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
        .pool_max_idle_per_host(config.idle_connections)
        // A redirect would carry prompts, and perhaps the key, to somewhere that nobody configured.
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("autoglm/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| UpstreamError::Setting { key: "base_url".into(), reason: reason(&error) })
}

/// What was at the bottom of it; the address is named elsewhere.
pub(crate) fn reason(error: &reqwest::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

fn reason_phrase(status: StatusCode) -> String {
    status.canonical_reason().unwrap_or("no message").to_lowercase()
}

/// A whole answer as text, up to `limit` bytes.
pub(crate) async fn text(mut response: Response, limit: usize) -> Result<String> {
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > limit => {
                return Err(UpstreamError::Malformed(format!("more than {limit} bytes")));
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => return Err(UpstreamError::BrokenOff(reason(&error))),
        }
    }
    String::from_utf8(bytes).map_err(|_| UpstreamError::Malformed("not UTF-8".into()))
}

/// What an upstream says in the body of an error, in any of the forms that servers use, shortened.
pub(crate) fn message(text: &str) -> String {
    let said = |value: &Value| {
        ["/error/message", "/message", "/detail", "/error", "/error_message"]
            .iter()
            .find_map(|path| value.pointer(path).and_then(Value::as_str))
            .map(str::to_owned)
    };
    let parsed = serde_json::from_str::<Value>(text).ok();
    let message = parsed.as_ref().and_then(said).unwrap_or_else(|| text.trim().to_owned());
    match message.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", message.get(..end).unwrap_or_default()),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_in_every_form_and_shortened() {
        assert_eq!(message(r#"{"error":{"message":"no","type":"x"}}"#), "no");
        assert_eq!(message(r#"{"object":"error","message":"no"}"#), "no");
        assert_eq!(message(r#"{"detail":"Not Found"}"#), "Not Found");
        assert_eq!(message(r#"{"error":"plain"}"#), "plain");
        assert_eq!(message(" <html>\n"), "<html>");
        assert_eq!(message(&"é".repeat(500)), format!("{}…", "é".repeat(400)));
    }
}
