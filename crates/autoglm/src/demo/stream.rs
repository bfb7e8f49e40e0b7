//! The stream format: JSON lines in, tasks with traffic and held-out utterances out.
//!
//! One object a line: `{"prompt", "reference", "task"?, "context"?, "held_out"?}`. Tasks come in the order of
//! their first appearance. Lines with `held_out: true` are never traffic. A file may be compressed with zstd.

use std::{collections::HashSet, io::Read as _, path::Path};

use autoglm_domain::{Error, ErrorKind, Result};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{answer::normalised, options::DemoOptions};

/// CLINC150 (CC BY 3.0, see `data/clinc150/README.md`), zstd.
static CLINC150: &[u8] = include_bytes!("../../../../data/clinc150/clinc150.jsonl.zst");

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const MAX_FILE_BYTES: u64 = 256 << 20;
const MAX_LINE_BYTES: usize = 64 << 10;
const MAX_PROMPT_CHARS: usize = 16_000;
const MAX_REFERENCE_CHARS: usize = 4_000;
const MAX_CONTEXT_CHARS: usize = 16_000;
const MAX_TASK_CHARS: usize = 64;
const MAX_TASKS: usize = 1_000;
const KEYS: [&str; 5] = ["prompt", "reference", "task", "context", "held_out"];
/// Where lines without a task go.
const UNNAMED_TASK: &str = "stream";

/// One line of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Utterance {
    /// What the user says.
    pub(crate) prompt: String,
    /// The answer that is right.
    pub(crate) reference: String,
    /// What the answer must agree with, where the line has it.
    pub(crate) context: Option<String>,
}

/// The utterances of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task {
    /// Its name.
    pub(crate) name: String,
    /// What is sent, in order.
    pub(crate) traffic: Vec<Utterance>,
    /// What is only measured on, spread so that any beginning of it has all references in like numbers.
    pub(crate) held_out: Vec<Utterance>,
    /// Distinct references of the traffic, in order of first appearance.
    pub(crate) references: Vec<String>,
}

/// A line that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct BrokenLine {
    /// Its number, from 1.
    pub(crate) line: usize,
    /// What is wrong with it.
    pub(crate) problem: String,
}

/// How many lines became what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct StreamCounts {
    /// Lines that are not blank.
    pub(crate) lines: usize,
    /// Utterances to send.
    pub(crate) traffic: usize,
    /// Utterances to measure on.
    pub(crate) held_out: usize,
    /// Traffic lines left out because a held-out line asks the same.
    pub(crate) overlapping: usize,
    /// Lines left out by `--limit`.
    pub(crate) beyond_limit: usize,
    /// Lines left out because they are broken (`--keep-going`).
    pub(crate) broken: Vec<BrokenLine>,
}

/// A parsed stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stream {
    /// The file's name, or `CLINC150`.
    pub(crate) name: String,
    /// Its tasks, in order of first appearance.
    pub(crate) tasks: Vec<Task>,
    /// How many lines became what.
    pub(crate) counts: StreamCounts,
}

/// Reads the stream that `options` name. `NotFound` or `Invalid` with the file's or the line's name.
pub(crate) fn load(options: &DemoOptions) -> Result<Stream> {
    match &options.stream {
        None => bundled(options.limit),
        Some(path) => {
            let name = path.display().to_string();
            parse(&name, &read(path)?, options.keep_going, options.limit)
        }
    }
}

/// The stream that comes inside the binary, with at most `limit` utterances a task.
pub(crate) fn bundled(limit: Option<usize>) -> Result<Stream> {
    let text = decompressed(CLINC150).map_err(|e| Error::internal(format!("bundled stream: {e}")))?;
    parse("CLINC150", &text, false, limit)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let fault = |error: std::io::Error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::Invalid,
        };
        Error::new(kind, format!("cannot read stream {}: {error}", path.display()))
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(fault)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(fault)?;
    if bytes.starts_with(&ZSTD_MAGIC) {
        bytes = decompressed(&bytes).map_err(fault)?;
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::invalid(format!(
            "stream {} is larger than {MAX_FILE_BYTES} bytes",
            path.display()
        )));
    }
    Ok(bytes)
}

