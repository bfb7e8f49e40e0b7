//! One chunk of a streamed answer, as the two completion endpoints write it.

use std::collections::BTreeMap;

use autoglm_domain::{FinishReason, TokenLogprob, ToolCallPiece, Usage};
use serde::Deserialize;
use serde_json::Value;

use crate::{Result, UpstreamError};

/// What a chunk says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    /// Whether something was generated, be it text or what is not handed on (reasoning).
    pub(crate) generated: bool,
    pub(crate) logprobs: Vec<TokenLogprob>,
    pub(crate) calls: Vec<ToolCallPiece>,
    pub(crate) finish_reason: Option<FinishReason>,
    pub(crate) usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Chunk {
    choices: Option<Vec<Choice>>,
    usage: Option<UsageBody>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    delta: Option<Delta>,
    text: Option<String>,
    logprobs: Option<Logprobs>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    /// vLLM's and SGLang's name for what a reasoning model thinks, and the newer one.
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize)]
struct CallDelta {
    #[serde(default)]
    index: usize,
    function: Option<FunctionDelta>,
}

#[derive(Deserialize)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<String>,
}

/// A piece of a call. Nobody knows how the model wrote it.
fn call(delta: CallDelta) -> ToolCallPiece {
    let (name, arguments) =
        delta.function.map(|function| (function.name, function.arguments)).unwrap_or_default();
    ToolCallPiece {
        index: delta.index,
        name: name.filter(|name| !name.is_empty()),
        arguments: arguments.unwrap_or_default(),
        written: String::new(),
    }
}

#[derive(Deserialize)]
struct UsageBody {
    #[serde(default)]
    prompt_tokens: u32,
    #[serde(default)]
    completion_tokens: u32,
}

/// Of a chat (`content`) or of a plain completion (the lists).
#[derive(Deserialize)]
struct Logprobs {
    content: Option<Vec<ChatToken>>,
    tokens: Option<Vec<String>>,
    token_logprobs: Option<Vec<Option<f32>>>,
    top_logprobs: Option<Vec<Option<BTreeMap<String, f32>>>>,
}

#[derive(Deserialize)]
struct ChatToken {
    token: String,
    logprob: f32,
    #[serde(default)]
    top_logprobs: Vec<Alternative>,
}

#[derive(Deserialize)]
struct Alternative {
    token: String,
    logprob: f32,
}

/// Reads the data of one event. An error that the upstream reports in the stream is one here.
pub(crate) fn read(data: &str) -> Result<Piece> {
    // What does not parse is not quoted: it may hold a person's text, and errors are logged.
    let chunk: Chunk = serde_json::from_str(data).map_err(|error| {
        UpstreamError::Malformed(format!("a chunk is not what it should be (column {})", error.column()))
    })?;
    if let Some(error) = chunk.error {
        return Err(reported(&error));
    }
    let mut piece = Piece::default();
    for choice in chunk.choices.unwrap_or_default().into_iter().filter(|choice| choice.index == 0) {
        let (mut text, mut thought, mut calls) = (choice.text, None, None);
        if let Some(delta) = choice.delta {
            text = text.or(delta.content);
            thought = delta.reasoning_content.or(delta.reasoning);
            calls = delta.tool_calls;
        }
        let is_something = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        piece.generated |= is_something(&text) || is_something(&thought);
        piece.text.push_str(&text.unwrap_or_default());
        piece.calls.extend(calls.unwrap_or_default().into_iter().map(call));
        piece.generated |= !piece.calls.is_empty();
        piece.logprobs.extend(choice.logprobs.map(logprobs).unwrap_or_default());
        if let Some(word) = choice.finish_reason {
            piece.finish_reason = Some(finish_reason(&word)?);
        }
    }
    piece.usage = chunk.usage.map(|usage| Usage {
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
    });
    Ok(piece)
}

fn finish_reason(word: &str) -> Result<FinishReason> {
    match word {
        "length" => Ok(FinishReason::Length),
        "abort" | "error" => Err(UpstreamError::BrokenOff(format!("it ended with `{word}`"))),
        _ => Ok(FinishReason::Stop),
    }
}

/// The error in a stream: `{message, type, code}`, where `code` may be a status.
fn reported(error: &Value) -> UpstreamError {
    let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    let message = crate::transport::message(&error.to_string());
    let status = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    let status = status.unwrap_or(match text("type") {
        "invalid_request_error" | "BadRequestError" => 400,
        "requests" => 429,
        _ => 500,
    });
    match status {
        429 => UpstreamError::Busy { status, message, after_s: 1 },
        400..=499 => UpstreamError::Refused { status, message },
        _ => UpstreamError::Failed { status, message, after_s: 1 },
    }
}

