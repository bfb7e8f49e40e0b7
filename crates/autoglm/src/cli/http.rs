//! A running server, over HTTP.

use std::time::Duration;

use autoglm_domain::{Error, ErrorKind, Result};
use serde_json::Value;

use crate::settings::Settings;

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Holds the API key, so that it does not stand in the list of processes.
const KEY: &str = "AUTOGLM_API_KEY";

/// Which server.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ServerArgs {
    /// Where the server is; by default where the settings say that it listens
    #[arg(long, value_name = "URL", env = "AUTOGLM_SERVER", hide_env_values = true)]
    pub(super) server: Option<String>,
}

/// A server that may be up.
#[derive(Debug, Clone)]
pub(super) struct Server {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

impl Server {
    /// The server that arguments and settings name.
    pub(super) fn of(args: &ServerArgs, settings: &Settings) -> Result<Self> {
        let given = args.server.clone().unwrap_or_else(|| settings.server_url());
        let with_scheme = if given.contains("://") { given } else { format!("http://{given}") };
        let base = with_scheme.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base).to_owned();
        if base.starts_with("https://") {
            return Err(Error::invalid(format!("{base} wants TLS, which this build does not speak"))
                .with_hint("connect to the server itself with `http://`"));
        }
        let http = crate::http::client()
            .connect_timeout(CONNECT)
            .build()
            .map_err(|error| Error::internal(format!("cannot make an HTTP client: {error}")))?;
        Ok(Self { http, base, key: std::env::var(KEY).ok().filter(|key| !key.is_empty()) })
    }

    /// Its address.
    pub(super) fn url(&self) -> &str {
        &self.base
    }

    /// `POST`; the response once its head is there. An error response is an error.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<reqwest::Response> {
        self.send(self.http.post(format!("{}{path}", self.base)).json(body)).await
    }

    /// `POST`, with the response's JSON.
    pub(super) async fn post_json(&self, path: &str, body: &Value) -> Result<Value> {
        self.json(self.post(path, body).await?).await
    }

    /// `GET`, with the response's JSON.
    pub(super) async fn get_json(&self, path: &str) -> Result<Value> {
        self.json(self.send(self.http.get(format!("{}{path}", self.base))).await?).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response> {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body: Value = response.json().await.unwrap_or_default();
        Err(refusal(status.as_u16(), &body))
    }

    async fn json(&self, response: reqwest::Response) -> Result<Value> {
        response.json().await.map_err(|error| self.broken_off(&error))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Error {
        if error.is_builder() {
            return Error::invalid(format!("`{}` is not the address of a server", self.base))
                .with_hint("write it as `http://127.0.0.1:8080`");
        }
        Error::unavailable(format!("no server answers at {}", self.base))
            .with_hint("start one with `autoglm serve`, or name another with `--server URL`")
    }

    /// The connection ended in the middle of an answer.
    pub(super) fn broken_off(&self, error: &reqwest::Error) -> Error {
        Error::unavailable(format!("the connection to {} broke off: {error}", self.base))
    }
}

/// An error response in OpenAI's form as an error of ours. Our server writes hints in brackets.
pub(super) fn refusal(status: u16, body: &Value) -> Error {
    let kind = match status {
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        408 | 429 | 502..=504 => ErrorKind::Unavailable,
        400..=499 => ErrorKind::Invalid,
        _ => ErrorKind::Internal,
    };
    let said = body.pointer("/error/message").and_then(Value::as_str);
    let message = said.map_or_else(|| format!("the server answered {status}"), str::to_owned);
    let error =
        match message.split_once(" (hint: ").map(|(message, hint)| (message, hint.trim_end_matches(')'))) {
            Some((message, hint)) => Error::new(kind, message).with_hint(hint),
            None => Error::new(kind, message),
        };
    match status {
        401 => error.with_hint(format!("put an API key of the server into {KEY}")),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn server(given: &str) -> Result<Server> {
        Server::of(&ServerArgs { server: Some(given.into()) }, &Settings::default())
    }

    #[test]
    fn addresses_are_taken_as_people_write_them() {
        for given in ["127.0.0.1:1", "http://127.0.0.1:1", "http://127.0.0.1:1/", "http://127.0.0.1:1/v1/"] {
            assert_eq!(server(given).unwrap().url(), "http://127.0.0.1:1");
        }
        let default = Server::of(&ServerArgs { server: None }, &Settings::default()).unwrap();
        assert_eq!(default.url(), "http://127.0.0.1:8080");
        assert_eq!(server("https://host").unwrap_err().kind, ErrorKind::Invalid);
    }

    #[test]
    fn a_refusal_keeps_kind_message_and_hint() {
        let body = json!({"error": {"message": "a run is on its way (hint: wait)"}});
        assert_eq!(refusal(409, &body), Error::conflict("a run is on its way").with_hint("wait"));
        assert_eq!(refusal(503, &Value::Null), Error::unavailable("the server answered 503"));
        assert_eq!(refusal(500, &Value::Null).kind, ErrorKind::Internal);
        assert_eq!(refusal(422, &Value::Null).kind, ErrorKind::Invalid);
        assert!(refusal(401, &Value::Null).hint.unwrap().contains("AUTOGLM_API_KEY"));
    }
}
