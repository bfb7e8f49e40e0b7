//! Group commit, several processes on one file, closing.

use std::time::Duration;

use autoglm_domain::*;
use autoglm_journal::{Config, Fsync, Health, JournalError, SqliteStore};
use futures::{FutureExt, StreamExt, future::join_all, stream};

use crate::samples::{self, event, id};

async fn open(folder: &tempfile::TempDir, config: Config) -> SqliteStore {
    SqliteStore::open(folder.path().join("journal.sqlite"), config).await.unwrap()
}

async fn count(store: &SqliteStore) -> usize {
    store.events_after(0, usize::MAX).await.unwrap().len()
}

#[tokio::test]
async fn an_append_whose_caller_went_away_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Config::default()).await;
    for n in 1..=50 {
        // Polled once it is queued; then its caller drops it.
        assert!(store.append(vec![event::interaction(n)]).now_or_never().is_none());
    }
    // The writer goes in order, so when this one is there all the others are.
    store.append(vec![event::interaction(51)]).await.unwrap();
    assert_eq!(count(&store).await, 51);
}

#[tokio::test]
async fn a_full_queue_makes_callers_wait_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Config { queue_appends: 2, max_batch_appends: 3, ..Config::default() }).await;
    let results = join_all((1..=100).map(|n| store.append(vec![event::interaction(n)]))).await;
    assert_eq!(results, vec![Ok(()); 100]);
    assert_eq!(count(&store).await, 100);
}

/// Answers and assessments share statements; each append is refused or written for itself all the same.
#[tokio::test]
async fn of_many_at_once_only_those_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Config::default()).await;
    let twice = |n: u64| if n == 40 { 7 } else { n };
    let answers = join_all((1..=100).map(|n| store.append(vec![event::interaction(twice(n))]))).await;
    let refused: Vec<usize> = (0..100).filter(|n| answers[*n].is_err()).collect();
    assert_eq!(refused, [39]);
    assert_eq!(answers[39].as_ref().unwrap_err().kind, ErrorKind::Conflict);
    // The fourth is of an answer that there is not, the fifth of one that has an assessment already, which it replaces.
    let of = |n: u64| match n {
        4 => 999,
        5 => 3,
        n => n,
    };
    let assessments = join_all((1..=30).map(|n| store.append(vec![event::assessment(n, of(n), true)]))).await;
    let refused: Vec<usize> = (0..30).filter(|n| assessments[*n].is_err()).collect();
    assert_eq!(refused, [3]);
    assert_eq!(assessments[3].as_ref().unwrap_err().kind, ErrorKind::NotFound);
    let latest = store.interaction(id(3)).await.unwrap().assessment.unwrap();
    assert_eq!(latest, samples::assessment(5, 3, true));
    assert_eq!(store.assessment_lag().await.unwrap(), 99 - 28);
    let seqs: Vec<i64> = store.events_after(0, 1000).await.unwrap().iter().map(|it| it.seq).collect();
    assert_eq!(seqs, (1..=99 + 29).collect::<Vec<_>>());
}

#[tokio::test]
async fn answers_of_two_stores_on_one_file_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = tokio::join!(open(&folder, Config::default()), open(&folder, Config::default()));
    for n in 1..=20 {
        let store = if n % 3 == 0 { &one } else { &other };
        store.append(vec![event::interaction(n)]).await.unwrap();
    }
    let recorded = one.events_after(0, 1000).await.unwrap();
    let expected: Vec<(i64, Event)> = (1..=20).map(|n| (n as i64, event::interaction(n))).collect();
    assert_eq!(recorded.into_iter().map(|it| (it.seq, it.event)).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn two_stores_on_one_file_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = tokio::join!(open(&folder, Config::default()), open(&folder, Config::default()));
    let appends = (1..=60).map(|n| {
        let store = if n % 2 == 0 { &one } else { &other };
        store.append(vec![event::interaction(n), event::feedback(n, n)])
    });
    assert_eq!(join_all(appends).await, vec![Ok(()); 60]);
    let recorded = one.events_after(0, 1000).await.unwrap();
    assert_eq!(recorded.iter().map(|it| it.seq).collect::<Vec<_>>(), (1..=120).collect::<Vec<_>>());
    assert_eq!(recorded, other.events_after(0, 1000).await.unwrap());
    // An alias moved by one process is where the other one finds it.
    one.append(vec![event::version(1), event::alias_move("champion", 0, 1)]).await.unwrap();
    let stale = other.append(vec![event::alias_move("champion", 0, 1)]).await.unwrap_err();
    assert_eq!(stale.message, "alias `champion` points at v1, not at v0");
    assert_eq!(stale.kind, ErrorKind::Conflict);
}

