//! What a server acknowledged, against what its data directory holds.

use std::{collections::HashMap, path::Path, sync::Arc};

use autoglm_domain::{ArtifactStore as _, Event, RunState, Store as _};
use autoglm_journal::SqliteStore;
use autoglm_registry::{Config, ObjectArtifacts};

/// Events read at a time.
const PAGE: usize = 2000;

/// Everything recorded so far, and everything that was acknowledged.
#[derive(Default)]
pub(crate) struct Ledger {
    seq: i64,
    recorded: HashMap<String, u32>,
    acknowledged: Vec<String>,
    checked: usize,
}

/// How much there is.
#[derive(Debug)]
#[allow(dead_code, reason = "printed as a whole")]
pub(crate) struct Totals {
    pub(crate) acknowledged: usize,
    pub(crate) events: i64,
    pub(crate) versions: usize,
    pub(crate) runs: usize,
    pub(crate) rollouts: usize,
}

impl Ledger {
    /// Notes ids of answers and feedback whose responses were read to the end.
    pub(crate) fn acknowledged(&mut self, ids: Vec<String>) {
        self.acknowledged.extend(ids);
    }

    /// Reads what was recorded since the last look and asserts that everything acknowledged is there, once.
    pub(crate) async fn check(&mut self, data: &Path) {
        let store = open(data).await;
        loop {
            let events = store.events_after(self.seq, PAGE).await.unwrap();
            for recorded in &events {
                assert_eq!(recorded.seq, self.seq + 1, "the journal has a gap");
                self.seq = recorded.seq;
                let id = match &recorded.event {
                    Event::Interaction(interaction) => interaction.id.to_string(),
                    Event::Feedback(feedback) => feedback.id.to_string(),
                    _ => continue,
                };
                *self.recorded.entry(id).or_default() += 1;
            }
            if events.is_empty() {
                break;
            }
        }
        for id in &self.acknowledged[self.checked..] {
            assert_eq!(self.recorded.get(id), Some(&1), "{id} was acknowledged and is not there once");
        }
        self.checked = self.acknowledged.len();
        let twice = self.recorded.iter().find(|(_, count)| **count != 1);
        assert_eq!(twice, None, "recorded more than once");
        store.close().await.unwrap();
    }

    /// Asserts that every artifact verifies, every alias points at a version, and, where the server is `idle`,
    /// that no run and no rollout is unfinished.
    pub(crate) async fn check_whole(&self, data: &Path, idle: bool) -> Totals {
        let store = open(data).await;
        let artifacts = Arc::new(ObjectArtifacts::open(&Config::default(), data).unwrap());
        let versions = store.versions().await.unwrap();
        for version in &versions {
            for hash in std::iter::once(version.adapter).chain(version.snapshot) {
                let read = artifacts.get(hash).await;
                assert!(read.is_ok(), "{}: {hash}: {:?}", version.number, read.err());
            }
            let run = store.run(version.run.unwrap()).await.unwrap();
            assert_eq!(run.state, RunState::Succeeded { version: version.number }, "{}", run.id);
        }
        for (alias, at) in store.aliases().await.unwrap() {
            assert!(at.0 == 0 || versions.iter().any(|version| version.number == at), "{alias} -> {at}");
        }
        let (runs, rollouts) = (store.runs().await.unwrap(), store.rollouts().await.unwrap());
        if idle {
            for run in &runs {
                let unfinished = matches!(run.state, RunState::Planned | RunState::Running);
                assert!(!unfinished, "{}: {:?}", run.id, run.state);
                if let RunState::Succeeded { version } = run.state {
                    assert!(versions.iter().any(|it| it.number == version), "{} made {version}", run.id);
                }
            }
            for rollout in &rollouts {
                assert!(!rollout.is_unfinished(), "{}: {:?}", rollout.id, rollout.state);
            }
        }
        store.close().await.unwrap();
        Totals {
            acknowledged: self.acknowledged.len(),
            events: self.seq,
            versions: versions.len(),
            runs: runs.len(),
            rollouts: rollouts.len(),
        }
    }
}

async fn open(data: &Path) -> SqliteStore {
    SqliteStore::open_read_only(data.join("autoglm.db"), autoglm_journal::Config::default()).await.unwrap()
}
