//! The one writer: a task that puts every append that waits into one transaction (group commit).

use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::{mpsc, oneshot};

use crate::{JournalError, apply::apply, record::Prepared};

type Reply = oneshot::Sender<Result<(), JournalError>>;

enum Command {
    Append { records: Vec<Prepared>, reply: Reply },
    Close { reply: Reply },
}

/// The callers' end of the writer's queue.
#[derive(Debug)]
pub(crate) struct Writer {
    commands: mpsc::Sender<Command>,
}

impl Writer {
    /// Starts the task on the current runtime. It ends after [`Writer::close`], or when this is dropped and
    /// what was queued is written.
    pub(crate) fn start(
        connection: SqliteConnection,
        options: SqliteConnectOptions,
        max_batch_appends: usize,
        queue_appends: usize,
    ) -> Self {
        let (commands, received) = mpsc::channel(queue_appends);
        let task =
            WriterTask { commands: received, connection: Some(connection), options, max_batch_appends };
        tokio::spawn(task.run());
        Self { commands }
    }

    /// Queues `records` and waits until they are on the disk. Once queued they are written even if the
    /// caller goes away.
    pub(crate) async fn append(&self, records: Vec<Prepared>) -> Result<(), JournalError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Append { records, reply }).await.map_err(|_| JournalError::Closed)?;
        // The task answers everything it took, so only a runtime that is shut down leaves us without.
        answer.await.map_err(|_| JournalError::Closed)?
    }

    /// Writes what is queued, moves the log into the database file and ends. Closing again is free.
    pub(crate) async fn close(&self) -> Result<(), JournalError> {
        let (reply, answer) = oneshot::channel();
        match self.commands.send(Command::Close { reply }).await {
            Ok(()) => answer.await.map_err(|_| JournalError::Closed)?,
            Err(_) => Ok(()),
        }
    }

    /// Appends that wait for the writer.
    pub(crate) fn queued(&self) -> usize {
        self.commands.max_capacity() - self.commands.capacity()
    }
}

struct WriterTask {
    commands: mpsc::Receiver<Command>,
    /// Dropped after a failure, for SQLite may have rolled back on its own; the next batch opens another.
    connection: Option<SqliteConnection>,
    options: SqliteConnectOptions,
    max_batch_appends: usize,
}

impl WriterTask {
    async fn run(mut self) {
        let mut waiting = Vec::new();
        let mut closers = Vec::new();
        while self.commands.recv_many(&mut waiting, self.max_batch_appends).await > 0 {
            let mut appends = Vec::with_capacity(waiting.len());
            let mut replies = Vec::with_capacity(waiting.len());
            for command in waiting.drain(..) {
                match command {
                    Command::Append { records, reply } => {
                        appends.push(records);
                        replies.push(reply);
                    }
                    Command::Close { reply } => {
                        // What is queued is still received; what comes later is refused.
                        self.commands.close();
                        closers.push(reply);
                    }
                }
            }
            for (reply, result) in replies.into_iter().zip(self.write(&appends).await) {
                // A caller that went away needs no answer.
                let _ = reply.send(result);
            }
        }
        let result = self.finish().await;
        for reply in closers {
            let _ = reply.send(result.clone());
        }
    }

    /// Writes a batch; one result an append.
    async fn write(&mut self, appends: &[Vec<Prepared>]) -> Vec<Result<(), JournalError>> {
        if appends.is_empty() {
            return Vec::new();
        }
        match self.commit(appends).await {
            Ok(results) => results,
            Err(error) => {
                tracing::warn!(%error, appends = appends.len(), "appends failed");
                self.connection = None;
                // Even the verdict on an append that conflicted may rest on one that is not there now.
                vec![Err(error); appends.len()]
            }
        }
    }

    /// One transaction for the batch. `Err` when nothing of it is written.
    async fn commit(
        &mut self,
        appends: &[Vec<Prepared>],
    ) -> Result<Vec<Result<(), JournalError>>, JournalError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => SqliteConnection::connect_with(&self.options)
                .await
                .map_err(|error| JournalError::from(error).while_opening(self.options.get_filename()))?,
        };
        let mut transaction = self.connection.insert(connection).begin_with("BEGIN IMMEDIATE").await?;
        let mut results = Vec::with_capacity(appends.len());
        for records in appends {
            let mut savepoint = transaction.begin().await?;
            match apply_all(&mut savepoint, records).await {
                Ok(()) => {
                    savepoint.commit().await?;
                    results.push(Ok(()));
                }
                Err(error) if error.spares_others() => {
                    savepoint.rollback().await?;
                    results.push(Err(error));
                }
                Err(error) => return Err(error),
            }
        }
        transaction.commit().await?;
        let events: usize = appends.iter().map(Vec::len).sum();
        tracing::debug!(appends = appends.len(), events, "committed");
        Ok(results)
    }

    async fn finish(&mut self) -> Result<(), JournalError> {
        let Some(mut connection) = self.connection.take() else {
            return Ok(());
        };
        // A reader that is still busy keeps part of the log; that part is taken in at the next opening.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await?;
        Ok(connection.close().await?)
    }
}

async fn apply_all(db: &mut SqliteConnection, records: &[Prepared]) -> Result<(), JournalError> {
    for record in records {
        apply(db, record).await?;
    }
    Ok(())
}
