//! `kill -9` at random moments loses nothing that was acknowledged and leaves nothing half done.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use autoglm_domain::*;
use autoglm_journal::{Config, SqliteStore};

use crate::samples::{self, event, id};

const FILE: &str = "AUTOGLM_CRASH_FILE";
const START: &str = "AUTOGLM_CRASH_START";
const ROUNDS: u64 = 20;
/// Numbers of one round; no child gets to use them up.
const STRIDE: u64 = 1_000_000;
const TASKS: u64 = 8;

/// What number `n` appends, or, every third of them, records.
fn append_of(n: u64) -> Vec<Event> {
    match is_recorded(n) {
        true => vec![event::interaction(n)],
        false => vec![event::interaction(n), event::feedback(n, n), event::experience(n)],
    }
}

fn is_recorded(n: u64) -> bool {
    n.is_multiple_of(3)
}

/// Number of the append that an event belongs to.
fn number_of(event: &Event) -> u64 {
    let uuid = match event {
        Event::Interaction(it) => it.id.uuid(),
        Event::Feedback(it) => it.id.uuid(),
        Event::Experience(it) => it.id.uuid(),
        other => panic!("no child appends a {}", other.name()),
    };
    uuid.as_u64_pair().1
}

/// The child: appends from several tasks until it is killed and prints each number when it is acknowledged.
#[test]
fn child_appends_until_it_is_killed() {
    let (Ok(path), Ok(start)) = (std::env::var(FILE), std::env::var(START)) else {
        return; // Run as a test of its own there is nothing to do.
    };
    let start: u64 = start.parse().unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = SqliteStore::open(path, Config::default()).await.unwrap();
        futures::future::join_all((0..TASKS).map(|task| {
            let store = &store;
            async move {
                for n in (start + task..start + STRIDE).step_by(TASKS as usize) {
                    match is_recorded(n) {
                        true => store.record(vec![samples::interaction(n)]).await.unwrap(),
                        false => store.append(append_of(n)).await.unwrap(),
                    }
                    println!("acknowledged {n}");
                }
            }
        }))
        .await;
    });
}

#[tokio::test]
async fn killed_at_random_moments_it_keeps_what_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    let mut acknowledged = Vec::new();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..ROUNDS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let before = acknowledged.len();
        run_and_kill(&path, round * STRIDE, Duration::from_micros((seed >> 33) % 120_000), &mut acknowledged);
        assert!(acknowledged.len() > before, "round {round} was killed before it wrote anything");
        check(&path, &acknowledged).await;
    }
}

/// Lets a child append for `time` after its first acknowledgement, then kills it.
fn run_and_kill(path: &Path, start: u64, time: Duration, acknowledged: &mut Vec<u64>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_appends_until_it_is_killed", "--nocapture", "--test-threads=1"])
        .env(FILE, path)
        .env(START, start.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The harness prints its own line first and without an end, so the number is what ends a line.
    let mut numbers = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(|line| line.ok())
        .filter_map(|line| line.rsplit_once("acknowledged ")?.1.parse().ok());
    acknowledged.extend(numbers.next());
    std::thread::scope(|scope| {
        // The pipe must not fill up, or the child would stop appending.
        let reader = scope.spawn(move || numbers.collect::<Vec<u64>>());
        std::thread::sleep(time);
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(reader.join().unwrap());
    });
}

/// Every acknowledged append is there, whole and once; no other is there in part; positions have no gaps.
async fn check(path: &Path, acknowledged: &[u64]) {
    let store = SqliteStore::open(path, Config::default()).await.unwrap();
    let mut appends = BTreeMap::<u64, Vec<Event>>::new();
    let mut last = 0;
    loop {
        let events = store.events_after(last, 1000).await.unwrap();
        if events.is_empty() {
            break;
        }
        for recorded in events {
            assert_eq!(recorded.seq, last + 1);
            last = recorded.seq;
            appends.entry(number_of(&recorded.event)).or_default().push(recorded.event);
        }
    }
    for (n, events) in &appends {
        assert_eq!(*events, append_of(*n), "append {n} is not there whole and once");
    }
    for n in acknowledged {
        assert!(appends.contains_key(n), "append {n} was acknowledged and is lost");
    }
    assert_eq!(store.assessment_lag().await, Ok(appends.len() as u64));
    let latest = *acknowledged.iter().rfind(|n| !is_recorded(**n)).unwrap();
    let record = store.interaction(id(latest)).await.unwrap();
    assert_eq!(record.feedback, vec![samples::feedback(latest, latest)]);
    assert_eq!(store.experience(id(latest)).await, Ok(samples::experience(latest)));
    store.close().await.unwrap();
}
