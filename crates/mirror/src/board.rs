//! How every mirror of this process is doing, for people and for `/metrics`.

use std::collections::BTreeMap;

use autoglm_domain::{Cursor, Cursors, Error, MirrorHealth, MirrorState, Result, Timestamp};
use parking_lot::Mutex;

/// The mirrors that there are; hooks follow the journal by cursors too.
const NAMES: [&str; 3] = ["kafka", "lake", "mlflow"];

/// The state of every mirror that this process is to feed.
#[derive(Debug, Default)]
pub struct Board(Mutex<BTreeMap<&'static str, Entry>>);

#[derive(Debug, Clone)]
struct Entry {
    health: MirrorHealth,
    since: Timestamp,
    failures: u32,
    last_error: Option<String>,
    failed_at: Option<Timestamp>,
}

impl Board {
    /// Every mirror that is on the board or has a cursor, by name. One with a cursor alone is fed by another process, or
    /// by none.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn states(&self, cursors: &dyn Cursors) -> Result<Vec<MirrorState>> {
        // The cursors first: what is appended between the two makes a mirror look further behind, never ahead.
        let kept: BTreeMap<String, Cursor> = cursors.cursors().await?.into_iter().collect();
        let last = cursors.last_seq().await?;
        let entries = self.0.lock().clone();
        let known = kept.keys().map(String::as_str).filter(|name| NAMES.contains(name));
        let mut names: Vec<&str> = known.chain(entries.keys().copied()).collect();
        names.sort_unstable();
        names.dedup();
        let state = |name: &str| {
            let seq = kept.get(name).copied().unwrap_or_default().seq;
            let entry = entries.get(name).cloned().unwrap_or(Entry::idle(Timestamp::default()));
            MirrorState {
                name: name.to_owned(),
                health: entry.health,
                seq,
                behind: u64::try_from(last - seq).unwrap_or_default(),
                since: entry.since,
                failures: entry.failures,
                last_error: entry.last_error,
                failed_at: entry.failed_at,
            }
        };
        Ok(names.into_iter().map(state).collect())
    }

    /// A batch is on its way; a mirror that failed last is failing until it is there.
    pub(crate) fn tries(&self, mirror: &'static str, health: MirrorHealth, now: Timestamp) {
        let failing = self.0.lock().get(mirror).is_some_and(|entry| entry.health == MirrorHealth::Failing);
        if !failing {
            self.is(mirror, health, now);
        }
    }

    /// The mirror is as `health` says.
    pub(crate) fn is(&self, mirror: &'static str, health: MirrorHealth, now: Timestamp) {
        let mut entries = self.0.lock();
        let entry = entries.entry(mirror).or_insert(Entry::idle(now));
        if entry.health != health {
            entry.health = health;
            entry.since = now;
        }
        entry.failures = 0;
        let healthy = f64::from(u8::from(health != MirrorHealth::Idle));
        metrics::gauge!("autoglm_mirror_up", "mirror" => mirror).set(healthy);
    }

    /// A try failed; how many have in a row.
    pub(crate) fn failed(&self, mirror: &'static str, error: &Error, now: Timestamp) -> u32 {
        let mut entries = self.0.lock();
        let entry = entries.entry(mirror).or_insert(Entry::idle(now));
        if entry.health != MirrorHealth::Failing {
            entry.health = MirrorHealth::Failing;
            entry.since = now;
        }
        entry.failures = entry.failures.saturating_add(1);
        entry.last_error = Some(error.message.clone());
        entry.failed_at = Some(now);
        metrics::gauge!("autoglm_mirror_up", "mirror" => mirror).set(0.0);
        metrics::counter!("autoglm_mirror_failures_total", "mirror" => mirror).increment(1);
        entry.failures
    }
}

impl Entry {
    fn idle(since: Timestamp) -> Self {
        Self { health: MirrorHealth::Idle, since, failures: 0, last_error: None, failed_at: None }
    }
}
