//! Full disks, locks, foreign, newer and damaged files: each has its error, and nothing is lost.

use std::path::{Path, PathBuf};

use autoglm_domain::*;
use autoglm_journal::{Config, JournalError, SqliteStore};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::samples::{self, event, id};

/// A folder with a closed database of `interactions` in it.
async fn database(interactions: u64) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    let store = SqliteStore::open(&path, Config::default()).await.unwrap();
    store.append((1..=interactions).map(event::interaction).collect()).await.unwrap();
    store.close().await.unwrap();
    (folder, path)
}

async fn raw(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    SqliteConnection::connect_with(&options).await.unwrap()
}

async fn change(path: &Path, statement: &'static str) {
    let mut db = raw(path).await;
    sqlx::query(statement).execute(&mut db).await.unwrap();
    db.close().await.unwrap();
}

async fn refusal(path: &Path) -> JournalError {
    let before = std::fs::read(path).unwrap();
    let writing = SqliteStore::open(path, Config::default()).await.unwrap_err();
    let reading = SqliteStore::open_read_only(path, Config::default()).await.unwrap_err();
    assert_eq!(writing, reading);
    assert!(before == std::fs::read(path).unwrap(), "a file that was refused was changed");
    assert!(writing.hint().is_some());
    writing
}

#[tokio::test]
async fn a_full_disk_refuses_appends_and_keeps_what_was_acknowledged() {
    let (_folder, path) = database(0).await;
    let tight = Config { max_file_mib: Some(1), ..Config::default() };
    let store = SqliteStore::open(&path, tight).await.unwrap();
    let large = |n| {
        let answer = "x".repeat(50_000);
        Event::Interaction(Box::new(Interaction { answer, ..samples::interaction(n) }))
    };
    let mut written = 0;
    let full = loop {
        match store.append(vec![large(written + 1)]).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind, ErrorKind::Unavailable);
    assert_eq!(full.message, "no room to write to the database");
    assert_eq!(full.hint.unwrap(), "free space on the disk or raise `max_file_mib`, then try again");
    assert!((10..21).contains(&written), "{written} appends of 50 kB fit in 1 MiB");
    assert_eq!(store.recent_interactions(100).await.unwrap().len() as u64, written);
    // A small append may still fit, and with room it goes on without a gap.
    store.append(vec![event::interaction(1000)]).await.unwrap();
    store.close().await.unwrap();
    let roomy = SqliteStore::open(&path, Config::default()).await.unwrap();
    roomy.append(vec![large(written + 1)]).await.unwrap();
    let latest = roomy.events_after(written as i64, 10).await.unwrap();
    assert_eq!(latest.iter().map(|it| it.seq).collect::<Vec<_>>(), [written as i64 + 1, written as i64 + 2]);
}

#[tokio::test]
async fn a_locked_database_is_unavailable_until_it_is_released() {
    let (_folder, path) = database(1).await;
    let impatient = Config { busy_timeout_ms: 50, ..Config::default() };
    let store = SqliteStore::open(&path, impatient.clone()).await.unwrap();
    let mut other = raw(&path).await;
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let locked = store.append(vec![event::interaction(2)]).await.unwrap_err();
    assert_eq!(locked.kind, ErrorKind::Unavailable);
    assert_eq!(locked.message, "the database is locked by another process");
    assert!(locked.hint.is_some());
    // Reading goes on, and so does opening, which needs no lock on a file of this format.
    assert_eq!(store.interaction(id(1)).await.unwrap().interaction, samples::interaction(1));
    SqliteStore::open(&path, impatient).await.unwrap().close().await.unwrap();
    lock.rollback().await.unwrap();
    store.append(vec![event::interaction(2)]).await.unwrap();
    assert_eq!(store.recent_interactions(9).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let (_folder, path) = database(1).await;
    change(&path, "INSERT INTO _sqlx_migrations VALUES (9999, 'later', 0, 1, x'00', 0)").await;
    let error = refusal(&path).await;
    assert!(matches!(error, JournalError::Newer { found: 9999, .. }), "{error:?}");
    let error = Error::from(error);
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("has format 9999, newer than"), "{}", error.message);
    assert_eq!(error.hint.unwrap(), "use that newer autoglm, or another data directory or database");
}

