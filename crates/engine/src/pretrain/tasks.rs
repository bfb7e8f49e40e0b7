//! Conversations made from plain text, so that the model knows the chat template before it serves: a user's
//! turn is a sentence; the answer is its rarest words in order, or the sentence that follows it.
//!
//! Naming the rarest words asks the answer's first tokens to look for what a sentence is about, which is what
//! labelling, routing and extraction ask too.

use std::collections::HashMap;

use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use super::{corpus::Corpus, vocabulary::Vocabulary};
use crate::Result;

/// Most conversations that are made.
const LIMIT: usize = 300_000;

/// Conversations as tokens, shuffled.
pub(super) fn conversations(text: &Corpus, vocabulary: &Vocabulary, seed: u64) -> Result<Vec<Vec<u32>>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0xc0de);
    let mut counts: HashMap<String, u32> = HashMap::new();
    for word in text.paragraphs.iter().flat_map(|paragraph| words(paragraph)) {
        *counts.entry(word).or_default() += 1;
    }
    let mut pairs = Vec::new();
    let mut order: Vec<&String> = text.paragraphs.iter().collect();
    order.shuffle(&mut random);
    'paragraphs: for paragraph in order {
        let sentences: Vec<&str> = paragraph.split(['.', '?', '!', ';', '\n']).map(str::trim).collect();
        for (at, sentence) in sentences.iter().enumerate() {
            let spoken = words(sentence);
            if !(4..=18).contains(&spoken.len()) {
                continue;
            }
            // Users write without capitals and punctuation as often as with them.
            let asked = if random.random_bool(0.7) { spoken.join(" ") } else { (*sentence).to_owned() };
            let next = sentences.get(at + 1).filter(|next| (2..=18).contains(&words(next).len()));
            match next {
                Some(next) if random.random_bool(0.3) => pairs.push((asked, (*next).to_owned())),
                _ => pairs.push((asked, rarest(&spoken, &counts))),
            }
            if pairs.len() >= LIMIT {
                break 'paragraphs;
            }
        }
    }
    vocabulary.encode_conversations(&pairs)
}

/// Lower-cased words of letters, apostrophes inside included.
fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphabetic() && c != '\'' && c != '’')
        .map(|word| word.trim_matches(['\'', '’']).replace('’', "'").to_lowercase())
        .filter(|word| !word.is_empty())
        .collect()
}

/// One to three of the rarest words, in the order of the sentence.
fn rarest(sentence: &[String], counts: &HashMap<String, u32>) -> String {
    let count = |word: &String| counts.get(word).copied().unwrap_or(0);
    let mut ranked: Vec<usize> = (0..sentence.len()).collect();
    ranked.sort_by_key(|&at| (count(&sentence[at]), at));
    ranked.truncate(1 + sentence.len() / 7);
    ranked.sort_unstable();
    ranked.iter().map(|&at| sentence[at].as_str()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rarest_words_keep_their_order() {
        let counts = [("the", 90), ("whale", 3), ("of", 80), ("ocean", 2), ("a", 70), ("in", 60), ("is", 50)];
        let counts = counts.into_iter().map(|(word, count)| (word.to_owned(), count)).collect();
        assert_eq!(rarest(&words("The whale is in the Ocean, of a"), &counts), "whale ocean");
    }
}
