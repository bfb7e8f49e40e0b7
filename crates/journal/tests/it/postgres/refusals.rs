//! What cannot be opened or written: each has its error, with a hint, and never the password.

use autoglm_domain::*;
use autoglm_journal::{Config, JournalError, PostgresStore};

use super::Database;
use crate::samples::{self, event};

async fn refusal(url: &str) -> JournalError {
    let writing = PostgresStore::connect(url, Config::default()).await.unwrap_err();
    let reading = PostgresStore::connect_read_only(url, Config::default()).await.unwrap_err();
    assert_eq!(writing, reading);
    assert!(writing.hint().is_some(), "{writing}");
    for secret in ["p%40ss", "p@ss", "wrong"] {
        assert!(!format!("{writing} {writing:?}").contains(secret), "{writing:?}");
    }
    writing
}

#[tokio::test]
async fn wrong_password_missing_database_and_nobody_there_are_told_apart() {
    let Some(database) = Database::server() else { return };
    let port = database.server.lock().port();
    let error = refusal(&database.url.replace("p%40ss", "wrong")).await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(
        error.to_string(),
        format!(
            "Postgres at `127.0.0.1:{port}/postgres` refuses the login: password authentication failed for user \"loop\""
        )
    );
    let nowhere = database.server.lock().url("nowhere");
    let error = refusal(&nowhere).await;
    assert_eq!(
        (error.kind(), error.to_string()),
        (ErrorKind::NotFound, format!("no database at `127.0.0.1:{port}/nowhere`"))
    );
    assert_eq!(error.hint().unwrap(), "make it with `createdb`; autoglm makes its own tables in it");
    database.server.lock().stop();
    let error = refusal(&database.url).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().starts_with(&format!("Postgres at `127.0.0.1:{port}/postgres` does not answer: "))
    );
}

#[tokio::test]
async fn an_empty_database_is_only_opened_for_writing_and_a_newer_or_foreign_one_never() {
    let Some(database) = Database::server() else { return };
    let error = PostgresStore::connect_read_only(&database.url, Config::default()).await.unwrap_err();
    assert!(matches!(error, JournalError::NoTables { .. }), "{error:?}");
    let store = database.open().await;
    store.append(vec![event::interaction(1)]).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(store.append(vec![event::interaction(2)]).await.unwrap_err().message, "the store is closed");
    let reader = PostgresStore::connect_read_only(&database.url, Config::default()).await.unwrap();
    assert_eq!(reader.recent_interactions(9).await.unwrap().len(), 1);
    assert_eq!(reader.append(vec![event::interaction(2)]).await.unwrap_err().kind, ErrorKind::Denied);

    database.run("INSERT INTO autoglm._sqlx_migrations VALUES (9999, 'later', now(), true, '', 0)").await;
    let error = refusal(&database.url).await;
    assert!(matches!(error, JournalError::Newer { found: 9999, known: 4, .. }), "{error:?}");
    database.run("DELETE FROM autoglm._sqlx_migrations").await;
    let error = PostgresStore::connect_read_only(&database.url, Config::default()).await.unwrap_err();
    assert!(matches!(error, JournalError::Older { found: 0, .. }), "{error:?}");

    let foreign = database.fresh().await;
    foreign.run("CREATE SCHEMA autoglm; CREATE TABLE autoglm.photos (id int)").await;
    let error = refusal(&foreign.url).await;
    assert!(matches!(error, JournalError::NotOurs { .. }), "{error:?}");
    // Others' tables beside our schema are nobody's business.
    let shared = database.fresh().await;
    shared.run("CREATE TABLE events (id int)").await;
    shared.open().await.append(vec![event::interaction(1)]).await.unwrap();
}

#[tokio::test]
async fn rights_encodings_and_characters_that_do_not_do_are_named() {
    let Some(database) = Database::server() else { return };
    database.run("CREATE ROLE guest LOGIN PASSWORD 'guest'").await;
    let guest = database.url.replace("loop:p%40ss", "guest:guest");
    let error = PostgresStore::connect(&guest, Config::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("permission denied"), "{error}");
    // With a schema that an administrator made it needs no more than that.
    database.run("CREATE SCHEMA autoglm AUTHORIZATION guest").await;
    let store = PostgresStore::connect(&guest, Config::default()).await.unwrap();
    let nul = AliasMove { alias: Alias("a\0b".into()), ..samples::alias_move("x", 0, 1) };
    store.append(vec![event::version(1)]).await.unwrap();
    let error = store.append(vec![Event::AliasMoved(nul)]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    // In a text it is fine, as JSON writes it with an escape.
    let text = Interaction { answer: "nul \0 and \u{1f427}".into(), ..samples::interaction(1) };
    store.append(vec![Event::Interaction(Box::new(text.clone()))]).await.unwrap();
    assert_eq!(store.recent_interactions(1).await.unwrap()[0].interaction, text);

    database.run("CREATE DATABASE narrow ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'").await;
    let narrow = database.server.lock().url("narrow");
    let error = PostgresStore::connect(&narrow, Config::default()).await.unwrap_err();
    assert!(error.to_string().ends_with("its encoding is LATIN1, and UTF8 is needed"), "{error}");
}

/// A file system of 32 MiB for a table space, where this machine lets us make one.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_refuses_appends_and_keeps_what_was_acknowledged() {
    let Some(database) = Database::server() else { return };
    let user = database.server.lock().user();
    let Some(small) = autoglm_doubles::SmallDisk::new(user) else { return };
    let space = small.path().display();
    database.run(&format!("CREATE TABLESPACE small LOCATION '{space}'")).await;
    database.run("CREATE DATABASE tight TABLESPACE small").await;
    let tight = database.server.lock().url("tight");
    let store = PostgresStore::connect(&tight, Config::default()).await.unwrap();
    let large = |n: u64| {
        // Text that does not compress.
        let mut state = n;
        let answer: String = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'0' + (state >> 58) as u8)
        })
        .take(60_000)
        .collect();
        Event::Interaction(Box::new(Interaction { answer, ..samples::interaction(n) }))
    };
    let mut written = 0;
    let full = loop {
        match store.append(vec![large(written + 1)]).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 2_000, "the disk never fills up");
    };
    assert_eq!(full.kind, ErrorKind::Unavailable, "{full}");
    assert_eq!(full.message, "no room to write to the database");
    println!("{written} appends fit");
    assert_eq!(store.last_seq().await, Ok(written as i64));
    assert_eq!(store.recent_interactions(5_000).await.unwrap().len() as u64, written);
    // With room it goes on without a gap.
    small.grow();
    store.append(vec![large(written + 1)]).await.unwrap();
    assert_eq!(store.last_seq().await, Ok(written as i64 + 1));
}
