//! Log-probabilities in OpenAI's two forms.

use autoglm_domain::TokenLogprob;
use serde::{Serialize, Serializer, ser::SerializeMap as _};

/// Log-probabilities of a chat answer: `{"content": [{token, logprob, bytes, top_logprobs}], "refusal": null}`.
#[derive(Debug, Serialize)]
pub(crate) struct ChatLogprobs<'a> {
    content: Vec<ChatToken<'a>>,
    refusal: Option<()>,
}

#[derive(Debug, Serialize)]
struct ChatToken<'a> {
    token: &'a str,
    logprob: f32,
    bytes: Option<&'a [u8]>,
    top_logprobs: Vec<Alternative<'a>>,
}

#[derive(Debug, Serialize)]
struct Alternative<'a> {
    token: &'a str,
    logprob: f32,
    bytes: Option<&'a [u8]>,
}

impl<'a> ChatLogprobs<'a> {
    pub(crate) fn new(tokens: &'a [TokenLogprob]) -> Self {
        let content = tokens
            .iter()
            .map(|token| ChatToken {
                token: &token.token,
                logprob: token.logprob,
                bytes: bytes(&token.token),
                top_logprobs: token
                    .top
                    .iter()
                    .map(|(text, logprob)| Alternative { token: text, logprob: *logprob, bytes: bytes(text) })
                    .collect(),
            })
            .collect();
        Self { content, refusal: None }
    }
}

/// A token's bytes; unknown where its text only stands for a part of a character.
fn bytes(token: &str) -> Option<&[u8]> {
    (!token.contains(char::REPLACEMENT_CHARACTER)).then_some(token.as_bytes())
}

/// Log-probabilities of a plain completion: four lists side by side.
#[derive(Debug, Serialize)]
pub(crate) struct TextLogprobs<'a> {
    tokens: Vec<&'a str>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<Top<'a>>,
    text_offset: Vec<usize>,
}

impl<'a> TextLogprobs<'a> {
    /// `offset` is where the first token begins, in characters of the answer; it is moved behind the last.
    pub(crate) fn new(tokens: &'a [TokenLogprob], offset: &mut usize) -> Self {
        let mut text_offset = Vec::with_capacity(tokens.len());
        for token in tokens {
            text_offset.push(*offset);
            *offset += token.token.chars().count();
        }
        Self {
            tokens: tokens.iter().map(|token| token.token.as_str()).collect(),
            token_logprobs: tokens.iter().map(|token| token.logprob).collect(),
            top_logprobs: tokens.iter().map(|token| Top(&token.top)).collect(),
            text_offset,
        }
    }
}

/// Alternatives as an object from token to log-probability.
#[derive(Debug)]
struct Top<'a>(&'a [(String, f32)]);

impl Serialize for Top<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (token, logprob) in self.0 {
            map.serialize_entry(token, logprob)?;
        }
        map.end()
    }
}

/// Either form.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Logprobs<'a> {
    /// Of a chat answer.
    Chat(ChatLogprobs<'a>),
    /// Of a plain completion.
    Text(TextLogprobs<'a>),
}
