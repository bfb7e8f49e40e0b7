//! Tools: functions of the client's that a model may ask it to call, and such calls.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A function of the client's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name, unique within a request.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON schema of its arguments; `None` takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// Whether arguments must follow the schema to the letter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
}

/// A model's wish to have a function called.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ToolCall {
    /// Ties the result to the call.
    pub id: String,
    /// The function.
    pub name: String,
    /// The arguments as JSON text, as the model wrote them.
    pub arguments: String,
}

/// Whether tools are called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// At least one is.
    Required,
    /// The one of this name is, once.
    Named(String),
}

/// The tools of a request; at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Toolbox {
    /// The tools, each name once.
    pub tools: Vec<Tool>,
    /// Whether they are called.
    pub choice: ToolChoice,
    /// Whether one answer may hold several calls.
    pub parallel: bool,
}

/// A piece of a tool call, as it is generated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolCallPiece {
    /// Which call of the answer, from 0.
    pub index: usize,
    /// The function's name, in the first piece.
    pub name: Option<String>,
    /// Some more of the arguments.
    pub arguments: String,
    /// What the model wrote for the call, markers included, in the first piece; empty where nobody knows.
    pub written: String,
}

impl ToolCallPiece {
    /// Adds the piece to the calls so far. A piece that skips a call is taken to be of the next one.
    pub fn add_to(self, calls: &mut Vec<ToolCall>) {
        let index = self.index.min(calls.len());
        if index == calls.len() {
            calls.push(ToolCall { id: String::new(), name: String::new(), arguments: String::new() });
        }
        if let Some(call) = calls.get_mut(index) {
            call.name.push_str(self.name.as_deref().unwrap_or_default());
            call.arguments.push_str(&self.arguments);
        }
    }
}
