//! Token ids one by one in, text that may be shown out: whole characters only, nothing that could still become
//! a stop string, nothing from a stop string on.

use std::{collections::VecDeque, sync::Arc};

use autoglm_domain::TokenLogprob;

use crate::{Result, Tokenizer};

/// After this many tokens without a whole character, the bytes are taken to be no text.
const MAX_OPEN_TOKENS: usize = 16;

/// Turns ids into text as they come.
#[derive(Debug)]
struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    window: Vec<u32>, // the ids that the next text depends on
    given: usize,     // how many of them have given their text
    prefix: String,   // the text that they gave
}

impl Detokenizer {
    fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, window: Vec::new(), given: 0, prefix: String::new() }
    }

    /// The text that became whole with `id`; empty while a character is open.
    fn push(&mut self, id: u32) -> Result<String> {
        // A special token has no text. As the whole context it would make the next token the first of a text,
        // whose blank some decoders drop.
        if self.tokenizer.is_special(id) {
            return Ok(String::new());
        }
        self.window.push(id);
        let text = self.tokenizer.decode(&self.window)?;
        if text.ends_with('\u{FFFD}') && self.window.len() - self.given < MAX_OPEN_TOKENS {
            return Ok(String::new());
        }
        self.give(&text)
    }

    /// What is left, broken characters as `U+FFFD`.
    fn flush(&mut self) -> Result<String> {
        let text = self.tokenizer.decode(&self.window)?;
        self.give(&text)
    }

    /// Hands out what `text`, the window's, has beyond the prefix. The ids that gave it stay as context, as
    /// some decoders treat the first token of a text differently.
    fn give(&mut self, text: &str) -> Result<String> {
        let fresh = text.get(self.prefix.len()..).unwrap_or_default().to_owned();
        self.window.drain(..self.given);
        self.given = self.window.len();
        self.prefix = self.tokenizer.decode(&self.window)?;
        Ok(fresh)
    }
}

/// Some text that may be shown, with the log-probabilities of the tokens that made it.
#[derive(Debug, Default, PartialEq)]
pub struct Piece {
    /// The text.
    pub text: String,
    /// The tokens, where they were reported.
    pub logprobs: Vec<TokenLogprob>,
    /// Whether a stop string was met; nothing follows then.
    pub stopped: bool,
}

impl Piece {
    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.logprobs.is_empty()
    }
}

/// The text of one answer as it grows.
#[derive(Debug)]
pub struct TextStream {
    detokenizer: Detokenizer,
    stops: Vec<String>,
    held: String,                             // decoded, not yet shown
    shown: usize,                             // bytes shown so far
    reports: VecDeque<(usize, TokenLogprob)>, // where the token's text begins, in bytes of the whole answer
    every_token: bool,
    markers: Vec<(u32, String)>,
}

impl TextStream {
    /// A stream that ends before the first of `stops`, none of which is empty.
    pub fn new(tokenizer: Arc<Tokenizer>, stops: Vec<String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self {
            detokenizer: Detokenizer::new(tokenizer),
            stops,
            held: String::new(),
            shown: 0,
            reports: VecDeque::new(),
            every_token: false,
            markers: Vec::new(),
        }
    }

    /// Shows special tokens in the text: those of `markers`, as it says.
    #[must_use]
    pub fn showing(mut self, markers: Vec<(u32, String)>) -> Self {
        self.markers = markers;
        self
    }

    /// Reports the tokens of a stop string too, which show no text.
    #[must_use]
    pub fn reporting_every_token(mut self, every_token: bool) -> Self {
        self.every_token = every_token;
        self
    }

    /// Takes the token that ends the answer, which shows no text; [`TextStream::finish`] reports it.
    pub fn push_end(&mut self, report: Option<TokenLogprob>) {
        if self.every_token {
            self.reports.extend(report.map(|report| (self.shown + self.held.len(), report)));
        }
    }

