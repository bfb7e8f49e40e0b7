//! Which topic an event goes to, and under which key.

use std::fmt;

use autoglm_domain::{Event, RolloutState};

/// A topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Requests and their answers.
    Interactions,
    /// What was said of answers.
    Feedback,
    /// What answers were worth.
    Assessments,
    /// Requests that two versions answered.
    ShadowPairs,
    /// Rollouts that ended with a verdict.
    Verdicts,
    /// Everything else that happened: alias moves, versions, runs, rollouts on their way, what was remembered.
    Audit,
}

/// Every topic.
pub const TOPICS: [Topic; 6] = [
    Topic::Interactions,
    Topic::Feedback,
    Topic::Assessments,
    Topic::ShadowPairs,
    Topic::Verdicts,
    Topic::Audit,
];

impl Topic {
    /// Its name, without a prefix.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interactions => "interactions",
            Self::Feedback => "feedback",
            Self::Assessments => "assessments",
            Self::ShadowPairs => "shadow_pairs",
            Self::Verdicts => "verdicts",
            Self::Audit => "audit",
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The topic of an event.
pub fn topic(event: &Event) -> Topic {
    match event {
        Event::Interaction(_) => Topic::Interactions,
        Event::Feedback(_) => Topic::Feedback,
        Event::Assessment(_) => Topic::Assessments,
        Event::ShadowPair(_) => Topic::ShadowPairs,
        Event::Rollout(it) if matches!(it.state, RolloutState::Decided { .. }) => Topic::Verdicts,
        _ => Topic::Audit,
    }
}

/// The key of an event: what shares a key keeps its order within a topic. A conversation has its session's, what is said
/// and found of an answer the answer's, a candidate's way the rollout's.
pub fn key(event: &Event) -> String {
    match event {
        Event::Interaction(it) => it.session.clone().unwrap_or_else(|| it.id.to_string()),
        Event::Feedback(it) => it.interaction.to_string(),
        Event::Assessment(it) => it.interaction.to_string(),
        Event::Pattern(it) => it.id.to_string(),
        Event::Experience(it) => it.id.to_string(),
        Event::ExperienceAmended(it) => it.experience.to_string(),
        Event::Run(it) => it.id.to_string(),
        Event::Version(it) => it.number.to_string(),
        Event::Rollout(it) => it.id.to_string(),
        Event::ShadowPair(it) => it.interaction.to_string(),
        Event::RolloutProgress(it) => it.rollout.to_string(),
        Event::AbTest(it) => it.id.to_string(),
        Event::AliasMoved(it) => it.alias.to_string(),
    }
}
