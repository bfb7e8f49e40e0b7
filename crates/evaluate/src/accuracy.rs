//! Accuracy: is the answer right, by something outside the model.
//!
//! In order: what must hold whatever the reference (`json_schema`, `regex` of the request's metadata); the
//! reference that the client gave (`reference`); else what people said. An answer is held to a reference by
//! equality first (exact, normalised, numeric, JSON), and by similarity of embeddings only where equality does
//! not decide.

use std::sync::Arc;

use autoglm_domain::{Embedder, Label, Reference, ReferenceSource, Result, dimension};
use serde::{Deserialize, Serialize};

use crate::{
    Grades,
    dimension::{Dimension, Judgement, Subject},
    opinion::{FeedbackScale, Stance},
    similarity::similarity,
    text::{excerpt_bytes, normalise, word_count},
    verify::{self, Check},
};

/// Settings of accuracy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccuracyConfig {
    /// Where similarity earns which score.
    pub grades: Grades,
    /// What feedback is worth.
    pub feedback: FeedbackScale,
    /// Whether `the transfer` and `transfer` are the same answer.
    pub ignore_articles: bool,
    /// Relative difference at which two numbers with a fraction are still the same.
    pub numeric_tolerance: f64,
    /// A reference of at most this many words is a label: equality decides, and a different answer never
    /// earns more than `short_label_cap`, however similar its embedding. 0 switches this off.
    pub short_label_words: usize,
    /// The best that a label other than the reference can earn.
    pub short_label_cap: Label,
    /// Whether a longer answer that holds a short reference word by word earns at least `needs_refinement`.
    pub grade_contained: bool,
    /// Most bytes of a regular expression in the request's metadata.
    pub regex_limit: usize,
    /// Most bytes of answer or reference that are embedded; longer texts are cut.
    pub embed_limit: usize,
}

impl Default for AccuracyConfig {
    fn default() -> Self {
        Self {
            grades: Grades::default(),
            feedback: FeedbackScale::default(),
            ignore_articles: true,
            numeric_tolerance: 1e-6,
            short_label_words: 4,
            short_label_cap: Label::NeedsRefinement,
            grade_contained: true,
            regex_limit: 1024,
            embed_limit: 8192,
        }
    }
}

/// The built-in dimension `accuracy`.
pub struct Accuracy {
    config: AccuracyConfig,
    embedder: Arc<dyn Embedder>,
}

impl Accuracy {
    /// Judges by `config`, with `embedder` for similarity.
    pub fn new(config: AccuracyConfig, embedder: Arc<dyn Embedder>) -> Self {
        Self { config, embedder }
    }

    fn against(&self, subject: &Subject<'_>, reference: Reference) -> Result<Judgement> {
        let config = &self.config;
        let answer = subject.answer;
        let mut judgement = Judgement::new(0.0, "empty_answer", Vec::new());
        if answer.trim().is_empty() && !reference.text.trim().is_empty() {
            judgement.findings.push("the answer is empty".into());
            judgement.reference = Some(reference);
            return Ok(judgement);
        }
        let tolerance = subject.metadata("tolerance").and_then(|text| text.parse::<f64>().ok());
        let tolerance = tolerance.filter(|tolerance| tolerance.is_finite() && *tolerance >= 0.0);
        let check = verify::equality(answer, &reference.text, tolerance, config);
        if let Check::Passed(by) = check {
            judgement.score = 100.0;
            judgement.by = by.into();
            judgement.reference = Some(reference);
            return Ok(judgement);
        }
        let cosine = similarity(
            self.embedder.as_ref(),
            excerpt_bytes(answer, config.embed_limit),
            excerpt_bytes(&reference.text, config.embed_limit),
        )?;
        let mut label = config.grades.label(cosine);
        judgement.similarity = Some(cosine);
        judgement.by = "semantic_similarity".into();
        if let Check::Failed(by, finding) = check {
            label = Label::ReviseLogic;
            judgement.by = by.into();
            judgement.findings.push(finding);
        } else if is_label(&reference.text, config.short_label_words) {
            judgement.by = "short_label".into();
            if rank(label) > rank(config.short_label_cap) {
                label = config.short_label_cap;
                judgement.findings.push(format!("similar to the reference ({cosine:.2}), but another label"));
            }
            if rank(label) < rank(Label::NeedsRefinement)
                && config.grade_contained
                && contains(answer, &reference.text, config)
            {
                label = Label::NeedsRefinement;
                judgement.by = "contains".into();
                judgement.findings.push("the answer holds the reference among other words".into());
            }
        }
        judgement.score = config.grades.score(label);
        judgement.reference = Some(reference);
        Ok(judgement)
    }

