//! Answers that are acknowledged before they are committed: read at once, there once after any end, told of when the
//! database does not take them.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use autoglm_domain::*;
use autoglm_journal::{Config, Fsync, SqliteStore};
use futures::{FutureExt, future::join_all};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::samples::{self, event, id};

fn at(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("journal.sqlite")
}

fn spools(path: &Path) -> [PathBuf; 2] {
    ["-spool", "-spool2"].map(|name| PathBuf::from(format!("{}{name}", path.display())))
}

fn bytes(path: &Path) -> u64 {
    spools(path).iter().map(|file| std::fs::metadata(file).unwrap().len()).sum()
}

/// The numbers of the answers that a store has, in its order.
async fn answers(store: &SqliteStore) -> Vec<u64> {
    let recorded = store.events_after(0, usize::MAX).await.unwrap();
    let number = |it: RecordedEvent| match it.event {
        Event::Interaction(it) => it.id.uuid().as_u64_pair().1,
        other => panic!("a {}", other.name()),
    };
    recorded.into_iter().map(number).collect()
}

/// Opens a store, has it keep answers, and lets the process as it were die: nothing of what it had begun goes on.
fn keeps_and_dies(path: &Path, numbers: impl IntoIterator<Item = u64>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(path, Config::default()).await.unwrap();
        for n in numbers {
            // Acknowledged without a chance for any other task to run.
            assert_eq!(store.record(vec![samples::interaction(n)]).now_or_never(), Some(Ok(())));
        }
    });
}

#[tokio::test]
async fn what_was_kept_is_read_at_once_and_found_by_what_follows() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(at(&folder), Config::default()).await.unwrap();
    let one = async |n: u64| {
        store.record(vec![samples::interaction(n)]).await.unwrap();
        if n.is_multiple_of(2) {
            assert_eq!(store.interaction(id(n)).await.unwrap().feedback, []);
        }
        // Feedback is of another lane than answers, and refused where there is no answer.
        store.append(vec![event::feedback(n, n)]).await.unwrap();
        assert_eq!(store.interaction(id(n)).await.unwrap().feedback, [samples::feedback(n, n)]);
    };
    for n in 1..=20 {
        one(n).await;
    }
    join_all((21..=220).map(one)).await;
    assert_eq!(store.recent_interactions(1000).await.unwrap().len(), 220);
}

#[test]
fn what_a_process_left_is_taken_in_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = at(&folder);
    let opened = |fsync: Fsync| {
        let found = tokio::runtime::Runtime::new().unwrap().block_on(async {
            let store = SqliteStore::open(&path, Config { fsync, ..Config::default() }).await.unwrap();
            let found = answers(&store).await;
            store.close().await.unwrap();
            found
        });
        assert_eq!(bytes(&path), 0);
        found
    };
    keeps_and_dies(&path, 1..=3);
    let left = spools(&path).map(|file| std::fs::read(file).unwrap());
    assert_eq!(opened(Fsync::Interval), [1, 2, 3]);
    // A process that ends between a commit and the emptying of the files leaves what the database has by then.
    let leave_again =
        || std::iter::zip(spools(&path), &left).for_each(|(file, left)| std::fs::write(file, left).unwrap());
    leave_again();
    assert_eq!(opened(Fsync::Interval), [1, 2, 3]);
    leave_again();
    keeps_and_dies(&path, [4]);
    // Who keeps nothing itself takes in what was left as well.
    assert_eq!(opened(Fsync::Always), [1, 2, 3, 4]);
}

#[test]
fn who_only_looks_sees_what_a_process_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = at(&folder);
    keeps_and_dies(&path, 1..=3);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = SqliteStore::open_read_only(&path, Config::default()).await.unwrap();
        assert_eq!(answers(&store).await, [1, 2, 3]);
    });
    assert_eq!(bytes(&path), 0);
}

/// As a power cut may leave it: a line that was never whole, bytes that were never written.
#[test]
fn lines_that_cannot_be_read_take_no_other_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = at(&folder);
    keeps_and_dies(&path, [1]);
    let mut file = std::fs::File::options().append(true).open(&spools(&path)[0]).unwrap();
    file.write_all(b"\0\0\0\xff\n{}\n[]\n").unwrap();
    let whole = bytes(&path);
    file.write_all(br#"[{"id":"#).unwrap();
    keeps_and_dies(&path, [2]);
    assert!(bytes(&path) > whole + 100, "the next line does not follow part of one");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = SqliteStore::open(&path, Config::default()).await.unwrap();
        assert_eq!(answers(&store).await, [1, 2]);
    });
}

