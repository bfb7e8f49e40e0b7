//! The form that a request asks its answer to have, and whether the answer has it.
//!
//! In: instructions in English and the request's metadata. Out: [`Requirement`]s. Only plain instructions are
//! understood ("answer with JSON", "in one word", "at most 50 words"); what is not understood is not required.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::text::word_count;

/// One thing that the answer's form must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// A JSON document, bare or in a code fence.
    Json,
    /// One word.
    OneWord,
    /// `yes` or `no`, whatever follows.
    YesNo,
    /// A numbered list, of this many items where a number was asked for.
    NumberedList(Option<usize>),
    /// At most this many words.
    MaxWords(usize),
    /// One of these texts, whatever its case and punctuation.
    OneOf(Vec<String>),
}

/// How many characters at each end of a long message are searched for instructions.
const SEARCHED: usize = 2000;

struct Patterns {
    json: Regex,
    one_word: Regex,
    yes_no: Regex,
    numbered: Regex,
    max_words: Regex,
    one_of: Regex,
    negation: Regex,
}

const VERBS: &str = r"(?:answer|respond|reply|return|output|give|write|produce|generate|format|list|provide)";
const COUNT: &str = r"(\d{1,6}|one|two|three|four|five|six|seven|eight|nine|ten)";

#[expect(clippy::expect_used, reason = "constant expressions, compiled in every test of this module")]
static PATTERNS: LazyLock<Patterns> = LazyLock::new(|| {
    let compile = |source: String| Regex::new(&source).expect("constant");
    Patterns {
        json: compile(format!(
            r"(?ix)\b{VERBS}\b [^.?!\n]{{0,60}}?
                (?: \b(?:in|as|with|using|only|valid)\s+ (?:(?:an?|the|valid|only)\s+)* json\b
                  | \b(?:an?|the)\s+ json\s+ (?:object|array|document|list|string)\b )
              | \bjson\s+(?:only|format)\b"
        )),
        one_word: compile(
            r"(?i)\b(?:in|with|using|only|exactly|just)\s+(?:a\s+|exactly\s+|only\s+)*(?:one|single|1)[\s-]word\b(?:\s+only)?|\bone[\s-]word (?:answer|reply)\b".into(),
        ),
        yes_no: compile(format!(
            r"(?i)\b{VERBS}\b[^.?!\n]{{0,40}}\byes\W{{1,4}}(?:or\W{{1,4}})?no\b|\byes or no\s*[?:.]\s*$|[(\[]\s*yes\s*/\s*no\s*[)\]]"
        )),
        numbered: compile(format!(
            r"(?i)\bnumbered list(?:\s+(?:of|with)\s+(?:exactly\s+)?{COUNT}\b)?|\b{COUNT}[\s-](?:item\s+)?numbered\s+(?:list|points|items|steps)"
        )),
        max_words: compile(format!(
            r"(?i)\b(?:at most|no more than|not more than|maximum of|max\.?|up to|fewer than|less than|under|within)\s+{COUNT}\s+words\b|\bin\s+{COUNT}\s+words\s+or\s+(?:less|fewer)\b|\b{COUNT}\s+words\s+(?:max|maximum|at most|or less|or fewer)\b"
        )),
        one_of: compile(format!(
            r"(?i)\b{VERBS}\b[^.?!\n:]{{0,60}}\bone of(?: the following| these)?(?:\s+\w+)?\s*:\s*([^\n?!]{{1,1000}})"
        )),
        negation: compile(r"(?i)\b(?:not|never|no|without|avoid|don['’]?t|doesn['’]?t)\b".into()),
    }
});

/// The requirements in `instructions` (system prompts and the last user turn), in a fixed order.
pub fn requirements<'a>(instructions: impl IntoIterator<Item = &'a str>) -> Vec<Requirement> {
    let mut found = Vec::new();
    for text in instructions {
        for end in ends(text) {
            for requirement in in_text(&end) {
                if !found.contains(&requirement) {
                    found.push(requirement);
                }
            }
        }
    }
    found
}

/// The requirement of a `response_format` as clients name it.
pub fn from_response_format(name: &str) -> Option<Requirement> {
    let lower = name.to_lowercase();
    (lower.contains("json")).then_some(Requirement::Json)
}

