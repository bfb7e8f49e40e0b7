//! The bytes that each token of a vocabulary stands for, which grammars are matched against.

use std::collections::HashMap;

use llguidance::toktrie::TokTrie;
use serde_json::Value;

use crate::{EngineError, Result, Tokenizer};

/// How a tokenizer writes bytes into the names of its tokens.
#[derive(Debug, PartialEq)]
enum Spelling {
    /// GPT-2's: every byte is a printable character.
    ByteLevel,
    /// SentencePiece's: text with a mark for the blank, and `<0x0A>` for a byte that is no text.
    Marked(String),
}

/// The bytes of every id below the tokenizer's vocabulary size: empty where an id has no token. Special tokens
/// and those in `ends` begin with toktrie's marker, so that they never pass for text.
///
/// `Invalid` when the tokenizer's decoder is of a kind whose tokens do not stand for bytes one by one.
pub(crate) fn token_bytes(tokenizer: &Tokenizer, ends: &[u32]) -> Result<Vec<Vec<u8>>> {
    let spelling = spelling(tokenizer.decoder_json().as_ref())?;
    let characters = byte_characters();
    let ids = u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX);
    Ok((0..ids)
        .map(|id| {
            let Some(name) = tokenizer.name(id) else { return Vec::new() };
            if tokenizer.is_special(id) || ends.contains(&id) {
                let mut bytes = vec![TokTrie::SPECIAL_TOKEN_MARKER];
                bytes.extend(name.bytes());
                return bytes;
            }
            if tokenizer.is_added(id) {
                return name.into_bytes();
            }
            match &spelling {
                Spelling::ByteLevel => {
                    let bytes: Option<Vec<u8>> =
                        name.chars().map(|character| characters.get(&character).copied()).collect();
                    bytes.unwrap_or_else(|| name.into_bytes())
                }
                Spelling::Marked(mark) => match byte_of(&name) {
                    Some(byte) => vec![byte],
                    None => name.replace(mark.as_str(), " ").into_bytes(),
                },
            }
        })
        .collect())
}

/// Reads the spelling from a decoder as `tokenizer.json` writes it.
fn spelling(decoder: Option<&Value>) -> Result<Spelling> {
    let mut mark = None;
    let mut open: Vec<&Value> = decoder.into_iter().collect();
    while let Some(part) = open.pop() {
        let text = |key: &str| part.get(key).and_then(Value::as_str);
        match text("type") {
            Some("ByteLevel") => return Ok(Spelling::ByteLevel),
            Some("Sequence") => {
                open.extend(part.get("decoders").and_then(Value::as_array).into_iter().flatten())
            }
            Some("Metaspace") => mark = Some(text("replacement").unwrap_or("▁").to_owned()),
            Some("Replace") if text("content") == Some(" ") => {
                let pattern = part.get("pattern").and_then(|pattern| pattern.get("String"));
                mark = pattern.and_then(Value::as_str).map(str::to_owned);
            }
            Some("ByteFallback") => mark = mark.or(Some("▁".to_owned())),
            _ => {}
        }
    }
    mark.map(Spelling::Marked).ok_or_else(|| {
        EngineError::Request(
            "`response_format` and required tool calls are not supported with this model's tokenizer, whose \
             decoder is neither byte-level nor SentencePiece's"
                .into(),
        )
    })
}

/// `<0x0A>` is a byte.
fn byte_of(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("<0x")?.strip_suffix('>').filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}

/// GPT-2's characters for bytes: printable Latin-1 stands for itself, the others follow from U+0100 on.
fn byte_characters() -> HashMap<char, u8> {
    let mut next = 0x100;
    (0..=255_u8)
        .filter_map(|byte| {
            let printable = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
            let character = if printable {
                char::from(byte)
            } else {
                next += 1;
                char::from_u32(next - 1)?
            };
            Some((character, byte))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tokenizer::tests::small;

    #[test]
    fn the_bytes_of_a_texts_tokens_are_the_texts() {
        let tokenizer = small();
        let bytes = token_bytes(&tokenizer, &[1]).unwrap();
        assert_eq!(bytes.len(), tokenizer.vocab_size());
        let text = "the cat, \"Grüße\"\n\t{€}";
        let ids = tokenizer.encode(text, false).unwrap();
        let joined: Vec<u8> = ids.iter().flat_map(|id| bytes[*id as usize].clone()).collect();
        assert_eq!(String::from_utf8(joined).unwrap(), text);
        assert_eq!(bytes[1], b"\xFF</s>");
        // Every byte has a token of its own.
        for byte in 0..=255_u8 {
            assert!(bytes.contains(&vec![byte]), "{byte}");
        }
    }

    #[test]
    fn sentencepiece_marks_blanks_and_single_bytes() {
        let decoder = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
        assert_eq!(spelling(Some(&decoder)).unwrap(), Spelling::Marked("▁".into()));
        assert_eq!(byte_of("<0x0A>"), Some(10));
        assert_eq!(byte_of("<0xZZ>"), None);
        let refused = spelling(Some(&json!({"type": "WordPiece", "prefix": "##"}))).unwrap_err();
        assert!(refused.to_string().starts_with("`response_format` and required"), "{refused}");
        assert!(spelling(None).is_err());
    }
}
