//! Why an evaluator could not be set up.

use autoglm_domain::ErrorKind;

/// What is wrong with the settings or the rule list of an evaluator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// A number in the settings is outside its range.
    #[error("evaluate.{key} is {value}, which is not {range}")]
    Range {
        /// The setting.
        key: String,
        /// What it was set to.
        value: String,
        /// What it may be.
        range: &'static str,
    },
    /// `dimensions` names something that nobody provides.
    #[error("evaluate.dimensions names `{name}`, which is not one of {known}")]
    UnknownDimension {
        /// The name.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The rule list could not be read from its file.
    #[error("the safety rules in `{path}` cannot be read: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The rule list is not what it should be.
    #[error("the safety rules are not valid TOML of rules: {reason}")]
    Malformed {
        /// What and where.
        reason: String,
    },
    /// A rule contradicts itself or breaks a limit.
    #[error("safety rule `{rule}` {reason}")]
    Rule {
        /// The rule's name.
        rule: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A rule's regular expression does not parse.
    #[error("the regular expression of {owner} is wrong at line {line}, column {column}: {reason}")]
    Regex {
        /// Whose expression it is.
        owner: String,
        /// Line within the expression, from 1.
        line: usize,
        /// Column within the line in characters, from 1.
        column: usize,
        /// What is wrong.
        reason: String,
    },
    /// A regular expression needs more memory than is allowed.
    #[error("the regular expression of {owner} compiles to more than {limit} bytes")]
    RegexSize {
        /// Whose expression it is.
        owner: String,
        /// The limit.
        limit: usize,
    },
    /// A regular expression is longer than is allowed.
    #[error("the regular expression of {owner} has {length} bytes, more than {limit}")]
    RegexLength {
        /// Whose expression it is.
        owner: String,
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
}

impl EvaluateError {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreadable { .. } => ErrorKind::NotFound,
            _ => ErrorKind::Invalid,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Range { .. } => return None,
            Self::UnknownDimension { .. } => "leave a dimension out of the list to switch it off",
            Self::Unreadable { .. } => {
                "set evaluate.safety.rules to a readable file, or remove it for the built-in rules"
            }
            Self::Malformed { .. } | Self::Rule { .. } => {
                "each `[[rule]]` has a `name`, a `severity`, and one of `regex`, `words`, `check`"
            }
            Self::Regex { .. } => "look-around and back-references are not supported",
            Self::RegexSize { .. } | Self::RegexLength { .. } => {
                "split it into several, or use smaller counted repetitions"
            }
        })
    }
}

impl From<EvaluateError> for autoglm_domain::Error {
    fn from(error: EvaluateError) -> Self {
        let made = Self::new(error.kind(), error.to_string());
        match error.hint() {
            Some(hint) => made.with_hint(hint),
            None => made,
        }
    }
}