fn ends(text: &str) -> Vec<String> {
    let length = text.chars().count();
    if length <= 2 * SEARCHED {
        return vec![text.to_owned()];
    }
    vec![text.chars().take(SEARCHED).collect(), text.chars().skip(length - SEARCHED).collect()]
}

fn in_text(text: &str) -> Vec<Requirement> {
    let patterns = &*PATTERNS;
    let mut found = Vec::new();
    let asked = |regex: &Regex| {
        regex.find_iter(text).any(|hit| {
            let clause = text.get(..hit.start()).unwrap_or("");
            let clause = clause.rsplit(['.', '?', '!', '\n', ',', ';', ':']).next().unwrap_or("");
            !patterns.negation.is_match(clause) && !patterns.negation.is_match(negatable(hit.as_str()))
        })
    };
    if asked(&patterns.json) {
        found.push(Requirement::Json);
    }
    if asked(&patterns.one_word) {
        found.push(Requirement::OneWord);
    }
    if patterns.yes_no.is_match(text) {
        found.push(Requirement::YesNo);
    }
    if let Some(captures) = patterns.numbered.captures(text).filter(|_| asked(&patterns.numbered)) {
        let count = (1..captures.len()).find_map(|at| captures.get(at)).and_then(|c| number(c.as_str()));
        found.push(Requirement::NumberedList(count));
    }
    if let Some(captures) = patterns.max_words.captures(text) {
        let count = (1..captures.len()).find_map(|at| captures.get(at)).and_then(|c| number(c.as_str()));
        let exclusive = Regex::is_match(&EXCLUSIVE, captures.get(0).map_or("", |hit| hit.as_str()));
        if let Some(count) = count {
            found.push(Requirement::MaxWords(if exclusive { count.saturating_sub(1) } else { count }));
        }
    }
    if let Some(options) = patterns.one_of.captures(text).and_then(|captures| captures.get(1)) {
        let options = choices(options.as_str());
        if options.len() > 1 {
            found.push(Requirement::OneOf(options));
        }
    }
    found
}

#[expect(clippy::expect_used, reason = "a constant expression, compiled in every test of this module")]
static EXCLUSIVE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?i)^(?:fewer than|less than|under)").expect("constant"));

/// The part of a match in which a negation counts (`yes or no` holds a `no` of its own).
fn negatable(hit: &str) -> &str {
    hit.split_once(|c: char| c.is_whitespace()).map_or(hit, |(_, rest)| rest)
}

fn choices(list: &str) -> Vec<String> {
    let list = list.trim().trim_end_matches('.');
    list.split([',', ';', '|'])
        .flat_map(|part| part.split(" or "))
        .map(|part| part.trim().trim_start_matches("or ").trim_matches(['"', '\'', '`', ' ', '.']).to_owned())
        .filter(|part| !part.is_empty() && word_count(part) <= 6)
        .take(200)
        .collect()
}

fn number(text: &str) -> Option<usize> {
    const WORDS: [&str; 10] = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
    let lower = text.to_lowercase();
    text.parse().ok().or_else(|| WORDS.iter().position(|word| *word == lower).map(|at| at + 1))
}

impl Requirement {
    /// What is wrong with `answer`, or `None` when it has the form.
    pub fn violation(&self, answer: &str) -> Option<String> {
        match self {
            Self::Json => json(answer).err().map(|reason| format!("JSON was asked for, but {reason}")),
            Self::OneWord => {
                let count = word_count(answer);
                (count != 1).then(|| format!("one word was asked for, the answer has {count}"))
            }
            Self::YesNo => {
                let first = crate::text::words(answer).into_iter().next().unwrap_or_default();
                (first != "yes" && first != "no")
                    .then(|| "yes or no was asked for, neither begins the answer".into())
            }
            Self::NumberedList(asked) => {
                let items = numbered_items(answer);
                match asked {
                    Some(asked) if *asked != items => Some(format!(
                        "a numbered list of {asked} was asked for, the answer has {items} items"
                    )),
                    None if items == 0 => Some("a numbered list was asked for, the answer has none".into()),
                    _ => None,
                }
            }
            Self::MaxWords(limit) => {
                let count = word_count(answer);
                (count > *limit)
                    .then(|| format!("at most {limit} words were asked for, the answer has {count}"))
            }
            Self::OneOf(options) => {
                let answer = crate::text::normalise(answer, true);
                let allowed = options.iter().any(|option| crate::text::normalise(option, true) == answer);
                (!allowed).then(|| {
                    format!("one of {} given options was asked for, the answer is none", options.len())
                })
            }
        }
    }
}