/// Token ids are not in the API; they are 0.
fn logprobs(given: Logprobs) -> Vec<TokenLogprob> {
    if let Some(content) = given.content {
        let token = |token: ChatToken| TokenLogprob {
            token: token.token,
            id: 0,
            logprob: finite(token.logprob),
            top: token.top_logprobs.into_iter().map(|it| (it.token, finite(it.logprob))).collect(),
        };
        return content.into_iter().map(token).collect();
    }
    let mut tops = given.top_logprobs.unwrap_or_default().into_iter();
    let tokens = given.tokens.unwrap_or_default().into_iter();
    tokens
        .zip(given.token_logprobs.unwrap_or_default())
        .map(|(token, logprob)| {
            let mut top: Vec<(String, f32)> =
                tops.next().flatten().unwrap_or_default().into_iter().map(|(t, l)| (t, finite(l))).collect();
            top.sort_by(|a, b| b.1.total_cmp(&a.1));
            TokenLogprob { token, id: 0, logprob: finite(logprob.unwrap_or(0.0)), top }
        })
        .collect()
}

/// What is too small for a number becomes the lowest, which JSON can hold.
fn finite(logprob: f32) -> f32 {
    logprob.clamp(f32::MIN, f32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chat_chunks_are_read_and_unknown_fields_are_no_matter() {
        let piece = read(
            r#"{"id":"x","choices":[{"index":0,"delta":{"role":"assistant","content":"hi","refusal":null},
            "logprobs":{"content":[{"token":"hi","logprob":-0.5,"bytes":[104,105],
            "top_logprobs":[{"token":"hi","logprob":-0.5,"bytes":null},{"token":"ho","logprob":-1.5}]}],"refusal":null},
            "finish_reason":null}],"usage":null}"#,
        );
        let top = vec![("hi".to_owned(), -0.5), ("ho".to_owned(), -1.5)];
        let logprobs = vec![TokenLogprob { token: "hi".into(), id: 0, logprob: -0.5, top }];
        assert_eq!(piece, Ok(Piece { text: "hi".into(), generated: true, logprobs, ..Piece::default() }));
        let last = read(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#).unwrap();
        assert_eq!(last.finish_reason, Some(FinishReason::Length));
        let role = read(r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#);
        assert_eq!(role, Ok(Piece::default()), "who speaks is no token");
        let thought = read(r#"{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}"#);
        assert_eq!(thought, Ok(Piece { generated: true, ..Piece::default() }));
        let usage = read(r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#).unwrap();
        assert_eq!(usage.usage, Some(Usage { prompt_tokens: 3, completion_tokens: 4 }));
    }

    #[test]
    fn pieces_of_calls_are_read() {
        let piece = read(
            r#"{"choices":[{"index":0,"delta":{"content":null,"tool_calls":[{"index":1,"id":"x","type":"function",
            "function":{"name":"f","arguments":""}},{"index":1,"function":{"arguments":"{}"}}]},"finish_reason":null}]}"#,
        )
        .unwrap();
        let first = ToolCallPiece { index: 1, name: Some("f".into()), ..ToolCallPiece::default() };
        let rest = ToolCallPiece { index: 1, arguments: "{}".into(), ..ToolCallPiece::default() };
        assert_eq!(piece, Piece { calls: vec![first, rest], generated: true, ..Piece::default() });
    }

    #[test]
    fn completion_chunks_are_read_with_alternatives_best_first() {
        let piece = read(
            r#"{"choices":[{"text":"ab","logprobs":{"tokens":["a","b"],"token_logprobs":[-1.0,null],
            "top_logprobs":[{"b":-2.0,"a":-1.0},null],"text_offset":[0,1]},"finish_reason":"stop"}]}"#,
        )
        .unwrap();
        let top = vec![("a".to_owned(), -1.0), ("b".to_owned(), -2.0)];
        assert_eq!(
            piece.logprobs,
            vec![
                TokenLogprob { token: "a".into(), id: 0, logprob: -1.0, top },
                TokenLogprob { token: "b".into(), id: 0, logprob: 0.0, top: vec![] },
            ]
        );
        assert_eq!((piece.text.as_str(), piece.finish_reason), ("ab", Some(FinishReason::Stop)));
    }

    #[test]
    fn errors_in_the_stream_and_nonsense_are_errors_that_quote_nobody() {
        let said = |data: &str| read(data).unwrap_err();
        let refused = said(r#"{"error":{"message":"too long","type":"BadRequestError","code":400}}"#);
        assert_eq!(refused, UpstreamError::Refused { status: 400, message: "too long".into() });
        let failed = said(r#"{"error":{"message":"boom","type":"server_error","code":null}}"#);
        assert_eq!(failed, UpstreamError::Failed { status: 500, message: "boom".into(), after_s: 1 });
        for nonsense in ["secret", r#"{"choices":"secret"}"#, r#"{"choices":[{"text":7}]}"#, "[1]"] {
            let error = said(nonsense);
            assert!(matches!(error, UpstreamError::Malformed(_)), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(matches!(said(r#"{"choices":[{"finish_reason":"abort"}]}"#), UpstreamError::BrokenOff(_)));
    }
}
