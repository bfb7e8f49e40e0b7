//! One answer as the analysis sees it.

use std::collections::BTreeMap;

use autoglm_domain::{AnswerTraits, InteractionRecord, Preference, ShadowAnswer, ShadowPair, Thumb};

/// Which version answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arm {
    /// The one that answered users when the rollout began.
    Champion,
    /// The new one.
    Candidate,
}

/// What users said of one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Said {
    /// Somebody liked it.
    pub thumb_up: bool,
    /// Somebody did not.
    pub thumb_down: bool,
    /// Somebody said what would have been right.
    pub correction: bool,
}

/// One answer, whatever it was made from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    /// 0 to 100 for each dimension that could be judged.
    pub scores: BTreeMap<String, f64>,
    /// Their weighted mean.
    pub overall: Option<f64>,
    /// Whether it failed: an error, the deadline, a stream that broke off.
    pub failed: bool,
    /// What stands out in it.
    pub traits: AnswerTraits,
    /// From request to last token; of a failure, to the failure.
    pub latency_ms: f64,
    /// Tokens of the answer.
    pub tokens: u32,
    /// What users said; `None` where no user saw it.
    pub said: Option<Said>,
}

impl Observation {
    /// One side of a pair. Nobody saw the candidate's, so neither side carries what users said.
    pub fn of_answer(answer: &ShadowAnswer, traits: &AnswerTraits) -> Self {
        Self {
            scores: answer.scores.clone(),
            overall: answer.overall,
            failed: answer.error.is_some(),
            traits: traits.clone(),
            latency_ms: answer.latency_ms,
            tokens: answer.usage.completion_tokens,
            said: None,
        }
    }

    /// An answer that a user got, with what the diff engine found in it (`Differ::traits`).
    pub fn of_record(record: &InteractionRecord, traits: AnswerTraits) -> Self {
        let feedback = &record.feedback;
        let thumb = |thumb| feedback.iter().any(|it| it.thumb == Some(thumb));
        let assessment = record.assessment.as_ref();
        Self {
            scores: assessment.map(|it| it.scores.clone()).unwrap_or_default(),
            overall: assessment.map(|it| it.overall),
            failed: false,
            traits,
            latency_ms: record.interaction.latency_ms,
            tokens: record.interaction.usage.completion_tokens,
            said: Some(Said {
                thumb_up: thumb(Thumb::Up),
                thumb_down: thumb(Thumb::Down),
                correction: feedback.iter().any(|it| it.correction.is_some()),
            }),
        }
    }

    /// An answer that never came: requests that failed leave no interaction, but count.
    pub fn of_failure(latency_ms: f64) -> Self {
        Self { failed: true, latency_ms, ..Self::default() }
    }
}

/// Both sides of a pair, and what a judge prefers.
pub(crate) struct Sides {
    pub(crate) champion: Observation,
    pub(crate) candidate: Observation,
    pub(crate) preference: Option<Preference>,
}

impl From<&ShadowPair> for Sides {
    fn from(pair: &ShadowPair) -> Self {
        Self {
            champion: Observation::of_answer(&pair.champion, &pair.diff.champion),
            candidate: Observation::of_answer(&pair.candidate, &pair.diff.candidate),
            preference: pair.preference,
        }
    }
}
