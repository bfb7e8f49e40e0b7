//! Reading text files into paragraphs.

use std::path::{Path, PathBuf};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{EngineError, Result};

/// Text to learn from, in order.
pub(super) struct Corpus {
    /// Paragraphs of a few thousand characters, some of them lower-cased.
    pub(super) paragraphs: Vec<String>,
}

/// Longest paragraph, in bytes.
const PARAGRAPH: usize = 4000;

/// Reads every file; `lowercase_share` of the paragraphs are lower-cased.
pub(super) fn read(files: &[PathBuf], lowercase_share: f64, seed: u64) -> Result<Corpus> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut paragraphs = Vec::new();
    for file in files {
        for document in documents(file)? {
            for paragraph in split(&document) {
                let lower = random.random_bool(lowercase_share.clamp(0.0, 1.0));
                paragraphs.push(if lower { paragraph.to_lowercase() } else { paragraph.to_owned() });
            }
        }
    }
    if paragraphs.is_empty() {
        return Err(EngineError::Request("the corpus holds no text".into()));
    }
    Ok(Corpus { paragraphs })
}

fn documents(file: &Path) -> Result<Vec<String>> {
    let bytes = std::fs::read(file).map_err(|error| EngineError::file(file, &error))?;
    let name = file.to_string_lossy();
    let (bytes, name) = match name.strip_suffix(".zst") {
        Some(name) => (
            zstd::decode_all(bytes.as_slice()).map_err(|error| EngineError::file(file, &error))?,
            name.to_owned(),
        ),
        None => (bytes, name.into_owned()),
    };
    let text = String::from_utf8_lossy(&bytes);
    if !name.ends_with(".jsonl") {
        return Ok(text.split('\u{1e}').map(str::to_owned).collect());
    }
    #[derive(serde::Deserialize)]
    struct Line {
        text: String,
    }
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(at, line)| {
            let parsed: Line = serde_json::from_str(line).map_err(|error| {
                EngineError::Request(format!("{} line {}: {error}", file.display(), at + 1))
            })?;
            Ok(parsed.text)
        })
        .collect()
}

/// Cuts a document at line or sentence ends into pieces of at most [`PARAGRAPH`] bytes.
fn split(document: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = document.trim();
    while rest.len() > PARAGRAPH {
        let mut limit = PARAGRAPH;
        while !rest.is_char_boundary(limit) {
            limit -= 1;
        }
        let (head, _) = rest.split_at(limit);
        let cut = head.rfind('\n').or_else(|| head.rfind(". ").map(|at| at + 1)).unwrap_or(limit).max(1);
        let cut = (cut..=limit).find(|&at| rest.is_char_boundary(at)).unwrap_or(limit);
        let (piece, tail) = rest.split_at(cut);
        pieces.push(piece.trim());
        rest = tail.trim_start();
    }
    pieces.push(rest);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_document_is_cut_between_sentences_and_nothing_is_lost() {
        let document = "A sentence of é words. ".repeat(500);
        let pieces = split(&document);
        assert!(
            pieces.len() > 1 && pieces.iter().all(|piece| piece.len() <= PARAGRAPH && piece.ends_with('.'))
        );
        assert_eq!(pieces.join(" "), document.trim());
    }
}
