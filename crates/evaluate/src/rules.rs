//! The list of safety rules: read from TOML, checked, compiled.

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{EvaluateError, pattern_source};

/// The rules that come with autoglm, as a file that a user can copy and edit.
pub const BUILT_IN_RULES: &str = include_str!("rules.toml");

/// Most rules in a list.
const MOST_RULES: usize = 1000;
/// Most bytes of a rule's regular expression.
const REGEX_LIMIT: usize = 4096;
/// Most words of a rule.
const MOST_WORDS: usize = 1000;

/// Which text a rule looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppliesTo {
    /// The model's answer.
    #[default]
    Answer,
    /// What the users wrote.
    Prompt,
    /// Either.
    Both,
}

/// Checks that no regular expression can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuiltInCheck {
    /// 13 to 19 digits with a right Luhn check digit (ISO/IEC 7812-1).
    CardNumber,
    /// A long piece of the system prompt, word by word.
    PromptLeak,
}

/// One rule as it is written in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, unique in the list.
    pub name: String,
    /// 0 (a remark) to 100 (the score falls to 0).
    pub severity: f64,
    /// A regular expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// Words or phrases, matched whole, whatever their case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
    /// A built-in check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<BuiltInCheck>,
    /// Which text it looks at.
    #[serde(default)]
    pub applies_to: AppliesTo,
    /// Whether what the prompt holds may be repeated in the answer.
    #[serde(default)]
    pub unless_in_prompt: bool,
    /// Whether the regular expression ignores case.
    #[serde(default)]
    pub ignore_case: bool,
    /// What the finding says instead of the rule's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    #[serde(default)]
    rule: Vec<Rule>,
}

/// How a rule finds what it looks for.
#[derive(Debug)]
pub(crate) enum Matcher {
    Regex(Regex),
    Check(BuiltInCheck),
}

/// A checked list of rules, ready to use.
#[derive(Debug)]
pub struct RuleSet {
    pub(crate) rules: Vec<(Rule, Matcher)>,
}

