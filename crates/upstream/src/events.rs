//! Server-sent events out of a response, one at a time.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use reqwest::Response;
use sse_stream::SseByteStream;

use crate::{Result, UpstreamError, transport::reason};

/// Most bytes of one event; an upstream that sends more is cut off.
const MAX_EVENT: usize = 1 << 20;

/// The data of the events of one response. Nothing is read before it is asked for.
pub(crate) struct Events {
    events: SseByteStream<Chunks>,
    /// Bytes that came since the last event.
    pending: Arc<AtomicUsize>,
}

type Chunks = Pin<Box<dyn Stream<Item = std::result::Result<Bytes, BodyError>> + Send>>;

#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error("{0}")]
    Broken(String),
    #[error("an event has more than {MAX_EVENT} bytes")]
    TooLong,
}

impl Events {
    pub(crate) fn new(response: Response) -> Self {
        let pending = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&pending);
        let chunks = response.bytes_stream().map(move |chunk| {
            let chunk = chunk.map_err(|error| BodyError::Broken(reason(&error)))?;
            let before = counted.fetch_add(chunk.len(), Ordering::Relaxed);
            if before.saturating_add(chunk.len()) > MAX_EVENT {
                return Err(BodyError::TooLong);
            }
            Ok(chunk)
        });
        Self { events: SseByteStream::new(Box::pin(chunks)), pending }
    }

    /// The next event's data; `None` at the end. Characters may be split over chunks, lines over packets.
    pub(crate) async fn next(&mut self) -> Result<Option<String>> {
        while let Some(event) = self.events.next().await {
            self.pending.store(0, Ordering::Relaxed);
            match event {
                Ok(event) => {
                    if let Some(data) = event.data {
                        return Ok(Some(data));
                    }
                }
                Err(error) => return Err(broken(error)),
            }
        }
        Ok(None)
    }
}

fn broken(error: sse_stream::Error) -> UpstreamError {
    match error {
        sse_stream::Error::Body(source) => match source.downcast_ref::<BodyError>() {
            Some(error @ BodyError::TooLong) => UpstreamError::Malformed(error.to_string()),
            Some(BodyError::Broken(reason)) => UpstreamError::BrokenOff(reason.clone()),
            None => UpstreamError::BrokenOff(source.to_string()),
        },
        sse_stream::Error::Utf8Parse(_) => UpstreamError::Malformed("not UTF-8".into()),
        other => UpstreamError::Malformed(other.to_string()),
    }
}
