//! Names of error patterns, and what can be read back from them.

use std::collections::{BTreeMap, BTreeSet};

use crate::text::{is_stop_word, normalise, words};

/// Most words in a name.
const NAME_WORDS: usize = 3;
/// Words of a prompt that are counted at most.
const PROMPT_WORDS: usize = 200;
const ABOUT: &str = "about ";
const NAMELESS: &str = "without words";

/// ``` `transfer` answered as `balance` ```
pub(crate) fn of_confusion((reference, answer): &(String, String)) -> String {
    format!("`{reference}` answered as `{answer}`")
}

/// Undoes [`of_confusion`].
pub(crate) fn parse_confusion(name: &str) -> Option<(String, String)> {
    let inner = name.strip_prefix('`')?.strip_suffix('`')?;
    let (reference, answer) = inner.split_once("` answered as `")?;
    Some((normalise(reference, true), normalise(answer, true)))
}

/// `about card, lost, stolen`: the words that most of a pattern's prompts have and few other patterns do.
pub(crate) fn from_words(own: &BTreeMap<String, u32>, others: &[&BTreeMap<String, u32>]) -> String {
    let mut scored: Vec<(f64, &str)> = own
        .iter()
        .map(|(word, count)| {
            let elsewhere = others.iter().filter(|other| other.contains_key(word)).count();
            let rarity = ((others.len() + 1) as f64 / (elsewhere + 1) as f64).ln() + 1.0;
            (f64::from(*count) * rarity, word.as_str())
        })
        .collect();
    scored.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(right.1)));
    let best: Vec<&str> = scored.into_iter().take(NAME_WORDS).map(|(_, word)| word).collect();
    if best.is_empty() { NAMELESS.to_owned() } else { format!("{ABOUT}{}", best.join(", ")) }
}

/// The words of a name made by [`from_words`], each counted for every failure.
pub(crate) fn parse_words(name: &str, count: u64) -> BTreeMap<String, u32> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    name.strip_prefix(ABOUT)
        .map(|list| list.split(", ").map(|word| (word.to_owned(), count)).collect())
        .unwrap_or_default()
}

/// The words of a prompt that say what it is about, each once.
pub(crate) fn distinct_words(prompt: &str) -> BTreeSet<String> {
    words(crate::text::excerpt_bytes(prompt, 16 * 1024))
        .into_iter()
        .take(PROMPT_WORDS)
        .filter(|word| !is_stop_word(word) && word.chars().count() > 1 && word.len() <= 40)
        .filter(|word| word.chars().any(char::is_alphabetic))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confusion_is_read_back_from_its_name() {
        let confusion = ("transfer money".to_owned(), "balance".to_owned());
        let name = of_confusion(&confusion);
        assert_eq!(name, "`transfer money` answered as `balance`");
        assert_eq!(parse_confusion(&name), Some(confusion));
        assert_eq!(parse_confusion("about cards"), None);
        assert_eq!(parse_confusion("`"), None);
    }

    #[test]
    fn a_name_is_made_of_what_sets_a_pattern_apart() {
        let counted = |pairs: &[(&str, u32)]| pairs.iter().map(|(word, n)| ((*word).into(), *n)).collect();
        let own: BTreeMap<String, u32> = counted(&[("card", 4), ("lost", 3), ("bank", 4), ("monday", 1)]);
        let other: BTreeMap<String, u32> = counted(&[("bank", 9), ("rate", 2)]);
        assert_eq!(from_words(&own, &[&other]), "about card, lost, bank");
        assert_eq!(from_words(&own, &[&other, &other, &other]), "about card, lost, bank");
        assert_eq!(from_words(&BTreeMap::new(), &[]), "without words");
        assert_eq!(parse_words("about card, lost", 2), counted(&[("card", 2), ("lost", 2)]));
    }
}
