//! Text made comparable: folded case, no punctuation, words.
//!
//! In: any text. Out: a normal form that two spellings of the same answer share, and lists of words.

use std::collections::BTreeSet;

use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

/// Symbols that carry meaning (`C` is not `C++`, `5` is not `5%`) and so survive normalisation.
const MEANINGFUL: &str = "+%$€£¥₹<>=/^&@~|\\";

/// The text that two spellings of one answer share.
///
/// Unicode NFKC, folded case, no invisible characters (zero width, direction marks), no punctuation, single
/// spaces. A minus before a digit, a separator between digits, and symbols such as `+`, `#`, `%` stay: they
/// change what is meant. With `ignore_articles`, English `the` and `an` go, and `a` where a word follows it,
/// unless nothing would be left.
pub fn normalise(text: &str, ignore_articles: bool) -> String {
    let folded = fold(text);
    let chars: Vec<char> = folded.chars().collect();
    let mut plain = String::with_capacity(folded.len());
    for (at, &c) in chars.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|i| chars.get(i)).copied();
        let after = chars.get(at + 1).copied();
        match place_of(c, before, after) {
            Place::Keep => plain.push(c),
            Place::Minus => plain.push('-'),
            Place::Drop => {}
            Place::Space => plain.push(' '),
        }
    }
    let words: Vec<&str> = plain.split_whitespace().collect();
    if ignore_articles {
        let last = words.len().saturating_sub(1);
        let kept: Vec<&str> = words
            .iter()
            .enumerate()
            .filter(|&(at, word)| !(matches!(*word, "the" | "an") || *word == "a" && at < last))
            .map(|(_, word)| *word)
            .collect();
        if !kept.is_empty() {
            return kept.join(" ");
        }
    }
    words.join(" ")
}

/// NFKC with folded case and without invisible characters.
pub(crate) fn fold(text: &str) -> String {
    let composed: String = text.nfkc().filter(|c| !is_invisible(*c)).collect();
    composed.to_uppercase().to_lowercase().nfkc().collect()
}

/// What normalisation does with one character.
enum Place {
    Keep,
    Minus,
    Drop,
    Space,
}

fn place_of(c: char, before: Option<char>, after: Option<char>) -> Place {
    let digit = |c: Option<char>| c.is_some_and(char::is_numeric);
    let letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    match c {
        _ if c.is_alphanumeric() || is_combining_mark(c) || MEANINGFUL.contains(c) => Place::Keep,
        '-' | '\u{2212}' if digit(after) && !letter(before) => Place::Minus,
        '.' | ',' if digit(before) && digit(after) => Place::Keep,
        // `.5` is not `5`.
        // Between words these are arithmetic and `C#`; at an edge they are Markdown.
        '*' if letter(before) && letter(after) => Place::Keep,
        '#' if letter(before) || letter(after) => Place::Keep,
        '.' if digit(after) && !letter(before) => Place::Keep,
        '\'' | '\u{2019}' if letter(before) && letter(after) => Place::Drop,
        _ if c.is_whitespace() || is_punctuation(c) => Place::Space,
        _ => Place::Keep,
    }
}

fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation()
        || c.is_control()
        || matches!(
            c,
            '¡' | '§' | '«' | '¶' | '·' | '»' | '¿' | '،' | '؛' | '؟' | '۔' | '।' | '॥' | '־' | '״'
        )
        || matches!(c, '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205E}' | '\u{2212}')
        || matches!(c, '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3011}' | '\u{3014}'..='\u{301F}' | '・')
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}')
        || matches!(c, '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{61C}')
}

/// The words of a text, folded; numbers with their separators are words too.
pub(crate) fn words(text: &str) -> Vec<String> {
    normalise(text, false).split(' ').filter(|word| !word.is_empty()).map(String::from).collect()
}

/// How many words a text has, counted as people do.
pub(crate) fn word_count(text: &str) -> usize {
    text.split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric)).count()
}

