//! The data set of a run, frozen under its content hash.
//!
//! JSON lines: a header, then one line an example. The bytes depend on the examples alone, so the same data
//! has the same hash, and anybody can read what a version learned from.

use autoglm_domain::{ArtifactStore, ContentHash};
use serde::{Deserialize, Serialize};

use crate::{Error, Plan, PlannedExample, Result, Role, Strategy};

const FORMAT: &str = "autoglm snapshot";
const VERSION: u32 = 1;

/// The first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotHeader {
    /// Always `autoglm snapshot`.
    pub format: String,
    /// Version of the format.
    pub version: u32,
    /// The strategy that chose the examples.
    pub strategy: Strategy,
    /// How many there are.
    pub examples: usize,
    /// How many of them are new.
    pub new: usize,
    /// How many are replayed.
    pub replay: usize,
}

/// A data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// What is in it.
    pub header: SnapshotHeader,
    /// The examples, new before replayed, each by id.
    pub examples: Vec<PlannedExample>,
}

impl Snapshot {
    /// The data set of a plan.
    pub fn of(plan: &Plan) -> Self {
        Self::from_examples(plan.strategy, plan.examples.clone())
    }

    /// A data set of any examples; they are put in order.
    pub fn from_examples(strategy: Strategy, mut examples: Vec<PlannedExample>) -> Self {
        examples.sort_by_key(|example| (example.role, example.experience));
        let new = examples.iter().filter(|example| example.role == Role::New).count();
        let (format, count) = (FORMAT.to_owned(), examples.len());
        let header =
            SnapshotHeader { format, version: VERSION, strategy, examples: count, new, replay: count - new };
        Self { header, examples }
    }

    /// The bytes that are hashed and stored.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = line(&self.header, 1)?;
        for (at, example) in self.examples.iter().enumerate() {
            if !example.weight.is_finite() {
                let what = format!("the weight of {} is not finite", example.experience);
                return Err(Error::Snapshot { line: at + 2, what });
            }
            bytes.extend(line(example, at + 2)?);
        }
        Ok(bytes)
    }

    /// Reads [`Snapshot::to_bytes`] back; an error names the line.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let refuse = |line: usize, what: String| Err(Error::Snapshot { line, what });
        let Some(text) = bytes.strip_suffix(b"\n") else {
            let lines = bytes.split(|byte| *byte == b'\n').count();
            return refuse(lines, "it is cut off".into());
        };
        let mut lines = text.split(|byte| *byte == b'\n');
        let header: SnapshotHeader = match serde_json::from_slice(lines.next().unwrap_or_default()) {
            Ok(header) => header,
            Err(error) => return refuse(1, error.to_string()),
        };
        if header.format != FORMAT || header.version != VERSION {
            let (format, version) = (&header.format, header.version);
            return refuse(1, format!("`{format}` version {version}, not `{FORMAT}` version {VERSION}"));
        }
        let mut examples: Vec<PlannedExample> = Vec::new();
        for (at, line) in lines.enumerate() {
            match serde_json::from_slice(line) {
                Ok(example) => examples.push(example),
                Err(error) => return refuse(at + 2, error.to_string()),
            }
        }
        let (there, snapshot) = (examples.len(), Self::from_examples(header.strategy, examples));
        if snapshot.header != header {
            let SnapshotHeader { examples, new, replay, .. } = header;
            return refuse(
                1,
                format!("it announces {examples} examples ({new} new, {replay} replayed), {there} follow"),
            );
        }
        Ok(snapshot)
    }

    /// Stores it and returns its hash.
    pub async fn store(&self, artifacts: &dyn ArtifactStore) -> Result<ContentHash> {
        Ok(artifacts.put(self.to_bytes()?).await?)
    }

    /// The data set stored under `hash`.
    pub async fn load(artifacts: &dyn ArtifactStore, hash: ContentHash) -> Result<Self> {
        Self::from_bytes(&artifacts.get(hash).await?)
    }
}

fn line(value: &impl Serialize, line: usize) -> Result<Vec<u8>> {
    let mut bytes =
        serde_json::to_vec(value).map_err(|error| Error::Snapshot { line, what: error.to_string() })?;
    bytes.push(b'\n');
    Ok(bytes)
}
