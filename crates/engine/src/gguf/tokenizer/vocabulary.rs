//! The tokens of a GGUF file with their kinds.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{KINDS, TOKENS};
use crate::{Result, gguf::metadata::Metadata};

/// What a token is for (`enum llama_token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A piece of text.
    Normal,
    /// What stands for a text that has no tokens.
    Unknown,
    /// A mark that never shows in the text.
    Control,
    /// A piece of text that is found before all others.
    UserDefined,
    /// An empty row of the embedding.
    Unused,
    /// One byte, for texts that have no other tokens.
    Byte,
}

impl Kind {
    pub(super) const ALL: [Self; 6] =
        [Self::Normal, Self::Unknown, Self::Control, Self::UserDefined, Self::Unused, Self::Byte];

    /// The number that stands in files.
    pub(super) fn id(self) -> i32 {
        match self {
            Self::Normal => 1,
            Self::Unknown => 2,
            Self::Control => 3,
            Self::UserDefined => 4,
            Self::Unused => 5,
            Self::Byte => 6,
        }
    }
}

/// The tokens in the order of their ids.
#[derive(Debug)]
pub(super) struct Vocabulary<'a> {
    tokens: &'a [String],
    kinds: Vec<Kind>,
    ids: HashMap<&'a str, usize>,
}

impl<'a> Vocabulary<'a> {
    /// Reads the tokens and holds their kinds against them.
    pub(super) fn read(metadata: &'a Metadata) -> Result<Self> {
        let tokens = metadata
            .texts(TOKENS)?
            .filter(|tokens| !tokens.is_empty())
            .ok_or_else(|| metadata.missing(TOKENS))?;
        let kinds = match metadata.numbers(KINDS)? {
            None => vec![Kind::Normal; tokens.len()],
            Some(numbers) if numbers.len() == tokens.len() => {
                let kind = |(at, number): (usize, &f64)| {
                    Kind::ALL.into_iter().find(|kind| f64::from(kind.id()) == *number).ok_or_else(|| {
                        metadata.error(format!("has the token {at} of kind {number}, which does not exist"))
                    })
                };
                numbers.iter().enumerate().map(kind).collect::<Result<_>>()?
            }
            Some(numbers) => {
                let (kinds, tokens) = (numbers.len(), tokens.len());
                return Err(metadata.error(format!("has {tokens} tokens, but {kinds} kinds of tokens")));
            }
        };
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if kinds[id] == Kind::Unused {
                continue;
            }
            if let Some(first) = ids.insert(token.as_str(), id) {
                return Err(metadata.error(format!("has the token `{token}` twice, as {first} and {id}")));
            }
        }
        Ok(Self { tokens, kinds, ids })
    }

    /// The id of a token.
    pub(super) fn id(&self, token: &str) -> Option<usize> {
        self.ids.get(token).copied()
    }

    /// The token of an id.
    pub(super) fn token(&self, id: u64) -> Option<&'a str> {
        self.tokens.get(usize::try_from(id).ok()?).map(String::as_str)
    }

    /// The kind of a token.
    pub(super) fn kind(&self, id: usize) -> Option<Kind> {
        self.kinds.get(id).copied()
    }

    /// How many ids there are.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Tokens with ids and kinds; the unused ones are left out.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &'a str, Kind)> {
        let entries = self.tokens.iter().zip(&self.kinds).enumerate();
        entries
            .filter(|(_, (_, kind))| **kind != Kind::Unused)
            .map(|(id, (token, kind))| (id, token.as_str(), *kind))
    }

    /// The `vocab` of a `tokenizer.json`.
    pub(super) fn to_json(&self) -> Value {
        Value::Object(self.iter().map(|(id, token, _)| (token.to_owned(), json!(id))).collect::<Map<_, _>>())
    }

    /// The `added_tokens` of a `tokenizer.json`: those that are found in a text before it is split.
    pub(super) fn added_tokens(&self) -> Value {
        let added = self
            .iter()
            .filter(|(_, _, kind)| matches!(kind, Kind::Control | Kind::UserDefined | Kind::Unknown));
        added
            .map(|(id, token, kind)| {
                json!({
                    "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": kind != Kind::UserDefined,
                })
            })
            .collect()
    }
}