fn numbered_items(answer: &str) -> usize {
    answer
        .lines()
        .filter(|line| {
            let line = line.trim_start().trim_start_matches("**");
            let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
            rest.len() < line.len()
                && (rest.starts_with(". ") || rest.starts_with(") ") || rest.starts_with(".\t"))
        })
        .count()
}

/// The JSON document that an answer is, bare or alone in a code fence; otherwise the reason why not. Nesting
/// deeper than 128 is refused.
pub(crate) fn json(answer: &str) -> Result<Value, String> {
    let text = answer.trim();
    let bare = text
        .strip_prefix("```")
        .and_then(|rest| rest.strip_suffix("```"))
        .and_then(|inner| inner.split_once('\n'))
        .filter(|(language, _)| language.trim().is_empty() || language.trim().eq_ignore_ascii_case("json"))
        .map_or(text, |(_, inner)| inner.trim());
    serde_json::from_str(bare).map_err(|error| format!("the answer does not parse: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_instructions_are_understood() {
        use Requirement::{Json, MaxWords, NumberedList, OneOf, OneWord, YesNo};
        let one_of = |options: &[&str]| OneOf(options.iter().map(|option| (*option).into()).collect());
        for (text, expected) in [
            ("Answer with JSON.", vec![Json]),
            ("Return the result as a valid JSON object", vec![Json]),
            ("Respond only in JSON with keys a and b", vec![Json]),
            ("JSON only, please", vec![Json]),
            ("What is JSON?", vec![]),
            ("Explain how to write a JSON parser", vec![]),
            ("Do not answer in JSON.", vec![]),
            ("Answer in prose, not as JSON", vec![]),
            ("Name the intent in one word.", vec![OneWord]),
            ("Answer with a single word", vec![OneWord]),
            ("Is one word enough?", vec![]),
            ("Is it raining? Answer yes or no.", vec![YesNo]),
            ("Reply \"yes\" or \"no\"", vec![YesNo]),
            ("Did it work (yes/no)", vec![YesNo]),
            ("She said yes, or no, I forget which", vec![]),
            ("Give a numbered list of 3 cities", vec![NumberedList(Some(3))]),
            (
                "Write a numbered list of five things in at most 40 words",
                vec![NumberedList(Some(5)), MaxWords(40)],
            ),
            ("Use a numbered list", vec![NumberedList(None)]),
            ("Summarise in no more than 20 words", vec![MaxWords(20)]),
            ("in 10 words or fewer", vec![MaxWords(10)]),
            ("fewer than 10 words", vec![MaxWords(9)]),
            (
                "Answer with one of: transfer, balance, or card lost.",
                vec![one_of(&["transfer", "balance", "card lost"])],
            ),
        ] {
            assert_eq!(requirements([text]), expected, "{text}");
        }
    }

    #[test]
    fn answers_are_held_to_the_form() {
        use Requirement::{Json, MaxWords, NumberedList, OneOf, OneWord, YesNo};
        for (requirement, right, wrong) in [
            (Json, "{\"a\": 1}", "{a: 1}"),
            (Json, "```json\n[1]\n```", "Here it is: [1]"),
            (OneWord, "Transfer.", "two words"),
            (YesNo, "Yes, it is.", "Perhaps yes"),
            (YesNo, "**No**", "nothing"),
            (NumberedList(Some(2)), "1. a\n2) b", "1. a"),
            (NumberedList(None), "1. a", "- a"),
            (MaxWords(2), "two — words", "now three words"),
            (OneOf(vec!["a b".into(), "c".into()]), "A_B!", "d"),
        ] {
            assert_eq!(requirement.violation(right), None, "{right}");
            assert!(requirement.violation(wrong).is_some(), "{wrong}");
            assert!(requirement.violation("").is_some() == !matches!(requirement, MaxWords(_)));
        }
    }

    #[test]
    fn deeply_nested_json_is_refused_without_a_stack_overflow() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(
            Requirement::Json.violation(&deep).unwrap(),
            "JSON was asked for, but the answer does not parse: recursion limit exceeded at line 1 column 128"
        );
    }
}