    /// Takes one generated token. After a piece that says `stopped`, nothing more may be pushed.
    pub fn push(&mut self, id: u32, report: Option<TokenLogprob>) -> Result<Piece> {
        if let Some(report) = report {
            self.reports.push_back((self.shown + self.held.len(), report));
        }
        let fresh = match self.markers.iter().find(|(marker, _)| *marker == id) {
            Some((_, text)) => self.detokenizer.flush()? + text,
            None => self.detokenizer.push(id)?,
        };
        self.held.push_str(&fresh);
        Ok(self.release(fresh.len()))
    }

    /// The end of the answer: gives everything that was held back, up to a stop string.
    pub fn finish(&mut self) -> Result<Piece> {
        let fresh = self.detokenizer.flush()?;
        self.held.push_str(&fresh);
        let mut piece = self.release(fresh.len());
        if !piece.stopped {
            piece.text.push_str(&self.held);
            self.shown += self.held.len();
            self.held.clear();
            piece.logprobs.extend(self.reports.drain(..).map(|(_, report)| report));
        }
        Ok(piece)
    }

    /// Shows as much of the held text as may be shown; the last `fresh` bytes were not looked at before.
    fn release(&mut self, fresh: usize) -> Piece {
        let stop = self.find_stop(fresh);
        let end = stop.unwrap_or_else(|| self.held.len() - self.undecided());
        let text: String = self.held.drain(..end).collect();
        self.shown += text.len();
        let mut logprobs = Vec::new();
        while let Some((begin, _)) = self.reports.front()
            && *begin < self.shown
        {
            logprobs.extend(self.reports.pop_front().map(|(_, report)| report));
        }
        if stop.is_some() {
            self.held.clear();
            let hidden = self.reports.drain(..).map(|(_, report)| report);
            logprobs.extend(hidden.filter(|_| self.every_token));
        }
        Piece { text, logprobs, stopped: stop.is_some() }
    }

    /// Where the stop string begins that ends first; of those that end together, the longest. So the same
    /// text is cut at the same place however it was cut into tokens.
    fn find_stop(&self, fresh: usize) -> Option<usize> {
        let old = self.held.len() - fresh;
        self.stops
            .iter()
            .filter_map(|stop| {
                // A match ends in the fresh part; an earlier one would have been found before.
                let from = floor_char_boundary(&self.held, (old + 1).saturating_sub(stop.len()));
                let begin = self.held.get(from..)?.find(stop.as_str())? + from;
                Some((begin + stop.len(), begin))
            })
            .min()
            .map(|(_, begin)| begin)
    }

    /// Bytes at the end of the held text that could be the beginning of a stop string.
    fn undecided(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0).saturating_sub(1);
        let from = floor_char_boundary(&self.held, self.held.len().saturating_sub(longest));
        let tail = self.held.get(from..).unwrap_or_default();
        tail.char_indices()
            .map(|(index, _)| tail.get(index..).unwrap_or_default())
            .find(|rest| self.stops.iter().any(|stop| stop.starts_with(rest)))
            .map_or(0, str::len)
    }
}

