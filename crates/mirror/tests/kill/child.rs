//! The process that is killed.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use autoglm_domain::{Event, Store as _, SystemClock};
use autoglm_doubles::samples;
use autoglm_journal::{Config, SqliteStore};
use autoglm_kafka::KafkaMirror;
use autoglm_lake::Lake;
use autoglm_mirror::{Board, Feed};

pub(crate) const FOLDER: &str = "AUTOGLM_MIRRORS_FOLDER";
pub(crate) const BROKERS: &str = "AUTOGLM_MIRRORS_BROKERS";
pub(crate) const START: &str = "AUTOGLM_MIRRORS_START";
/// Numbers of one child; none gets to use them up.
pub(crate) const STRIDE: u64 = 100_000;
/// Writers at once.
const TASKS: u64 = 4;

/// The request that number `n` writes.
pub(crate) fn request_id(n: u64) -> String {
    samples::interaction(n).id.to_string()
}

/// Position of every request in the journal.
pub(crate) async fn journal(folder: &Path) -> BTreeMap<String, i64> {
    let store = SqliteStore::open_read_only(folder.join("journal.sqlite"), Config::default()).await.unwrap();
    let (mut at, mut found) = (0, BTreeMap::new());
    loop {
        let page = store.events_after(at, 1000).await.unwrap();
        let Some(last) = page.last() else { return found };
        at = last.seq;
        for recorded in page {
            let Event::Interaction(it) = recorded.event else { panic!("{recorded:?}") };
            assert_eq!(found.insert(it.id.to_string(), recorded.seq), None);
        }
    }
}

#[test]
fn writes_until_it_is_killed() {
    let [Ok(folder), Ok(brokers), Ok(start)] = [FOLDER, BROKERS, START].map(std::env::var) else {
        return; // Run as a test of its own there is nothing to do.
    };
    let start: u64 = start.parse().unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(write(Path::new(&folder), &brokers, start));
}

async fn write(folder: &Path, brokers: &str, start: u64) {
    let store = Arc::new(SqliteStore::open(folder.join("journal.sqlite"), Config::default()).await.unwrap());
    let kafka = autoglm_kafka::Config { brokers: brokers.into(), timeout_s: 3, ..Default::default() };
    let url = folder.join("lake").display().to_string();
    let lake = autoglm_lake::Config { url, flush_s: 1, ..Default::default() };
    let kafka = Arc::new(KafkaMirror::new(&kafka, store.clone()).unwrap());
    let lake = Arc::new(Lake::open(&lake, store.clone()).unwrap());
    let board = Arc::new(Board::default());
    let cursors = Arc::new(store.as_leader());
    tokio::spawn(Feed::new(kafka, cursors.clone(), board.clone(), Arc::new(SystemClock), start).run());
    tokio::spawn(Feed::new(lake, cursors, board, Arc::new(SystemClock), start + 1).run());
    let tasks = (0..TASKS).map(|task| {
        let (store, quiet) = (Arc::clone(&store), folder.join("quiet"));
        async move {
            for n in (start + task..).step_by(TASKS as usize) {
                if quiet.exists() {
                    break;
                }
                let answer = samples::interaction(n);
                // By turns as a server does and as what comes from a topic is.
                match (n / TASKS).is_multiple_of(2) {
                    true => store.record(vec![answer]).await.unwrap(),
                    false => store.append(vec![Event::Interaction(Box::new(answer))]).await.unwrap(),
                }
                println!("acknowledged {n}");
            }
        }
    });
    futures::future::join_all(tasks).await;
    // The parent ends it.
    tokio::time::sleep(Duration::from_secs(600)).await;
}
