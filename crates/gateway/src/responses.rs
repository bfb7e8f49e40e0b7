//! `POST /v1/responses`.

use std::{convert::Infallible, sync::Arc};

use autoglm_domain::{ChatMessage, Endpoint, ErrorKind, GenerationEvent, InteractionId};
use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use serde_json::Value;

use crate::{
    GatewayError,
    exchange::{Events, Exchange, Step},
    gateway::Shared,
    intake::{Arrival, VERSION_HEADER, read_json, version_value},
    request::AnswerRequest,
    response_body::{response, response_id, status},
    response_events::ResponseEvents,
    responses_request, sse, whole,
};

pub(crate) async fn responses(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    body: Body,
) -> Result<Response, GatewayError> {
    let body = read_json(body, &shared.gateway.config).await?;
    let mut request = responses_request::parse(body, &shared.gateway.config)?;
    put_before(&mut request, &shared, &arrival).await?;
    let stream = request.stream;
    let (exchange, events) = Exchange::begin(shared, arrival, request).await?;
    if stream {
        return Ok(respond_in_pieces(exchange, events));
    }
    let version = version_value(exchange.version);
    let mut response = respond(exchange, events).await.unwrap_or_else(GatewayError::into_response);
    response.headers_mut().insert(VERSION_HEADER, version);
    Ok(response)
}

/// Puts the conversation that the request follows, and its instructions, in front of its input.
async fn put_before(
    request: &mut AnswerRequest,
    shared: &Arc<Shared>,
    arrival: &Arrival,
) -> Result<(), GatewayError> {
    let Some(shape) = &request.response else { return Ok(()) };
    let mut before: Vec<ChatMessage> = shape.instructions.iter().map(ChatMessage::system).collect();
    if let Some(previous) = shape.previous {
        before.extend(conversation_of(previous, shared, arrival, request.user.as_deref()).await?);
    }
    if let Some(prompt) = request.prompts.first_mut() {
        prompt.splice(..0, before);
    }
    Ok(())
}

/// The conversation that ended with the response `id`, without the instructions of its request.
async fn conversation_of(
    id: InteractionId,
    shared: &Arc<Shared>,
    arrival: &Arrival,
    user: Option<&str>,
) -> Result<Vec<ChatMessage>, GatewayError> {
    let unknown = || {
        let message =
            format!("there is no response `{}` (hint: send the conversation as `input`)", response_id(id));
        GatewayError::field("previous_response_id", "previous_response_not_found", message)
    };
    let record = shared.gateway.store.interaction(id).await.map_err(|error| match error.kind {
        ErrorKind::NotFound => unknown(),
        _ => error.into(),
    })?;
    let interaction = record.interaction;
    // Somebody else's conversation is as good as none.
    if interaction.principal != arrival.caller.principal(user) {
        return Err(unknown());
    }
    if interaction.endpoint == Endpoint::Completion {
        let message = "`previous_response_id` names a plain completion, which is no conversation";
        return Err(GatewayError::value("previous_response_id", message));
    }
    let mut turns = interaction.messages;
    if interaction.instructed && !turns.is_empty() {
        turns.remove(0);
    }
    turns.push(interaction.turn.unwrap_or_else(|| ChatMessage::assistant(interaction.answer)));
    Ok(turns)
}

/// Collects the answer, records it, and only then gives it out.
async fn respond(mut exchange: Exchange, mut events: Events) -> Result<Response, GatewayError> {
    let mut growing = ResponseEvents::default();
    while !exchange.all_ended() {
        match events.next().await {
            Ok(Step::Of(index, event)) => {
                exchange.take_in(index, &event);
                growing.take(&exchange, &event);
            }
            Ok(Step::KeepAlive) => {}
            Err(error) => return Err(whole::give_up(&mut exchange, error)),
        }
    }
    let body = response(&exchange, &growing.items, status(exchange.choices.first()));
    exchange.record().await?;
    let mut response = body.to_string().into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Sends events as they come. The answer is recorded before the last of them; what cannot be recorded, or goes
/// wrong on the way, ends the stream with an error event.
fn respond_in_pieces(mut exchange: Exchange, mut events: Events) -> Response {
    let version = version_value(exchange.version);
    let stream = async_stream::stream! {
        let mut growing = ResponseEvents::default();
        yield Ok::<_, Infallible>(frames(&growing.begin(&exchange)));
        loop {
            let event = match events.next().await {
                Ok(Step::KeepAlive) => {
                    yield Ok(Bytes::from_static(b": keep-alive\n\n"));
                    continue;
                }
                Ok(Step::Of(index, event)) => {
                    exchange.take_in(index, &event);
                    Ok(event)
                }
                Err(error) => Err(error),
            };
            let sent = match event {
                Ok(event @ GenerationEvent::Done { .. }) => {
                    let mut last = growing.take(&exchange, &event);
                    last.push(growing.end(&exchange));
                    exchange.record().await.map(|()| last)
                }
                Ok(event) => Ok(growing.take(&exchange, &event)),
                Err(error) => Err(error),
            };
            match sent {
                Ok(sent) if sent.is_empty() => {}
                Ok(sent) => yield Ok(frames(&sent)),
                Err(error) => {
                    tracing::warn!(request = %exchange.arrival.id, %error, "a stream broke off");
                    exchange.note_failure(&error);
                    yield Ok(frames(&[growing.error(&error)]));
                    break;
                }
            }
            if exchange.all_ended() {
                break;
            }
        }
    };
    sse::stream(Body::from_stream(stream), version)
}

/// Events as a stream of server-sent events writes them.
fn frames(events: &[Value]) -> Bytes {
    let mut out = String::new();
    for event in events {
        let kind = event.get("type").and_then(Value::as_str).unwrap_or_default();
        out.extend(["event: ", kind, "\ndata: ", &event.to_string(), "\n\n"]);
    }
    Bytes::from(out)
}
