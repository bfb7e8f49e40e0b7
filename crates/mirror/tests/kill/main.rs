//! `kill -9` at random moments with Kafka and the lake attached: every acknowledged event is in both, once by its key.
//!
//! The child is this executable again: a journal, both mirrors with their feeds as the server wires them, and writers that
//! print each number when its append is acknowledged.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on says so and stops; the child speaks to its parent on stdout"
)]

mod child;
mod found;

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use autoglm_domain::{Cursors as _, Store as _};
use autoglm_doubles::{KafkaBroker, lake_python};
use autoglm_journal::{Config, SqliteStore};
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::oneshot;

use self::child::{BROKERS, FOLDER, START, STRIDE};

const SEED: u64 = 20_261_129;
/// Kills in an ordinary run; `AUTOGLM_KILLS` names another number.
const KILLS: u64 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_both_mirrors_have_what_was_acknowledged_once() {
    let (Some(mut broker), Some(python)) = (KafkaBroker::start(), lake_python()) else { return };
    let kills: u64 = std::env::var("AUTOGLM_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(SEED);
    let mut acknowledged = Vec::new();
    let begin = Instant::now();
    for round in 0..kills {
        // Every seventh time the broker dies as well, a little before or after.
        let broker_dies = round % 7 == 3;
        let before = acknowledged.len();
        let moment = Duration::from_millis(random.random_range(0..1500));
        let mut child = start(folder.path(), &broker.brokers(), round * STRIDE);
        let (numbers, first) = read_numbers(&mut child);
        // Every third one is killed wherever it is by then; a busy machine has others write before.
        if round % 3 != 2 {
            acknowledges(first).await;
        }
        tokio::time::sleep(moment).await;
        if broker_dies {
            broker.kill();
            tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(numbers.join().unwrap());
        if broker_dies {
            broker.resume();
        }
        if kills > KILLS {
            let new = acknowledged.len() - before;
            println!(
                "kill {} of {kills}: {new} acknowledged, {:.0} s",
                round + 1,
                begin.elapsed().as_secs_f64()
            );
        }
    }
    // Undisturbed, it catches up.
    let mut child = start(folder.path(), &broker.brokers(), kills * STRIDE);
    let (numbers, first) = read_numbers(&mut child);
    acknowledges(first).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    std::fs::write(folder.path().join("quiet"), "").unwrap();
    let last = caught_up(folder.path()).await;
    child.kill().unwrap();
    child.wait().unwrap();
    acknowledged.extend(numbers.join().unwrap());

    let journal = child::journal(folder.path()).await;
    assert_eq!(journal.len() as i64, last);
    for number in &acknowledged {
        assert!(
            journal.contains_key(&child::request_id(*number)),
            "{number} was acknowledged and is not there"
        );
    }
    let in_kafka = found::in_kafka(&python, &broker);
    let in_lake = found::in_lake(&python, &folder.path().join("lake"));
    for (mirror, found) in [("kafka", &in_kafka.by_seq), ("lake", &in_lake)] {
        assert_eq!(found.len(), journal.len(), "{mirror}");
        for (id, seq) in &journal {
            assert_eq!(found.get(seq), Some(id), "{mirror} at {seq}");
        }
    }
    println!(
        "{kills} kills in {:.0} s: {} acknowledged, {} events in the journal and in both mirrors; {} messages came twice",
        begin.elapsed().as_secs_f64(),
        acknowledged.len(),
        journal.len(),
        in_kafka.messages - journal.len(),
    );
    assert!(
        acknowledged.len() as u64 > kills * 20,
        "hardly anything was acknowledged: {}",
        acknowledged.len()
    );
}

/// Starts a child that writes from number `start` on.
fn start(folder: &Path, brokers: &str, start: u64) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child::writes_until_it_is_killed", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(BROKERS, brokers)
        .env(START, start.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Takes in the numbers that the child prints, so that its pipe never fills up, and tells of the first.
fn read_numbers(
    child: &mut std::process::Child,
) -> (std::thread::JoinHandle<Vec<u64>>, oneshot::Receiver<()>) {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let (tell, first) = oneshot::channel();
    let mut tell = Some(tell);
    let numbers = std::thread::spawn(move || {
        let mut numbers: Vec<u64> = Vec::new();
        for line in lines {
            if let Some(number) = line.rsplit_once("acknowledged ").and_then(|(_, it)| it.parse().ok()) {
                numbers.push(number);
                if let Some(tell) = tell.take() {
                    let _ = tell.send(());
                }
            }
        }
        numbers
    });
    (numbers, first)
}

/// Waits for the first number.
async fn acknowledges(first: oneshot::Receiver<()>) {
    tokio::time::timeout(Duration::from_secs(120), first).await.unwrap().unwrap();
}

/// Waits until both cursors are at the journal's end; where that is.
async fn caught_up(folder: &Path) -> i64 {
    let store = SqliteStore::open_read_only(folder.join("journal.sqlite"), Config::default()).await.unwrap();
    let begin = Instant::now();
    loop {
        let (cursors, last) = (store.cursors().await.unwrap(), store.last_seq().await.unwrap());
        let quiet = store.events_after(last - 1, 9).await.unwrap().len() == 1;
        if quiet && cursors.len() == 2 && cursors.iter().all(|(_, cursor)| cursor.seq == last) {
            return last;
        }
        assert!(begin.elapsed() < Duration::from_secs(120), "{cursors:?} of {last}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
