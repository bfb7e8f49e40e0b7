//! The one writer: a task that puts every append that waits, or those of one lane, into one transaction (group commit).

use std::{
    future::{Future, pending},
    sync::Arc,
};

use autoglm_domain::Cursor;
use tokio::sync::{mpsc, oneshot};

use crate::{
    Config, JournalError,
    apply::apply_append,
    db::Db,
    record::Prepared,
    spool::{Spool, Spooled},
};

type Reply = oneshot::Sender<Result<(), JournalError>>;

/// What one caller wants written, all of it or nothing.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) records: Vec<Prepared>,
    /// A mirror's cursor.
    pub(crate) cursor: Option<(String, Cursor)>,
    /// Whether it is refused unless this process leads.
    pub(crate) as_leader: bool,
}

/// What became of one append of a batch.
pub(crate) type Outcome = Result<(), JournalError>;

/// Port within this crate: writes batches to one engine.
pub(crate) trait Commit: Send + 'static {
    /// Writes a batch in one transaction; one outcome an append. `Err` when nothing of it is written.
    fn commit(
        &mut self,
        appends: &[Append],
    ) -> impl Future<Output = Result<Vec<Outcome>, JournalError>> + Send;

    /// Appends of different lanes are not written together. What is in several keeps its order within each.
    fn lane(&self, _append: &Append) -> Lane {
        Lane::default()
    }

    /// Nothing follows.
    fn finish(&mut self) -> impl Future<Output = Result<(), JournalError>> + Send;
}

/// Number of a lane.
pub(crate) type Lane = u8;

enum Command {
    Append { append: Append, reply: Reply },
    Close { reply: Reply },
}

/// The callers' end of the writer's queue.
#[derive(Debug)]
pub(crate) struct Writer {
    commands: mpsc::Sender<Command>,
    spool: Option<Arc<Spool>>,
}

impl Writer {
    /// Starts the task on the current runtime; with `spooled` answers can be kept. It ends after [`Writer::close`], or
    /// when this is dropped and what was queued is written.
    pub(crate) fn start(engine: impl Commit, config: &Config, spooled: Option<Spooled>) -> Self {
        let (commands, received) = mpsc::channel(config.queue_appends);
        let spool = spooled.as_ref().map(Spooled::spool);
        tokio::spawn(run(engine, received, spooled, config.max_batch_appends));
        Self { commands, spool }
    }

    /// Sees to it that the end of this process does not lose `append`, which holds answers: where there is a spool it is
    /// kept there and this returns at once, otherwise it is as [`Writer::append`].
    pub(crate) async fn keep(&self, append: Append) -> Result<(), JournalError> {
        let kept = match &self.spool {
            Some(spool) => spool.keep(append),
            None => Err(append),
        };
        match kept {
            Ok(()) => Ok(()),
            Err(append) => self.append(append).await,
        }
    }

    /// Waits until reads see what was kept before; false where they cannot for now.
    pub(crate) async fn settled(&self) -> bool {
        match &self.spool {
            Some(spool) => spool.settled().await,
            None => true,
        }
    }

    /// Queues `append` and waits until it is on the disk. Once queued it is written even if the caller goes
    /// away.
    pub(crate) async fn append(&self, append: Append) -> Result<(), JournalError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Append { append, reply }).await.map_err(|_| JournalError::Closed)?;
        // The task answers everything it took, so only a runtime that is shut down leaves us without.
        answer.await.map_err(|_| JournalError::Closed)?
    }

    /// Writes what is queued, lets the engine finish and ends. Closing again is free.
    pub(crate) async fn close(&self) -> Result<(), JournalError> {
        let (reply, answer) = oneshot::channel();
        match self.commands.send(Command::Close { reply }).await {
            Ok(()) => answer.await.map_err(|_| JournalError::Closed)?,
            Err(_) => Ok(()),
        }
    }

    /// Appends that wait for the writer.
    pub(crate) fn queued(&self) -> usize {
        let kept = self.spool.as_ref().map_or(0, |spool| spool.queued());
        kept + self.commands.max_capacity() - self.commands.capacity()
    }
}

