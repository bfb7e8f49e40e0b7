//! What differs between two answers to one request.
//!
//! In: the request with the champion's answer (an `Interaction`) and both answers (`ShadowAnswer`s). Out: a
//! `PairDiff`. [`Differ`] puts it together from its parts: normal form, JSON by path, tool calls by name and
//! arguments, embeddings, length, refusal, form, leaks. Nothing here fails: what cannot be compared is left out.
//!
//! [`record_of_candidate`] is what an evaluator has to be given to score the candidate's answer. [`PairJudge`]
//! is for where a model may compare; [`prefer`] asks it twice and [`Agreement`] says how far to trust it.

mod agreement;
mod candidate;
mod differ;
mod form;
mod judge;
mod refusal;
mod structure;
mod tools;

pub use agreement::{Agreement, Labelled, agreement_with};
pub use candidate::record_of_candidate;
pub use differ::{DiffConfig, Differ};
pub use judge::{GeneratorJudge, JudgeConfig, PairJudge, Place, prefer};
pub use refusal::is_refusal;
