//! The registry as its users see it, over a store in memory and a folder of artifacts.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on should say so and stop"
)]

mod adapters;
mod aliases;
#[cfg(feature = "cloud")]
mod buckets;
mod folders;
mod git;
mod scans;
mod versions;

use std::{collections::BTreeMap, sync::Arc};

use autoglm_domain::{Clock, ContentHash, ManualClock, Timestamp, VersionNumber};
use autoglm_doubles::MemoryStore;
use autoglm_registry::{Config, NewVersion, ObjectArtifacts, Registry};

/// A registry with everything around it.
struct World {
    store: Arc<MemoryStore>,
    artifacts: Arc<ObjectArtifacts>,
    folder: tempfile::TempDir,
    registry: Registry,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::default());
        let artifacts = Arc::new(ObjectArtifacts::open(&Config::default(), folder.path()).unwrap());
        let registry = open(&store, &artifacts).await;
        Self { store, artifacts, folder, registry }
    }

    /// Another process over the same store.
    async fn other(&self) -> Registry {
        open(&self.store, &self.artifacts).await
    }

    /// Registers `count` versions, each trained from the one before.
    async fn chain(&self, count: u64) {
        for parent in 0..count {
            self.registry.register(new_version(parent)).await.unwrap();
        }
    }
}

async fn open(store: &Arc<MemoryStore>, artifacts: &Arc<ObjectArtifacts>) -> Registry {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp(1_000)));
    Registry::open(Arc::clone(store) as _, Arc::clone(artifacts) as _, clock, &Config::default())
        .await
        .unwrap()
}

/// A version trained from `parent`, with an adapter of its own.
fn new_version(parent: u64) -> NewVersion {
    NewVersion {
        adapter: adapters::Peft::new(parent + 1).adapter(),
        parent: VersionNumber(parent),
        run: None,
        base: ContentHash::of(b"base"),
        snapshot: None,
        hyper: None,
        metrics: BTreeMap::from([("loss_last".to_owned(), 1.5)]),
        note: None,
    }
}
