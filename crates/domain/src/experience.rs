//! Something worth learning.

use serde::{Deserialize, Serialize};

use crate::{ChatMessage, ExperienceId, FeedbackId, InteractionId, Timestamp};

/// Number of a cluster of similar experiences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u32);

impl std::fmt::Display for ClusterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "c{}", self.0)
    }
}

/// What one principal says for or against an experience's target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vouch {
    /// Who.
    pub principal: String,
    /// How strongly, in thousandths of a correction; negative speaks against the target.
    pub permille: i32,
    /// When it was last said.
    pub at: Timestamp,
}

/// Where an experience came from and what vouches for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The interactions it was made from.
    pub interactions: Vec<InteractionId>,
    /// The feedback that vouches for its target.
    pub feedback: Vec<FeedbackId>,
    /// Who gave that feedback.
    pub principals: Vec<String>,
    /// What verified it: `correction`, `endorsement`, `reference`, or a verifier's name.
    pub verifier: String,
    /// What each principal adds to the weight, one entry a principal; the memory's write gate keeps it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vouches: Vec<Vouch>,
}

/// A prompt with an answer that something outside the model holds to be right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Experience {
    /// Its id.
    pub id: ExperienceId,
    /// When it was first remembered.
    pub at: Timestamp,
    /// The conversation up to the answer.
    pub prompt: Vec<ChatMessage>,
    /// The answer to learn.
    pub target: String,
    /// How much it counts; grows with agreement, falls to 0 when it is outvoted.
    pub weight: f32,
    /// Where it came from.
    pub provenance: Provenance,
    /// Unit length embedding of the prompt.
    pub embedding: Vec<f32>,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Kept for the gate's suites; never trained on.
    pub held_out: bool,
    /// The client's name for the kind of job, where it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
}

/// A change to an experience that was remembered before: duplicates merge, contradictions are weighed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExperienceAmendment {
    /// Which one.
    pub experience: ExperienceId,
    /// When.
    pub at: Timestamp,
    /// Its weight from now on.
    pub weight: f32,
    /// Its provenance from now on.
    pub provenance: Provenance,
}
