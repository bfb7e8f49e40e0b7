//! The write gate: what in a record was verified by something outside the model.
//!
//! Comes in: an interaction with its feedback and assessment. Goes out: testimonies for or against a target,
//! or the reason why nothing may be remembered. A model's opinion of its own answer is no testimony.

use autoglm_domain::{
    AnswerSource, Feedback, FeedbackId, FinishReason, InteractionRecord, ReferenceSource, Thumb, Timestamp,
};

use crate::{Config, prompt_key::PromptKey};

/// Names the principal of references that were known beforehand.
pub(crate) const REFERENCE: &str = "reference";

/// Why a record was not remembered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing outside the model says what the answer should be.
    #[error("nothing outside the model says what the right answer is")]
    NotVerified,
    /// The prompt has no user turn with text in it.
    #[error("the prompt has no user turn with text in it")]
    NoPrompt,
    /// The prompt is too long.
    #[error("the prompt has {chars} characters, more than {limit} (`max_prompt_chars`)")]
    PromptTooLong {
        /// How long it is.
        chars: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The target is empty.
    #[error("the target is empty")]
    EmptyTarget,
    /// The target is too long.
    #[error("the target has {chars} characters, more than {limit} (`max_target_chars`)")]
    TargetTooLong {
        /// How long it is.
        chars: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The answer was endorsed, but it broke off.
    #[error("the endorsed answer broke off before its end")]
    Unfinished,
}

/// What a testimony says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Says {
    /// This target is right.
    For(String),
    /// This answer is wrong; what would be right is not known.
    Against(String),
}

/// One principal's word on a prompt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Testimony {
    pub(crate) says: Says,
    /// `correction`, `endorsement`, `reference` or `rejection`.
    pub(crate) verifier: &'static str,
    /// The feedback that it rests on.
    pub(crate) feedback: Option<FeedbackId>,
    pub(crate) principal: String,
    pub(crate) at: Timestamp,
    /// Corrections that it counts for.
    pub(crate) strength: f32,
    /// What is left of the strength where the prompt is remembered already: an answer that came from memory
    /// says nothing new when it is confirmed.
    pub(crate) repeat_strength: f32,
}

/// What a record brings.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Admission {
    pub(crate) key: PromptKey,
    /// In the order in which they were given; at least one.
    pub(crate) testimonies: Vec<Testimony>,
    /// Why the last testimony that was turned away was turned away.
    pub(crate) refusal: Option<Refusal>,
}

/// Reads a record.
pub(crate) fn admit(record: &InteractionRecord, config: &Config) -> Result<Admission, Refusal> {
    let interaction = &record.interaction;
    let chars = interaction.messages.iter().map(|message| message.content.chars().count()).sum();
    if chars > config.max_prompt_chars {
        return Err(Refusal::PromptTooLong { chars, limit: config.max_prompt_chars });
    }
    let key = PromptKey::of(&interaction.messages).ok_or(Refusal::NoPrompt)?;
    let mut testimonies = Vec::new();
    let mut refusal = None;
    let said = reference(record)
        .into_iter()
        .chain(record.feedback.iter().filter_map(|f| testimony(record, f, config)));
    for testimony in said {
        match check(&testimony, record, config) {
            Ok(()) => testimonies.push(testimony),
            Err(reason) => refusal = Some(reason),
        }
    }
    if testimonies.is_empty() {
        return Err(refusal.unwrap_or(Refusal::NotVerified));
    }
    Ok(Admission { key, testimonies, refusal })
}

fn check(testimony: &Testimony, record: &InteractionRecord, config: &Config) -> Result<(), Refusal> {
    let Says::For(target) = &testimony.says else { return Ok(()) };
    if target.trim().is_empty() {
        return Err(Refusal::EmptyTarget);
    }
    let chars = target.chars().count();
    if chars > config.max_target_chars {
        return Err(Refusal::TargetTooLong { chars, limit: config.max_target_chars });
    }
    let broke_off = record.interaction.finish_reason == FinishReason::Cancelled;
    if broke_off && testimony.verifier == "endorsement" { Err(Refusal::Unfinished) } else { Ok(()) }
}

/// A reference that was known beforehand.
fn reference(record: &InteractionRecord) -> Option<Testimony> {
    let assessment = record.assessment.as_ref()?;
    let reference = assessment.reference.as_ref().filter(|r| r.source == ReferenceSource::Given)?;
    Some(Testimony {
        says: Says::For(reference.text.trim().to_owned()),
        verifier: REFERENCE,
        feedback: None,
        principal: REFERENCE.to_owned(),
        at: assessment.at,
        strength: 1.0,
        repeat_strength: 1.0,
    })
}

/// What a piece of feedback says of right and wrong; `None` when it says nothing of it. A correction goes
/// before a thumb, a thumb before a grade.
fn testimony(record: &InteractionRecord, feedback: &Feedback, config: &Config) -> Option<Testimony> {
    let answer = record.interaction.answer.trim();
    let (says, verifier) = if let Some(correction) = &feedback.correction {
        (Says::For(correction.trim().to_owned()), "correction")
    } else {
        let right = match (feedback.thumb, feedback.score) {
            (Some(thumb), _) => thumb == Thumb::Up,
            (None, Some(score)) if score >= config.endorse_score => true,
            (None, Some(score)) if score <= config.reject_score => false,
            _ => return None,
        };
        let answer = answer.to_owned();
        if right { (Says::For(answer), "endorsement") } else { (Says::Against(answer), "rejection") }
    };
    let from_memory = matches!(record.interaction.source, AnswerSource::Memory { .. });
    let (strength, repeat_strength) = match verifier {
        "correction" => (1.0, 1.0),
        "endorsement" if from_memory => (config.echo_strength, config.repeat_echo_strength),
        _ => (config.endorsement_strength, config.endorsement_strength),
    };
    Some(Testimony {
        says,
        verifier,
        feedback: Some(feedback.id),
        principal: feedback.principal.clone(),
        at: feedback.at,
        strength,
        repeat_strength,
    })
}
