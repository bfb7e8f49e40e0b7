//! Regular expressions from outside: bounded, and precise about what is wrong with them.

use regex::{Regex, RegexBuilder};

use crate::EvaluateError;

/// Most bytes that a compiled expression may take.
pub(crate) const COMPILED_LIMIT: usize = 1 << 20;

/// Compiles `source` on behalf of `owner`. The engine is linear in the text, so a bounded expression cannot
/// run away; the bounds are `length_limit` bytes of source and [`COMPILED_LIMIT`] of program.
pub(crate) fn compile(
    source: &str,
    owner: &str,
    ignore_case: bool,
    length_limit: usize,
) -> Result<Regex, EvaluateError> {
    if source.len() > length_limit {
        return Err(EvaluateError::RegexLength {
            owner: owner.into(),
            length: source.len(),
            limit: length_limit,
        });
    }
    if let Err(error) = regex_syntax::Parser::new().parse(source) {
        let (start, reason) = match &error {
            regex_syntax::Error::Parse(error) => (error.span().start, error.kind().to_string()),
            regex_syntax::Error::Translate(error) => (error.span().start, error.kind().to_string()),
            other => (regex_syntax::ast::Position::new(0, 1, 1), other.to_string()),
        };
        return Err(EvaluateError::Regex {
            owner: owner.into(),
            line: start.line,
            column: start.column,
            reason,
        });
    }
    RegexBuilder::new(source)
        .case_insensitive(ignore_case)
        .size_limit(COMPILED_LIMIT)
        .dfa_size_limit(COMPILED_LIMIT)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(limit) => EvaluateError::RegexSize { owner: owner.into(), limit },
            other => {
                EvaluateError::Regex { owner: owner.into(), line: 1, column: 1, reason: other.to_string() }
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_expression_is_named_with_its_place() {
        let cases = [
            ("ab(c", "the regular expression of rule `x` is wrong at line 1, column 3: unclosed group"),
            (
                "é[z-a]",
                "the regular expression of rule `x` is wrong at line 1, column 3: invalid character class range, the start must be <= the end",
            ),
            (
                "(?x)a\n  *b**\\q",
                "the regular expression of rule `x` is wrong at line 2, column 7: unrecognized escape sequence",
            ),
        ];
        for (source, expected) in cases {
            assert_eq!(compile(source, "rule `x`", false, 100).unwrap_err().to_string(), expected);
        }
        let large = compile(r"(\pL{1000}){1000}", "rule `x`", false, 100).unwrap_err();
        assert_eq!(
            large.to_string(),
            "the regular expression of rule `x` compiles to more than 1048576 bytes"
        );
        let long = compile(&"a".repeat(101), "rule `x`", false, 100).unwrap_err();
        assert_eq!(long.to_string(), "the regular expression of rule `x` has 101 bytes, more than 100");
    }

    #[test]
    fn a_catastrophic_expression_ends_at_once() {
        let regex = compile("^(a+)+$", "rule `x`", false, 100).unwrap();
        assert!(!regex.is_match(&format!("{}!", "a".repeat(100_000))));
    }
}
