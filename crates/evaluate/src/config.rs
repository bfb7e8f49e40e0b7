//! Settings of an evaluator.

use std::{collections::BTreeMap, path::PathBuf};

use autoglm_domain::dimension;
use serde::{Deserialize, Serialize};

use crate::{
    DiffConfig, EvaluateError, JudgeConfig, accuracy::AccuracyConfig, consistency::ConsistencyConfig,
    logic::LogicConfig, patterns::PatternsConfig,
};

/// Settings of safety.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SafetyConfig {
    /// A TOML file of rules that replaces the built-in ones ([`crate::BUILT_IN_RULES`] shows the form).
    pub rules: Option<PathBuf>,
}

/// Settings of an [`crate::Evaluator`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The dimensions that are judged, in order.
    pub dimensions: Vec<String>,
    /// Weight of each dimension in the overall score; 1 where none is named.
    pub weights: BTreeMap<String, f64>,
    /// A score below this caps the overall score at it and the label at `revise_logic`: an unsafe answer is
    /// not redeemed by being right.
    pub veto_below: BTreeMap<String, f64>,
    /// Settings of accuracy.
    pub accuracy: AccuracyConfig,
    /// Settings of consistency.
    pub consistency: ConsistencyConfig,
    /// Settings of logic.
    pub logic: LogicConfig,
    /// Settings of safety.
    pub safety: SafetyConfig,
    /// Settings of the error patterns.
    pub patterns: PatternsConfig,
    /// Settings of the comparison of two versions' answers.
    pub diff: DiffConfig,
    /// A model that compares two versions' answers.
    pub judge: JudgeConfig,
}

impl Default for Config {
    fn default() -> Self {
        let named =
            |pairs: &[(&str, f64)]| pairs.iter().map(|(name, value)| ((*name).into(), *value)).collect();
        Self {
            dimensions: [dimension::ACCURACY, dimension::LOGIC, dimension::SAFETY, dimension::CONSISTENCY]
                .map(String::from)
                .to_vec(),
            weights: named(&[
                (dimension::ACCURACY, 7.0),
                (dimension::LOGIC, 1.0),
                (dimension::SAFETY, 1.0),
                (dimension::CONSISTENCY, 1.0),
            ]),
            veto_below: named(&[(dimension::SAFETY, 50.0)]),
            accuracy: AccuracyConfig::default(),
            consistency: ConsistencyConfig::default(),
            logic: LogicConfig::default(),
            safety: SafetyConfig::default(),
            patterns: PatternsConfig::default(),
            diff: DiffConfig::default(),
            judge: JudgeConfig::default(),
        }
    }
}

impl Config {
    /// Checks every number against its range; the error names the first that breaks it.
    pub fn validate(&self) -> Result<(), EvaluateError> {
        const SCORE: &str = "within 0 to 100";
        const POSITIVE: &str = "a finite number from 0 on";
        let check = |key: &str, value: f64, range: &'static str, holds: bool| {
            if holds {
                Ok(())
            } else {
                Err(EvaluateError::Range { key: key.into(), value: value.to_string(), range })
            }
        };
        let score = |key: &str, value: f64| check(key, value, SCORE, (0.0..=100.0).contains(&value));
        let positive = |key: &str, value: f64| check(key, value, POSITIVE, value.is_finite() && value >= 0.0);
        let cosine =
            |key: &str, value: f64| check(key, value, "within -1 to 1", (-1.0..=1.0).contains(&value));

        for (name, weight) in &self.weights {
            positive(&format!("weights.{name}"), *weight)?;
        }
        for (name, floor) in &self.veto_below {
            score(&format!("veto_below.{name}"), *floor)?;
        }
        let grades = &self.accuracy.grades;
        cosine("accuracy.grades.high_similarity", grades.high_similarity)?;
        cosine("accuracy.grades.refine_similarity", grades.refine_similarity)?;
        check(
            "accuracy.grades.refine_similarity",
            grades.refine_similarity,
            "at most high_similarity",
            grades.refine_similarity <= grades.high_similarity,
        )?;
        score("accuracy.grades.high_score", grades.high_score)?;
        score("accuracy.grades.refine_score", grades.refine_score)?;
        score("accuracy.grades.revise_score", grades.revise_score)?;
        let ordered = grades.revise_score <= grades.refine_score && grades.refine_score <= grades.high_score;
        check(
            "accuracy.grades.refine_score",
            grades.refine_score,
            "between revise_score and high_score",
            ordered,
        )?;
        positive("accuracy.numeric_tolerance", self.accuracy.numeric_tolerance)?;
        let feedback = &self.accuracy.feedback;
        score("accuracy.feedback.thumb_up", feedback.thumb_up)?;
        score("accuracy.feedback.thumb_down", feedback.thumb_down)?;
        score("accuracy.feedback.endorse_from", feedback.endorse_from)?;
        for (name, scale) in &feedback.metrics {
            let differ = scale.best.is_finite() && scale.worst.is_finite() && scale.best != scale.worst;
            let key = format!("accuracy.feedback.metrics.{name}.best");
            check(&key, scale.best, "a finite number other than worst", differ)?;
        }
        positive("consistency.fact_weight", self.consistency.fact_weight)?;
        positive("consistency.numeric_tolerance", self.consistency.numeric_tolerance)?;
        let logic = &self.logic;
        for (key, value) in [
            ("logic.format_penalty", logic.format_penalty),
            ("logic.unbalanced_penalty", logic.unbalanced_penalty),
            ("logic.repetition_penalty", logic.repetition_penalty),
            ("logic.cut_off_penalty", logic.cut_off_penalty),
            ("logic.contradiction_penalty", logic.contradiction_penalty),
        ] {
            score(key, value)?;
        }
        check(
            "logic.agreement_overlap",
            logic.agreement_overlap,
            "within 0 to 1",
            (0.0..=1.0).contains(&logic.agreement_overlap),
        )?;
        check("logic.resamples", logic.resamples as f64, "at most 16", logic.resamples <= 16)?;
        positive("logic.resample_temperature", f64::from(logic.resample_temperature))?;
        self.diff.check()?;
        check("judge.share", self.judge.share, "within 0 to 1", (0.0..=1.0).contains(&self.judge.share))?;
        check(
            "judge.max_tokens",
            f64::from(self.judge.max_tokens),
            "at least 1",
            self.judge.max_tokens >= 1,
        )?;
        check("judge.timeout_ms", self.judge.timeout_ms as f64, "at least 1", self.judge.timeout_ms >= 1)?;
        check("judge.queue", self.judge.queue as f64, "at least 1", self.judge.queue >= 1)?;
        check("judge.concurrency", self.judge.concurrency as f64, "at least 1", self.judge.concurrency >= 1)?;
        cosine("judge.min_kappa", self.judge.min_kappa)?;
        score("patterns.below", self.patterns.below)?;
        cosine("patterns.join_similarity", self.patterns.join_similarity)?;
        cosine("patterns.merge_similarity", self.patterns.merge_similarity)?;
        check("patterns.most", self.patterns.most as f64, "at least 1", self.patterns.most >= 1)
    }
}