#[tokio::test]
async fn a_database_of_an_older_version_is_not_read_before_it_is_brought_up_to_date() {
    let (_folder, path) = database(1).await;
    change(&path, "DELETE FROM _sqlx_migrations").await;
    let error = SqliteStore::open_read_only(&path, Config::default()).await.unwrap_err();
    assert!(matches!(error, JournalError::Older { found: 0, .. }), "{error:?}");
}

#[tokio::test]
async fn files_of_others_are_refused_and_left_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(
        &text,
        "no database at all, but long enough to hold a header of one hundred bytes. ".repeat(20),
    )
    .unwrap();
    let error = refusal(&text).await;
    assert_eq!(error, JournalError::NotOurs { path: text, reason: "file is not a database".into() });

    let foreign = folder.path().join("photos.sqlite");
    change(&foreign, "CREATE TABLE photos (id INTEGER)").await;
    let error = refusal(&foreign).await;
    let reason = "it holds another program's tables".into();
    assert_eq!(error, JournalError::NotOurs { path: foreign, reason });
}

#[tokio::test]
async fn damaged_files_are_refused() {
    let (_folder, path) = database(300).await;
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(refusal(&path).await, JournalError::Damaged { .. }));

    let mut scribbled = whole.clone();
    let middle = whole.len() / 2 / 4096 * 4096;
    scribbled[middle..middle + 4096].fill(0xa5);
    std::fs::write(&path, &scribbled).unwrap();
    let error = refusal(&path).await;
    assert!(error.to_string().starts_with(&format!("database `{}` is damaged: ", path.display())), "{error}");
    assert_eq!(error.kind(), ErrorKind::Internal);

    std::fs::write(&path, &whole).unwrap();
    SqliteStore::open(&path, Config::default()).await.unwrap();
}

#[tokio::test]
async fn a_damaged_record_is_named() {
    let (_folder, path) = database(2).await;
    change(&path, "UPDATE events SET json = '{' WHERE seq = 2").await;
    let store = SqliteStore::open(&path, Config::default()).await.unwrap();
    assert_eq!(store.interaction(id(1)).await.unwrap().interaction, samples::interaction(1));
    let error = store.interaction(id(2)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Internal);
    assert!(error.message.starts_with("event 2 is damaged: EOF while parsing"), "{}", error.message);
}

#[tokio::test]
async fn what_is_not_there_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    let error = SqliteStore::open_read_only(&path, Config::default()).await.unwrap_err();
    assert_eq!(error, JournalError::NoFile { path: path.clone() });
    assert!(!path.exists());
    for nowhere in [folder.path().join("no/such/folder/journal.sqlite"), folder.path().to_path_buf()] {
        let error = SqliteStore::open(&nowhere, Config::default()).await.unwrap_err();
        let reason = "unable to open database file".into();
        assert_eq!(error, JournalError::CannotOpen { path: nowhere, reason });
    }
}

#[tokio::test]
async fn too_much_at_once_is_refused() {
    let (_folder, path) = database(0).await;
    let small = Config { max_append_events: 2, ..Config::default() };
    let store = SqliteStore::open(&path, small).await.unwrap();
    let error = store.append((1..=3).map(event::interaction).collect()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert_eq!(error.message, "an append of 3 events is larger than the limit of 2");
    store.append((1..=2).map(event::interaction).collect()).await.unwrap();

    let mut version = samples::version(1);
    version.number = VersionNumber(u64::MAX);
    let error = store.append(vec![Event::Version(Box::new(version))]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    let reason = "version number 18446744073709551615 is larger than 9223372036854775807";
    assert_eq!(error.message, format!("event `version` cannot be stored: {reason}"));

    let none = Config { readers: 0, ..Config::default() };
    let error = SqliteStore::open(&path, none).await.unwrap_err();
    assert_eq!(error, JournalError::Setting { setting: "readers" });
}