async fn run(
    mut engine: impl Commit,
    mut commands: mpsc::Receiver<Command>,
    mut spooled: Option<Spooled>,
    max_batch_appends: usize,
) {
    let mut received = Vec::new();
    let mut waiting: Vec<(Lane, Append, Reply)> = Vec::new();
    let mut closers = Vec::new();
    loop {
        let room = max_batch_appends - waiting.len();
        if waiting.is_empty() {
            tokio::select! {
                biased;
                taken = commands.recv_many(&mut received, room) => if taken == 0 { break },
                () = gathered(&spooled) => {}
            }
        } else {
            received.extend(std::iter::from_fn(|| commands.try_recv().ok()).take(room));
        }
        for command in received.drain(..) {
            match command {
                Command::Append { append, reply } => waiting.push((engine.lane(&append), append, reply)),
                Command::Close { reply } => {
                    // What is queued is still received; what comes later is refused.
                    commands.close();
                    closers.push(reply);
                }
            }
        }
        // What was acknowledged goes before what came after it.
        if let Some(spooled) = &mut spooled
            && let Err(error) = spooled.commit(&mut engine, max_batch_appends).await
        {
            for (.., reply) in waiting.drain(..) {
                let _ = reply.send(Err(error.clone()));
            }
        }
        // The lane of whoever waits longest.
        let Some(lane) = waiting.first().map(|(lane, ..)| *lane) else { continue };
        let batch = waiting.extract_if(.., |(of, ..)| *of == lane);
        let (appends, replies): (Vec<_>, Vec<_>) = batch.map(|(_, append, reply)| (append, reply)).unzip();
        for (reply, outcome) in replies.into_iter().zip(write(&mut engine, &appends).await) {
            // A caller that went away needs no answer.
            let _ = reply.send(outcome);
        }
    }
    let kept = match &mut spooled {
        Some(spooled) => spooled.close(&mut engine, max_batch_appends).await,
        None => Ok(()),
    };
    let finished = engine.finish().await;
    let result = kept.and(finished);
    for reply in closers {
        let _ = reply.send(result.clone());
    }
}

async fn gathered(spooled: &Option<Spooled>) {
    match spooled {
        Some(spooled) => spooled.gathered().await,
        None => pending().await,
    }
}

/// Writes a batch; one outcome an append.
async fn write(engine: &mut impl Commit, appends: &[Append]) -> Vec<Outcome> {
    match engine.commit(appends).await {
        Ok(outcomes) => {
            let events: usize = appends.iter().map(|append| append.records.len()).sum();
            tracing::debug!(appends = appends.len(), events, "committed");
            outcomes
        }
        Err(error) => {
            tracing::warn!(%error, appends = appends.len(), "appends failed");
            // Even the verdict on an append that conflicted may rest on one that is not there now.
            vec![Err(error); appends.len()]
        }
    }
}

/// Applies a batch after position `last`, each append within a savepoint of its own, so that one that is refused
/// leaves nothing. `Err` when the transaction is lost.
pub(crate) async fn apply_batch(
    db: &mut impl Db,
    mut last: i64,
    leads: bool,
    appends: &[Append],
) -> Result<(i64, Vec<Outcome>), JournalError> {
    let mut outcomes = Vec::with_capacity(appends.len());
    for append in appends {
        if append.as_leader && !leads {
            outcomes.push(Err(JournalError::NotLeading));
            continue;
        }
        db.execute("SAVEPOINT append", &[]).await?;
        match apply_append(db, last, append).await {
            Ok(reached) => {
                last = reached;
                outcomes.push(Ok(()));
            }
            Err(error) if error.spares_others() => {
                db.execute("ROLLBACK TO SAVEPOINT append", &[]).await?;
                outcomes.push(Err(error));
            }
            Err(error) => return Err(error),
        }
        db.execute("RELEASE SAVEPOINT append", &[]).await?;
    }
    Ok((last, outcomes))
}