#[tokio::test]
async fn others_on_the_file_see_what_one_keeps_and_do_without() {
    let folder = tempfile::tempdir().unwrap();
    let path = at(&folder);
    let one = SqliteStore::open(&path, Config::default()).await.unwrap();
    for n in (1..=20).step_by(2) {
        assert_eq!(one.record(vec![samples::interaction(n)]).now_or_never(), Some(Ok(())));
        let looking = SqliteStore::open_read_only(&path, Config::default()).await.unwrap();
        assert_eq!(looking.interaction(id(n)).await.unwrap().interaction, samples::interaction(n));
        let other = SqliteStore::open(&path, Config::default()).await.unwrap();
        assert_eq!(other.interaction(id(n)).await.unwrap().interaction, samples::interaction(n));
        let mut recording = other.record(vec![samples::interaction(n + 1)]);
        assert_eq!((&mut recording).now_or_never(), None, "it waits for its commit");
        recording.await.unwrap();
    }
    assert_eq!(answers(&one).await, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_database_that_takes_nothing_is_told_of_and_gets_everything_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = at(&folder);
    let impatient = Config { busy_timeout_ms: 50, ..Config::default() };
    let store = SqliteStore::open(&path, impatient).await.unwrap();
    store.record(vec![samples::interaction(1)]).await.unwrap();
    assert_eq!(answers(&store).await, [1]);
    let options = SqliteConnectOptions::new().filename(&path);
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let mut kept = 1;
    let locked = loop {
        match store.record(vec![samples::interaction(kept + 1)]).await {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(kept > 1, "the first ones are kept, for nobody knew");
    assert_eq!(locked.kind, ErrorKind::Unavailable);
    assert_eq!(locked.message, "the database is locked by another process");
    // Reads do not wait for what cannot come; what would follow it is as little taken.
    assert_eq!(store.recent_interactions(9).await.unwrap().len(), 1);
    let unseen = store.interaction(id(2)).await.unwrap_err();
    assert_eq!(unseen.kind, ErrorKind::Unavailable);
    assert_eq!(unseen.message, "the database does not take the latest answers for now");
    let feedback = store.append(vec![event::feedback(2, 2)]).await.unwrap_err();
    assert_eq!(feedback.kind, ErrorKind::Unavailable);
    lock.rollback().await.unwrap();
    store.append(vec![event::feedback(2, 2)]).await.unwrap();
    assert_eq!(store.interaction(id(2)).await.unwrap().feedback.len(), 1);
    assert_eq!(store.recent_interactions(1000).await.unwrap().len() as u64, kept);
    let kept_again = store.record(vec![samples::interaction(kept + 1)]).now_or_never();
    assert_eq!(kept_again, Some(Ok(())));
}

/// Nobody comes by with an append: the writer tries again of itself. And what it could not write by the end is there at the
/// next opening.
#[tokio::test]
async fn what_could_not_be_written_is_tried_again_and_outlives_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = at(&folder);
    let tight = Config { max_file_mib: Some(1), ..Config::default() };
    let store = SqliteStore::open(&path, tight).await.unwrap();
    let large = |n| Interaction { answer: "x".repeat(50_000), ..samples::interaction(n) };
    let mut kept = 0;
    let full = loop {
        match store.record(vec![large(kept + 1)]).await {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert_eq!(full.message, "no room to write to the database");
    let written = store.recent_interactions(1000).await.unwrap().len() as u64;
    assert!(written < kept, "{written} of {kept}");
    let closed = Error::from(store.close().await.unwrap_err());
    assert_eq!(closed.kind, ErrorKind::Unavailable);
    let roomy = SqliteStore::open(&path, Config::default()).await.unwrap();
    assert_eq!(answers(&roomy).await, (1..=kept).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_queue_makes_callers_wait_for_their_commits() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { queue_appends: 2, max_batch_appends: 3, ..Config::default() };
    let store = SqliteStore::open(at(&folder), config).await.unwrap();
    let results = join_all((1..=100).map(|n| store.record(vec![samples::interaction(n)]))).await;
    assert_eq!(results, vec![Ok(()); 100]);
    let mut all = answers(&store).await;
    all.sort_unstable();
    assert_eq!(all, (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_must_account_for_every_answer_waits_for_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { fsync: Fsync::Always, ..Config::default() };
    let store = SqliteStore::open(at(&folder), config).await.unwrap();
    let mut recording = store.record(vec![samples::interaction(1)]);
    assert_eq!((&mut recording).now_or_never(), None);
    recording.await.unwrap();
    assert_eq!(bytes(&at(&folder)), 0);
}

#[tokio::test]
async fn the_files_stay_short_and_are_empty_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = at(&folder);
    let store = SqliteStore::open(&path, Config::default()).await.unwrap();
    let large = |n| Interaction { answer: "x".repeat(50_000), ..samples::interaction(n) };
    let (mut most, mut all) = (0, 0);
    for n in 1..=200 {
        store.record(vec![large(n)]).await.unwrap();
        if n % 30 == 0 {
            all += store.recent_interactions(1).await.unwrap().len();
        }
        most = most.max(bytes(&path));
    }
    assert_eq!(all, 6);
    // 10 MB went through them.
    assert!((1 << 20..4 << 20).contains(&most), "{most} bytes");
    store.close().await.unwrap();
    assert_eq!(bytes(&path), 0);
}

/// An id that is there already is nothing that happens; the first answer stays, and nothing else suffers.
#[tokio::test]
async fn an_id_that_is_there_is_not_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(at(&folder), Config::default()).await.unwrap();
    for n in [1, 2, 1, 3] {
        store.record(vec![samples::interaction(n)]).await.unwrap();
    }
    assert_eq!(answers(&store).await, [1, 2, 3]);
}
