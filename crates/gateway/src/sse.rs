//! Answers in pieces: server-sent events, each written the moment the engine gives it.

use std::convert::Infallible;

use autoglm_domain::{Endpoint, GenerationEvent, TokenLogprob, ToolCallPiece};
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;

use crate::{
    GatewayError,
    exchange::{Events, Exchange, Step},
    intake::{VERSION_HEADER, version_value},
    request::Show,
    wire::{ChoiceExtension, ChunkChoice, Head, ShownPrompt, TokensOf, UsageBody, finish_word, write_json},
};

/// Sends events as they come. Each choice is recorded before its last chunk; what cannot be recorded, or
/// goes wrong on the way, ends the stream with an error event and no `[DONE]`.
///
/// The body owns the exchange: when the client goes away the body is dropped, which cancels the generation
/// and records what there was of it.
pub(crate) fn respond(mut exchange: Exchange, mut events: Events) -> Response {
    let version = version_value(exchange.version);
    let mut frames = Frames::new(&exchange);
    let stream = async_stream::stream! {
        loop {
            let frame = match events.next().await {
                Ok(Step::KeepAlive) => Ok(Bytes::from_static(b": keep-alive\n\n")),
                Ok(Step::Of(index, event)) => {
                    exchange.take_in(index, &event);
                    match event {
                        GenerationEvent::Text { text, logprobs } => {
                            Ok(frames.text(&exchange, index, &text, &logprobs))
                        }
                        GenerationEvent::ToolCall(piece) => Ok(frames.call(&exchange, index, &piece)),
                        GenerationEvent::Prompt(_) => continue,
                        GenerationEvent::Done { .. } => {
                            // Before the record, which takes what the chunks tell.
                            let last = frames.last(&exchange, index);
                            exchange.record().await.map(|()| last)
                        }
                    }
                }
                Err(error) => Err(error),
            };
            match frame {
                Ok(frame) => yield Ok::<_, Infallible>(frame),
                Err(error) => {
                    tracing::warn!(request = %exchange.arrival.id, %error, "a stream broke off");
                    exchange.note_failure(&error);
                    yield Ok(error_frame(&error));
                    break;
                }
            }
            if exchange.all_ended() {
                break;
            }
        }
    };
    self::stream(Body::from_stream(stream), version)
}

/// A response of server-sent events.
pub(crate) fn stream(body: Body, version: HeaderValue) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Tells nginx not to hold chunks back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert(VERSION_HEADER, version);
    response
}

/// Writes chunks. What is the same in every chunk is serialised once.
struct Frames {
    endpoint: Endpoint,
    before: Vec<u8>, // data: {"id":…,"system_fingerprint":…,"choices":[
    after: &'static [u8],
    include_usage: bool,
    logprobs: bool,
    show: Show,
    progress: Vec<Progress>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    begun: bool,
    offset: usize,
}

impl Frames {
    fn new(exchange: &Exchange) -> Self {
        let mut before = b"data: ".to_vec();
        write_json(&mut before, &Head::new(exchange, true));
        before.pop(); // the closing brace
        before.extend_from_slice(b",\"choices\":[");
        let include_usage = exchange.request.include_usage;
        Self {
            endpoint: exchange.request.endpoint,
            before,
            after: if include_usage { b"],\"usage\":null}\n\n" } else { b"]}\n\n" },
            include_usage,
            logprobs: exchange.request.sampling.logprobs.is_some(),
            show: exchange.request.show,
            progress: vec![Progress::default(); exchange.choices.len()],
        }
    }

    fn text(&mut self, exchange: &Exchange, index: usize, text: &str, tokens: &[TokenLogprob]) -> Bytes {
        let mut out = self.begin(exchange, index);
        let tokens = TokensOf { tokens, logprobs: self.logprobs, ids: self.show.token_ids };
        let mut unused = Progress::default();
        let progress = self.progress.get_mut(index).unwrap_or(&mut unused);
        let chunk = ChunkChoice::text(self.endpoint, index, text, tokens, &mut progress.offset);
        self.write(&mut out, &chunk);
        Bytes::from(out)
    }

    fn call(&mut self, exchange: &Exchange, index: usize, piece: &ToolCallPiece) -> Bytes {
        let mut out = self.begin(exchange, index);
        if let Some(choice) = exchange.choices.get(index) {
            self.write(&mut out, &ChunkChoice::call(self.endpoint, index, choice, piece));
        }
        Bytes::from(out)
    }

    /// The last chunk of a choice, and after that of the last choice the usage and `[DONE]`.
    fn last(&mut self, exchange: &Exchange, index: usize) -> Bytes {
        let mut out = self.begin(exchange, index);
        if let Some(choice) = exchange.choices.get(index) {
            self.write(&mut out, &ChunkChoice::last(self.endpoint, index, finish_word(choice)));
        }
        if exchange.all_ended() {
            if self.include_usage {
                out.extend_from_slice(&self.before);
                out.extend_from_slice(b"],\"usage\":");
                write_json(&mut out, &UsageBody::from(exchange.usage()));
                out.extend_from_slice(b"}\n\n");
            }
            out.extend_from_slice(b"data: [DONE]\n\n");
        }
        Bytes::from(out)
    }

    /// An empty frame, or the one that opens the choice.
    fn begin(&mut self, exchange: &Exchange, index: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 * self.before.len() + 256);
        let begun = self.progress.get_mut(index).is_none_or(|p| std::mem::replace(&mut p.begun, true));
        if !begun && let Some(choice) = exchange.choices.get(index) {
            let extension = ChoiceExtension::new(choice, exchange.version);
            let first = ChunkChoice::first(self.endpoint, index, extension);
            match self.endpoint {
                Endpoint::Completion => {
                    self.write(&mut out, &first);
                    if self.show.echo || self.show.token_ids {
                        let mut offset = 0;
                        self.write(&mut out, &ChunkChoice::prompt(exchange, index, choice, &mut offset));
                        self.progress.iter_mut().skip(index).take(1).for_each(|p| p.offset = offset);
                    }
                }
                _ if self.show.token_ids => {
                    self.write_with(&mut out, &first, &ShownPrompt::new(exchange, choice.prompt));
                }
                _ => self.write(&mut out, &first),
            }
        }
        out
    }

    /// A chunk of a chat answer with what is shown of the prompt.
    fn write_with(&self, out: &mut Vec<u8>, choice: &ChunkChoice<'_>, prompt: &ShownPrompt<'_>) {
        self.write(out, choice);
        out.truncate(out.len() - b"}\n\n".len());
        let mut members = Vec::new();
        write_json(&mut members, prompt);
        if let Some(members) = members.strip_prefix(b"{").filter(|members| members.len() > 1) {
            out.push(b',');
            out.extend_from_slice(members);
        } else {
            out.push(b'}');
        }
        out.extend_from_slice(b"\n\n");
    }

    fn write(&self, out: &mut Vec<u8>, choice: &ChunkChoice<'_>) {
        out.extend_from_slice(&self.before);
        write_json(out, choice);
        out.extend_from_slice(self.after);
    }
}

fn error_frame(error: &GatewayError) -> Bytes {
    Bytes::from(format!("data: {}\n\n", error.body()))
}
