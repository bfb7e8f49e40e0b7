//! An answer on its way: events of the upstream to events of ours, each handed on when it comes.

use std::{sync::Arc, time::Duration};

use autoglm_domain::{FinishReason, GenerationEvent, GenerationStream, Usage};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    Config, Result, UpstreamError,
    adapters::Resident,
    breaker::{Breaker, Permit},
    chunk::{self, Piece},
    events::Events,
    tokens::Estimate,
    transport::{Deadline, MAX_BODY, Opened, text},
};

/// Longest that the end of a response is waited for after its `[DONE]`, so that the connection can be used again.
const DRAIN: Duration = Duration::from_secs(1);

/// What an answer needs to know of its request.
pub(crate) struct Asked {
    /// Until when the first token must have come.
    pub(crate) first_token: Deadline,
    /// Until when everything must have come.
    pub(crate) whole: Deadline,
    /// Until when the request can use what comes.
    pub(crate) own: Option<Deadline>,
    /// Longest between two tokens.
    pub(crate) between: Duration,
    /// Bytes and turns of the prompt, and what it is estimated at.
    pub(crate) size: (usize, u32),
    pub(crate) estimated_tokens: u32,
    pub(crate) estimate: Arc<Estimate>,
    pub(crate) breaker: Arc<Breaker>,
    /// Keeps the adapter loaded until the answer has ended.
    pub(crate) _resident: Option<Arc<Resident>>,
}

impl Asked {
    /// The limits of a request that begins now.
    pub(crate) fn deadlines(config: &Config) -> (Deadline, Deadline) {
        (
            Deadline::after(config.first_token(), "no first token"),
            Deadline::after(config.whole(), "no end of its answer"),
        )
    }

    /// When the next piece is due, and what is said when it does not come. Counted from when it is waited for: a
    /// reader that takes its time costs the upstream nothing.
    fn due(&self, begun: bool) -> Deadline {
        let next = if begun { Deadline::after(self.between, "no next token") } else { self.first_token };
        next.or(Some(self.whole)).or(self.own)
    }
}

/// The events of an answer that has begun with success. Dropping the stream closes the connection.
pub(crate) fn stream(opened: Opened, asked: Asked) -> GenerationStream {
    Box::pin(async_stream::stream! {
        let Opened { response, permit } = opened;
        let mut verdict = Verdict { permit: Some(permit), breaker: Arc::clone(&asked.breaker) };
        let mut answer = match Answer::begin(response, &asked).await {
            Ok(answer) => answer,
            Err(error) => {
                verdict.failed(&error);
                yield Err(error.into());
                return;
            }
        };
        loop {
            match answer.next(&asked).await {
                Ok(Next::Some(events)) => {
                    verdict.succeeded();
                    for event in events {
                        yield Ok(event);
                    }
                }
                Ok(Next::Nothing) => {}
                Ok(Next::End(finish_reason)) => {
                    verdict.succeeded();
                    let usage = answer.usage(&asked);
                    answer.drain();
                    yield Ok(GenerationEvent::Done { finish_reason, usage });
                    return;
                }
                Err(error) => {
                    verdict.failed(&error);
                    yield Err(error.into());
                    return;
                }
            }
        }
    })
}

/// What the circuit breaker is told: success with the first token, failure also after it.
struct Verdict {
    permit: Option<Permit>,
    breaker: Arc<Breaker>,
}

impl Verdict {
    fn succeeded(&mut self) {
        if let Some(permit) = self.permit.take() {
            permit.succeeded();
        }
    }

    fn failed(&mut self, error: &UpstreamError) {
        match self.permit.take() {
            Some(permit) => permit.ended_with(error),
            // Its first token has counted as a success.
            None => self.breaker.blame(error),
        }
    }
}

enum Next {
    Some(Vec<GenerationEvent>),
    Nothing,
    End(FinishReason),
}

struct Answer {
    events: Events,
    begun: bool,
    finish_reason: Option<FinishReason>,
    usage: Option<Usage>,
    /// Tokens that were seen, for upstreams that report no usage.
    tokens: u32,
}

impl Answer {
    /// Refuses what is no stream, such as a page of a proxy.
    async fn begin(response: reqwest::Response, asked: &Asked) -> Result<Self> {
        let kind = response.headers().get(reqwest::header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("text/event-stream") {
            let kind = kind.split(';').next().unwrap_or_default().to_owned();
            let said = timeout_at(asked.first_token.at, text(response, MAX_BODY)).await;
            let said = said.ok().and_then(std::result::Result::ok).unwrap_or_default();
            // Some servers report an error with the status of success.
            return Err(match chunk::read(&said) {
                Err(error @ (UpstreamError::Refused { .. } | UpstreamError::Busy { .. })) => error,
                _ => UpstreamError::Malformed(format!("it is `{kind}`, not a stream of events")),
            });
        }
        Ok(Self { events: Events::new(response), begun: false, finish_reason: None, usage: None, tokens: 0 })
    }

    async fn next(&mut self, asked: &Asked) -> Result<Next> {
        let due = asked.due(self.begun);
        let data = match timeout_at(due.at, self.events.next()).await {
            Ok(data) => data?,
            // What there is of the answer is of use to a request whose own time is up.
            Err(_) if due.is_of_request() && self.begun => return Ok(Next::End(FinishReason::Length)),
            Err(_) => return Err(due.passed()),
        };
        match data {
            None => match self.finish_reason {
                Some(reason) => Ok(Next::End(reason)),
                None => Err(UpstreamError::BrokenOff("it ended in the middle".into())),
            },
            Some(data) if data.trim() == "[DONE]" => {
                Ok(Next::End(self.finish_reason.unwrap_or(FinishReason::Stop)))
            }
            Some(data) => Ok(self.take(chunk::read(&data)?)),
        }
    }

    fn take(&mut self, piece: Piece) -> Next {
        self.begun |= piece.generated;
        self.finish_reason = piece.finish_reason.or(self.finish_reason);
        self.usage = piece.usage.or(self.usage);
        let said = !piece.text.is_empty() || !piece.logprobs.is_empty();
        if !said && piece.calls.is_empty() {
            return Next::Nothing;
        }
        let tokens = u32::try_from(piece.logprobs.len()).unwrap_or(u32::MAX).max(1);
        self.tokens = self.tokens.saturating_add(tokens);
        let text = GenerationEvent::Text { text: piece.text, logprobs: piece.logprobs };
        let mut events = Vec::from_iter(said.then_some(text));
        events.extend(piece.calls.into_iter().map(GenerationEvent::ToolCall));
        Next::Some(events)
    }

    /// What the upstream reports, or what was seen and estimated.
    fn usage(&self, asked: &Asked) -> Usage {
        match self.usage {
            Some(usage) => {
                asked.estimate.learn(asked.size, usage.prompt_tokens);
                usage
            }
            None => Usage { prompt_tokens: asked.estimated_tokens, completion_tokens: self.tokens },
        }
    }

    /// Reads to the end of the response, beside: a connection whose response was left unread is closed.
    fn drain(self) {
        let mut events = self.events;
        tokio::spawn(async move {
            let until = Instant::now() + DRAIN;
            while let Ok(Ok(Some(_))) = timeout(until - Instant::now(), events.next()).await {}
        });
    }
}
