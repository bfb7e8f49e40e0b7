//! What an answer was worth.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{AssessmentId, InteractionId, PatternId, Timestamp, VersionNumber};

/// Names of the dimensions that come with autoglm; plug-ins add others.
pub mod dimension {
    /// Is it right, against a reference, a correction or feedback.
    pub const ACCURACY: &str = "accuracy";
    /// Does it parse, keep the requested format, and agree with itself.
    pub const LOGIC: &str = "logic";
    /// Does it break a rule of the rule list.
    pub const SAFETY: &str = "safety";
    /// Is it borne out by the context that came with the request.
    pub const CONSISTENCY: &str = "consistency";
}

/// What the overall score says should happen with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Similarity above 0.85, or right by a verifier.
    HighAccuracy,
    /// Similarity above 0.6.
    NeedsRefinement,
    /// Anything lower.
    ReviseLogic,
}

/// Where a [`Reference`] came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceSource {
    /// Known beforehand, as in a test set.
    Given,
    /// A user's correction.
    Correction,
    /// A user's thumb up: the answer itself is the reference.
    Endorsement,
}

/// An answer that something outside the model holds to be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The text.
    pub text: String,
    /// Who says so.
    pub source: ReferenceSource,
}

/// Scores of one interaction. A later assessment of the same interaction supersedes an earlier one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// Its id.
    pub id: AssessmentId,
    /// What was assessed.
    pub interaction: InteractionId,
    /// When.
    pub at: Timestamp,
    /// The version whose answer it was.
    pub version: VersionNumber,
    /// 0 to 100 for each dimension that could be judged.
    pub scores: BTreeMap<String, f64>,
    /// Weighted mean of the scores, 0 to 100.
    pub overall: f64,
    /// What the score says should happen.
    pub label: Label,
    /// Cosine similarity of answer and reference, where there is a reference.
    pub similarity: Option<f64>,
    /// The text that accuracy was judged against; `None` where there is none, also where a verifier judged.
    pub reference: Option<Reference>,
    /// How many pieces of feedback of the interaction it took into account. More in the store than this means
    /// that some came in later, and that the interaction awaits another assessment.
    #[serde(default)]
    pub feedback_seen: u32,
    /// Name of the evaluator, e.g. `normalised_match`.
    pub evaluator: String,
    /// Its version.
    pub evaluator_version: String,
    /// One line a finding, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// The pattern that a low score was put with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<PatternId>,
}

impl Assessment {
    /// Whether accuracy was judged by something outside the model: there is a reference, or a score from a
    /// verifier or from feedback.
    pub fn is_judged(&self) -> bool {
        self.reference.is_some() || self.scores.contains_key(dimension::ACCURACY)
    }
}

/// A cluster of failures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorPattern {
    /// Its id.
    pub id: PatternId,
    /// A short name made from its members, e.g. `transfer answered as balance`.
    pub name: String,
    /// How many failures it holds.
    pub count: u64,
    /// When the first and the latest failure came in.
    pub first_at: Timestamp,
    /// See `first_at`.
    pub last_at: Timestamp,
    /// A few members, newest first.
    pub examples: Vec<InteractionId>,
    /// Mean embedding of its members' prompts.
    pub centroid: Vec<f32>,
}
