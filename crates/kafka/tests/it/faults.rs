//! A real broker that is slow, full, or does not want us: a state with a reason, and nothing lost once it is over.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use autoglm_domain::*;
use autoglm_doubles::{KafkaBroker, MemoryStore, samples};
use autoglm_kafka::{Config, KafkaMirror};
use autoglm_mirror::{Board, Feed};

use crate::reader::read_all;

/// A journal, and a mirror of it that is fed.
pub(crate) struct World {
    pub(crate) store: Arc<MemoryStore>,
    board: Arc<Board>,
    feed: tokio::task::JoinHandle<()>,
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        let (store, board) = (Arc::new(MemoryStore::default()), Arc::new(Board::default()));
        let mirror = Arc::new(KafkaMirror::new(&config, store.clone()).unwrap());
        let clock = Arc::new(ManualClock::at(Timestamp(7)));
        let feed = tokio::spawn(Feed::new(mirror, store.clone(), board.clone(), clock, 1).run());
        Self { store, board, feed }
    }

    /// Appends interactions with these numbers, which is as quick and as good as ever.
    pub(crate) async fn asked(&self, numbers: std::ops::Range<u64>) {
        let events = numbers.map(|n| Event::Interaction(Box::new(samples::interaction(n))));
        self.store.append(events.collect()).await.unwrap();
    }

    /// Waits until the state is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&MirrorState) -> bool) -> MirrorState {
        for _ in 0..1200 {
            if let Some(state) = self.board.states(&*self.store).await.unwrap().into_iter().next()
                && wanted(&state)
            {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it never comes to that: {:?}", self.board.states(&*self.store).await);
    }

    /// Waits until it fails for a reason that has `part` in it.
    pub(crate) async fn until_failing(&self, part: &str) -> MirrorState {
        let told = |state: &MirrorState| state.last_error.as_ref().is_some_and(|it| it.contains(part));
        self.until(|state| state.health == MirrorHealth::Failing && told(state)).await
    }

    pub(crate) async fn until_healthy(&self) {
        let last = self.store.last_seq().await.unwrap();
        self.until(|state| state.health == MirrorHealth::Healthy && state.seq == last).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.feed.abort();
    }
}

fn config(broker: &KafkaBroker) -> Config {
    Config { brokers: broker.brokers(), timeout_s: 2, ..Config::default() }
}

fn seqs(broker: &KafkaBroker) -> BTreeSet<i64> {
    read_all(&broker.brokers(), &["interactions"]).iter().map(|it| it.envelope().seq).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_nobody_answers_is_told() {
    let Some(broker) = KafkaBroker::stopped() else { return };
    let world = World::new(config(&broker));
    world.asked(1..4).await;
    let state = world.until_failing("Connection refused").await;
    assert_eq!((state.seq, state.behind), (0, 3));
    let error = state.last_error.unwrap();
    assert!(
        error.starts_with(&format!("kafka at `{}` does not take messages: ", broker.brokers())),
        "{error}"
    );
    // What differs each time would be told each time.
    assert!(!error.contains("after"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_answers_nothing_for_a_while_delays() {
    let Some(broker) = KafkaBroker::start() else { return };
    let world = World::new(config(&broker));
    world.asked(1..50).await;
    world.until_healthy().await;
    broker.halt();
    world.asked(50..100).await;
    let state = world.until(|state| state.failures > 1).await;
    assert_eq!((state.health, state.seq, state.behind), (MirrorHealth::Failing, 49, 50));
    let error = state.last_error.unwrap();
    assert!(error.contains("imed out") || error.contains("timeout"), "{error}");
    broker.go_on();
    world.until_healthy().await;
    assert_eq!(seqs(&broker), (1..=99).collect());
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_whose_disk_is_full_delays() {
    let Some(broker) = KafkaBroker::stopped() else { return };
    let Some(disk) = autoglm_doubles::SmallDisk::new(None) else { return };
    let mut broker = broker.on(disk.path());
    broker.resume();
    let world = World::new(config(&broker));
    world.asked(1..50).await;
    world.until_healthy().await;
    disk.fill(4096);
    world.asked(50..3000).await;
    let state = world.until(|state| state.failures > 1).await;
    assert_eq!(state.health, MirrorHealth::Failing);
    assert!(state.behind > 0 && state.seq >= 49, "{state:?}");
    assert!(state.last_error.unwrap().starts_with("kafka at "));
    disk.grow();
    world.until_healthy().await;
    assert_eq!(seqs(&broker), (1..=2999).collect());
}

/// A broker that wants to know who we are, and a mirror that does not say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_rejects_us_is_told_of() {
    let Some(broker) = KafkaBroker::stopped() else { return };
    let mut broker = broker.asking_who();
    broker.resume();
    let options = [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "nobody"),
        ("sasl.password", "wrong"),
    ];
    let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let world = World::new(Config { options, ..config(&broker) });
    world.asked(1..4).await;
    let state = world.until_failing("SASL").await;
    assert_eq!((state.seq, state.behind), (0, 3));
    let error = state.last_error.unwrap();
    assert!(error.starts_with(&format!("kafka at `{}` refuses us: ", broker.brokers())), "{error}");
    assert!(!error.contains("wrong"), "{error}");
}
