//! Requests to the server, and what its answers mean.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::{Config, MlflowError, Result};

/// Most characters of what MLflow says that are passed on.
const MAX_MESSAGE: usize = 300;

/// The way to one server.
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    timeout: Duration,
    credentials: Credentials,
}

enum Credentials {
    None,
    Token(String),
    User(String, String),
}

impl Client {
    /// `Invalid` when a setting cannot work or the variable of a secret is not set.
    pub(crate) fn new(config: &Config) -> Result<Self> {
        config.validate()?;
        #[cfg(feature = "tls")]
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Another thread may have been quicker, which is as well.
            drop(rustls::crypto::ring::default_provider().install_default());
        }
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("autoglm/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| MlflowError::Setting { key: "url".into(), reason: deepest(&error) })?;
        let credentials = match (config.token_env.as_str(), config.username.as_str()) {
            ("", "") => Credentials::None,
            ("", user) => Credentials::User(user.to_owned(), variable("password_env", &config.password_env)?),
            (token, _) => Credentials::Token(variable("token_env", token)?),
        };
        let timeout = Duration::from_millis(config.timeout_ms);
        Ok(Self { http, base: config.base()?, timeout, credentials })
    }

    /// `GET` with a query.
    pub(crate) async fn get(&self, call: &'static str, query: &[(&str, &str)]) -> Result<Value> {
        let request = self.http.get(self.url(call)).query(query);
        self.answer(call, request.timeout(self.timeout)).await
    }

    /// `POST`, `PATCH` or `DELETE` with a body.
    pub(crate) async fn send(&self, method: Method, call: &'static str, body: Value) -> Result<Value> {
        let request = self.http.request(method, self.url(call)).json(&body);
        self.answer(call, request.timeout(self.timeout)).await
    }

    /// `POST`.
    pub(crate) async fn post(&self, call: &'static str, body: Value) -> Result<Value> {
        self.send(Method::POST, call, body).await
    }

    /// Writes an artifact through the server; `path` is below its root.
    pub(crate) async fn upload(&self, path: &str, bytes: Vec<u8>) -> Result<()> {
        let url = format!("{}/api/2.0/mlflow-artifacts/artifacts/{path}", self.base);
        let request = self.http.put(url).body(bytes).timeout(self.timeout.saturating_mul(10));
        self.answer("mlflow-artifacts/artifacts", request).await.map(drop)
    }

    fn url(&self, call: &str) -> String {
        format!("{}/api/2.0/mlflow/{call}", self.base)
    }

    async fn answer(&self, call: &'static str, request: RequestBuilder) -> Result<Value> {
        let request = match &self.credentials {
            Credentials::None => request,
            Credentials::Token(token) => request.bearer_auth(token),
            Credentials::User(user, password) => request.basic_auth(user, Some(password)),
        };
        let unreachable = |error: reqwest::Error| MlflowError::Unreachable {
            url: self.base.clone(),
            reason: match error.is_timeout() {
                true => format!("no answer to {call} within {} ms", self.timeout.as_millis()),
                false => deepest(&error),
            },
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let text = response.text().await.map_err(unreachable)?;
        let value = serde_json::from_str::<Value>(&text);
        if status.is_success() {
            return Ok(value.unwrap_or(Value::Null));
        }
        let field = |name| value.as_ref().ok().and_then(|it| it.get(name)?.as_str().map(str::to_owned));
        let message = field("message").unwrap_or(text);
        Err(MlflowError::Refused {
            call,
            status: status.as_u16(),
            code: field("error_code").unwrap_or_default(),
            message: message
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .chars()
                .take(MAX_MESSAGE)
                .collect(),
        })
    }
}

/// A text at `pointer` of an answer.
pub(crate) fn text(call: &'static str, value: &Value, pointer: &'static str) -> Result<String> {
    let found = value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    found.ok_or(MlflowError::Answer { call, field: pointer })
}

/// The value of a tag in a list of `{key, value}`.
pub(crate) fn tag<'a>(tags: Option<&'a Value>, key: &str) -> Option<&'a str> {
    let tags = tags?.as_array()?;
    tags.iter().find(|tag| tag.get("key").and_then(Value::as_str) == Some(key))?.get("value")?.as_str()
}

fn variable(key: &str, name: &str) -> Result<String> {
    std::env::var(name).map_err(|_| MlflowError::Setting {
        key: key.to_owned(),
        reason: format!("names the environment variable `{name}`, which is not set"),
    })
}

/// What was at the bottom of it.
fn deepest(error: &reqwest::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
