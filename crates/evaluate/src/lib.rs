//! Interactions to assessments: what an answer was worth.
//!
//! In: [`autoglm_domain::InteractionRecord`]s (a request, its answer, and what was said of it). Out:
//! [`autoglm_domain::Assessment`]s with a score from 0 to 100 for each dimension that could be judged, and
//! [`autoglm_domain::ErrorPattern`]s that low scores gather in.
//!
//! Start at [`Evaluator`]: [`Evaluator::assess`] judges one interaction, [`Evaluator::assess_pending`] is the
//! step that the learning loop repeats. Dimensions are [`Dimension`]s; accuracy, logic, safety and consistency
//! are built in. Nothing here writes, and nothing but the file of safety rules is read from disk; embeddings and
//! further answers come through the ports `Embedder` and `Generator`.
//!
//! [`Differ`] compares the answers that two versions gave to one request (folder `diff`).
//!
//! Of a request's metadata these keys are understood: `reference` (the right answer), `tolerance` (relative, for
//! numbers), `json_schema`, `regex` (what any answer must satisfy), `response_format` (`json…`), `context`.

mod evaluator;
mod pending;

mod accuracy;
mod consistency;
mod logic;
mod safety;

mod diff;

mod dimension;
mod format;
mod opinion;
mod patterns;
mod rules;
mod verify;

mod number;
mod pattern_name;
mod pattern_source;
mod similarity;
mod text;

mod config;
mod error;

pub use accuracy::{Accuracy, AccuracyConfig};
pub use config::{Config, SafetyConfig};
pub use consistency::{Consistency, ConsistencyConfig};
pub use diff::{
    Agreement, DiffConfig, Differ, GeneratorJudge, JudgeConfig, Labelled, PairJudge, Place, agreement_with,
    is_refusal, prefer, record_of_candidate,
};
pub use dimension::{Dimension, Judgement, Subject};
pub use error::EvaluateError;
pub use evaluator::Evaluator;
pub use format::{Requirement, from_response_format, requirements};
pub use logic::{Logic, LogicConfig};
pub use number::{Quantity, agree, find_all, parse};
pub use opinion::{FeedbackScale, MetricScale, Opinion, Stance, weigh};
pub use patterns::{Failure, Growth, Patterns, PatternsConfig};
pub use pending::Batch;
pub use rules::{AppliesTo, BUILT_IN_RULES, BuiltInCheck, Rule, RuleSet};
pub use safety::Safety;
pub use similarity::{Grades, cosine, similarity};
pub use text::normalise;
pub use verify::{Check, equality, json_schema};
