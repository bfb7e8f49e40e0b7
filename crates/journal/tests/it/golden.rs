//! Files of earlier formats still open and read.
//!
//! For each format `golden/vN.sqlite` is a database that autoglm of that time wrote, and `golden/vN.jsonl` are
//! the events in it. A new format adds a pair: `AUTOGLM_WRITE_GOLDEN=vN cargo test -p autoglm-journal golden`.

use std::path::{Path, PathBuf};

use autoglm_domain::*;
use autoglm_doubles::MemoryStore;
use autoglm_journal::{Config, SqliteStore};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    model::assert_same,
    samples::{self, event, id},
};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A little of everything.
fn events() -> Vec<Event> {
    vec![
        event::interaction(1),
        event::interaction(2),
        event::feedback(1, 1),
        event::assessment(1, 1, true),
        event::assessment(2, 2, false),
        event::feedback(2, 2),
        event::interaction(3),
        event::feedback(3, 3),
        event::assessment_of(3, 3, 1),
        event::pattern(1, 1),
        event::pattern(2, 3),
        event::pattern(1, 5),
        event::experience(1),
        event::amendment(1, 0.7),
        event::run(1, RunState::Planned),
        event::run(1, RunState::Succeeded { version: VersionNumber(1) }),
        event::version(1),
        event::rollout(1, RolloutState::Scanning),
        event::rollout(1, samples::canary(0)),
        event::shadow_pair(1, 1, 40.0, 0.5),
        event::shadow_pair(2, 1, 20.0, 0.25),
        event::shadow_pair(1, 1, 10.0, 0.125),
        event::progress(1, 1),
        event::progress(2, 1),
        event::rollout(1, samples::verdict(Outcome::Promote)),
        event::ab_test(1, AbState::Running),
        event::ab_test(1, samples::best(2)),
        event::alias_move("champion", 0, 1),
    ]
}

/// Writes the pair for the present format, when asked to.
#[tokio::test]
async fn write_golden_when_asked_to() {
    let Ok(format) = std::env::var("AUTOGLM_WRITE_GOLDEN") else {
        return;
    };
    let path = golden(&format!("{format}.sqlite"));
    let store = SqliteStore::open(&path, Config::default()).await.unwrap();
    store.append(events()).await.unwrap();
    store.set_cursor("lake", Cursor { seq: 8, begun: 16 }).await.unwrap();
    let lines = store.events_after(0, 1000).await.unwrap().into_iter();
    let lines: String = lines.map(|it| serde_json::to_string(&it).unwrap() + "\n").collect();
    std::fs::write(golden(&format!("{format}.jsonl")), lines).unwrap();
    store.close().await.unwrap();
    // Small pages, for the repository's sake.
    let mut db = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path)).await.unwrap();
    for step in
        ["PRAGMA journal_mode = DELETE", "PRAGMA page_size = 512", "VACUUM", "PRAGMA journal_mode = WAL"]
    {
        sqlx::query(step).execute(&mut db).await.unwrap();
    }
    db.close().await.unwrap();
}

/// Opens a copy of `format`'s file and holds what it says to a fold of the events that were written to it.
async fn open(folder: &Path, format: &str) -> SqliteStore {
    let path = folder.join("journal.sqlite");
    std::fs::copy(golden(&format!("{format}.sqlite")), &path).unwrap();
    let store = SqliteStore::open(&path, Config::default()).await.unwrap();

    let lines = std::fs::read_to_string(golden(&format!("{format}.jsonl"))).unwrap();
    let written: Vec<RecordedEvent> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(store.events_after(0, 1000).await.as_ref(), Ok(&written));
    let naive = MemoryStore::default();
    naive.append(written.into_iter().map(|it| it.event).collect()).await.unwrap();
    assert_same(&store, &naive).await;

    // Said once more without the help of our own fold.
    let experience = store.experience(id(1)).await.unwrap();
    assert_eq!((experience.weight, experience.embedding), (0.7, vec![0.6, -0.8, 0.25]));
    assert_eq!(store.aliases().await, Ok(vec![(Alias::champion(), VersionNumber(1))]));
    store
}

#[tokio::test]
async fn a_file_of_the_first_format_still_reads() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), "v1").await;
    // Its assessments do not say what they saw: both interactions have feedback and are assessed once more.
    assert_eq!(store.assessment_lag().await, Ok(2));
    // Without a reference, but with a score for accuracy: judged, though the first format did not count it.
    assert_eq!(store.recent_assessments(9).await.unwrap().len(), 2);
    store.append(vec![event::interaction(3), event::assessment_of(3, 1, 1)]).await.unwrap();
    assert_eq!(store.assessment_lag().await, Ok(2));
    assert_eq!(store.events_after(17, 9).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_file_of_the_second_format_still_reads() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), "v2").await;
    // Only the third assessment saw its feedback, and only the second was judged by nothing.
    assert_eq!(store.assessment_lag().await, Ok(2));
    assert_eq!(store.recent_assessments(9).await.unwrap().len(), 2);
    // Its rollouts take pairs from now on.
    store.append(vec![event::shadow_pair(1, 1, 10.0, 0.5)]).await.unwrap();
    assert_eq!(store.shadow_pairs(id(1), PairOrder::Worst, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_file_of_the_third_format_still_reads() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), "v3").await;
    let worst = store.shadow_pairs(id(1), PairOrder::Worst, 9).await.unwrap();
    assert_eq!(worst.iter().map(ShadowPair::gain).collect::<Vec<_>>(), [-0.5, -0.4]);
    assert_eq!(store.rollout_progress(id(1), 9).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_file_of_the_fourth_format_still_reads() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), "v4").await;
    let kept = ("lake".to_owned(), Cursor { seq: 8, begun: 16 });
    assert_eq!(store.cursors().await, Ok(vec![kept]));
}

#[tokio::test]
async fn a_file_of_the_fifth_format_still_reads() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), "v5").await;
    assert_eq!(store.ab_tests().await, Ok(vec![samples::ab_test(1, samples::best(2))]));
    // What had been spoken of before is not passed by what is spoken of now.
    store.append(vec![event::interaction(4), event::interaction(5), event::feedback(4, 5)]).await.unwrap();
    let awaited = store.awaiting_assessment(9).await.unwrap();
    let awaited: Vec<InteractionId> = awaited.into_iter().map(|it| it.interaction.id).collect();
    assert_eq!(awaited, [id(1), id(2), id(5), id(4)]);
}

#[tokio::test]
async fn a_file_of_the_sixth_format_still_reads() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), "v6").await;
    assert_eq!(store.assessment_lag().await, Ok(2));
}
