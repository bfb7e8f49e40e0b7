//! A store with a run, versions, a verdict and moves, and artifacts in memory.

use std::{collections::BTreeMap, sync::Arc};

use autoglm_domain::*;
use autoglm_doubles::MemoryStore;
use parking_lot::Mutex;

/// Artifacts in memory.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<BTreeMap<ContentHash, Vec<u8>>>);

#[async_trait::async_trait]
impl ArtifactStore for Shelf {
    async fn put(&self, bytes: Vec<u8>) -> Result<ContentHash> {
        let hash = ContentHash::of(&bytes);
        self.0.lock().insert(hash, bytes);
        Ok(hash)
    }
    async fn get(&self, hash: ContentHash) -> Result<Vec<u8>> {
        self.0.lock().get(&hash).cloned().ok_or_else(|| Error::not_found("no such artifact"))
    }
    async fn contains(&self, hash: ContentHash) -> Result<bool> {
        Ok(self.0.lock().contains_key(&hash))
    }
}

pub(crate) struct World {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) shelf: Arc<Shelf>,
}

pub(crate) fn run_id() -> TrainingRunId {
    Id::new(uuid::Uuid::from_u128(5))
}

impl World {
    /// A run that made v1, an import v2, a verdict on v1, and v1 as champion.
    pub(crate) async fn new() -> Self {
        let this = Self { store: Arc::default(), shelf: Arc::default() };
        let base = ContentHash::of(b"base");
        let run = TrainingRun {
            id: run_id(),
            at: Timestamp(1_700_000_000_000),
            ended_at: None,
            trigger: Trigger::NewExperiences { count: 12 },
            base,
            parent: VersionNumber::BASE,
            snapshot: ContentHash::of(b"snapshot"),
            new_experiences: 12,
            replayed_experiences: 3,
            strategy: "replay".into(),
            hyper: HyperParameters { learning_rate: 0.15, ..HyperParameters::default() },
            seed: u64::MAX,
            metrics: BTreeMap::new(),
            state: RunState::Running,
        };
        let ended = TrainingRun {
            ended_at: Some(Timestamp(1_700_000_060_000)),
            metrics: BTreeMap::from([("loss_last".to_owned(), 0.25), ("steps".to_owned(), 40.0)]),
            state: RunState::Succeeded { version: VersionNumber(1) },
            ..run.clone()
        };
        this.happens(vec![Event::Run(Box::new(run))]).await;
        let first = ModelVersion { run: Some(run_id()), ..this.version(1).await };
        this.happens(vec![Event::Run(Box::new(ended)), Event::Version(Box::new(first))]).await;
        let second = ModelVersion { note: Some("from elsewhere".into()), ..this.version(2).await };
        this.happens(vec![Event::Version(Box::new(second))]).await;
        this.happens(vec![verdict()]).await;
        this.promote(0, 1).await;
        this
    }

    async fn version(&self, number: u64) -> ModelVersion {
        let adapter = Adapter { config: b"{}".to_vec(), weights: vec![number as u8; 1000] };
        let adapter = self.shelf.put(adapter.pack()).await.unwrap();
        ModelVersion { adapter, at: Timestamp(1_700_000_061_000), ..autoglm_doubles::version(number) }
    }

    pub(crate) async fn happens(&self, events: Vec<Event>) {
        self.store.append(events).await.unwrap();
    }

    pub(crate) async fn promote(&self, from: u64, to: u64) {
        let step = AliasMove {
            alias: Alias::champion(),
            from: VersionNumber(from),
            to: VersionNumber(to),
            at: Timestamp(1_700_000_070_000),
            by: "gate".into(),
            reason: "better".into(),
            rollout: None,
        };
        self.happens(vec![Event::AliasMoved(step)]).await;
    }
}

fn verdict() -> Event {
    let paired = PairedEvidence {
        pairs: 80,
        champion_mean: 0.5,
        candidate_mean: 0.75,
        difference: 0.25,
        lower: 0.1,
        upper: 0.4,
        alpha: 0.05,
    };
    let evidence = Evidence { new_skill: Some(paired), ..Evidence::default() };
    let verdict = Verdict {
        outcome: Outcome::Promote,
        reason: "better on what is new".into(),
        at: Timestamp(1_700_000_065_000),
        evidence,
    };
    Event::Rollout(Box::new(Rollout {
        id: Id::new(uuid::Uuid::from_u128(6)),
        at: Timestamp(1_700_000_062_000),
        candidate: VersionNumber(1),
        champion: VersionNumber::BASE,
        state: RolloutState::Decided { verdict },
        evidence: Evidence::default(),
    }))
}
