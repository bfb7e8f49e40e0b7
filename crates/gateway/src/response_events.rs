//! A response in pieces: the typed events of OpenAI's Responses API, one after another.

use autoglm_domain::{GenerationEvent, TokenLogprob, ToolCallPiece};
use serde_json::{Value, json};

use crate::{
    GatewayError,
    exchange::Exchange,
    logprobs::ChatToken,
    response_body::{Item, Status, item_body, item_id, part, response, status},
};

/// An answer's items as they grow, and the events that tell of it.
#[derive(Debug, Default)]
pub(crate) struct ResponseEvents {
    pub(crate) items: Vec<Item>,
    /// Whether the last item still grows.
    open: bool,
    sequence_number: u64,
}

impl ResponseEvents {
    /// The events that open every stream.
    pub(crate) fn begin(&mut self, exchange: &Exchange) -> Vec<Value> {
        ["response.created", "response.in_progress"]
            .map(|kind| self.event(kind, json!({"response": response(exchange, &[], Status::InProgress)})))
            .into()
    }

    /// What `event`, which the exchange has taken in, adds.
    pub(crate) fn take(&mut self, exchange: &Exchange, event: &GenerationEvent) -> Vec<Value> {
        match event {
            GenerationEvent::Text { text, logprobs } => self.text(exchange, text, logprobs),
            GenerationEvent::ToolCall(piece) => self.call(exchange, piece),
            GenerationEvent::Prompt(_) => Vec::new(),
            GenerationEvent::Done { .. } => {
                let mut events = Vec::new();
                if self.items.is_empty() {
                    events = self.text(exchange, "", &[]);
                }
                events.extend(self.close(exchange));
                events
            }
        }
    }

    /// The event that ends a stream that went well.
    pub(crate) fn end(&mut self, exchange: &Exchange) -> Value {
        let status = status(exchange.choices.first());
        let kind = if status == Status::Incomplete { "response.incomplete" } else { "response.completed" };
        let body = json!({"response": response(exchange, &self.items, status)});
        self.event(kind, body)
    }

    /// The event that ends a stream that broke off.
    pub(crate) fn error(&mut self, error: &GatewayError) -> Value {
        let body = error.body();
        let field = |name: &str| body.get("error").and_then(|error| error.get(name)).cloned();
        self.event(
            "error",
            json!({"code": field("code"), "message": field("message"), "param": field("param")}),
        )
    }

    fn text(&mut self, exchange: &Exchange, text: &str, tokens: &[TokenLogprob]) -> Vec<Value> {
        let mut events = Vec::new();
        if !(self.open && matches!(self.items.last(), Some(Item::Message { .. }))) {
            // The tokens of a call come with an empty text, which opens no message.
            if text.is_empty() && !self.items.is_empty() {
                return events;
            }
            events = self.close(exchange);
            self.open(exchange, Item::Message { text: String::new(), logprobs: Vec::new() }, &mut events);
            let place = self.place(exchange, true);
            events
                .push(self.event("response.content_part.added", with(place, json!({"part": part("", &[])}))));
        }
        if let Some(Item::Message { text: all, logprobs }) = self.items.last_mut() {
            all.push_str(text);
            if exchange.request.sampling.logprobs.is_some() {
                logprobs.extend_from_slice(tokens);
            }
        }
        if text.is_empty() {
            return events;
        }
        let wanted = exchange.request.sampling.logprobs.is_some();
        let tokens: Vec<ChatToken<'_>> = tokens.iter().filter(|_| wanted).map(ChatToken::new).collect();
        let place = self.place(exchange, true);
        events.push(
            self.event("response.output_text.delta", with(place, json!({"delta": text, "logprobs": tokens}))),
        );
        events
    }

    fn call(&mut self, exchange: &Exchange, piece: &ToolCallPiece) -> Vec<Value> {
        let mut events = Vec::new();
        let same = matches!(self.items.last(), Some(Item::Call(call)) if *call == piece.index);
        if !(self.open && same) {
            events = self.close(exchange);
            self.open(exchange, Item::Call(piece.index), &mut events);
        }
        if !piece.arguments.is_empty() {
            let place = self.place(exchange, false);
            let delta = with(place, json!({"delta": piece.arguments}));
            events.push(self.event("response.function_call_arguments.delta", delta));
        }
        events
    }

    fn open(&mut self, exchange: &Exchange, item: Item, events: &mut Vec<Value>) {
        let index = self.items.len();
        if let Some(choice) = exchange.choices.first() {
            let body = item_body(&item, choice, index, Status::InProgress);
            events
                .push(self.event("response.output_item.added", json!({"output_index": index, "item": body})));
        }
        self.items.push(item);
        self.open = true;
    }

    /// The events that end the item that grows, where one does.
    fn close(&mut self, exchange: &Exchange) -> Vec<Value> {
        let mut events = Vec::new();
        let (Some(choice), true) = (exchange.choices.first(), std::mem::take(&mut self.open)) else {
            return events;
        };
        let index = self.items.len().saturating_sub(1);
        // What ends the answer because its tokens are used up is not complete.
        let status = status(Some(choice));
        let Some(item) = self.items.last() else { return events };
        let body = item_body(item, choice, index, status);
        match item {
            Item::Message { text, logprobs } => {
                let tokens: Vec<ChatToken<'_>> = logprobs.iter().map(ChatToken::new).collect();
                let done = json!({"text": text, "logprobs": tokens});
                let whole = json!({"part": part(text, logprobs)});
                let place = self.place(exchange, true);
                events.push(self.event("response.output_text.done", with(place.clone(), done)));
                events.push(self.event("response.content_part.done", with(place, whole)));
            }
            Item::Call(call) => {
                let call = choice.calls.get(*call);
                let done = json!({
                    "name": call.map(|call| &call.name), "arguments": call.map(|call| &call.arguments),
                });
                let place = self.place(exchange, false);
                events.push(self.event("response.function_call_arguments.done", with(place, done)));
            }
        }
        events.push(self.event("response.output_item.done", json!({"output_index": index, "item": body})));
        events
    }

    /// Where the item that grows stands.
    fn place(&self, exchange: &Exchange, in_content: bool) -> Value {
        let index = self.items.len().saturating_sub(1);
        let id = self.items.last().map(|item| item_id(item, exchange.arrival.id, index));
        if in_content {
            json!({"item_id": id, "output_index": index, "content_index": 0})
        } else {
            json!({"item_id": id, "output_index": index})
        }
    }

    fn event(&mut self, kind: &str, body: Value) -> Value {
        let number = self.sequence_number;
        self.sequence_number += 1;
        with(json!({"type": kind, "sequence_number": number}), body)
    }
}

/// Both objects' members.
fn with(mut first: Value, second: Value) -> Value {
    if let (Some(first), Value::Object(second)) = (first.as_object_mut(), second) {
        first.extend(second);
    }
    first
}
