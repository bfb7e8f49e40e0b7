//! What a trace holds; `--json` prints it as it is.

use autoglm_domain::{
    Alias, AliasMove, ChatMessage, ContentHash, Experience, ExperienceId, Feedback, InteractionId,
    InteractionRecord, ModelVersion, Rollout, TrainingRun, VersionNumber,
};
use autoglm_train::Role;
use serde::Serialize;

/// Everything behind one thing. What does not apply is left out.
#[derive(Debug, Default, Serialize)]
pub(super) struct Trace {
    /// The request and its answer, what was said and found of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<InteractionRecord>,
    /// The experience that the answer was recalled from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) recalled: Option<Learned>,
    /// The experience that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) experience: Option<ExperienceTrace>,
    /// The run that was asked for, where it made no version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<TrainingRun>,
    /// The rollout that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rollout: Option<Rollout>,
    /// The version, then what it was trained from, back to the base model.
    pub(super) versions: Vec<VersionTrace>,
    /// What those versions learned from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) learned_from: Option<LearnedFrom>,
}

/// One version with what made it and what became of it.
#[derive(Debug, Serialize)]
pub(super) struct VersionTrace {
    /// The version.
    #[serde(flatten)]
    pub(super) version: ModelVersion,
    /// Names that point at it now.
    pub(super) aliases: Vec<Alias>,
    /// The run that made it.
    pub(super) made_by: Option<TrainingRun>,
    /// Examples of its snapshot that were new then.
    pub(super) new: usize,
    /// Examples of its snapshot that were replayed.
    pub(super) replayed: usize,
    /// Its ways through the gate.
    pub(super) rollouts: Vec<Rollout>,
    /// Moves of names to it and away from it.
    pub(super) moves: Vec<AliasMove>,
}

/// What versions learned from.
#[derive(Debug, Serialize)]
pub(super) struct LearnedFrom {
    /// Different experiences.
    pub(super) count: usize,
    /// Those that are shown: all of them, or the nearest to the question, or the newest.
    pub(super) experiences: Vec<Learned>,
}

/// An experience in a snapshot.
#[derive(Debug, Serialize)]
pub(super) struct Learned {
    /// Which.
    pub(super) id: ExperienceId,
    /// Likeness of its words to the question's, 0 to 1, where there is a question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) similarity: Option<f64>,
    /// Versions that trained on it, and whether it was new or replayed then.
    pub(super) trained: Vec<Training>,
    /// The conversation up to the answer.
    pub(super) prompt: Vec<ChatMessage>,
    /// The answer that was learned.
    pub(super) target: String,
    /// What vouches for it. `None` where the store does not hold it any more.
    pub(super) behind: Option<Behind>,
}

/// A version that trained on an experience.
#[derive(Debug, Serialize)]
pub(super) struct Training {
    /// Which.
    pub(super) version: VersionNumber,
    /// Whether it was new.
    pub(super) role: Role,
    /// The snapshot that it stands in.
    pub(super) snapshot: ContentHash,
}

/// What vouches for an experience.
#[derive(Debug, Serialize)]
pub(super) struct Behind {
    /// How much it counts now.
    pub(super) weight: f32,
    /// What verified it.
    pub(super) verifier: String,
    /// Whether it is kept for the gate.
    pub(super) held_out: bool,
    /// The interactions that it was made from.
    pub(super) interactions: Vec<InteractionId>,
    /// What was said of them that vouches for it.
    pub(super) feedback: Vec<Feedback>,
}

/// One experience, and what became of it.
#[derive(Debug, Serialize)]
pub(super) struct ExperienceTrace {
    /// The experience; its versions are those that trained on it.
    #[serde(flatten)]
    pub(super) learned: Learned,
    /// The client's name for the kind of job.
    pub(super) task: Option<String>,
    /// Later versions that were trained from one that trained on it.
    pub(super) descendants: Vec<VersionNumber>,
}

impl Learned {
    /// An experience without what is not known yet.
    pub(super) fn bare(experience: &Experience) -> Self {
        Self {
            id: experience.id,
            similarity: None,
            trained: Vec::new(),
            prompt: experience.prompt.clone(),
            target: experience.target.clone(),
            behind: None,
        }
    }
}