#[tokio::test]
async fn a_reader_follows_a_server_and_may_not_write() {
    let folder = tempfile::tempdir().unwrap();
    let server = open(&folder, Config::default()).await;
    let reader = SqliteStore::open_read_only(server.path(), Config::default()).await.unwrap();
    server.append(vec![event::interaction(1)]).await.unwrap();
    assert_eq!(reader.interaction(id(1)).await.unwrap().interaction, samples::interaction(1));
    let refused = reader.append(vec![event::interaction(2)]).await.unwrap_err();
    assert_eq!(
        (refused.kind, refused.message.as_str()),
        (ErrorKind::Denied, "the store was opened for reading only")
    );
    // It also reads what a server left behind, and does not keep it from starting again.
    server.close().await.unwrap();
    drop(server);
    let late = SqliteStore::open_read_only(reader.path(), Config::default()).await.unwrap();
    assert_eq!(count(&late).await, 1);
    let again = open(&folder, Config::default()).await;
    again.append(vec![event::interaction(2)]).await.unwrap();
    assert_eq!(count(&late).await, 2);
}

#[tokio::test]
async fn closing_writes_what_is_queued_and_folds_the_log_into_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Config::default()).await;
    for n in 1..=40 {
        assert!(store.append(vec![event::interaction(n)]).now_or_never().is_none());
    }
    store.close().await.unwrap();
    assert_eq!(store.close().await, Ok(()));
    let closed = store.append(vec![event::interaction(41)]).await.unwrap_err();
    assert_eq!((closed.kind, closed.message.as_str()), (ErrorKind::Unavailable, "the store is closed"));
    assert_eq!(store.recent_interactions(1).await.unwrap_err().message, "the store is closed");
    // Nothing of it is in the log any more: the file alone has it all.
    let copy = folder.path().join("copy.sqlite");
    std::fs::copy(store.path(), &copy).unwrap();
    let copied = SqliteStore::open(copy, Config::default()).await.unwrap();
    assert_eq!(count(&copied).await, 40);
}

#[tokio::test]
async fn dropping_it_writes_what_is_queued() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Config::default()).await;
    assert!(store.append(vec![event::interaction(1)]).now_or_never().is_none());
    drop(store);
    let again = open(&folder, Config::default()).await;
    for _ in 0..500 {
        if count(&again).await == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the append was lost");
}

#[tokio::test]
async fn health_tells_sizes_and_the_latest_position() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Config::default()).await;
    store.append((1..=3).map(event::interaction).collect()).await.unwrap();
    let Health { last_seq, file_bytes, wal_bytes, queued_appends, .. } = store.health().await.unwrap();
    assert_eq!((last_seq, queued_appends), (3, 0));
    assert_eq!(file_bytes, std::fs::metadata(store.path()).unwrap().len());
    assert!(wal_bytes > 0);
    store.close().await.unwrap();
    assert_eq!(store.health().await, Err(JournalError::Closed));
}

