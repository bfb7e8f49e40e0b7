//! Custom metrics: an expression over the numbers of one answer.
//!
//! Variables are `latency_ms`, `tokens`, `failed`, `refusal`, `empty`, `format_error`, `leak`, `thumb_up`,
//! `thumb_down`, `correction` (0 or 1), `overall`, and any dimension's score by its name (`accuracy`, `safety`).
//! Operators and functions are those of the crate `exmex` (`+ - * / ^`, `min`, `max`, `ln`, `sqrt`, …). An answer
//! that lacks one of the variables, or where the result is not finite, has no value.

use exmex::{Express as _, FlatEx};

use crate::observation::Observation;

/// Most bytes of an expression.
const LIMIT: usize = 1024;

/// Variables that are no dimension's name.
const KNOWN: [&str; 11] = [
    "latency_ms",
    "tokens",
    "failed",
    "refusal",
    "empty",
    "format_error",
    "leak",
    "thumb_up",
    "thumb_down",
    "correction",
    "overall",
];

/// Dimensions of the evaluator that come with autoglm; others are written `score_NAME`.
const DIMENSIONS: [&str; 4] = ["accuracy", "logic", "safety", "consistency"];

/// A parsed expression.
#[derive(Debug, Clone)]
pub(crate) struct Expression {
    source: String,
    parsed: FlatEx<f64>,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Expression {
    /// Parses `source`; the error says what is wrong with it.
    pub(crate) fn parse(source: &str) -> Result<Self, String> {
        if source.len() > LIMIT {
            return Err(format!("has an expression of {} bytes, more than {LIMIT}", source.len()));
        }
        let parsed = exmex::parse::<f64>(source)
            .map_err(|error| format!("has an expression that does not parse: {error}"))?;
        let unknown = parsed.var_names().iter().find(|name| {
            let name = name.as_str();
            !KNOWN.contains(&name) && !DIMENSIONS.contains(&name) && !name.starts_with("score_")
        });
        match unknown {
            Some(name) => Err(format!(
                "has an expression with `{name}`, which is none of {}, {} and `score_NAME`",
                KNOWN.join(", "),
                DIMENSIONS.join(", ")
            )),
            None => Ok(Self { source: source.to_owned(), parsed }),
        }
    }

    /// The value for one answer.
    pub(crate) fn value(&self, of: &Observation) -> Option<f64> {
        let names = self.parsed.var_names();
        let values = names.iter().map(|name| variable(name, of)).collect::<Option<Vec<f64>>>()?;
        self.parsed.eval(&values).ok().filter(|value| value.is_finite())
    }
}

fn variable(name: &str, of: &Observation) -> Option<f64> {
    let flag = |holds: bool| Some(f64::from(u8::from(holds)));
    match name {
        "latency_ms" => Some(of.latency_ms),
        "tokens" => Some(f64::from(of.tokens)),
        "failed" => flag(of.failed),
        "refusal" => flag(of.traits.refusal),
        "empty" => flag(of.traits.empty),
        "format_error" => flag(of.traits.format_kept == Some(false)),
        "leak" => flag(!of.traits.leaks.is_empty()),
        "thumb_up" => of.said.and_then(|said| flag(said.thumb_up)),
        "thumb_down" => of.said.and_then(|said| flag(said.thumb_down)),
        "correction" => of.said.and_then(|said| flag(said.correction)),
        "overall" => of.overall,
        other => of.scores.get(other.strip_prefix("score_").unwrap_or(other)).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_worth_what_it_says_and_nothing_without_its_variables() {
        let answer = Observation {
            latency_ms: 300.0,
            tokens: 60,
            scores: [("accuracy".to_owned(), 80.0), ("tone".to_owned(), 50.0)].into(),
            ..Observation::default()
        };
        let value = |source: &str| Expression::parse(source).unwrap().value(&answer);
        assert_eq!(value("latency_ms / max(tokens, 1)"), Some(5.0));
        assert_eq!(value("0.5 * accuracy + 0.5 * score_tone - 10 * failed"), Some(65.0));
        assert_eq!(value("safety"), None);
        assert_eq!(value("1 / failed"), None);
        assert_eq!(value("thumb_up"), None);
        let long = "1+".repeat(600);
        assert!(Expression::parse(&long).is_err());
    }
}
