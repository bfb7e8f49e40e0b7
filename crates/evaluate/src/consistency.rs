//! Factual consistency: is the answer borne out by the facts that came with the request.
//!
//! In: the request's context (metadata `context`, a system message that begins with `context:`, or
//! `<context>…</context>` in any message). Out: the share of the answer's content that the context or the
//! question contains, where numbers and names count more than other words.
//!
//! This sees words, not meaning. It cannot tell that a supported word is used in a false statement ("not"),
//! it does not know synonyms, paraphrase lowers the score, and names are recognised by capital letters, so not
//! in scripts without them and not at the start of a sentence.

use std::collections::BTreeSet;

use autoglm_domain::{Result, dimension};
use serde::{Deserialize, Serialize};

use crate::{
    dimension::{Dimension, Judgement, Subject},
    number::{self, Quantity},
    text::{excerpt, excerpt_bytes, fold, is_stop_word, stem, words},
};

/// Settings of consistency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsistencyConfig {
    /// How many ordinary words a number or a name counts for.
    pub fact_weight: f64,
    /// Relative difference at which two numbers are still the same.
    pub numeric_tolerance: f64,
    /// Most unsupported facts that are named in the findings.
    pub most_findings: usize,
    /// Most bytes of context that are read.
    pub context_limit: usize,
}

impl Default for ConsistencyConfig {
    fn default() -> Self {
        Self { fact_weight: 3.0, numeric_tolerance: 0.005, most_findings: 8, context_limit: 1 << 20 }
    }
}

/// The built-in dimension `consistency`.
pub struct Consistency {
    config: ConsistencyConfig,
}

impl Consistency {
    /// Judges by `config`.
    pub fn new(config: ConsistencyConfig) -> Self {
        Self { config }
    }

    /// Share of `answer` that `sources` support, 0 to 1, with the unsupported facts; `None` where the answer
    /// holds nothing that could be checked.
    fn support(&self, answer: &str, sources: &str) -> Option<(f64, Vec<String>)> {
        let source_words = words(sources);
        let known: BTreeSet<&str> = source_words.iter().map(|word| stem(word)).collect();
        let numbers = number::find_all(sources);
        let mut findings = Vec::new();
        let (mut supported, mut total) = (0.0, 0.0);

        for given in number::find_all(answer) {
            total += self.config.fact_weight;
            if numbers.iter().any(|source| self.same_number(source, &given)) {
                supported += self.config.fact_weight;
            } else {
                findings.push(format!("the number {} is not in the context", given.written));
            }
        }
        for name in names(answer) {
            total += self.config.fact_weight;
            if known.contains(stem(&fold(&name))) {
                supported += self.config.fact_weight;
            } else {
                findings.push(format!("the name `{}` is not in the context", excerpt(&name, 40)));
            }
        }
        for word in words(answer) {
            if is_stop_word(&word) || word.chars().count() < 3 || !word.chars().all(char::is_alphabetic) {
                continue;
            }
            total += 1.0;
            if known.contains(stem(&word)) {
                supported += 1.0;
            }
        }
        findings.dedup();
        let hidden = findings.len().saturating_sub(self.config.most_findings);
        findings.truncate(self.config.most_findings);
        if hidden > 0 {
            findings.push(format!("{hidden} more facts are not in the context"));
        }
        (total > 0.0).then(|| (supported / total, findings))
    }

    fn same_number(&self, source: &Quantity, given: &Quantity) -> bool {
        // The words after a number are no reliable units in running text.
        let bare = |quantity: &Quantity| Quantity { unit: None, ..quantity.clone() };
        let agree = |left: &Quantity, right: &Quantity| {
            number::agree(left, right, None, self.config.numeric_tolerance)
        };
        agree(&bare(source), &bare(given)) || agree(source, given)
    }
}

/// Words with a capital letter inside a sentence, without possessives.
fn names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut starts_sentence = true;
    for token in text.split_whitespace() {
        let word = token.trim_matches(|c: char| !c.is_alphanumeric());
        let word = word.strip_suffix("'s").or_else(|| word.strip_suffix("’s")).unwrap_or(word);
        let capital = word.chars().next().is_some_and(char::is_uppercase) && word.chars().count() > 1;
        if capital && !starts_sentence && !is_stop_word(&fold(word)) && word.chars().all(char::is_alphabetic)
        {
            names.push(word.to_owned());
        }
        starts_sentence = token.ends_with(['.', '!', '?', ':', '。', '"', '”', '*', '-', '—']);
    }
    names
}

impl Dimension for Consistency {
    fn name(&self) -> &str {
        dimension::CONSISTENCY
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Option<Judgement>> {
        let Some(context) = &subject.context else { return Ok(None) };
        let mut sources = excerpt_bytes(context, self.config.context_limit).to_owned();
        sources.push('\n');
        sources.push_str(subject.prompt);
        Ok(self
            .support(subject.answer, &sources)
            .map(|(share, findings)| Judgement::new(100.0 * share, "context_support", findings)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: &str =
        "Ada Lovelace was born in London in 1815. She wrote 3 notes about Babbage's engines.";

    fn support(answer: &str) -> Option<(f64, Vec<String>)> {
        Consistency::new(ConsistencyConfig::default()).support(answer, CONTEXT)
    }

    #[test]
    fn what_the_context_says_is_supported() {
        assert_eq!(support("Lovelace was born in London in 1815."), Some((1.0, vec![])));
        assert_eq!(support("She writes about an engine of Babbage."), Some((5.0 / 6.0, vec![])));
        assert_eq!(support("yes"), None);
        assert_eq!(support(""), None);
    }

    #[test]
    fn invented_numbers_and_names_are_found() {
        let (share, findings) = support("Lovelace was born in Paris in 1816.").unwrap();
        assert_eq!(
            findings,
            ["the number 1816 is not in the context", "the name `Paris` is not in the context"]
        );
        // Lovelace, born of 3 (number) + 3 (name) + Lovelace, born, Paris.
        assert!((share - 2.0 / 9.0).abs() < 1e-12, "{share}");
    }

    #[test]
    fn findings_are_bounded() {
        let answer: String = (5000..5100).map(|n| format!("{n} ")).collect();
        let (share, findings) = support(&answer).unwrap();
        assert_eq!((share, findings.len()), (0.0, 9));
        assert_eq!(findings.last().unwrap(), "92 more facts are not in the context");
    }
}
