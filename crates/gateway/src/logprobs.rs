//! Log-probabilities in OpenAI's two forms.

use autoglm_domain::{Endpoint, PromptToken, TokenLogprob};
use serde::{Serialize, Serializer};

/// Log-probabilities of a chat answer: `{"content": [{token, logprob, bytes, top_logprobs}], "refusal": null}`.
#[derive(Debug, Serialize)]
pub(crate) struct ChatLogprobs<'a> {
    content: Vec<ChatToken<'a>>,
    refusal: Option<()>,
}

/// A token of a chat answer or a response.
#[derive(Debug, Serialize)]
pub(crate) struct ChatToken<'a> {
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
        Self { content: tokens.iter().map(ChatToken::new).collect(), refusal: None }
    }
}

impl<'a> ChatToken<'a> {
    pub(crate) fn new(token: &'a TokenLogprob) -> Self {
        let alternative = |(text, logprob): &'a (String, f32)| Alternative {
            token: text,
            logprob: *logprob,
            bytes: bytes(text),
        };
        Self {
            token: &token.token,
            logprob: token.logprob,
            bytes: bytes(&token.token),
            top_logprobs: token.top.iter().map(alternative).collect(),
        }
    }
}

/// A token's bytes; unknown where its text only stands for a part of a character.
fn bytes(token: &str) -> Option<&[u8]> {
    (!token.contains(char::REPLACEMENT_CHARACTER)).then_some(token.as_bytes())
}

/// Log-probabilities of a plain completion: four lists side by side. The first token of an echoed prompt has none.
#[derive(Debug, Default, Serialize)]
pub(crate) struct TextLogprobs<'a> {
    tokens: Vec<&'a str>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Top<'a>>>,
    text_offset: Vec<usize>,
}

impl<'a> TextLogprobs<'a> {
    /// `offset` is where the first token begins, in characters of the answer; it is moved behind the last.
    pub(crate) fn new(tokens: &'a [TokenLogprob], offset: &mut usize) -> Self {
        let mut lists = Self::default();
        for token in tokens {
            lists.text_offset.push(*offset);
            *offset += token.token.chars().count();
            lists.tokens.push(&token.token);
            lists.token_logprobs.push(Some(token.logprob));
            lists.top_logprobs.push(Some(Top::Answer(&token.top)));
        }
        lists
    }

    /// The same with the prompt, which stands before the answer: `text` as `tokens`.
    pub(crate) fn of_prompt(text: &str, tokens: &'a [PromptToken], offset: &mut usize) -> Self {
        let mut lists = Self::default();
        let mut rest = text;
        for token in tokens {
            lists.text_offset.push(*offset);
            // A begin token, which stands for none of the text, takes no room.
            if let Some(after) = rest.strip_prefix(token.token.as_str()) {
                *offset += token.token.chars().count();
                rest = after;
            }
            lists.tokens.push(&token.token);
            lists.token_logprobs.push(token.score.as_ref().map(|score| score.logprob));
            lists.top_logprobs.push(token.score.as_ref().map(|score| Top::Prompt(&score.top)));
        }
        *offset = text.chars().count();
        lists
    }

    /// Puts the lists of `next` behind these.
    pub(crate) fn append(&mut self, next: Self) {
        self.tokens.extend(next.tokens);
        self.token_logprobs.extend(next.token_logprobs);
        self.top_logprobs.extend(next.top_logprobs);
        self.text_offset.extend(next.text_offset);
    }
}

/// Alternatives as an object from token to log-probability.
#[derive(Debug)]
enum Top<'a> {
    Answer(&'a [(String, f32)]),
    Prompt(&'a [(u32, String, f32)]),
}

impl Serialize for Top<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Answer(top) => serializer.collect_map(top.iter().map(|(token, logprob)| (token, logprob))),
            Self::Prompt(top) => {
                serializer.collect_map(top.iter().map(|(_, token, logprob)| (token, logprob)))
            }
        }
    }
}

/// How likely the tokens of a prompt are, in vLLM's form: `null` for the first, then an object from the ids of
/// the token and its alternatives to `{logprob, rank, decoded_token}`.
#[derive(Debug)]
pub(crate) struct PromptLogprobs<'a>(pub(crate) &'a [PromptToken]);

#[derive(Debug, Serialize)]
struct RankedToken<'a> {
    logprob: f32,
    rank: u32,
    decoded_token: &'a str,
}

impl Serialize for PromptLogprobs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|token| {
            let score = token.score.as_ref()?;
            let own = RankedToken { logprob: score.logprob, rank: score.rank, decoded_token: &token.token };
            let mut entries = serde_json::Map::new();
            entries.insert(token.id.to_string(), serde_json::to_value(own).ok()?);
            for ((id, text, logprob), rank) in score.top.iter().zip(1..) {
                let other = RankedToken { logprob: *logprob, rank, decoded_token: text };
                entries.entry(id.to_string()).or_insert(serde_json::to_value(other).ok()?);
            }
            Some(entries)
        }))
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

impl<'a> Logprobs<'a> {
    /// Those of an answer's tokens, in the endpoint's form; `offset` as in [`TextLogprobs::new`].
    pub(crate) fn new(endpoint: Endpoint, tokens: &'a [TokenLogprob], offset: &mut usize) -> Self {
        match endpoint {
            Endpoint::Completion => Self::Text(TextLogprobs::new(tokens, offset)),
            Endpoint::Chat | Endpoint::Responses => Self::Chat(ChatLogprobs::new(tokens)),
        }
    }
}
