//! `POST /v1/chat/completions` and `POST /v1/completions`.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
};
use serde_json::Value;

use crate::{
    Config, GatewayError, chat_request, completion_request,
    exchange::Exchange,
    gateway::Shared,
    intake::{Arrival, VERSION_HEADER, read_json, version_value},
    request::AnswerRequest,
    sse, whole,
};

type Parse = fn(Value, &Config) -> Result<AnswerRequest, GatewayError>;

pub(crate) async fn chat(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    body: Body,
) -> Result<Response, GatewayError> {
    answer(shared, arrival, body, chat_request::parse).await
}

pub(crate) async fn text(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    body: Body,
) -> Result<Response, GatewayError> {
    answer(shared, arrival, body, completion_request::parse).await
}

async fn answer(
    shared: Arc<Shared>,
    arrival: Arrival,
    body: Body,
    parse: Parse,
) -> Result<Response, GatewayError> {
    let body = read_json(body, &shared.gateway.config).await?;
    let request = parse(body, &shared.gateway.config)?;
    let stream = request.stream;
    let (exchange, events) = Exchange::begin(shared, arrival, request).await?;
    if stream {
        return Ok(sse::respond(exchange, events));
    }
    let version = version_value(exchange.version);
    let mut response = whole::respond(exchange, events).await.unwrap_or_else(GatewayError::into_response);
    response.headers_mut().insert(VERSION_HEADER, version);
    Ok(response)
}
