//! What can be judged about an answer, as a trait that others implement too.

use autoglm_domain::{ChatMessage, InteractionRecord, Reference, Result, Role};

use crate::{
    format::{self, Requirement},
    opinion::Opinion,
};

/// An interaction as a [`Dimension`] sees it: the record and what was made out of it once for all.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The request, its answer, and what was said of it.
    pub record: &'a InteractionRecord,
    /// The last user turn; empty when there is none.
    pub prompt: &'a str,
    /// The answer.
    pub answer: &'a str,
    /// The facts that came with the request, where any did.
    pub context: Option<String>,
    /// System prompts that are no context.
    pub instructions: Vec<&'a str>,
    /// The form that the request asks for.
    pub requirements: Vec<Requirement>,
    /// The weighed feedback.
    pub opinion: Option<Opinion>,
    /// More answers of the same version to the same request; empty unless re-sampling is on.
    pub samples: Vec<String>,
}

impl<'a> Subject<'a> {
    /// Reads `record`; `opinion` is the weighed feedback.
    pub fn new(record: &'a InteractionRecord, opinion: Option<Opinion>) -> Self {
        let interaction = &record.interaction;
        let messages = &interaction.messages;
        let last_user = messages.iter().rev().find(|message| message.role == Role::User);
        let prompt = last_user.map_or("", |message| message.content.as_str());
        let mut context: Vec<&str> = Vec::new();
        let mut instructions = Vec::new();
        context.extend(interaction.metadata.get("context").map(String::as_str));
        for message in messages {
            match context_in(message) {
                Some(found) => context.push(found),
                None if message.role == Role::System => instructions.push(message.content.as_str()),
                None => {}
            }
        }
        let mut requirements = format::requirements(instructions.iter().copied().chain([prompt]));
        if let Some(asked) =
            interaction.metadata.get("response_format").and_then(|f| format::from_response_format(f))
            && !requirements.contains(&asked)
        {
            requirements.push(asked);
        }
        let context = context.join("\n");
        Self {
            record,
            prompt,
            answer: &interaction.answer,
            context: (!context.trim().is_empty()).then_some(context),
            instructions,
            requirements,
            opinion,
            samples: Vec::new(),
        }
    }

    /// A value of the request's metadata.
    pub fn metadata(&self, key: &str) -> Option<&'a str> {
        self.record.interaction.metadata.get(key).map(String::as_str).filter(|value| !value.trim().is_empty())
    }
}

/// The facts in a message: what stands between `<context>` and `</context>`, or a whole system message that
/// begins with `context:`.
fn context_in(message: &ChatMessage) -> Option<&str> {
    let text = message.content.as_str();
    if let Some((_, rest)) = text.split_once("<context>")
        && let Some((inside, _)) = rest.split_once("</context>")
    {
        return Some(inside);
    }
    let head = text.trim_start();
    let marked = message.role == Role::System
        && head.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("context:"));
    if marked { head.get(8..) } else { None }
}

/// What a [`Dimension`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// 0 to 100; anything else is clamped, NaN counts as 0.
    pub score: f64,
    /// One line a finding, for people. They hold no secrets that the answer holds.
    pub findings: Vec<String>,
    /// What decided, e.g. `normalised_match`.
    pub by: String,
    /// Cosine of answer and reference, where it was taken.
    pub similarity: Option<f64>,
    /// What the answer was judged against, where something outside the model spoke.
    pub reference: Option<Reference>,
}

impl Judgement {
    /// A judgement without similarity or reference.
    pub fn new(score: f64, by: impl Into<String>, findings: Vec<String>) -> Self {
        Self { score, findings, by: by.into(), similarity: None, reference: None }
    }
}

/// One thing that an answer is judged by. Same subject, same judgement.
pub trait Dimension: Send + Sync {
    /// Its name in settings and assessments, e.g. `accuracy`.
    fn name(&self) -> &str;

    /// Judges; `None` when this dimension has nothing to say of the subject. An error leaves the dimension
    /// out of the assessment, unless it is `Unavailable`: then the assessment is put off.
    fn judge(&self, subject: &Subject<'_>) -> Result<Option<Judgement>>;
}
