//! How two answers to one request differ; made by the diff engine, kept with the pair.

use serde::{Deserialize, Serialize};

/// How the candidate's answer differs from the champion's. What could not be compared is `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PairDiff {
    /// The same text, byte by byte, and the same tool calls.
    pub exact: bool,
    /// The same text once case, punctuation and white space are put aside, and the same tool calls.
    pub normalised: bool,
    /// The two as JSON, where both are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub structure: Option<StructureDiff>,
    /// The tool calls, where either answer calls any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<ToolDiff>,
    /// Cosine of the embeddings, -1 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub similarity: Option<f64>,
    /// Characters of the candidate's answer over those of the champion's, each with one more than it has, so that
    /// an empty answer has a ratio too.
    pub length_ratio: f64,
    /// What stands out in the champion's answer by itself.
    pub champion: AnswerTraits,
    /// The same of the candidate's.
    pub candidate: AnswerTraits,
    /// One number to sort by: 0 is the same answer, 1 nothing in common.
    pub distance: f64,
}

/// What stands out in one answer, whatever the other says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AnswerTraits {
    /// There is nothing in it: no text but white space, and no tool call.
    pub empty: bool,
    /// It declines to answer, by its wording.
    pub refusal: bool,
    /// It breaks the form that was asked for: no JSON, not of the schema, tool arguments that are no JSON. `None`
    /// where no form was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format_kept: Option<bool>,
    /// A code fence is opened and not closed.
    pub open_fence: bool,
    /// Kinds of secrets and personal data in it that the request does not hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub leaks: Vec<String>,
}

/// Two JSON documents, compared path by path.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StructureDiff {
    /// Leaves of both documents.
    pub paths: u32,
    /// Leaves that differ, or are in one document only.
    pub differing: u32,
    /// The first of those, in the order of the champion's document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<PathDifference>,
}

/// One place where two JSON documents differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PathDifference {
    /// Where, as a JSON pointer (RFC 6901).
    pub path: String,
    /// What the champion has there, shortened; `None` is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub champion: Option<String>,
    /// The same of the candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
}

/// The tool calls of two answers, whatever their order and ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolDiff {
    /// Calls of the same function with the same arguments.
    pub same: u32,
    /// Functions that both call, with other arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_arguments: Vec<String>,
    /// Functions that the champion alone calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Functions that the candidate alone calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
}

impl ToolDiff {
    /// Whether both call the same functions with the same arguments.
    pub fn is_same(&self) -> bool {
        self.other_arguments.is_empty() && self.missing.is_empty() && self.added.is_empty()
    }
}
