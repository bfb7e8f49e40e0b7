//! Logic: does the answer parse, keep the form that was asked for, say anything, and agree with itself.
//!
//! In: answer, [`Requirement`]s and re-sampled answers. Out: 100 less a penalty a fault.

use std::collections::HashSet;

use autoglm_domain::{FinishReason, Result, dimension};
use serde::{Deserialize, Serialize};

use crate::{
    dimension::{Dimension, Judgement, Subject},
    format::Requirement,
    text::{normalise, overlap, words},
};

/// Settings of logic. Penalties are points off 100.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogicConfig {
    /// For each part of the requested form that the answer does not have.
    pub format_penalty: f64,
    /// For code fences, brackets or quotes that do not close.
    pub unbalanced_penalty: f64,
    /// For saying the same thing over and over.
    pub repetition_penalty: f64,
    /// For an answer that was cut off by the token limit.
    pub cut_off_penalty: f64,
    /// For re-sampled answers that all say something else; scaled by their share.
    pub contradiction_penalty: f64,
    /// From this share of common words on, two long answers agree.
    pub agreement_overlap: f64,
    /// How many more answers are sampled to see whether the model contradicts itself; 0 is off.
    pub resamples: usize,
    /// Temperature of the re-sampling.
    pub resample_temperature: f32,
    /// Most tokens of a re-sampled answer.
    pub resample_max_tokens: u32,
}

impl Default for LogicConfig {
    fn default() -> Self {
        Self {
            format_penalty: 60.0,
            unbalanced_penalty: 20.0,
            repetition_penalty: 50.0,
            cut_off_penalty: 10.0,
            contradiction_penalty: 50.0,
            agreement_overlap: 0.5,
            resamples: 0,
            resample_temperature: 0.7,
            resample_max_tokens: 256,
        }
    }
}

/// Most bytes of an answer that are looked at for repetition.
const REPETITION_LIMIT: usize = 64 * 1024;

/// The built-in dimension `logic`.
pub struct Logic {
    config: LogicConfig,
}

impl Logic {
    /// Judges by `config`.
    pub fn new(config: LogicConfig) -> Self {
        Self { config }
    }

    /// How far `answer` and `samples` say the same, with the finding where they do not.
    fn agreement(&self, answer: &str, samples: &[String]) -> Option<(f64, String)> {
        if samples.is_empty() {
            return None;
        }
        let plain = normalise(answer, true);
        let agrees = |sample: &&String| {
            let other = normalise(sample, true);
            let long = plain.split(' ').count().min(other.split(' ').count()) > 4;
            plain == other || long && overlap(&plain, &other) >= self.config.agreement_overlap
        };
        let agreeing = samples.iter().filter(agrees).count();
        let finding = format!("{agreeing} of {} re-sampled answers agree", samples.len());
        Some((agreeing as f64 / samples.len() as f64, finding))
    }
}

