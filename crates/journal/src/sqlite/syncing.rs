//! When what was committed is on the disk, where commits of answers do not wait for it.
//!
//! A commit hands its part of the log to the system, which outlives the end of this process but not the loss of power.
//! A task here tells the system to write the log out soon after, as SQLite itself does at a commit that waits; since
//! the log is written in order, what is on the disk of it is always everything up to some commit.
//! Whoever hands events on to another system asks [`Told::reached`] first, so that nobody has heard of an event that
//! was then lost.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use crate::JournalError;

/// The task that has the log written out, and what it and the writer tell each other.
#[derive(Debug)]
pub(super) struct Syncing {
    told: Arc<Told>,
    synced: Arc<watch::Sender<Synced>>,
    task: JoinHandle<()>,
}

/// Counts of commits since the file was opened.
#[derive(Debug)]
pub(super) struct Told {
    log: PathBuf,
    begun: AtomicU64,
    done: AtomicU64,
    /// Nobody tells any more once the store is closed.
    synced: watch::Receiver<Synced>,
    committed: Notify,
    hurry: Notify,
}

/// What the disk has.
#[derive(Debug, Clone, Default)]
struct Synced {
    commits: u64,
    /// Why the latest try failed, if it did.
    failure: Option<String>,
}

impl Syncing {
    /// Starts the task for the file at `path`, which acts within `interval` of a commit.
    pub(super) fn start(path: &Path, interval: Duration) -> Self {
        let (synced, told) = watch::channel(Synced::default());
        let told = Arc::new(Told {
            log: log_of(path),
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            synced: told,
            committed: Notify::new(),
            hurry: Notify::new(),
        });
        let synced = Arc::new(synced);
        let task = tokio::spawn(run(Arc::clone(&told), Arc::clone(&synced), interval));
        Self { told, synced, task }
    }

    pub(super) fn told(&self) -> Arc<Told> {
        Arc::clone(&self.told)
    }

    /// A commit begins; readers may see it from now on.
    pub(super) fn begins(&self) {
        self.told.begun.fetch_add(1, Ordering::SeqCst);
    }

    /// It is over. With `waited` it has waited for the disk, which then has all before it as well.
    pub(super) fn done(&self, waited: bool) {
        let commits = self.told.begun.load(Ordering::SeqCst);
        self.told.done.store(commits, Ordering::SeqCst);
        match waited {
            true => reached(&self.synced, commits),
            false => self.told.committed.notify_one(),
        }
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Told {
    /// Waits until the disk has everything that can be read by now.
    ///
    /// # Errors
    /// `Disk` where it does not take it, `Closed` where the store is closed meanwhile.
    pub(super) async fn reached(&self) -> Result<(), JournalError> {
        let commits = self.begun.load(Ordering::SeqCst);
        let mut synced = self.synced.clone();
        let mut failed = false;
        loop {
            let found = synced.borrow_and_update().clone();
            match found.failure {
                _ if found.commits >= commits => return Ok(()),
                Some(reason) if failed => return Err(JournalError::Disk { reason }),
                // Of a try before this one; the next may succeed.
                failure => failed = failure.is_some(),
            }
            self.hurry.notify_one();
            synced.changed().await.map_err(|_| JournalError::Closed)?;
        }
    }

    /// Commits that the disk may not have.
    pub(super) fn unsynced(&self) -> u64 {
        self.begun.load(Ordering::SeqCst).saturating_sub(self.synced.borrow().commits)
    }
}

fn reached(synced: &watch::Sender<Synced>, commits: u64) {
    synced.send_modify(|synced| {
        *synced = Synced { commits: synced.commits.max(commits), failure: None };
    });
}

/// The write-ahead log of the file at `path`.
pub(super) fn log_of(path: &Path) -> PathBuf {
    super::beside(path, "-wal")
}

async fn run(told: Arc<Told>, synced: Arc<watch::Sender<Synced>>, interval: Duration) {
    let mut failing = false;
    loop {
        told.committed.notified().await;
        let _ = tokio::time::timeout(interval, told.hurry.notified()).await;
        let commits = told.done.load(Ordering::SeqCst);
        match write_out(&told.log).await {
            Ok(()) => {
                failing = false;
                reached(&synced, commits);
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "the log of the database may not be on the disk");
                }
                synced.send_modify(|synced| synced.failure = Some(error.to_string()));
                told.committed.notify_one();
            }
        }
    }
}

/// SQLite has no lock on this file, so that closing it takes none away: <https://www.sqlite.org/wal.html#walfile>. Another
/// connection may have begun a new one, so it is not kept open.
async fn write_out(log: &Path) -> std::io::Result<()> {
    let log = log.to_path_buf();
    let sync = move || match OpenOptions::new().write(true).open(&log) {
        Ok(log) => log.sync_data(),
        // The last connection that was closed has folded it in, and waited for the disk.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    tokio::task::spawn_blocking(sync).await.map_err(std::io::Error::other)?
}
