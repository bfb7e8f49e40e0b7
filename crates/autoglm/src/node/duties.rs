//! The loop's own duties (assessing, training, the gate, feeding the mirrors), done by one process at a time.
//!
//! Over SQLite that is the process that holds the data directory's lock, from its start to its end. Over Postgres any
//! number of processes answer and record, and take turns in leading: the duties begin where leadership is won and
//! stop where it is lost. What a leader writes that has not noticed its loss yet is refused by the database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use autoglm_domain::{Error, ErrorKind, Result, TrainingRun};
use autoglm_journal::PostgresStore;
use tokio::task::JoinSet;

use super::{Parts, background::Background, mirrors::Mirrors, mlflow, residents};
use crate::{learning_loop, proving, signals::Working};

/// Wait before the next try where the duties could not begin.
const RETRY: Duration = Duration::from_secs(2);

/// Whether this process leads.
#[derive(Debug, Default)]
pub(crate) struct Leading(AtomicBool);

impl Leading {
    /// Whether this process does the duties now.
    pub(crate) fn now(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn set(&self, leading: bool) {
        self.0.store(leading, Ordering::SeqCst);
    }
}

/// The duties under way; dropping it stops them.
pub(super) struct Duties {
    parts: Arc<Parts>,
    _tasks: JoinSet<()>,
    _assessing: Background,
}

impl Duties {
    /// Ends what the last leader left open, and begins.
    pub(super) async fn begin(parts: &Arc<Parts>) -> Result<Self> {
        let mut tasks = JoinSet::new();
        let unfinished = recover(parts, &mut tasks).await?;
        let assessing = Background::start("assess", learning_loop::assess_and_remember(Arc::clone(parts)))?;
        tasks.spawn(learning_loop::learn(Arc::clone(parts), unfinished));
        tasks.spawn(proving::prove_live(Arc::clone(parts)));
        // A candidate may be on live traffic already.
        parts.proving.begun();
        for hook in &parts.hooks {
            let hook = Arc::clone(hook);
            tasks.spawn(async move { hook.follow().await });
        }
        if let Some(server) = parts.mlflow.as_ref().filter(|_| !parts.settings.mlflow.follow_alias.is_empty())
        {
            tasks.spawn(mlflow::follow(Arc::clone(parts), Arc::clone(server)));
        }
        Mirrors::feed(parts, &mut tasks)?;
        parts.leading.set(true);
        Ok(Self { parts: Arc::clone(parts), _tasks: tasks, _assessing: assessing })
    }
}

impl Drop for Duties {
    fn drop(&mut self) {
        self.parts.leading.set(false);
        // Who leads next says how traffic is split.
        self.parts.traffic.clear();
    }
}

/// Does the duties whenever it is this process's turn, until the task is dropped.
pub(super) async fn take_turns(parts: Arc<Parts>, store: PostgresStore) {
    loop {
        // A run of the last turn leaves its checkpoint first.
        while parts.runner.active().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut leadership = store.lead().await;
        let begun = async {
            parts.news.lead(&parts, &store, leadership.last_seq()).await?;
            Duties::begin(&parts).await
        };
        match begun.await {
            Ok(duties) => {
                let why = leadership.lost().await;
                tracing::warn!(%why, "this process no longer leads; its duties stop");
                parts.runner.suspend("another process leads now");
                drop(duties);
                parts.news.follow().await;
            }
            Err(error) => {
                tracing::warn!(%error, "the duties could not begin");
                parts.news.follow().await;
                if let Err(error) = leadership.resign().await {
                    tracing::debug!(%error, "the lock goes with its connection");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Ends what a crash left open, but for a run that can go on, which it returns; makes every version that an alias
/// names resident, and lets rollouts that were cut short start again.
async fn recover(parts: &Arc<Parts>, tasks: &mut JoinSet<()>) -> Result<Option<(TrainingRun, Working)>> {
    let runs = parts.runner.recover().await.map_err(Error::from)?;
    let unfinished = parts.rollouts.recover().await.map_err(Error::from)?;
    follow_aliases(parts).await?;
    for rollout in unfinished {
        tracing::info!(candidate = %rollout.candidate, "a rollout was cut short and begins again");
        let parts = Arc::clone(parts);
        let working = parts.signals.work();
        tasks.spawn(async move {
            let _working = working;
            if let Err(error) = residents::restart(&parts, rollout.candidate).await {
                tracing::warn!(%error, candidate = %rollout.candidate, "a rollout could not begin again");
            }
        });
    }
    Ok(runs.unfinished.map(|run| (run, parts.signals.work())))
}

/// Serves what the aliases name, but for an upstream that is away.
pub(super) async fn follow_aliases(parts: &Parts) -> Result<()> {
    match parts.residents.follow(parts).await {
        // They are followed as soon as it answers.
        Err(error) if parts.engine.upstream().is_some() && error.kind == ErrorKind::Unavailable => {
            tracing::warn!(%error, "the versions that aliases name are not on the upstream yet");
            Ok(())
        }
        followed => followed,
    }
}
