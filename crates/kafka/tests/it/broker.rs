//! The mirror against a real broker that is away, killed, and back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use autoglm_domain::*;
use autoglm_doubles::{KafkaBroker, MemoryStore, samples};
use autoglm_kafka::{Config, Envelope, KafkaMirror, TOPICS, topic};
use autoglm_mirror::{Board, Feed};

use crate::reader::read_all;

/// For batches that are delivered once and must not fail.
fn config(broker: &KafkaBroker) -> Config {
    Config { brokers: broker.brokers(), timeout_s: 60, ..Config::default() }
}

fn topics() -> Vec<&'static str> {
    TOPICS.iter().map(|topic| topic.name()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_a_message_in_its_topic_under_its_key_in_order() {
    let Some(broker) = KafkaBroker::start() else { return };
    let store = Arc::new(MemoryStore::default());
    let mut events = samples::events();
    events.extend((100..400).map(|n| Event::Interaction(Box::new(samples::interaction(n)))));
    let last = events.len() as i64;
    store.append(events.clone()).await.unwrap();
    let mirror = KafkaMirror::new(&config(&broker), store.clone()).unwrap();
    mirror.deliver(Span { after: 0, upto: last }).await.unwrap();

    let read = read_all(&broker.brokers(), &topics());
    let mut by_seq = BTreeMap::new();
    for message in &read {
        let envelope = message.envelope();
        assert_eq!(message.key.as_ref(), Some(&envelope.key));
        let headers: BTreeMap<_, _> = message.headers.iter().cloned().collect();
        assert_eq!(headers["autoglm-seq"], envelope.seq.to_string());
        assert_eq!((&headers["autoglm-event"], headers["autoglm-schema"].as_str()), (&envelope.event, "1"));
        assert_eq!(by_seq.insert(envelope.seq, (message.topic.clone(), envelope)), None, "twice");
    }
    for (seq, event) in (1..).zip(events) {
        let recorded = RecordedEvent { seq, event };
        let expected = (topic(&recorded.event).to_string(), Envelope::of(&recorded).unwrap());
        assert_eq!(by_seq.remove(&seq), Some(expected));
    }
    assert_eq!(by_seq.len(), 0);
    // What shares a key shares a partition, in the journal's order.
    let mut keys = BTreeMap::<_, (i32, i64)>::new();
    for message in &read {
        let envelope = message.envelope();
        let (partition, before) = keys
            .insert((&message.topic, &message.key), (message.partition, envelope.seq))
            .unwrap_or((message.partition, 0));
        assert!(partition == message.partition && before < envelope.seq, "{message:?}");
    }
    assert!(read.iter().map(|it| it.partition).collect::<BTreeSet<_>>().len() > 1, "all in one partition");
    // The same batch once more: the same messages.
    mirror.deliver(Span { after: 0, upto: 13 }).await.unwrap();
    let again: BTreeSet<_> =
        read_all(&broker.brokers(), &topics()).iter().map(|it| it.envelope().seq).collect();
    assert_eq!(again.len() as i64, last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_or_killed_delays_and_loses_nothing() {
    let Some(mut broker) = KafkaBroker::stopped() else { return };
    let (store, board) = (Arc::new(MemoryStore::default()), Arc::new(Board::default()));
    // What fails is tried again.
    let config = Config { batch: 50, timeout_s: 3, ..config(&broker) };
    let mirror = KafkaMirror::new(&config, store.clone()).unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp(7)));
    let feed = Feed::new(Arc::new(mirror), store.clone(), board.clone(), clock, 1);
    let feed = tokio::spawn(feed.run());
    let mut next = 1;
    let mut happens = async |count: u64| {
        let events = (next..next + count).map(|n| Event::Interaction(Box::new(samples::interaction(n))));
        store.append(events.collect()).await.unwrap();
        next += count;
    };
    let until = async |wanted: &dyn Fn(&MirrorState) -> bool| {
        for _ in 0..1200 {
            if let Some(state) = board.states(&*store).await.unwrap().into_iter().next()
                && wanted(&state)
            {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it never comes to that: {:?}", board.states(&*store).await);
    };
    // Down at the start.
    happens(120).await;
    let state = until(&|state| state.failures > 0).await;
    assert_eq!((state.health, state.seq, state.behind), (MirrorHealth::Failing, 0, 120));
    let error = state.last_error.unwrap();
    assert!(error.starts_with(&format!("kafka at `{}` does not take messages", broker.brokers())), "{error}");
    broker.resume();
    until(&|state| state.seq == 120).await;
    // Killed while events come in, and back, three times.
    for _ in 0..3 {
        for _ in 0..10 {
            happens(40).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        broker.kill();
        happens(100).await;
        until(&|state| state.health == MirrorHealth::Failing).await;
        broker.resume();
        let last = store.last_seq().await.unwrap();
        let state = until(&|state| state.seq == last).await;
        assert_eq!((state.health, state.behind), (MirrorHealth::Healthy, 0));
    }
    feed.abort();
    let last = store.last_seq().await.unwrap();
    let read = read_all(&broker.brokers(), &topics());
    let seqs: BTreeSet<_> = read.iter().map(|it| it.envelope().seq).collect();
    assert_eq!(seqs, (1..=last).collect(), "every event, by its `seq`");
    println!("{last} events, {} messages: {} came twice", read.len(), read.len() as i64 - last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_too_large_keeps_its_place() {
    let Some(broker) = KafkaBroker::start() else { return };
    let store = Arc::new(MemoryStore::default());
    let mut large = samples::interaction(2);
    large.answer = "x".repeat(40_000);
    let events = [samples::interaction(1), large, samples::interaction(3)];
    store.append(events.map(|it| Event::Interaction(Box::new(it))).into()).await.unwrap();
    let options = BTreeMap::from([("message.max.bytes".to_owned(), "20000".to_owned())]);
    let mirror = KafkaMirror::new(&Config { options, ..config(&broker) }, store).unwrap();
    mirror.deliver(Span { after: 0, upto: 3 }).await.unwrap();
    let mut read: Vec<_> =
        read_all(&broker.brokers(), &["interactions"]).iter().map(|it| it.envelope()).collect();
    read.sort_by_key(|envelope| envelope.seq);
    assert_eq!(read.iter().map(|it| it.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(read[1].data.is_null() && read[1].left_out_bytes.unwrap() > 40_000, "{:?}", read[1]);
    assert!(!read[0].data.is_null() && read[0].left_out_bytes.is_none());
}