    /// What people said, where the client gave no reference.
    fn by_opinion(&self, subject: &Subject<'_>) -> Result<Option<Judgement>> {
        let Some(opinion) = &subject.opinion else { return Ok(None) };
        let mut judgement = match &opinion.stance {
            Stance::Endorsed { score } => {
                let mut judgement = Judgement::new(*score, "endorsement", Vec::new());
                judgement.reference =
                    Some(Reference { text: subject.answer.to_owned(), source: ReferenceSource::Endorsement });
                judgement
            }
            Stance::Corrected { text } => {
                self.against(subject, Reference { text: text.clone(), source: ReferenceSource::Correction })?
            }
            Stance::Rejected { score } => {
                Judgement::new(*score, "rejection", vec!["people hold the answer to be wrong".into()])
            }
        };
        judgement.findings.extend(opinion.findings.iter().cloned());
        Ok(Some(judgement))
    }
}

impl Dimension for Accuracy {
    fn name(&self) -> &str {
        dimension::ACCURACY
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Option<Judgement>> {
        let given = subject.metadata("reference");
        let judged = match given {
            Some(text) => {
                let reference = Reference { text: text.to_owned(), source: ReferenceSource::Given };
                let mut judgement = self.against(subject, reference)?;
                if let Some(Stance::Corrected { text: correction }) =
                    subject.opinion.as_ref().map(|o| &o.stance)
                    && verify::equality(correction, text, None, &self.config) == Check::Undecided
                {
                    judgement
                        .findings
                        .push("people correct to something other than the given reference".into());
                }
                Some(judgement)
            }
            None => self.by_opinion(subject)?,
        };
        let checks = verify::constraints(subject, self.config.regex_limit);
        let revise = self.config.grades.score(Label::ReviseLogic);
        Ok(combine(judged, checks, revise))
    }
}

/// A failed constraint caps what the reference said; passed ones alone are worth 100.
fn combine(judged: Option<Judgement>, checks: Vec<Check>, revise: f64) -> Option<Judgement> {
    let mut judgement = judged;
    for check in checks {
        match check {
            Check::Passed(by) => {
                judgement.get_or_insert_with(|| Judgement::new(100.0, by, Vec::new()));
            }
            Check::Failed(by, finding) => {
                let held = judgement.get_or_insert_with(|| Judgement::new(revise, by, Vec::new()));
                if held.score > revise || held.by != by {
                    held.score = held.score.min(revise);
                    held.by = by.into();
                }
                held.findings.push(finding);
            }
            Check::Undecided => {}
        }
    }
    judgement
}

/// Orders labels from worst to best.
fn rank(label: Label) -> u8 {
    match label {
        Label::ReviseLogic => 0,
        Label::NeedsRefinement => 1,
        Label::HighAccuracy => 2,
    }
}

/// Whether a reference is one of a closed set, going by its length. `transfer_money` counts as two words.
fn is_label(reference: &str, most_words: usize) -> bool {
    most_words > 0 && crate::text::words(reference).len() <= most_words && word_count(reference) <= most_words
}

fn contains(answer: &str, reference: &str, config: &AccuracyConfig) -> bool {
    let answer = normalise(answer, config.ignore_articles);
    let reference = normalise(reference, config.ignore_articles);
    let longer = answer.split(' ').count() > config.short_label_words.max(reference.split(' ').count());
    !reference.is_empty() && longer && format!(" {answer} ").contains(&format!(" {reference} "))
}
