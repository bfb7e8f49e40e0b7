//! What other processes wrote reaches this one: alias moves, versions, experiences.
//!
//! Over SQLite others only move aliases and register versions (the command line), and the store is looked at twice a
//! second. Over Postgres they also answer and remember: each commit is heard of at once, and looked for twice a second
//! where a notification was lost. Only the leader remembers, so a process that leads knows of every experience already.

use std::{sync::Arc, time::Duration};

use autoglm_domain::{Error, Result};
use autoglm_journal::{Listener, PostgresStore};
use tokio::{sync::Mutex, time::timeout};

use super::{Parts, relay, split};
use crate::database::Database;

/// Longest time between two looks at the store.
const TICK: Duration = Duration::from_millis(500);
/// Experiences taken up at a time.
const PAGE: usize = 500;

/// How far this process has read the journal.
#[derive(Debug)]
pub(crate) struct News(Mutex<Cursor>);

#[derive(Debug)]
struct Cursor {
    /// Everything up to here is known.
    seq: i64,
    /// Where the term began that this process leads in.
    leading_since: Option<i64>,
    /// Whether an alias, or the leader's split, is to be followed that could not be yet.
    unfollowed: bool,
}

impl News {
    /// Begins after position `seq`.
    pub(super) fn after(seq: i64) -> Self {
        Self(Mutex::new(Cursor { seq, leading_since: None, unfollowed: true }))
    }

    /// Catches up with everything that earlier leaders remembered, up to `seq` at least; from then on only this process
    /// remembers.
    pub(super) async fn lead(&self, parts: &Parts, store: &PostgresStore, seq: i64) -> Result<()> {
        let mut cursor = self.0.lock().await;
        look(&mut cursor, parts, store).await?;
        cursor.leading_since = Some(seq);
        Ok(())
    }

    /// Others may remember again. What they may have written since this process's term began is read once more, as the
    /// loss of leadership is noticed later than it happens; what is known changes nothing.
    pub(super) async fn follow(&self) {
        let mut cursor = self.0.lock().await;
        // Somebody else splits the traffic from now on.
        cursor.unfollowed = true;
        if let Some(since) = cursor.leading_since.take() {
            cursor.seq = cursor.seq.min(since);
        }
    }

    async fn look(&self, parts: &Parts, store: &PostgresStore) -> Result<()> {
        look(&mut *self.0.lock().await, parts, store).await
    }
}

/// Follows until the task is dropped.
pub(super) async fn follow(parts: Arc<Parts>) {
    let shared = match &parts.database {
        Database::Sqlite(_) => None,
        Database::Postgres(store) => Some((store.clone(), store.listen())),
    };
    let mut told = None;
    loop {
        let looked = match &shared {
            None => {
                tokio::time::sleep(TICK).await;
                parts.residents.follow(&parts).await
            }
            Some((store, listener)) => {
                hear(&parts, listener).await;
                parts.news.look(&parts, store).await
            }
        };
        // What lasts, such as an upstream that is down, is told once.
        let error = looked.err().map(|error| error.message);
        if let Some(error) = error.as_ref().filter(|_| error != told) {
            tracing::warn!(%error, "what other processes wrote could not be followed");
        }
        told = error;
    }
}

/// Waits until something was appended, or for the time between two looks.
async fn hear(parts: &Arc<Parts>, listener: &Listener) {
    let heard = async {
        loop {
            tokio::select! {
                () = listener.appended() => return,
                (version, latency_ms) = listener.failed() => if parts.leading.now() {
                    parts.proving.failed(version, latency_ms);
                },
                (id, order) = listener.ordered() => if parts.leading.now()
                    && let Some(store) = parts.database.shared()
                {
                    tokio::spawn(relay::carry_out(Arc::clone(parts), store.clone(), id, order));
                },
                () = listener.training_ordered() => if parts.leading.now() {
                    parts.signals.request();
                },
            }
        }
    };
    let _ = timeout(TICK, heard).await;
}

/// Takes in what was appended since the last look.
async fn look(cursor: &mut Cursor, parts: &Parts, store: &PostgresStore) -> Result<()> {
    let upto = store.last_seq().await?;
    let names = match upto > cursor.seq {
        true => store.names_between(cursor.seq, upto).await?,
        false => Vec::new(),
    };
    let any = |kinds: &[&str]| names.iter().any(|name| kinds.contains(&name.as_str()));
    if cursor.leading_since.is_none() && any(&["experience", "experience_amended"]) {
        take_up(cursor.seq, upto, parts, store).await?;
    }
    let is_traffic = any(&["interaction", "feedback", "shadow_pair"]);
    if cursor.leading_since.is_some() && is_traffic && parts.proving.is_watching() {
        split::report(parts, store, cursor.seq, upto).await?;
    }
    cursor.seq = upto;
    if any(&["interaction", "feedback"]) {
        parts.signals.recorded();
    }
    if cursor.unfollowed || any(&["version", "alias_moved", "rollout", "ab_test"]) {
        cursor.unfollowed = true;
        parts.residents.follow(parts).await?;
        if cursor.leading_since.is_none() {
            split::follow(parts).await?;
        }
        cursor.unfollowed = false;
    }
    Ok(())
}

async fn take_up(mut after: i64, upto: i64, parts: &Parts, store: &PostgresStore) -> Result<()> {
    loop {
        let page = store.experience_events_between(after, upto, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.seq;
        let events = page.into_iter().map(|recorded| recorded.event).collect();
        parts.memory.take_up(events).await.map_err(Error::from)?;
    }
}
