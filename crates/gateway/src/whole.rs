//! Answers in one piece.

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};

use crate::{
    GatewayError,
    exchange::{Events, Exchange, Step},
    wire::{Whole, write_json},
};

/// Collects the answer, records it, and only then gives it out.
pub(crate) async fn respond(mut exchange: Exchange, mut events: Events) -> Result<Response, GatewayError> {
    while !exchange.all_ended() {
        match events.next().await {
            Ok(Step::Of(index, event)) => exchange.take_in(index, &event),
            Ok(Step::KeepAlive) => {}
            Err(error) => return Err(give_up(&mut exchange, error)),
        }
    }
    let mut body = Vec::with_capacity(1024);
    write_json(&mut body, &Whole::new(&exchange));
    exchange.record().await?;
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// What ends an answer early: where the answer itself failed there is nothing to record.
pub(crate) fn give_up(exchange: &mut Exchange, error: GatewayError) -> GatewayError {
    exchange.note_failure(&error);
    if !matches!(error, GatewayError::TimedOut { .. } | GatewayError::Stopping) {
        exchange.abandon();
    }
    error
}
