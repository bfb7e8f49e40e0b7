//! Answers in pieces: server-sent events, each written the moment the engine gives it.

use std::convert::Infallible;

use autoglm_domain::{Endpoint, GenerationEvent, TokenLogprob};
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
    wire::{ChoiceExtension, ChunkChoice, Head, UsageBody, write_json},
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
                Ok(Step::Of(index, GenerationEvent::Text { text, logprobs })) => {
                    exchange.extend(index, &text, &logprobs);
                    Ok(frames.text(&exchange, index, &text, &logprobs))
                }
                Ok(Step::Of(index, GenerationEvent::Done { finish_reason, usage })) => {
                    exchange.end(index, finish_reason, usage);
                    exchange.record().await.map(|()| frames.last(&exchange, index))
                }
                Err(error) => Err(error),
            };
            match frame {
                Ok(frame) => yield Ok::<_, Infallible>(frame),
                Err(error) => {
                    tracing::warn!(request = %exchange.arrival.id, %error, "a stream broke off");
                    yield Ok(error_frame(&error));
                    break;
                }
            }
            if exchange.all_ended() {
                break;
            }
        }
    };
    let mut response = Body::from_stream(stream).into_response();
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
            progress: vec![Progress::default(); exchange.choices.len()],
        }
    }

    fn text(&mut self, exchange: &Exchange, index: usize, text: &str, tokens: &[TokenLogprob]) -> Bytes {
        let mut out = self.begin(exchange, index);
        let tokens = self.logprobs.then_some(tokens);
        let mut unused = Progress::default();
        let progress = self.progress.get_mut(index).unwrap_or(&mut unused);
        let chunk = ChunkChoice::text(self.endpoint, index, text, tokens, &mut progress.offset);
        self.write(&mut out, &chunk);
        Bytes::from(out)
    }

    /// The last chunk of a choice, and after that of the last choice the usage and `[DONE]`.
    fn last(&mut self, exchange: &Exchange, index: usize) -> Bytes {
        let mut out = self.begin(exchange, index);
        if let Some(end) = exchange.choices.get(index).and_then(|choice| choice.end) {
            self.write(&mut out, &ChunkChoice::last(self.endpoint, index, end.finish_reason));
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
            self.write(&mut out, &ChunkChoice::first(self.endpoint, index, extension));
        }
        out
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
