//! A response as OpenAI's Responses API writes it: items that grow with the answer, and the object around them.

use autoglm_domain::{FinishReason, InteractionId, TokenLogprob};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    exchange::{Choice, Exchange},
    logprobs::ChatToken,
    wire::ChoiceExtension,
};

/// How far a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    InProgress,
    Completed,
    Incomplete,
}

/// A part of an answer: a text, or a call.
#[derive(Debug)]
pub(crate) enum Item {
    Message {
        text: String,
        logprobs: Vec<TokenLogprob>,
    },
    /// The call of this index among the answer's.
    Call(usize),
}

/// `resp_…`: a response's name of an interaction.
pub(crate) fn response_id(id: InteractionId) -> String {
    format!("resp_{}", id.uuid().simple())
}

/// The id of the item at `index`.
pub(crate) fn item_id(item: &Item, of: InteractionId, index: usize) -> String {
    let prefix = match item {
        Item::Message { .. } => "msg",
        Item::Call(_) => "fc",
    };
    format!("{prefix}_{}{index:02}", of.uuid().simple())
}

/// An item as it stands in `output`; while it grows, what it holds is left out.
pub(crate) fn item_body(item: &Item, choice: &Choice, index: usize, status: Status) -> Value {
    let id = item_id(item, choice.id, index);
    match item {
        Item::Message { text, logprobs } => {
            let grows = status == Status::InProgress;
            let content = if grows { Vec::new() } else { vec![part(text, logprobs)] };
            json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content})
        }
        Item::Call(call) => {
            let call = choice.calls.get(*call);
            json!({
                "id": id, "type": "function_call", "status": status,
                "call_id": call.map(|call| &call.id), "name": call.map(|call| &call.name),
                "arguments": call.map(|call| &call.arguments).filter(|_| status != Status::InProgress).map_or("", |a| a),
            })
        }
    }
}

/// A message's text as a part of its content.
pub(crate) fn part(text: &str, logprobs: &[TokenLogprob]) -> Value {
    let logprobs: Vec<ChatToken<'_>> = logprobs.iter().map(ChatToken::new).collect();
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs})
}

/// The whole object.
pub(crate) fn response(exchange: &Exchange, items: &[Item], status: Status) -> Value {
    let mut body = Map::new();
    let choice = exchange.choices.first();
    let id = exchange.arrival.id;
    body.insert("id".into(), json!(response_id(id)));
    body.insert("object".into(), json!("response"));
    body.insert("created_at".into(), json!(exchange.arrival.at.0.div_euclid(1000)));
    body.insert("status".into(), json!(status));
    body.insert("error".into(), Value::Null);
    let cut = status == Status::Incomplete;
    let details = if cut { json!({"reason": "max_output_tokens"}) } else { Value::Null };
    body.insert("incomplete_details".into(), details);
    body.insert("model".into(), json!(exchange.request.model));
    let last = items.len().saturating_sub(1);
    let output = items.iter().enumerate().zip(choice.into_iter().cycle()).map(|((index, item), choice)| {
        // What was cut off is the last item.
        let status = if index < last { Status::Completed } else { status };
        item_body(item, choice, index, status)
    });
    body.insert("output".into(), output.collect());
    if let Some(shape) = &exchange.request.response {
        body.extend(shape.repeated.clone());
    }
    let usage = choice.and_then(|choice| choice.end).map(|end| {
        json!({
            "input_tokens": end.usage.prompt_tokens, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": end.usage.completion_tokens, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": end.usage.prompt_tokens.saturating_add(end.usage.completion_tokens),
        })
    });
    body.insert("usage".into(), json!(usage));
    let extension = choice.map(|choice| ChoiceExtension::new(choice, exchange.version));
    body.insert("autoglm".into(), json!(extension));
    Value::Object(body)
}

/// The status of an answer that ended so.
pub(crate) fn status(choice: Option<&Choice>) -> Status {
    match choice.and_then(|choice| choice.end).map(|end| end.finish_reason) {
        Some(FinishReason::Length) => Status::Incomplete,
        _ => Status::Completed,
    }
}
