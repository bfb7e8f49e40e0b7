//! When an answer is right: the normalised match.

/// Lowercase words without punctuation, one space between them.
pub(crate) fn normalised(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        if !words.is_empty() {
            words.push(' ');
        }
        words.extend(word.chars().flat_map(char::to_lowercase));
    }
    words
}

/// Whether `answer` says what `reference` says, letter case, white space and punctuation aside. A reference of
/// symbols alone is compared as it stands.
pub(crate) fn is_right(answer: &str, reference: &str) -> bool {
    let wanted = normalised(reference);
    if wanted.is_empty() { answer.trim() == reference.trim() } else { normalised(answer) == wanted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_space_and_punctuation_do_not_matter_and_words_do() {
        assert!(is_right(" Freeze\taccount.\n", "freeze account"));
        assert!(is_right("Straße, ÉTÉ!", "straße été"));
        assert!(!is_right("freeze account now", "freeze account"));
        assert!(!is_right("", "freeze account"));
        assert!(is_right(" ++ ", "++"));
        assert!(!is_right("--", "++"));
    }
}
