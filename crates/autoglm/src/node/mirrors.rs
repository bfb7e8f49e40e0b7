//! The journal's mirrors, and what is taken in from elsewhere: what the settings name, fed by whoever leads.

use std::sync::Arc;

use autoglm_domain::{Cursors, IdSource as _, Mirror, MirrorState, Result, SystemIds};
use autoglm_mirror::{Board, Feed};
use tokio::task::JoinSet;

use super::Parts;
use crate::{database::Database, settings::Settings};

/// The mirrors that there are to be.
pub(crate) struct Mirrors {
    mirrors: Vec<Arc<dyn Mirror>>,
    cursors: Arc<dyn Cursors>,
    board: Arc<Board>,
}

impl Mirrors {
    /// What the settings name. No broker and no bucket is asked for anything yet.
    pub(super) fn open(settings: &Settings, database: &Database) -> Result<Self> {
        Ok(Self { mirrors: named(settings, database)?, cursors: database.cursors(), board: Arc::default() })
    }

    /// Feeds every mirror, and takes in what comes from elsewhere, for as long as `tasks` are there.
    pub(super) fn feed(parts: &Arc<Parts>, tasks: &mut JoinSet<()>) -> Result<()> {
        let Self { mirrors, board, .. } = &parts.mirrors;
        for mirror in mirrors {
            let [.., a, b, c, d, e, f, g, h] = *SystemIds.next_uuid().as_bytes();
            let seed = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            let (mirror, cursors) = (Arc::clone(mirror), Arc::clone(&parts.cursors));
            tasks.spawn(Feed::new(mirror, cursors, Arc::clone(board), Arc::clone(&parts.clock), seed).run());
        }
        ingest(parts, tasks)
    }

    /// How every mirror is doing.
    pub(super) async fn states(&self) -> Result<Vec<MirrorState>> {
        self.board.states(&*self.cursors).await
    }
}

/// The mirrors that the settings name.
fn named(settings: &Settings, database: &Database) -> Result<Vec<Arc<dyn Mirror>>> {
    let mut mirrors: Vec<Arc<dyn Mirror>> = Vec::new();
    #[cfg(feature = "kafka")]
    if settings.kafka.is_mirror_on() {
        mirrors.push(Arc::new(autoglm_kafka::KafkaMirror::new(&settings.kafka, database.store())?));
    }
    #[cfg(feature = "lake")]
    if settings.lake.is_on() {
        mirrors.push(Arc::new(autoglm_lake::Lake::open(&settings.lake, database.store())?));
    }
    #[cfg(not(any(feature = "kafka", feature = "lake")))]
    let _ = (settings, database, &mut mirrors);
    Ok(mirrors)
}

#[cfg(feature = "kafka")]
fn ingest(parts: &Arc<Parts>, tasks: &mut JoinSet<()>) -> Result<()> {
    let config = &parts.settings.kafka;
    if config.is_ingest_on() {
        let signals = Arc::clone(&parts.signals);
        let (store, clock) = (Arc::clone(&parts.store), Arc::clone(&parts.clock));
        let ingest = autoglm_kafka::Ingest::new(config, store, clock, move || signals.recorded())?;
        tasks.spawn(ingest.run());
    }
    Ok(())
}

#[cfg(not(feature = "kafka"))]
fn ingest(_: &Arc<Parts>, _: &mut JoinSet<()>) -> Result<()> {
    Ok(())
}
