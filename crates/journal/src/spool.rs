//! Answers that are acknowledged before they are committed.
//!
//! A request that waits for the commit of its answer waits for three threads to be woken, one after another, and for
//! whatever the writer is at. An answer that is *kept* is instead written to a file, the spool, by the task that asks, and
//! queued; the writer commits what was kept every few milliseconds, and so in fewer commits. What was written to a file
//! outlives the end of the process, as a commit does that does not wait for the disk: whoever opens the store next takes
//! in what had not been committed. Reads of the process wait for what was kept before them ([`Spool::settled`]), and the
//! writer commits it before any append that came after it.
//!
//! There are two files, each line the answers of one append, in JSON. A file is emptied as soon as the database has all that
//! is in it; where more comes all the time, one is written to until it is long and then the other. Whoever has the lock of the first file keeps answers;
//! other processes on the same database do without.

use std::{
    collections::HashSet,
    fs::{File, TryLockError},
    io::{Read, Write},
    mem,
    path::Path,
    sync::Arc,
    time::Duration,
};

use autoglm_domain::{Event, Interaction, InteractionId};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use crate::{
    JournalError,
    record::Prepared,
    sqlite::beside,
    writer::{Append, Commit},
};

/// How long the writer lets answers gather.
const GATHER: Duration = Duration::from_millis(5);
/// How long it waits before it tries again what could not be committed.
const PAUSE: Duration = Duration::from_millis(250);
/// Bytes from which a file is long.
const LONG: u64 = 1 << 20;
/// What is added to the database's name.
const NAMES: [&str; 2] = ["-spool", "-spool2"];

/// The files of one database, with what another process left in them.
#[derive(Debug)]
pub(crate) struct Files {
    lines: [Lines; 2],
    left: Vec<Vec<Interaction>>,
}

/// One file.
#[derive(Debug)]
struct Lines {
    file: File,
    bytes: u64,
    /// Count of the latest append in it.
    last: u64,
}

impl Files {
    /// Opens the files beside the database at `path`. `None` while another process has them.
    ///
    /// # Errors
    /// Of the system, where they cannot be made, locked or read.
    pub(crate) fn open(path: &Path) -> std::io::Result<Option<Self>> {
        let open = |name| File::options().create(true).append(true).read(true).open(beside(path, name));
        let (first, second) = (open(NAMES[0])?, open(NAMES[1])?);
        match first.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let (first, mut left) = Lines::read(first)?;
        let (second, more) = Lines::read(second)?;
        left.extend(more);
        left.sort_by_key(|answers| answers.first().map(|first| first.at));
        Ok(Some(Self { lines: [first, second], left }))
    }

    /// The first answer of every append that was left.
    pub(crate) fn left(&self) -> Vec<InteractionId> {
        self.left.iter().filter_map(|answers| Some(answers.first()?.id)).collect()
    }

    /// Both sides of the spool, for at most `room` appends that wait. What was left is to be committed, but for the
    /// appends whose first answer is `there`. Where `keeps` is false there is nothing more to come.
    ///
    /// # Errors
    /// `Unstorable` for an answer that cannot have been kept.
    pub(crate) fn spool(
        self,
        there: &HashSet<String>,
        room: usize,
        keeps: bool,
    ) -> Result<Spooled, JournalError> {
        let is_missing = |answers: &Vec<Interaction>| {
            answers.first().is_some_and(|first| !there.contains(&first.id.to_string()))
        };
        let left = self.left.into_iter().filter(is_missing).map(append_of);
        let queue: Vec<Append> = left.collect::<Result<_, _>>()?;
        if !queue.is_empty() {
            tracing::info!(appends = queue.len(), "answers that a process left in the spool are taken in");
        }
        let appends = queue.len() as u64;
        let [mut active, mut resting] = self.lines;
        (active.last, resting.last) = (appends, appends);
        let (written, told) = watch::channel(Written::default());
        let kept = Kept { active, resting, queue, room, appends, is_shut: !keeps };
        let spool = Arc::new(Spool { kept: Mutex::new(kept), filled: Notify::new(), written: told });
        let spooled = Spooled { spool, uncommitted: Vec::new(), written };
        match appends {
            // The database has all that is in the files: they are emptied.
            0 => spooled.wrote(0),
            _ => spooled.spool.filled.notify_one(),
        }
        Ok(spooled)
    }
}

