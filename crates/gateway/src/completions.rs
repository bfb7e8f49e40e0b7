//! `POST /v1/chat/completions` and `POST /v1/completions`.

use std::sync::Arc;

use axum::{Extension, body::Body, extract::State, response::Response};
use serde_json::Value;

use crate::{
    Config, GatewayError, chat_request, completion_request,
    exchange::Exchange,
    gateway::Shared,
    intake::{Arrival, read_json},
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
    if stream { Ok(sse::respond(exchange, events)) } else { whole::respond(exchange, events).await }
}