/// Words that say little about what a text is about.
pub(crate) fn is_stop_word(word: &str) -> bool {
    const STOP: &str = " a about above after again against all also am an and any are aren't as at be because \
        been before being below between both but by can cannot could couldn't did didn't do does doesn't doing \
        don't dont down during each few for from further get got had has have having he her here hers him his \
        how i i'd i'll i'm i've if im in into is isn't it it's its itself just know let like me more most my \
        need no nor not now of off on once only or other our out over own please same she should so some such \
        tell than that that's the their theirs them then there these they they're this those through to too \
        under until up us very want was we were what what's when where which while who whom why will with won't \
        would yes you you'd you'll you're your yours ";
    let mut padded = String::with_capacity(word.len() + 2);
    padded.push(' ');
    padded.push_str(word);
    padded.push(' ');
    word.is_empty() || STOP.contains(&padded)
}

/// A word without its commonest English endings, so that `cards` supports `card`.
pub(crate) fn stem(word: &str) -> &str {
    for ending in ["ing", "edly", "ies", "es", "ed", "ly", "s", "e"] {
        if let Some(rest) = word.strip_suffix(ending)
            && rest.chars().count() >= 3
        {
            return rest;
        }
    }
    word
}

/// Share of the words of both texts that both have (Jaccard index); 1 for two texts without words.
pub(crate) fn overlap(left: &str, right: &str) -> f64 {
    let left: BTreeSet<String> = words(left).into_iter().collect();
    let right: BTreeSet<String> = words(right).into_iter().collect();
    let union = left.union(&right).count();
    if union == 0 {
        return 1.0;
    }
    left.intersection(&right).count() as f64 / union as f64
}

/// The first `limit` characters of a text on one line, for findings and names.
pub(crate) fn excerpt(text: &str, limit: usize) -> String {
    let mut line = text.split_whitespace().take(limit + 1).collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(limit) {
        line.truncate(end);
        return format!("{}…", line.trim_end());
    }
    line
}

/// The first `limit` bytes of a text, less what would cut a character.
pub(crate) fn excerpt_bytes(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_one_answer_share_a_normal_form() {
        for (left, right) in [
            ("Transfer.", "transfer"),
            ("transfer_money", "Transfer-Money"),
            ("  The   Bank\tof England ", "bank of England"),
            ("ﬁne", "fine"),
            ("Straße", "STRASSE"),
            ("caf\u{e9}", "cafe\u{301}"),
            ("ΣΊΣΥΦΟΣ", "σίσυφος"),
            ("don’t", "dont"),
            ("\u{202E}abc\u{202C}", "abc"),
            ("שלום!", "שלום"),
            ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
            ("«oui»", "oui"),
            ("**Paris**", "Paris"),
            ("## Paris", "Paris"),
            ("soft\u{AD}ware", "software"),
        ] {
            assert_eq!(normalise(left, true), normalise(right, true), "{left} / {right}");
        }
    }

    #[test]
    fn what_means_something_else_stays_different() {
        for (left, right) in [
            ("C++", "C"),
            ("C#", "C"),
            ("2*3", "2 3"),
            ("-5", "5"),
            ("\u{2212}5", "5"),
            (".5", "5"),
            ("5%", "5"),
            ("1.5", "15"),
            ("👍", "👎"),
            ("vitamin a", "vitamin"),
            ("naïve", "naive"),
            ("x < y", "x > y"),
        ] {
            assert_ne!(normalise(left, true), normalise(right, true), "{left} / {right}");
        }
    }

    #[test]
    fn articles_alone_are_kept() {
        assert_eq!(normalise("The", true), "the");
        assert_eq!(normalise("a", true), "a");
        assert_eq!(normalise("!?…", true), "");
    }

    #[test]
    fn excerpts_end_on_one_line() {
        assert_eq!(excerpt("one\ntwo   three", 20), "one two three");
        assert_eq!(excerpt("one\ntwo   three", 7), "one two…");
        assert_eq!(excerpt("日本語のテキスト", 3), "日本語…");
    }
}
