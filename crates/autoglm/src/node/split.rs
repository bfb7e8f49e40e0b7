//! Processes that do not lead split their traffic as the leader decided, which they read in the store.
//!
//! Each places conversations by the same hash, so that a conversation has one version whichever process it comes to; each
//! answers its own shadows. What they answered, the leader counts: it is in the store.

use std::sync::Arc;

use autoglm_domain::{AbTest, Result};
use autoglm_journal::PostgresStore;

use super::{Parts, residents};

/// Splits as the store says. Where a version cannot be loaded here, nothing is split here, and the error says why.
pub(super) async fn follow(parts: &Parts) -> Result<()> {
    let rollouts = parts.store.rollouts().await?;
    if let Some(rollout) = rollouts.iter().find(|rollout| rollout.live().is_some()) {
        let resident = residents::ensure(parts, rollout.candidate).await;
        match resident {
            Ok(()) => parts.traffic.follow(rollout),
            Err(_) => parts.traffic.clear(),
        }
        return resident;
    }
    let Some(test) = parts.store.ab_tests().await?.into_iter().find(AbTest::is_running) else {
        parts.traffic.clear();
        return Ok(());
    };
    for arm in &test.arms {
        if let Err(error) = residents::ensure(parts, arm.version).await {
            parts.traffic.clear();
            return Err(error);
        }
    }
    parts.traffic.follow_test(&test);
    Ok(())
}

/// Tells the leader's looks what any process wrote of live traffic after position `after` and up to `upto`.
pub(super) async fn report(parts: &Parts, store: &PostgresStore, after: i64, upto: i64) -> Result<()> {
    let traffic = store.traffic_between(after, upto).await?;
    for pair in traffic.pairs {
        let asked = match parts.judging.is_set() {
            true => parts.judging.offer(&pair, &parts.store.interaction(pair.interaction).await?.interaction),
            false => false,
        };
        parts.proving.pair(pair, asked);
    }
    traffic.answered.into_iter().for_each(|id| parts.proving.answered(id));
    traffic.said.into_iter().for_each(|id| parts.proving.said(id));
    Ok(())
}

/// Tells the leader of a request that nobody answered, and leaves no record.
pub(super) fn tell_failure(parts: &Arc<Parts>, version: autoglm_domain::VersionNumber, latency_ms: f64) {
    let Some(store) = parts.database.shared().cloned() else { return };
    tokio::spawn(async move {
        if let Err(error) = store.tell_failure(version, latency_ms).await {
            tracing::debug!(%error, "the leader does not hear of a failure");
        }
    });
}