/// The largest boundary between characters at or before `index`.
fn floor_char_boundary(text: &str, index: usize) -> usize {
    (0..=index.min(text.len())).rev().find(|index| text.is_char_boundary(*index)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tokenizer::tests::small;

    fn run(ids: &[u32], stops: &[&str]) -> (Vec<String>, bool, Vec<u32>) {
        let stops = stops.iter().map(ToString::to_string).collect();
        let mut stream = TextStream::new(Arc::new(small()), stops);
        let (mut texts, mut reported) = (Vec::new(), Vec::new());
        let mut take = |piece: Piece| {
            texts.push(piece.text);
            reported.extend(piece.logprobs.iter().map(|report| report.id));
            piece.stopped
        };
        for &id in ids {
            let report = TokenLogprob { token: String::new(), id, logprob: -1.0, top: Vec::new() };
            if take(stream.push(id, Some(report)).unwrap()) {
                return (texts, true, reported);
            }
        }
        let stopped = take(stream.finish().unwrap());
        (texts, stopped, reported)
    }

    /// Ids of the single bytes of `text`, the finest way to cut it.
    fn byte_ids(text: &str) -> Vec<u32> {
        let tokenizer = small();
        text.bytes()
            .map(|byte| {
                let plain = char::from(byte).to_string();
                let named = match byte {
                    b' ' => "Ġ".to_owned(),
                    b'\n' => "Ċ".to_owned(),
                    // Printable Latin-1 bytes stand for themselves; 0x80..=0xA0 are moved up by 0xA2.
                    0x80..=0xA0 => char::from_u32(u32::from(byte) + 0xA2).unwrap().to_string(),
                    0xAD => '\u{143}'.to_string(),
                    _ => plain,
                };
                tokenizer.token_id(&named).unwrap()
            })
            .collect()
    }

    #[test]
    fn a_character_of_four_bytes_comes_out_whole() {
        let ids = byte_ids("a👋b");
        let (texts, ..) = run(&ids, &[]);
        assert_eq!(texts, ["a", "", "", "", "👋", "b", ""]);
    }

    #[test]
    fn bytes_that_never_become_text_are_shown_broken_and_do_not_pile_up() {
        let tail = byte_ids("é")[1];
        let (texts, ..) = run(&[tail; 40], &[]);
        assert_eq!(texts.concat(), "\u{FFFD}".repeat(40));
        assert!(texts.iter().filter(|text| !text.is_empty()).count() >= 2);
    }

    #[test]
    fn what_could_begin_a_stop_string_is_held_back_and_released_when_it_does_not() {
        let ids = byte_ids("ab###c");
        let (texts, stopped, _) = run(&ids, &["####"]);
        assert_eq!(texts, ["a", "b", "", "", "", "###c", ""]);
        assert!(!stopped);
    }

    #[test]
    fn the_answer_ends_before_a_stop_string_with_the_tokens_that_made_it() {
        let ids = byte_ids("one\nUser: two");
        let (texts, stopped, reported) = run(&ids, &["\nUser:", "two"]);
        assert_eq!((texts.concat().as_str(), stopped), ("one", true));
        assert_eq!(reported, ids[..3]);
    }

    #[test]
    fn a_stop_string_within_one_token_cuts_inside_the_token() {
        let ids = small().encode("the cat", false).unwrap();
        let (texts, stopped, reported) = run(&ids, &["at"]);
        assert_eq!((texts.concat().as_str(), stopped), ("the c", true));
        assert_eq!(reported, ids);
    }

    #[test]
    fn a_special_token_that_is_to_be_shown_stands_between_the_texts_around_it() {
        let tokenizer = Arc::new(small());
        let mut stream = TextStream::new(Arc::clone(&tokenizer), Vec::new()).showing(vec![(0, "<s>".into())]);
        let mut text = String::new();
        let mut ids = tokenizer.encode("the cat", false).unwrap();
        ids.extend([byte_ids("é")[0], 0]); // a character that is never finished
        ids.extend(tokenizer.encode(" sat", false).unwrap());
        ids.push(1);
        for id in ids {
            text.push_str(&stream.push(id, None).unwrap().text);
        }
        text.push_str(&stream.finish().unwrap().text);
        assert_eq!(text, "the cat\u{FFFD}<s> sat");
    }

    proptest! {
        /// However the text is cut into tokens, it ends at the same place: at the stop that ends first.
        #[test]
        fn cutting_does_not_depend_on_the_tokens(
            text in "[abé]{0,24}",
            stops in prop::collection::vec("[abé]{1,4}", 0..3),
        ) {
            let expected = (0..=text.len())
                .filter(|end| text.is_char_boundary(*end))
                .find_map(|end| {
                    let longest = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str())).max_by_key(|stop| stop.len())?;
                    Some(end - longest.len())
                });
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            for ids in [byte_ids(&text), small().encode(&text, false).unwrap()] {
                let (texts, stopped, reported) = run(&ids, &stops);
                prop_assert_eq!(texts.concat(), &text[..expected.unwrap_or(text.len())]);
                prop_assert_eq!(stopped, expected.is_some());
                prop_assert!(stopped || reported == ids);
            }
        }
    }
}
