//! A streamed answer: server-sent events in, text out.

use autoglm_domain::{Error, Result};
use serde_json::Value;

use super::super::http::refusal;

/// Most bytes of one event; a server that sends more is none of ours.
const MAX_EVENT: usize = 16 << 20;

/// Puts events together from whatever pieces the network delivers.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    rest: Vec<u8>,
    ended: bool,
}

impl Chunks {
    /// The events that `bytes` complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Result<Value>> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let Some(data) = line.strip_prefix(b"data:") else { continue };
            match data.trim_ascii() {
                b"[DONE]" => self.ended = true,
                data => events.push(event(data)),
            }
        }
        if self.rest.len() > MAX_EVENT {
            self.rest.clear();
            events.push(Err(Error::internal(format!(
                "an event of the answer has more than {MAX_EVENT} bytes"
            ))));
        }
        events
    }

    /// An answer that was cut off has no end.
    pub(super) fn check_ended(&self) -> Result<()> {
        match self.ended {
            true => Ok(()),
            false => Err(Error::unavailable("the answer broke off")),
        }
    }
}

fn event(data: &[u8]) -> Result<Value> {
    let event: Value = serde_json::from_slice(data)
        .map_err(|error| Error::internal(format!("the server sent an event that is not JSON: {error}")))?;
    match event.get("error") {
        Some(_) => Err(refusal(500, &event)),
        None => Ok(event),
    }
}

/// What there is of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) id: Option<String>,
    version: Option<String>,
    source: Option<String>,
    pub(super) text: String,
}

impl Answered {
    /// What the response's head says.
    pub(super) fn from_headers(headers: &reqwest::header::HeaderMap) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self { id: header("x-request-id"), version: header("x-autoglm-model-version"), ..Self::default() }
    }

    /// Takes one event in; gives the text that it adds.
    pub(super) fn take(&mut self, event: &Value) -> Result<String> {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
        if let Some(id) =
            text("/choices/0/autoglm/id").or_else(|| text("/id")).filter(|_| self.text.is_empty())
        {
            self.id = Some(id.to_owned());
        }
        if let Some(version) = text("/choices/0/autoglm/version") {
            self.version = Some(version.to_owned());
        }
        if let Some(source) = text("/choices/0/autoglm/source/kind") {
            self.source = Some(source.to_owned());
        }
        let piece = text("/choices/0/delta/content").unwrap_or_default();
        self.text.push_str(piece);
        Ok(piece.to_owned())
    }

    /// One line beside the answer.
    pub(super) fn remark(&self) -> String {
        let parts = [&self.version, &self.id].map(|part| part.as_deref().unwrap_or("?").to_owned());
        match self.source.as_deref() {
            None | Some("weights") => parts.join("  "),
            Some(source) => format!("{}  from {source}", parts.join("  ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use autoglm_domain::ErrorKind;

    use super::*;

    const STREAM: &str = concat!(
        r#"data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"role":"assistant","content":""},"autoglm":{"id":"chatcmpl-1","version":"v3","source":{"kind":"memory","experience":"exp_1"}}}]}"#,
        "\n\n: keep-alive\n\n",
        r#"data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"größer"}}]}"#,
        "\n\n",
        r#"data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
        "\n\ndata: [DONE]\n\n"
    );

    #[test]
    fn a_stream_reads_the_same_however_it_is_cut() {
        for size in [1, 2, 7, 64, STREAM.len()] {
            let (mut chunks, mut answered) = (Chunks::default(), Answered::default());
            let mut text = String::new();
            for piece in STREAM.as_bytes().chunks(size) {
                for event in chunks.push(piece) {
                    text += &answered.take(&event.unwrap()).unwrap();
                }
            }
            assert_eq!(chunks.check_ended(), Ok(()));
            assert_eq!((text.as_str(), answered.text.as_str()), ("größer", "größer"));
            assert_eq!(answered.remark(), "v3  chatcmpl-1  from memory");
        }
    }

    #[test]
    fn an_error_in_the_stream_and_a_missing_end_are_errors() {
        let mut chunks = Chunks::default();
        let events = chunks.push(b"data: {\"error\":{\"message\":\"stopped (hint: again)\"}}\n\n");
        let error = events.into_iter().next().unwrap().unwrap_err();
        assert_eq!((error.message.as_str(), error.hint.as_deref()), ("stopped", Some("again")));
        assert_eq!(chunks.check_ended().unwrap_err().kind, ErrorKind::Unavailable);
    }
}