fn decompressed(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    zstd::stream::read::Decoder::new(bytes)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// Parses `bytes`. The first broken line is an error unless `keep_going`; `limit` is a task's most utterances.
pub(crate) fn parse(name: &str, bytes: &[u8], keep_going: bool, limit: Option<usize>) -> Result<Stream> {
    let mut stream = Stream { name: name.to_owned(), tasks: Vec::new(), counts: StreamCounts::default() };
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for (position, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        stream.counts.lines += 1;
        let added = parse_line(line).and_then(|parsed| stream.add(parsed));
        if let Err(Problem { problem, hint }) = added {
            let line = position + 1;
            if !keep_going {
                let hint =
                    hint.unwrap_or_else(|| "--keep-going names broken lines and plays the rest".into());
                return Err(Error::invalid(format!("{name}, line {line}: {problem}")).with_hint(hint));
            }
            stream.counts.broken.push(BrokenLine { line, problem });
        }
    }
    stream.finish(limit)?;
    Ok(stream)
}

type Parsed<T> = std::result::Result<T, Problem>;

struct Problem {
    problem: String,
    hint: Option<String>,
}

impl<S: Into<String>> From<S> for Problem {
    fn from(problem: S) -> Self {
        Self { problem: problem.into(), hint: None }
    }
}

struct ParsedLine {
    utterance: Utterance,
    task: String,
    held_out: bool,
}

fn parse_line(line: &[u8]) -> Parsed<ParsedLine> {
    if line.len() > MAX_LINE_BYTES {
        return Err(format!("{} bytes, more than {MAX_LINE_BYTES}", line.len()).into());
    }
    let text = std::str::from_utf8(line).map_err(|_| "not UTF-8")?;
    let value: Value = serde_json::from_str(text.trim()).map_err(|error| {
        // The line is ours to name; serde counts within it, and always from 1.
        let said = error.to_string();
        format!("not JSON: {}", said.replace(" at line 1 column ", " at column "))
    })?;
    let Value::Object(mut object) = value else { return Err("not a JSON object".into()) };
    if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(unknown_key(key));
    }
    let held_out = match object.remove("held_out") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(held_out)) => held_out,
        Some(other) => return Err(format!("`held_out` is {other}, not true or false").into()),
    };
    let required = |text: Option<String>, key: &str| text.ok_or_else(|| format!("`{key}` is missing"));
    let prompt = required(take_text(&mut object, "prompt", MAX_PROMPT_CHARS)?, "prompt")?;
    let reference = required(take_text(&mut object, "reference", MAX_REFERENCE_CHARS)?, "reference")?;
    let task = take_text(&mut object, "task", MAX_TASK_CHARS)?.unwrap_or_else(|| UNNAMED_TASK.into());
    let context = take_text(&mut object, "context", MAX_CONTEXT_CHARS)?;
    Ok(ParsedLine { utterance: Utterance { prompt, reference, context }, task, held_out })
}

fn unknown_key(key: &str) -> Problem {
    let shown: String = key.chars().take(40).collect();
    let nearest = KEYS.iter().max_by(|a, b| strsim::jaro(key, a).total_cmp(&strsim::jaro(key, b)));
    let hint = match nearest {
        Some(nearest) if strsim::jaro(key, nearest) > 0.7 => format!("did you mean `{nearest}`?"),
        _ => format!("known keys are {}", KEYS.join(", ")),
    };
    Problem { problem: format!("unknown key `{shown}`"), hint: Some(hint) }
}

fn take_text(object: &mut Map<String, Value>, key: &str, most: usize) -> Parsed<Option<String>> {
    let text = match object.remove(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text,
        Some(other) => {
            let what = match other {
                Value::Bool(_) => "a truth value",
                Value::Number(_) => "a number",
                Value::Array(_) => "an array",
                _ => "an object",
            };
            return Err(format!("`{key}` is {what}, not a string").into());
        }
    };
    if text.trim().is_empty() {
        return Err(format!("`{key}` is empty").into());
    }
    let length = text.chars().count();
    if length > most {
        return Err(format!("`{key}` has {length} characters, more than {most}").into());
    }
    Ok(Some(text))
}

impl Stream {
    fn add(&mut self, line: ParsedLine) -> Parsed<()> {
        let at = match self.tasks.iter().position(|task| task.name == line.task) {
            Some(at) => at,
            None if self.tasks.len() == MAX_TASKS => {
                return Err(format!("more than {MAX_TASKS} tasks").into());
            }
            None => {
                self.tasks.push(Task {
                    name: line.task,
                    traffic: Vec::new(),
                    held_out: Vec::new(),
                    references: Vec::new(),
                });
                self.tasks.len() - 1
            }
        };
        let Some(task) = self.tasks.get_mut(at) else { return Ok(()) };
        if line.held_out {
            task.held_out.push(line.utterance);
        } else {
            task.traffic.push(line.utterance);
        }
        Ok(())
    }

    fn finish(&mut self, limit: Option<usize>) -> Result<()> {
        let key = |utterance: &Utterance| (normalised(&utterance.prompt), utterance.context.clone());
        let asked: HashSet<_> = self.tasks.iter().flat_map(|task| &task.held_out).map(key).collect();
        let limit = limit.unwrap_or(usize::MAX);
        for task in &mut self.tasks {
            let before = task.traffic.len();
            task.traffic.retain(|utterance| !asked.contains(&key(utterance)));
            self.counts.overlapping += before - task.traffic.len();
            task.held_out = spread(std::mem::take(&mut task.held_out));
            for part in [&mut task.traffic, &mut task.held_out] {
                self.counts.beyond_limit += part.len().saturating_sub(limit);
                part.truncate(limit);
            }
            let mut seen = HashSet::new();
            let all = task.traffic.iter().map(|utterance| &utterance.reference);
            task.references = all.filter(|reference| seen.insert(*reference)).cloned().collect();
            self.counts.traffic += task.traffic.len();
            self.counts.held_out += task.held_out.len();
        }
        if self.counts.traffic == 0 {
            let broken = self.counts.broken.len();
            return Err(Error::invalid(format!(
                "{}: nothing to play ({} lines, {broken} broken, {} held out)",
                self.name, self.counts.lines, self.counts.held_out
            ))
            .with_hint("a stream needs lines with `prompt` and `reference` that are not `held_out`"));
        }
        Ok(())
    }
}

/// The same utterances, ordered so that the references take turns.
fn spread(utterances: Vec<Utterance>) -> Vec<Utterance> {
    let mut seen = std::collections::HashMap::<String, usize>::new();
    let mut keyed: Vec<(usize, Utterance)> = Vec::with_capacity(utterances.len());
    for utterance in utterances {
        let turn = seen.entry(utterance.reference.clone()).or_default();
        keyed.push((*turn, utterance));
        *turn += 1;
    }
    keyed.sort_by_key(|(turn, _)| *turn);
    keyed.into_iter().map(|(_, utterance)| utterance).collect()
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
