//! Text as it is generated in, text and tool calls out.
//!
//! A call is handed out once it is whole, so that what turns out to be none can still be given as the text that it
//! is: no answer is lost, and none is an error.

use std::sync::Arc;

use autoglm_domain::{GenerationEvent, ToolCallPiece, Toolbox};
use serde_json::{Map, Value, json};

use super::ToolStyle;

/// A call that was read.
#[derive(Debug, PartialEq)]
struct Call {
    name: String,
    arguments: String,
}

/// Where the reader is.
#[derive(Debug, PartialEq)]
enum State {
    /// At the beginning of the answer, where some styles begin a call without a marker.
    Beginning,
    /// In text.
    Text,
    /// In what looks like a call.
    Call,
}

/// Reads one answer.
#[derive(Debug)]
pub(crate) struct ToolReader {
    style: ToolStyle,
    toolbox: Arc<Toolbox>,
    state: State,
    held: String, // text that may be, or be before, a call
    calls: usize,
}

impl ToolReader {
    pub(crate) fn new(style: ToolStyle, toolbox: Arc<Toolbox>) -> Self {
        Self { style, toolbox, state: State::Beginning, held: String::new(), calls: 0 }
    }

    /// Takes in some text; gives what is decided.
    pub(crate) fn push(&mut self, text: &str) -> Vec<GenerationEvent> {
        self.held.push_str(text);
        let mut events = Vec::new();
        while self.advance(&mut events) {}
        events
    }

    /// The end of the answer: what is held is a call after all, or text.
    pub(crate) fn finish(&mut self) -> Vec<GenerationEvent> {
        let mut events = Vec::new();
        let held = std::mem::take(&mut self.held);
        let calls = if self.state == State::Call { self.read_at_end(&held) } else { None };
        match calls {
            Some(calls) => self.give_calls(calls, held, &mut events),
            // Blanks after a call are none of the answer's text.
            None if self.calls > 0 && held.trim().is_empty() => {}
            None => give_text(held, &mut events),
        }
        events
    }

    /// One step; `false` when more text is needed.
    fn advance(&mut self, events: &mut Vec<GenerationEvent>) -> bool {
        match self.state {
            State::Beginning => self.begin(),
            State::Text => self.seek(events),
            State::Call => self.close(events),
        }
    }

    /// Decides whether the answer begins with a call that no marker announces.
    fn begin(&mut self) -> bool {
        let start = self.held.trim_start();
        if start.is_empty() {
            return false;
        }
        let (open, undecided) = match self.style {
            ToolStyle::Llama => (start.starts_with('{'), false),
            ToolStyle::Glm => {
                let (line, whole) = start.split_once('\n').map_or((start, false), |(line, _)| (line, true));
                let known = |name: &str| if whole { name == line.trim_end() } else { name.starts_with(line) };
                let known = self.toolbox.tools.iter().any(|tool| known(&tool.name));
                (known && whole, known && !whole)
            }
            _ => (false, false),
        };
        if undecided {
            return false;
        }
        self.state = if open { State::Call } else { State::Text };
        true
    }

    /// Gives text up to where a call may begin.
    fn seek(&mut self, events: &mut Vec<GenerationEvent>) -> bool {
        let Some(marker) = self.style.marker() else {
            give_text(std::mem::take(&mut self.held), events);
            return false;
        };
        let found = self.held.find(marker);
        let end = found.unwrap_or_else(|| self.held.len() - beginning_of(marker, &self.held));
        // Blanks before a call belong to it; whether one comes is not known yet.
        let text = self.held.get(..end).unwrap_or_default().trim_end().len();
        let rest = self.held.split_off(text);
        give_text(std::mem::replace(&mut self.held, rest), events);
        if found.is_some() {
            self.state = State::Call;
        }
        found.is_some()
    }

    /// Looks for the end of a call that has one of its own; others end with the answer.
    fn close(&mut self, events: &mut Vec<GenerationEvent>) -> bool {
        if !matches!(self.style, ToolStyle::Hermes | ToolStyle::GlmTags) {
            return false;
        }
        const CLOSE: &str = "</tool_call>";
        let mut from = 0;
        while let Some(at) = self.held.get(from..).and_then(|rest| rest.find(CLOSE)) {
            let end = from + at;
            let body = self.held.get(..end).map(inside).unwrap_or_default();
            match self.read(body) {
                Read::Whole(call) => {
                    let rest = self.held.split_off(end + CLOSE.len());
                    let written = std::mem::replace(&mut self.held, rest);
                    self.give_calls(vec![call], written, events);
                    self.state = State::Text;
                    return true;
                }
                // The mark stands inside a text of the arguments.
                Read::Open => from = end + CLOSE.len(),
                Read::Broken => {
                    let rest = self.held.split_off(end + CLOSE.len());
                    give_text(std::mem::replace(&mut self.held, rest), events);
                    self.state = State::Text;
                    return true;
                }
            }
        }
        false
    }

    /// Reads the body of one call between its marks.
    fn read(&self, body: &str) -> Read {
        if self.style == ToolStyle::GlmTags {
            return self.tagged(body).map_or(Read::Broken, Read::Whole);
        }
        match serde_json::from_str::<Value>(body) {
            Ok(value) => self.json_call(&value).map_or(Read::Broken, Read::Whole),
            Err(error) if error.is_eof() => Read::Open,
            Err(_) => Read::Broken,
        }
    }

