//! What happened: the closed list of things that are ever written down.

use serde::{Deserialize, Serialize};

use crate::{
    AbTest, AliasMove, Assessment, ErrorPattern, Experience, ExperienceAmendment, Feedback, Interaction,
    ModelVersion, Rollout, RolloutProgress, ShadowPair, Timestamp, TrainingRun,
};

/// One thing that happened. Appending events is the only way that the store changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event", content = "data")]
pub enum Event {
    /// A request was answered.
    Interaction(Box<Interaction>),
    /// Somebody said something of an answer.
    Feedback(Feedback),
    /// An answer was judged.
    Assessment(Assessment),
    /// A pattern of failures was found or grew; replaces the one with the same id.
    Pattern(ErrorPattern),
    /// Something worth learning was remembered.
    Experience(Box<Experience>),
    /// A remembered experience gained or lost weight.
    ExperienceAmended(ExperienceAmendment),
    /// A training run changed state; replaces the one with the same id.
    Run(Box<TrainingRun>),
    /// A version was registered.
    Version(Box<ModelVersion>),
    /// A rollout changed state; replaces the one with the same id.
    Rollout(Box<Rollout>),
    /// A candidate answered beside the champion, or such a pair was judged; replaces the one with the same id.
    ShadowPair(Box<ShadowPair>),
    /// A rollout on live traffic was looked at.
    RolloutProgress(Box<RolloutProgress>),
    /// A test of versions changed state, or more answers are counted; replaces the one with the same id.
    AbTest(Box<AbTest>),
    /// An alias moved.
    AliasMoved(AliasMove),
}

impl Event {
    /// The event's name as it is stored.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Interaction(_) => "interaction",
            Self::Feedback(_) => "feedback",
            Self::Assessment(_) => "assessment",
            Self::Pattern(_) => "pattern",
            Self::Experience(_) => "experience",
            Self::ExperienceAmended(_) => "experience_amended",
            Self::Run(_) => "run",
            Self::Version(_) => "version",
            Self::Rollout(_) => "rollout",
            Self::ShadowPair(_) => "shadow_pair",
            Self::RolloutProgress(_) => "rollout_progress",
            Self::AbTest(_) => "ab_test",
            Self::AliasMoved(_) => "alias_moved",
        }
    }
}

impl Event {
    /// When it happened; a pattern is as old as its latest failure.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Interaction(it) => it.at,
            Self::Feedback(it) => it.at,
            Self::Assessment(it) => it.at,
            Self::Pattern(it) => it.last_at,
            Self::Experience(it) => it.at,
            Self::ExperienceAmended(it) => it.at,
            Self::Run(it) => it.at,
            Self::Version(it) => it.at,
            Self::Rollout(it) => it.at,
            Self::ShadowPair(it) => it.at,
            Self::RolloutProgress(it) => it.at,
            Self::AbTest(it) => it.at,
            Self::AliasMoved(it) => it.at,
        }
    }

    /// What it says as JSON for readers outside, who get no embeddings and centroids: the lists are empty.
    pub fn data(&self) -> serde_json::Result<serde_json::Value> {
        use serde_json::to_value;
        match self {
            Self::Interaction(it) => to_value(it),
            Self::Feedback(it) => to_value(it),
            Self::Assessment(it) => to_value(it),
            Self::Pattern(it) => to_value(ErrorPattern { centroid: Vec::new(), ..it.clone() }),
            Self::Experience(it) => to_value(Experience { embedding: Vec::new(), ..(**it).clone() }),
            Self::ExperienceAmended(it) => to_value(it),
            Self::Run(it) => to_value(it),
            Self::Version(it) => to_value(it),
            Self::Rollout(it) => to_value(it),
            Self::ShadowPair(it) => to_value(it),
            Self::RolloutProgress(it) => to_value(it),
            Self::AbTest(it) => to_value(it),
            Self::AliasMoved(it) => to_value(it),
        }
    }
}

/// An event with its place in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedEvent {
    /// Position, from 1, without gaps within one store.
    pub seq: i64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}