/// Written without a pause and beside readers, the log begins anew again and again; at the end all of it is in the file.
#[tokio::test]
async fn the_log_is_folded_into_the_file_while_more_is_written() {
    const MIB: u64 = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Config { fsync: Fsync::Never, ..Config::default() }).await;
    let answer = "x".repeat(250_000);
    let write = async |n| {
        let large = Interaction { answer: answer.clone(), ..samples::interaction(n) };
        store.append(vec![Event::Interaction(Box::new(large))]).await.unwrap();
        assert_eq!(store.interaction(id(n)).await.unwrap().interaction.answer, answer);
        store.health().await.unwrap().wal_bytes
    };
    let logs: Vec<u64> = stream::iter(1..=1600).map(write).buffer_unordered(8).collect().await;
    let longest = logs.into_iter().max().unwrap();
    assert!(longest < 320 * MIB, "400 MB were written, and the log came to {longest} bytes");
    store.close().await.unwrap();
    let Health { last_seq, file_bytes, wal_bytes, .. } =
        open(&folder, Config::default()).await.health().await.unwrap();
    assert_eq!((last_seq, wal_bytes), (1600, 0));
    assert!(file_bytes > 380 * MIB, "{file_bytes}");
}

/// What only says what was answered does not wait for the disk, what somebody taught does; and whoever is told of an event
/// can rely on it.
#[tokio::test]
async fn an_answer_reaches_the_disk_with_what_follows_it_or_before_anybody_is_told_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let hour = Config { fsync_interval_ms: 3_600_000, ..Config::default() };
    let store = open(&folder, hour).await;
    let unsynced = async || store.health().await.unwrap().unsynced_commits;
    store.append(vec![event::interaction(1)]).await.unwrap();
    store.append(vec![event::assessment(1, 1, false)]).await.unwrap();
    store.append(vec![event::shadow_pair(1, 1, 10.0, 0.5)]).await.unwrap();
    assert_eq!(unsynced().await, 3);
    store.append(vec![event::feedback(1, 1)]).await.unwrap();
    assert_eq!(unsynced().await, 0, "feedback waits, and what is before it is on the disk too");
    store.append(vec![event::interaction(2)]).await.unwrap();
    // A commit that is refused writes nothing, and waits for nothing.
    store.append(vec![event::feedback(1, 2)]).await.unwrap_err();
    assert_eq!(unsynced().await, 2);
    assert_eq!(store.events_after(4, 9).await.unwrap().len(), 1);
    assert_eq!(unsynced().await, 0, "whoever reads events may hand them on");
    store.append(vec![event::interaction(3)]).await.unwrap();
    store.close().await.unwrap();

    for fsync in [Fsync::Interval, Fsync::Always, Fsync::Never] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder, Config { fsync, fsync_interval_ms: 1, ..Config::default() }).await;
        store.append(vec![event::interaction(1)]).await.unwrap();
        while store.health().await.unwrap().unsynced_commits > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(store.events_after(0, 9).await.unwrap().len(), 1);
    }
}

/// Events are not handed on while the disk does not take them, and are once it does.
#[tokio::test]
async fn a_log_that_cannot_be_written_out_holds_its_events_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Config { fsync_interval_ms: 1, ..Config::default() }).await;
    store.append(vec![event::interaction(1)]).await.unwrap();
    assert_eq!(store.events_after(0, 9).await.unwrap().len(), 1);
    // A folder in the log's place is one that cannot be opened for writing; the file itself stays with SQLite.
    let log = folder.path().join("journal.sqlite-wal");
    let aside = folder.path().join("aside");
    std::fs::rename(&log, &aside).unwrap();
    std::fs::create_dir(&log).unwrap();
    store.append(vec![event::interaction(2)]).await.unwrap();
    let error = store.events_after(0, 9).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.starts_with("the disk failed: "), "{error}");
    assert_eq!(store.recent_interactions(9).await.unwrap().len(), 2, "for this process they are there");
    std::fs::remove_dir(&log).unwrap();
    std::fs::rename(&aside, &log).unwrap();
    assert_eq!(store.events_after(0, 9).await.unwrap().len(), 2);
    store.close().await.unwrap();
}
