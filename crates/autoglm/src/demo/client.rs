//! The demo's HTTP client: a chat completion in, an answer with its version out; feedback in.

use std::time::{Duration, Instant};

use autoglm_domain::{Error, Result, VersionNumber};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{options::RecallMode, stream::Utterance, users::Opinion};

const VERSION_HEADER: &str = "x-autoglm-model-version";
const MAX_TOKENS: u32 = 24;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What an answer was made from, as the response says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// The weights alone.
    Weights,
    /// The weights with remembered examples in the prompt.
    Examples,
    /// Memory, without generation.
    Memory,
    /// The response does not say.
    Unknown,
}

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// The completion's id, which feedback names.
    pub(crate) id: String,
    /// Its text.
    pub(crate) text: String,
    /// The version that answered.
    pub(crate) version: Option<VersionNumber>,
    /// What it was made from.
    pub(crate) source: Source,
    /// From sending the request to having the whole answer.
    pub(crate) latency: Duration,
}

/// How a question is asked beside its text.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asking<'a> {
    /// Named in `metadata`.
    pub(crate) task: Option<&'a str>,
    /// Overrides how the server uses its memory.
    pub(crate) recall: Option<RecallMode>,
    /// The right answer, which the request brings along.
    pub(crate) reference: Option<&'a str>,
}

/// A client of one server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base_url: String,
}

impl Client {
    /// A client of the server at `base_url` (`http://127.0.0.1:8080`, with or without `/v1`).
    pub(crate) fn new(base_url: &str) -> Result<Self> {
        let http = crate::http::client()
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(|error| Error::internal(format!("cannot make an HTTP client: {error}")))?;
        let base = base_url.trim_end_matches('/');
        Ok(Self { http, base_url: base.strip_suffix("/v1").unwrap_or(base).to_owned() })
    }

    /// Asks the champion. `Err` is a failed request, in words.
    pub(crate) async fn ask(
        &self,
        asked: &Utterance,
        asking: Asking<'_>,
    ) -> std::result::Result<Answer, String> {
        let mut body = json!({
            "model": "champion",
            "messages": [{"role": "user", "content": asked.prompt}],
            "max_tokens": MAX_TOKENS,
        });
        let pairs =
            [("task", asking.task), ("context", asked.context.as_deref()), ("reference", asking.reference)];
        let metadata: Map<String, Value> =
            pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.into()))).collect();
        if let Some(fields) = body.as_object_mut() {
            if !metadata.is_empty() {
                fields.insert("metadata".into(), metadata.into());
            }
            if let Some(recall) = asking.recall {
                fields.insert("autoglm".into(), json!({"recall": recall.as_str()}));
            }
        }
        let begun = Instant::now();
        let (version, body) = self.post("/v1/chat/completions", &body).await?;
        read_answer(version, &body, begun.elapsed())
            .ok_or_else(|| "the response is not a completion".to_owned())
    }

    /// Sends feedback on the answer `id`.
    pub(crate) async fn tell(&self, id: &str, opinion: &Opinion) -> std::result::Result<(), String> {
        let body = match opinion {
            Opinion::Thumb(thumb) => json!({"id": id, "thumb": thumb}),
            Opinion::Correction(correction) => json!({"id": id, "correction": correction}),
        };
        self.post("/v1/feedback", &body).await.map(drop)
    }

    async fn post(
        &self,
        path: &str,
        body: &Value,
    ) -> std::result::Result<(Option<VersionNumber>, Value), String> {
        let sent = self.http.post(format!("{}{path}", self.base_url)).json(body).send().await;
        let response = sent.map_err(|error| format!("{path}: {}", with_causes(&error)))?;
        let status = response.status();
        let header = response.headers().get(VERSION_HEADER).and_then(|value| value.to_str().ok());
        let version = header.and_then(|text| text.parse().ok());
        let bytes = response.bytes().await.map_err(|error| format!("{path}: {}", with_causes(&error)))?;
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok((version, body));
        }
        let message = body.pointer("/error/message").and_then(Value::as_str).unwrap_or("no message");
        Err(format!("{path}: {}: {message}", status.as_u16()))
    }
}

/// `reqwest` keeps what went wrong in the causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn read_answer(version: Option<VersionNumber>, body: &Value, latency: Duration) -> Option<Answer> {
    let choice = body.pointer("/choices/0")?;
    let extension = choice.get("autoglm").or_else(|| body.get("autoglm"));
    let source = extension.and_then(|extension| extension.get("source"));
    let word = source.and_then(|source| source.get("kind").unwrap_or(source).as_str());
    Some(Answer {
        id: body.get("id")?.as_str()?.to_owned(),
        text: choice.pointer("/message/content")?.as_str()?.to_owned(),
        version,
        source: match word {
            Some("weights") => Source::Weights,
            Some("examples") => Source::Examples,
            Some("memory") => Source::Memory,
            _ => Source::Unknown,
        },
        latency,
    })
}
