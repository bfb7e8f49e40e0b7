//! Export and import: one experience a line of JSON, without embeddings, which are made again on import.

use std::io::{BufRead, Write};

use autoglm_domain::{Experience, ExperienceId};
use serde::Serialize;
use serde_json::Value;

use crate::{Memory, MemoryError, Remembered, prompt_key::PromptKey, weigh};

/// Experiences that are written in one append.
const BATCH: usize = 256;

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Experiences that are new.
    pub added: u64,
    /// Lines whose prompt and target were remembered already; their principals' words were added.
    pub merged: u64,
    /// Lines that could not be used.
    pub broken: Vec<BrokenLine>,
}

/// A line that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BrokenLine {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

impl Memory {
    /// Writes every experience, those that lost included, oldest first. Gives their number.
    pub fn export(&self, out: &mut dyn Write) -> Result<u64, MemoryError> {
        let all: Vec<_> = self.pool.read().entries.iter().map(|entry| entry.experience.clone()).collect();
        for experience in &all {
            let mut value = serde_json::to_value(experience.as_ref()).map_err(std::io::Error::from)?;
            if let Some(fields) = value.as_object_mut() {
                fields.shift_remove("embedding");
            }
            serde_json::to_writer(&mut *out, &value).map_err(std::io::Error::from)?;
            out.write_all(b"\n")?;
        }
        out.flush()?;
        Ok(all.len() as u64)
    }

    /// Reads what [`Memory::export`] wrote. Without `keep_going` the first broken line is an error and
    /// nothing is imported; with it broken lines are left out and listed. Held-out marks, clusters and weights
    /// are worked out anew, and no principal counts for more than it could here. Importing twice changes
    /// nothing.
    pub async fn import(&self, input: impl BufRead, keep_going: bool) -> Result<Imported, MemoryError> {
        let mut report = Imported::default();
        let mut read = Vec::new();
        for (line, text) in (1_u64..).zip(input.split(b'\n')) {
            let text = text?;
            if text.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match self.parse(&text) {
                Ok(pair) => read.push(pair),
                Err(reason) if keep_going => report.broken.push(BrokenLine { line, reason }),
                Err(reason) => return Err(MemoryError::Line { line, reason }),
            }
        }
        let mut rest = read.into_iter().peekable();
        while rest.peek().is_some() {
            let batch: Vec<_> = rest.by_ref().take(BATCH).collect();
            for outcome in self.adopt_all(batch).await? {
                match outcome {
                    Remembered::New { .. } => report.added += 1,
                    _ => report.merged += 1,
                }
            }
        }
        Ok(report)
    }

    fn parse(&self, text: &[u8]) -> Result<(Experience, PromptKey), String> {
        let config = self.config();
        let mut value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let fields = value.as_object_mut().ok_or("it is not an object")?;
        fields.insert("embedding".to_owned(), Value::Array(Vec::new()));
        let mut experience: Experience = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let key = PromptKey::of(&experience.prompt).ok_or("the prompt has no user turn with text in it")?;
        let chars = experience.target.chars().count();
        if experience.target.trim().is_empty() {
            return Err("the target is empty".to_owned());
        }
        if chars > config.max_target_chars {
            return Err(format!("the target has {chars} characters, more than {}", config.max_target_chars));
        }
        let chars: usize = experience.prompt.iter().map(|message| message.content.chars().count()).sum();
        if chars > config.max_prompt_chars {
            return Err(format!("the prompt has {chars} characters, more than {}", config.max_prompt_chars));
        }
        if experience.task.as_deref() == Some("") {
            experience.task = None;
        }
        let limit = weigh::permille(config.principal_limit);
        weigh::complete(&mut experience, config);
        experience.provenance.vouches.sort_by(|a, b| a.principal.cmp(&b.principal));
        experience.provenance.vouches.dedup_by(|a, b| a.principal == b.principal);
        for word in &mut experience.provenance.vouches {
            word.permille = word.permille.clamp(-limit, limit);
        }
        self.give_free_id(&mut experience, &key);
        Ok((experience, key))
    }

    /// An id that names something else here is replaced.
    fn give_free_id(&self, experience: &mut Experience, key: &PromptKey) {
        let taken = self.pool.read().find(experience.id).is_some_and(|entry| {
            entry.key.whole != key.whole || entry.experience.target != experience.target
        });
        if taken {
            experience.id = ExperienceId::next(self.ids());
        }
    }
}
