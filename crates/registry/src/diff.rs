//! What differs between two versions.

use std::collections::{BTreeMap, BTreeSet};

use autoglm_domain::{ChatMessage, ContentHash, ModelVersion, PairOrder, Store, VersionNumber};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Result, hash::to_value};

/// A value in one version and in the other; `None` where it is missing there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// In the first version.
    pub a: Option<Value>,
    /// In the second.
    pub b: Option<Value>,
}

/// Experiences that are shown of a difference, and pairs of answers.
const SHOWN: usize = 5;
/// Most pairs that are looked through for answers that changed.
const MOST_PAIRS: usize = 10_000;

/// An experience as it stands in a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// Its id.
    pub experience: String,
    /// The last turn of its prompt.
    pub prompt: String,
    /// The answer to learn.
    pub target: String,
}

/// Two versions' answers to one request that differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangedAnswer {
    /// The request: an interaction, or a held-out experience.
    pub to: String,
    /// The answer of the first version.
    pub a: String,
    /// The answer of the second.
    pub b: String,
    /// How far they are apart, 0 to 1; of a held-out experience, by their scores.
    pub distance: f64,
}

/// What of two versions' answers to the same requests is on record, from offline gates and shadows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AnswersChange {
    /// Requests that both answered.
    pub compared: u64,
    /// Of these, the ones with another answer.
    pub changed: u64,
    /// Those that changed most.
    pub examples: Vec<ChangedAnswer>,
}

/// How two data-set snapshots differ, in experiences.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotChange {
    /// In the second and not in the first.
    pub added: u64,
    /// In the first and not in the second.
    pub removed: u64,
    /// In both.
    pub common: u64,
    /// Some of those that were added.
    pub only_b: Vec<Example>,
    /// Some of those that were removed.
    pub only_a: Vec<Example>,
}

/// What differs between two versions; the base model counts as one without metrics and data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionDiff {
    /// The first version.
    pub a: VersionNumber,
    /// The second version.
    pub b: VersionNumber,
    /// Whether both have the same adapter.
    pub same_adapter: bool,
    /// Metrics that differ.
    pub metrics: BTreeMap<String, Change>,
    /// Hyper-parameters that differ.
    pub hyper: BTreeMap<String, Change>,
    /// The data they learned from.
    pub snapshot: SnapshotChange,
    /// Their answers to the same requests.
    pub answers: AnswersChange,
}

/// The differing entries of two JSON objects.
pub(crate) fn changes(a: &BTreeMap<String, Value>, b: &BTreeMap<String, Value>) -> BTreeMap<String, Change> {
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    keys.into_iter()
        .filter(|key| a.get(*key) != b.get(*key))
        .map(|key| (key.clone(), Change { a: a.get(key).cloned(), b: b.get(key).cloned() }))
        .collect()
}

/// A version's metrics as JSON values.
pub(crate) fn metrics(version: Option<&ModelVersion>) -> BTreeMap<String, Value> {
    let metrics = version.map(|version| &version.metrics).into_iter().flatten();
    metrics.map(|(name, value)| (name.clone(), Value::from(*value))).collect()
}

/// A version's hyper-parameters as JSON values.
pub(crate) fn hyper(version: Option<&ModelVersion>) -> Result<BTreeMap<String, Value>> {
    match version.and_then(|version| version.hyper.as_ref()) {
        Some(hyper) => match to_value(hyper)? {
            Value::Object(map) => Ok(map.into_iter().collect()),
            _ => Ok(BTreeMap::new()),
        },
        None => Ok(BTreeMap::new()),
    }
}

/// One line of a snapshot, as far as it matters here.
#[derive(Deserialize)]
struct SnapshotLine {
    experience: Option<String>,
    #[serde(default)]
    prompt: Vec<ChatMessage>,
    #[serde(default)]
    target: String,
}

/// The experiences of a snapshot, by id: JSON lines, of which those with a key `experience` count.
pub(crate) fn experiences(hash: ContentHash, bytes: &[u8]) -> Result<BTreeMap<String, Example>> {
    let mut found = BTreeMap::new();
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        let line: SnapshotLine = serde_json::from_slice(line).map_err(|error| {
            let (hash, number) = (hash.short(), at + 1);
            autoglm_domain::Error::internal(format!("line {number} of the snapshot `{hash}`: {error}"))
        })?;
        let Some(experience) = line.experience else { continue };
        let prompt = line.prompt.into_iter().next_back().map(|turn| turn.content).unwrap_or_default();
        found.insert(experience.clone(), Example { experience, prompt, target: line.target });
    }
    Ok(found)
}

/// Two data sets' difference. Of what is only in one of them, the latest is shown: ids are in the order of time.
pub(crate) fn snapshot_change(
    a: &BTreeMap<String, Example>,
    b: &BTreeMap<String, Example>,
) -> SnapshotChange {
    let missing_in = |other: &BTreeMap<String, Example>, from: &BTreeMap<String, Example>| {
        let only: Vec<Example> =
            from.iter().filter(|(id, _)| !other.contains_key(*id)).map(|(_, it)| it.clone()).collect();
        (only.len() as u64, only.into_iter().rev().take(SHOWN).collect::<Vec<_>>())
    };
    let (added, only_b) = missing_in(a, b);
    let (removed, only_a) = missing_in(b, a);
    SnapshotChange { added, removed, common: b.len() as u64 - added, only_b, only_a }
}

/// Both versions' answers in rollouts of one over the other.
pub(crate) async fn answers_change(
    store: &dyn Store,
    a: VersionNumber,
    b: VersionNumber,
) -> autoglm_domain::Result<AnswersChange> {
    let mut change = AnswersChange::default();
    for rollout in store.rollouts().await? {
        let forward = (rollout.champion, rollout.candidate) == (a, b);
        if !forward && (rollout.champion, rollout.candidate) != (b, a) {
            continue;
        }
        let in_order =
            |champion, candidate| if forward { (champion, candidate) } else { (candidate, champion) };
        let at_gate = &rollout.evidence().answers;
        change.compared += at_gate.compared;
        change.changed += at_gate.changed;
        for answer in at_gate.examples.clone() {
            let distance = (answer.candidate_score - answer.champion_score).abs();
            let (a, b) = in_order(answer.champion, answer.candidate);
            change.examples.push(ChangedAnswer { to: answer.experience.to_string(), a, b, distance });
        }
        for pair in store.shadow_pairs(rollout.id, PairOrder::MostDifferent, MOST_PAIRS).await? {
            if pair.champion.error.is_some() || pair.candidate.error.is_some() {
                continue;
            }
            change.compared += 1;
            let same = pair.champion.text == pair.candidate.text
                && pair.champion.tool_calls == pair.candidate.tool_calls;
            if same {
                continue;
            }
            change.changed += 1;
            let (a, b) = in_order(pair.champion.text, pair.candidate.text);
            let (to, distance) = (pair.interaction.to_string(), pair.diff.distance);
            change.examples.push(ChangedAnswer { to, a, b, distance });
        }
    }
    change.examples.sort_by(|a, b| b.distance.total_cmp(&a.distance));
    change.examples.truncate(SHOWN);
    Ok(change)
}