    /// Reads what is left at the end of the answer.
    fn read_at_end(&self, held: &str) -> Option<Vec<Call>> {
        let calls = match self.style {
            ToolStyle::Hermes | ToolStyle::GlmTags => match self.read(inside(held)) {
                Read::Whole(call) => vec![call],
                Read::Open | Read::Broken => return None,
            },
            ToolStyle::Llama => self.listed(held.trim().trim_start_matches("<|python_tag|>"))?,
            ToolStyle::Mistral | ToolStyle::MistralArgs => {
                let mut calls = Vec::new();
                for part in held.split("[TOOL_CALLS]").map(str::trim).filter(|part| !part.is_empty()) {
                    match serde_json::from_str::<Vec<Value>>(part) {
                        Ok(list) => {
                            calls.extend(
                                list.iter().map(|call| self.json_call(call)).collect::<Option<Vec<_>>>()?,
                            );
                        }
                        Err(_) => calls.extend(self.named(part)?),
                    }
                }
                calls
            }
            ToolStyle::Glm => self.named(held)?,
        };
        Some(calls).filter(|calls| !calls.is_empty())
    }

    /// JSON calls one after another, with or without semicolons between them.
    fn listed(&self, text: &str) -> Option<Vec<Call>> {
        let mut calls = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (value, after) = json_first(rest)?;
            calls.push(self.json_call(&value)?);
            rest = after.trim_start().trim_start_matches(';').trim_start();
        }
        Some(calls)
    }

    /// Calls whose name stands before their arguments.
    fn named(&self, text: &str) -> Option<Vec<Call>> {
        let mut calls = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let open = rest.find('{')?;
            let name = rest.get(..open)?.trim().trim_end_matches("[ARGS]").trim();
            let (value, after) = json_first(rest.get(open..)?)?;
            calls.push(self.call(name, &value)?);
            rest = after.trim();
        }
        Some(calls)
    }

    /// `name`, then keys and values in tags.
    fn tagged(&self, body: &str) -> Option<Call> {
        let (name, mut rest) = body.split_at(body.find("<arg_key>").unwrap_or(body.len()));
        let tool = self.toolbox.tools.iter().find(|tool| tool.name == name.trim())?;
        let properties = tool.parameters.as_ref().and_then(|schema| schema.get("properties"));
        let mut arguments = Map::new();
        while let Some(after) = rest.trim_start().strip_prefix("<arg_key>") {
            let (key, after) = after.split_once("</arg_key>")?;
            let (value, after) =
                after.trim_start().strip_prefix("<arg_value>")?.split_once("</arg_value>")?;
            let kind =
                properties.and_then(|all| all.get(key.trim())).and_then(|property| property.get("type"));
            let value = match serde_json::from_str(value.trim()) {
                Ok(parsed) if kind.is_none_or(|kind| kind != "string") => parsed,
                _ => json!(value),
            };
            arguments.insert(key.trim().to_owned(), value);
            rest = after;
        }
        if !rest.trim().is_empty() {
            return None;
        }
        self.call(name.trim(), &Value::Object(arguments))
    }

    /// `{"name": …, "arguments": …}`; both names of the arguments are understood.
    fn json_call(&self, value: &Value) -> Option<Call> {
        let name = value.get("name")?.as_str()?;
        let nothing = json!({});
        let arguments = value.get("arguments").or_else(|| value.get("parameters")).unwrap_or(&nothing);
        match arguments {
            // Some models quote their arguments once more.
            Value::String(text) => self.call(name, &serde_json::from_str(text).ok()?),
            other => self.call(name, other),
        }
    }

    /// A call of a tool that there is, with an object of arguments.
    fn call(&self, name: &str, arguments: &Value) -> Option<Call> {
        let known = self.toolbox.tools.iter().any(|tool| tool.name == name);
        (known && arguments.is_object())
            .then(|| Call { name: name.to_owned(), arguments: arguments.to_string() })
    }

    fn give_calls(&mut self, calls: Vec<Call>, mut written: String, events: &mut Vec<GenerationEvent>) {
        for call in calls {
            let index = self.calls;
            let written = std::mem::take(&mut written);
            let name = Some(call.name);
            let first = ToolCallPiece { index, name, arguments: String::new(), written };
            let rest = ToolCallPiece { index, arguments: call.arguments, ..ToolCallPiece::default() };
            events.extend([GenerationEvent::ToolCall(first), GenerationEvent::ToolCall(rest)]);
            self.calls += 1;
        }
    }
}

/// What the body of a call is.
enum Read {
    /// A call.
    Whole(Call),
    /// The beginning of one.
    Open,
    /// None.
    Broken,
}

/// What follows the opening mark.
fn inside(held: &str) -> &str {
    let body = held.trim_start();
    body.strip_prefix("<tool_call>").unwrap_or(body).trim()
}

/// The first JSON value of a text, and what follows it.
fn json_first(text: &str) -> Option<(Value, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = values.next()?.ok()?;
    Some((value, text.get(values.byte_offset()..)?))
}

/// Bytes at the end of `text` with which `marker` could begin.
fn beginning_of(marker: &str, text: &str) -> usize {
    let starts = (1..marker.len()).rev().filter_map(|length| marker.get(..length));
    starts.filter(|start| text.ends_with(start)).map(str::len).next().unwrap_or(0)
}

fn give_text(text: String, events: &mut Vec<GenerationEvent>) {
    if !text.is_empty() {
        events.push(GenerationEvent::Text { text, logprobs: Vec::new() });
    }
}
