//! The way of a sequence's events from the batching thread to the reader, with back-pressure.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use autoglm_domain::{Error, FinishReason, GenerationEvent, Usage};
use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc;

use super::sequence::Ending;
use crate::{EngineError, Piece};

/// Wakes the batching thread: a request came, a reader read or went, the phase changed.
#[derive(Debug, Default)]
pub(super) struct Doorbell {
    rung: Mutex<bool>,
    condvar: Condvar,
}

impl Doorbell {
    /// Wakes the thread now, or lets its next wait return at once.
    pub(super) fn ring(&self) {
        *self.rung.lock() = true;
        self.condvar.notify_one();
    }

    /// Waits until rung, for at most `limit`.
    pub(super) fn wait(&self, limit: Option<Duration>) {
        let mut rung = self.rung.lock();
        if !*rung {
            match limit {
                Some(limit) => drop(self.condvar.wait_for(&mut rung, limit)),
                None => self.condvar.wait(&mut rung),
            }
        }
        *rung = false;
    }
}

/// Both ends for one sequence. Two events more than `buffer` fit, the last text and the end.
pub(super) fn channel(buffer: usize, bell: Arc<Doorbell>) -> (EventSender, EventStream) {
    let (sender, receiver) = mpsc::channel(buffer + 2);
    (EventSender(sender), EventStream { receiver, bell, ended: false })
}

/// The batching thread's end. It never waits.
pub(super) struct EventSender(mpsc::Sender<Result<GenerationEvent, Error>>);

impl EventSender {
    /// Whether the reader is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Whether a text and the end still fit, which a step may both give.
    pub(super) fn has_room(&self) -> bool {
        self.0.capacity() >= 2
    }

    /// Sends text; an empty piece is passed over.
    pub(super) fn text(&self, piece: Piece) {
        if !piece.is_empty() {
            self.send(Ok(GenerationEvent::Text { text: piece.text, logprobs: piece.logprobs }));
        }
    }

    /// Sends the end.
    pub(super) fn end(&self, ending: Ending, usage: Usage) {
        match ending {
            Ending::Finished(finish_reason) => self.send(Ok(GenerationEvent::Done { finish_reason, usage })),
            Ending::Failed(error) => self.fail(error),
        }
    }

    /// Sends the end of a request that never ran.
    pub(super) fn cancel(&self) {
        self.end(Ending::Finished(FinishReason::Cancelled), Usage::default());
    }

    /// Sends an error, which is the end.
    pub(super) fn fail(&self, error: EngineError) {
        self.send(Err(error.into()));
    }

    fn send(&self, event: Result<GenerationEvent, Error>) {
        // A reader that is gone needs nothing; room is there, as a step is only taken with `has_room`.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.0.try_send(event) {
            tracing::error!("an event found no room; its sequence will seem cut off");
        }
    }
}

/// The reader's end. Dropping it cancels the sequence.
#[derive(Debug)]
pub(crate) struct EventStream {
    receiver: mpsc::Receiver<Result<GenerationEvent, Error>>,
    bell: Arc<Doorbell>,
    ended: bool,
}

impl futures::Stream for EventStream {
    type Item = Result<GenerationEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let event = ready!(self.receiver.poll_recv(context))
            .unwrap_or_else(|| Err(Error::internal("the engine stopped before the answer ended")));
        if matches!(event, Err(_) | Ok(GenerationEvent::Done { .. })) {
            self.ended = true;
        } else {
            self.bell.ring();
        }
        Poll::Ready(Some(event))
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.receiver.close();
        self.bell.ring();
    }
}