impl Lines {
    /// Reads what `file` has; the end of a line that was never whole, and so never acknowledged, is taken off.
    fn read(mut file: File) -> std::io::Result<(Self, Vec<Vec<Interaction>>)> {
        let mut all = Vec::new();
        file.read_to_end(&mut all)?;
        let whole = whole_lines(&all);
        if whole.len() < all.len() {
            file.set_len(whole.len() as u64)?;
        }
        let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let (left, spoiled): (Vec<_>, Vec<_>) = lines.map(serde_json::from_slice).partition(Result::is_ok);
        if !spoiled.is_empty() {
            // A power cut leaves what the system had not written, which is not promised to outlive it.
            tracing::warn!(lines = spoiled.len(), "lines of the spool cannot be read and are passed over");
        }
        let left = left.into_iter().flatten().collect();
        Ok((Self { file, bytes: whole.len() as u64, last: 0 }, left))
    }
}

/// The first answers of the latest appends that another process has kept beside the database at `path`, one of each file.
/// When the database has these it has all before them.
pub(crate) fn latest_of_others(path: &Path) -> Vec<InteractionId> {
    let latest = |name| {
        let all = std::fs::read(beside(path, name)).ok()?;
        let line = whole_lines(&all).trim_ascii_end().rsplit(|byte| *byte == b'\n').next()?;
        Some(serde_json::from_slice::<Vec<Interaction>>(line).ok()?.first()?.id)
    };
    NAMES.into_iter().filter_map(latest).collect()
}

fn whole_lines(all: &[u8]) -> &[u8] {
    let end = all.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    all.get(..end).unwrap_or_default()
}

/// The append that records `answers`.
fn append_of(answers: Vec<Interaction>) -> Result<Append, JournalError> {
    let prepared = |answer| Prepared::new(Event::Interaction(Box::new(answer)));
    let records = answers.into_iter().map(prepared).collect::<Result<_, _>>()?;
    Ok(Append { records, cursor: None, as_leader: false })
}

/// The callers' side.
#[derive(Debug)]
pub(crate) struct Spool {
    kept: Mutex<Kept>,
    filled: Notify,
    /// The writer tells.
    written: watch::Receiver<Written>,
}

#[derive(Debug)]
struct Kept {
    /// Written to until it is long.
    active: Lines,
    /// Written to next, when it is empty.
    resting: Lines,
    /// What the writer is to take.
    queue: Vec<Append>,
    /// Most that wait there.
    room: usize,
    /// How many there were since the store was opened.
    appends: u64,
    /// Nothing is kept any more.
    is_shut: bool,
}

/// How far the writer is.
#[derive(Debug, Clone, Copy, Default)]
struct Written {
    appends: u64,
    /// The latest try failed; until one succeeds nothing is kept, so that callers learn of it.
    is_failing: bool,
}