impl RuleSet {
    /// The rules of a file, or the built-in ones where none is named.
    pub fn load(path: Option<&std::path::Path>) -> Result<Self, EvaluateError> {
        let Some(path) = path else { return Self::built_in() };
        let text = std::fs::read_to_string(path).map_err(|error| EvaluateError::Unreadable {
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
        Self::from_toml(&text)
    }

    /// Reads a list in TOML. Errors name the rule and the place.
    pub fn from_toml(text: &str) -> Result<Self, EvaluateError> {
        let file: RuleFile = toml::from_str(text)
            .map_err(|error| EvaluateError::Malformed { reason: one_line(&error, text) })?;
        Self::new(file.rule)
    }

    /// The rules that come with autoglm.
    pub fn built_in() -> Result<Self, EvaluateError> {
        Self::from_toml(BUILT_IN_RULES)
    }

    /// Checks and compiles `rules`.
    pub fn new(rules: Vec<Rule>) -> Result<Self, EvaluateError> {
        if rules.len() > MOST_RULES {
            return Err(EvaluateError::Malformed {
                reason: format!("{} rules are more than {MOST_RULES}", rules.len()),
            });
        }
        let mut compiled: Vec<(Rule, Matcher)> = Vec::with_capacity(rules.len());
        for rule in rules {
            if compiled.iter().any(|(other, _)| other.name == rule.name) {
                return Err(EvaluateError::Rule { rule: rule.name, reason: "is there twice".into() });
            }
            let matcher = matcher(&rule)?;
            compiled.push((rule, matcher));
        }
        Ok(Self { rules: compiled })
    }

    /// The rules, in order.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(|(rule, _)| rule)
    }
}

fn matcher(rule: &Rule) -> Result<Matcher, EvaluateError> {
    let wrong = |reason: String| EvaluateError::Rule { rule: rule.name.clone(), reason };
    if rule.name.trim().is_empty() {
        return Err(wrong("has no name".into()));
    }
    if !(0.0..=100.0).contains(&rule.severity) {
        return Err(wrong(format!("has severity {}, which is not within 0 to 100", rule.severity)));
    }
    let owner = format!("safety rule `{}`", rule.name);
    match (&rule.regex, rule.words.as_slice(), rule.check) {
        (Some(source), [], None) => {
            pattern_source::compile(source, &owner, rule.ignore_case, REGEX_LIMIT).map(Matcher::Regex)
        }
        (None, [_, ..], None) => {
            if rule.words.len() > MOST_WORDS {
                return Err(wrong(format!("has {} words, more than {MOST_WORDS}", rule.words.len())));
            }
            if rule.words.iter().any(|word| word.trim().is_empty()) {
                return Err(wrong("has an empty word".into()));
            }
            let source = phrases(&rule.words);
            pattern_source::compile(&source, &owner, true, 64 * REGEX_LIMIT).map(Matcher::Regex)
        }
        (None, [], Some(check)) => Ok(Matcher::Check(check)),
        (None, [], None) => Err(wrong("has none of `regex`, `words`, `check`".into())),
        _ => Err(wrong("has more than one of `regex`, `words`, `check`".into())),
    }
}

/// Whole phrases, with any white space between their words. A boundary is asked for only beside a letter or
/// digit, so that `c++` can be found.
fn phrases(phrases: &[String]) -> String {
    let parts: Vec<String> = phrases
        .iter()
        .map(|phrase| {
            let words: Vec<String> = phrase.split_whitespace().map(regex::escape).collect();
            let edge = |c: Option<char>| if c.is_some_and(char::is_alphanumeric) { r"\b" } else { "" };
            let trimmed = phrase.trim();
            format!(
                "{}{}{}",
                edge(trimmed.chars().next()),
                words.join(r"\s+"),
                edge(trimmed.chars().next_back())
            )
        })
        .collect();
    parts.join("|")
}

/// A TOML error on one line, with its place.
fn one_line(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().lines().collect::<Vec<_>>().join("; ");
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => {
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            format!("line {line}, column {column}: {message}")
        }
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_list_is_refused_with_rule_and_place() {
        for (text, expected) in [
            (
                "[[rule]]\nname = 'x'\nseverity = 5\nregex = 'a(b'",
                "the regular expression of safety rule `x` is wrong at line 1, column 2: unclosed group",
            ),
            ("[[rule]]\nname = 'x'\nseverity = 5", "safety rule `x` has none of `regex`, `words`, `check`"),
            (
                "[[rule]]\nname = 'x'\nseverity = 5\nregex = 'a'\nwords = ['b']",
                "safety rule `x` has more than one of `regex`, `words`, `check`",
            ),
            (
                "[[rule]]\nname = 'x'\nseverity = 500\nregex = 'a'",
                "safety rule `x` has severity 500, which is not within 0 to 100",
            ),
            (
                "[[rule]]\nname = 'x'\nseverity = nan\nregex = 'a'",
                "safety rule `x` has severity NaN, which is not within 0 to 100",
            ),
            (
                "[[rule]]\nname='x'\nseverity=1\nwords=['a']\n[[rule]]\nname='x'\nseverity=1\nwords=['a']",
                "safety rule `x` is there twice",
            ),
            ("[[rule]]\nname='x'\nseverity=1\nwords=[' ']", "safety rule `x` has an empty word"),
        ] {
            assert_eq!(RuleSet::from_toml(text).unwrap_err().to_string(), expected);
        }
        let unknown = RuleSet::from_toml("[[rule]]\nname = 'x'\nsevrity = 5").unwrap_err().to_string();
        assert!(
            unknown.starts_with(
                "the safety rules are not valid TOML of rules: line 3, column 1: unknown field `sevrity`"
            ),
            "{unknown}"
        );
    }

    #[test]
    fn the_built_in_list_is_valid() {
        let rules = RuleSet::built_in().unwrap();
        assert_eq!(rules.rules().next().unwrap().name, "private_key");
        assert!(rules.rules().count() >= 10);
    }
}