impl Dimension for Logic {
    fn name(&self) -> &str {
        dimension::LOGIC
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Option<Judgement>> {
        let config = &self.config;
        let answer = subject.answer;
        if answer.trim().is_empty() {
            return Ok(Some(Judgement::new(0.0, "form", vec!["the answer is empty".into()])));
        }
        let mut score = 100.0;
        let mut findings = Vec::new();
        let mut fault = |points: f64, finding: String| {
            score -= points;
            findings.push(finding);
        };
        for requirement in &subject.requirements {
            if let Some(violation) = requirement.violation(answer) {
                fault(config.format_penalty, violation);
            }
        }
        if !subject.requirements.contains(&Requirement::Json)
            && let Some(finding) = unbalanced(answer)
        {
            fault(config.unbalanced_penalty, finding);
        }
        if let Some(finding) = repetition(answer) {
            fault(config.repetition_penalty, finding);
        }
        if subject.record.interaction.finish_reason == FinishReason::Length {
            fault(config.cut_off_penalty, "the answer was cut off at the token limit".into());
        }
        if let Some((agreement, finding)) = self.agreement(answer, &subject.samples)
            && agreement < 1.0
        {
            fault((1.0 - agreement) * config.contradiction_penalty, finding);
        }
        Ok(Some(Judgement::new(f64::max(score, 0.0), "form", findings)))
    }
}

/// The first thing that is opened and never closed, or closed and never opened. In prose a `)` that was never
/// opened is a list mark or a face, and quotes may be inches, so only fences, `{}` and `[]` are held to this
/// there; code in fences is left to its own language.
fn unbalanced(answer: &str) -> Option<String> {
    let fences = answer.lines().filter(|line| line.trim_start().starts_with("```")).count();
    if fences % 2 == 1 {
        return Some("a code fence does not close".into());
    }
    let mut inside_fence = false;
    let mut open: Vec<char> = Vec::new();
    let mut code_quotes = 0usize;
    for line in answer.lines() {
        if line.trim_start().starts_with("```") {
            inside_fence = !inside_fence;
            continue;
        }
        if inside_fence {
            continue;
        }
        code_quotes += line.matches('`').count();
        // Brackets between back-quotes are quoted text.
        for plain in line.split('`').step_by(2) {
            for c in plain.chars() {
                match c {
                    '{' | '[' => open.push(c),
                    '}' | ']' => {
                        let wanted = if c == '}' { '{' } else { '[' };
                        if open.pop() != Some(wanted) {
                            return Some(format!("`{c}` closes what was not opened"));
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    if let Some(c) = open.pop() {
        return Some(format!("`{c}` does not close"));
    }
    (code_quotes % 2 == 1).then(|| "a back-quote does not close".into())
}

/// Whether an answer goes round in circles: one character, one line, or the same groups of four words.
fn repetition(answer: &str) -> Option<String> {
    let answer = crate::text::excerpt_bytes(answer, REPETITION_LIMIT);
    let mut run = 0usize;
    let mut last = None;
    for c in answer.chars() {
        run = if Some(c) == last { run + 1 } else { 1 };
        last = Some(c);
        if run > 40 && c.is_alphanumeric() {
            return Some("one character is repeated over and over".into());
        }
    }
    let words = words(answer);
    if words.len() >= 24 {
        let groups = words.len() - 3;
        let distinct: HashSet<&[String]> = words.windows(4).collect();
        if distinct.len() * 2 < groups {
            return Some(format!(
                "{} of {groups} groups of four words are repetitions",
                groups - distinct.len()
            ));
        }
    }
    let short_loop = words.len() >= 8 && words.iter().collect::<HashSet<_>>().len() * 4 <= words.len();
    short_loop.then(|| "the same few words are repeated over and over".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_close_is_found() {
        for (text, expected) in [
            ("```rust\nfn main() {", Some("a code fence does not close")),
            ("```\nlet x = [;\n```", None),
            ("a [link](x)", None),
            ("a [link", Some("`[` does not close")),
            ("see ]", Some("`]` closes what was not opened")),
            ("{[}]", Some("`}` closes what was not opened")),
            ("1) one :) 2) two", None),
            ("type `[` to open", None),
            ("type ` to open", Some("a back-quote does not close")),
            ("a 5\" screen", None),
        ] {
            assert_eq!(unbalanced(text).as_deref(), expected, "{text}");
        }
        assert!(unbalanced(&"[".repeat(1_000_000)).is_some());
    }

    #[test]
    fn going_round_in_circles_is_found() {
        assert!(repetition(&"the cat sat on the mat and ".repeat(10)).is_some());
        assert!(repetition(&"a".repeat(50)).is_some());
        assert!(repetition("no no no no no no no no").is_some());
        assert!(repetition("a rule: ----------------------------------------------------------").is_none());
        assert!(repetition("transfer").is_none());
        let prose = "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age \
                     of foolishness, it was the epoch of belief, it was the epoch of incredulity.";
        assert!(repetition(prose).is_none());
    }

    #[test]
    fn agreement_is_the_share_of_samples_that_say_the_same() {
        let logic = Logic::new(LogicConfig::default());
        let samples = ["Transfer!".to_owned(), "balance".to_owned(), "transfer".to_owned(), String::new()];
        let (share, finding) = logic.agreement("transfer", &samples).unwrap();
        assert_eq!((share, finding.as_str()), (0.5, "2 of 4 re-sampled answers agree"));
        assert_eq!(logic.agreement("transfer", &[]), None);
    }
}