impl Spool {
    /// Keeps `append`, or gives it back where that cannot be.
    pub(crate) fn keep(&self, append: Append) -> Result<(), Append> {
        let mut kept = self.kept.lock();
        if kept.is_shut || kept.queue.len() >= kept.room || self.written.borrow().is_failing {
            return Err(append);
        }
        // The system copies the line, which takes microseconds and not the wait for another thread.
        if let Err(error) = kept.write(&append.records) {
            tracing::warn!(%error, "an answer cannot be spooled and waits for its commit");
            return Err(append);
        }
        kept.queue.push(append);
        if kept.queue.len() == 1 {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits until the database has all that was kept before; false where it is found not to take it for now.
    pub(crate) async fn settled(&self) -> bool {
        let appends = self.kept.lock().appends;
        let mut written = self.written.clone();
        // A writer that is gone has written what it could.
        let _ = written.wait_for(|it| it.appends >= appends || it.is_failing).await;
        written.borrow().appends >= appends
    }

    /// Appends that wait for the writer.
    pub(crate) fn queued(&self) -> usize {
        self.kept.lock().queue.len()
    }
}

impl Kept {
    fn write(&mut self, records: &[Prepared]) -> std::io::Result<()> {
        if self.active.bytes >= LONG && self.resting.bytes == 0 {
            mem::swap(&mut self.active, &mut self.resting);
        }
        let answers: Vec<&str> = records.iter().map(|record| record.json.as_str()).collect();
        let line = format!("[{}]\n", answers.join(","));
        if let Err(error) = self.active.file.write_all(line.as_bytes()) {
            // Part of a line would spoil the next one.
            self.is_shut = self.active.file.set_len(self.active.bytes).is_err();
            return Err(error);
        }
        self.appends += 1;
        self.active.bytes += line.len() as u64;
        self.active.last = self.appends;
        Ok(())
    }

    /// Empties each file of which the database has all, for it has everything up to the append `written`.
    fn empty(&mut self, written: u64) -> std::io::Result<()> {
        for lines in [&mut self.resting, &mut self.active] {
            if lines.bytes > 0 && lines.last <= written {
                lines.file.set_len(0)?;
                lines.bytes = 0;
            }
        }
        Ok(())
    }

    /// Lets others have the files, whoever still holds this.
    fn release(&self) {
        for lines in [&self.active, &self.resting] {
            if let Err(error) = lines.file.unlock() {
                tracing::debug!(%error, "the lock of the spool goes with the process");
            }
        }
    }
}

/// The writer's side.
#[derive(Debug)]
pub(crate) struct Spooled {
    spool: Arc<Spool>,
    /// What it took.
    uncommitted: Vec<Append>,
    written: watch::Sender<Written>,
}

impl Spooled {
    /// The other side.
    pub(crate) fn spool(&self) -> Arc<Spool> {
        Arc::clone(&self.spool)
    }

    /// Waits until there is something to commit and others have had time to come. Dropping it loses nothing.
    pub(crate) async fn gathered(&self) {
        if self.uncommitted.is_empty() {
            self.spool.filled.notified().await;
            sleep(GATHER).await;
        } else {
            sleep(PAUSE).await;
        }
    }

    /// Commits all that was kept, at most `max_batch` appends at once.
    ///
    /// # Errors
    /// Of the first commit that fails; the rest waits for the next call.
    pub(crate) async fn commit(
        &mut self,
        engine: &mut impl Commit,
        max_batch: usize,
    ) -> Result<(), JournalError> {
        self.uncommitted.append(&mut self.spool.kept.lock().queue);
        while !self.uncommitted.is_empty() {
            let batch = self.uncommitted.get(..max_batch.min(self.uncommitted.len())).unwrap_or_default();
            match engine.commit(batch).await {
                Ok(outcomes) => {
                    for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
                        tracing::error!(%error, "an answer that was spooled is refused");
                    }
                    self.uncommitted.drain(..outcomes.len());
                    self.wrote(outcomes.len() as u64);
                }
                Err(error) => {
                    self.fails(&error);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn wrote(&self, appends: u64) {
        let (mut was_failing, mut written) = (false, 0);
        self.written.send_modify(|it| {
            it.appends += appends;
            (was_failing, written) = (mem::take(&mut it.is_failing), it.appends);
        });
        if was_failing {
            tracing::info!("spooled answers are written again");
        }
        if let Err(error) = self.spool.kept.lock().empty(written) {
            tracing::debug!(%error, "the spool is not emptied and grows");
        }
    }

    fn fails(&self, error: &JournalError) {
        let waiting = self.uncommitted.len();
        let mut was_failing = false;
        self.written.send_modify(|it| was_failing = mem::replace(&mut it.is_failing, true));
        if !was_failing {
            tracing::warn!(%error, waiting, "spooled answers cannot be written to the database for now");
        }
    }

    /// Nothing is kept from here on; what was is committed, or stays in the files for whoever opens the store next.
    ///
    /// # Errors
    /// As [`Spooled::commit`].
    pub(crate) async fn close(
        &mut self,
        engine: &mut impl Commit,
        max_batch: usize,
    ) -> Result<(), JournalError> {
        self.spool.kept.lock().is_shut = true;
        let committed = self.commit(engine, max_batch).await;
        self.spool.kept.lock().release();
        committed
    }
}

#[cfg(test)]
mod tests {
    use autoglm_doubles::samples;

    use super::*;

    fn append(n: u64) -> Append {
        append_of(vec![samples::interaction(n)]).unwrap()
    }

    /// A disk that takes no more, here a file that was opened for reading: the append is given back, and nothing follows
    /// what may be part of a line.
    #[tokio::test]
    async fn an_append_that_cannot_be_written_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.sqlite");
        let mut files = Files::open(&path).unwrap().unwrap();
        let whole = std::mem::replace(&mut files.lines[0].file, File::open(beside(&path, NAMES[0])).unwrap());
        let spooled = files.spool(&HashSet::new(), 9, true).unwrap();
        let spool = spooled.spool();
        let back = spool.keep(append(1)).unwrap_err();
        assert_eq!(back.records[0].json, append(1).records[0].json);
        spool.kept.lock().active.file = whole;
        spool.keep(append(2)).unwrap_err();
        assert_eq!(spool.queued(), 0);
        assert!(spool.settled().await);
    }

    #[test]
    fn files_are_had_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.sqlite");
        let files = Files::open(&path).unwrap().unwrap();
        assert!(Files::open(&path).unwrap().is_none());
        drop(files);
        assert!(Files::open(&path).unwrap().is_some());
    }

    #[test]
    fn the_latest_whole_line_of_each_file_is_what_others_wait_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.sqlite");
        assert_eq!(latest_of_others(&path), []);
        let line = |n| format!("[{}]\n", append(n).records[0].json);
        std::fs::write(beside(&path, NAMES[0]), line(1) + &line(2) + "[{\"id\"").unwrap();
        std::fs::write(beside(&path, NAMES[1]), line(3)).unwrap();
        assert_eq!(latest_of_others(&path), [samples::interaction(2).id, samples::interaction(3).id]);
    }
}
