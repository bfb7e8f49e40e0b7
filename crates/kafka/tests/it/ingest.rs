//! Interactions from elsewhere, over a real broker.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use autoglm_domain::*;
use autoglm_doubles::{KafkaBroker, MemoryStore, samples};
use autoglm_kafka::{Config, Envelope, Ingest, IngestConfig};

use crate::reader::{make_topic, read_all, send};

struct World {
    broker: KafkaBroker,
    store: Arc<MemoryStore>,
    told: Arc<AtomicUsize>,
}

impl World {
    async fn start() -> Option<Self> {
        let world = Self { broker: KafkaBroker::start()?, store: Arc::default(), told: Arc::default() };
        make_topic(&world.broker.brokers(), "elsewhere").await;
        Some(world)
    }

    fn ingest(&self) -> tokio::task::JoinHandle<()> {
        let ingest = IngestConfig { topic: "elsewhere".into(), ..IngestConfig::default() };
        let config = Config {
            brokers: self.broker.brokers(),
            timeout_s: 3,
            mirror: false,
            ingest,
            ..Config::default()
        };
        let (told, clock) = (Arc::clone(&self.told), Arc::new(ManualClock::at(Timestamp(7))));
        let store = self.store.clone();
        let count = move || {
            told.fetch_add(1, Ordering::SeqCst);
        };
        tokio::spawn(Ingest::new(&config, store, clock, count).unwrap().run())
    }

    async fn send(&self, key: Option<&str>, value: &str) {
        send(&self.broker.brokers(), "elsewhere", key, value).await;
    }

    async fn until_events(&self, count: usize) -> Vec<Event> {
        for _ in 0..1200 {
            if self.store.events().len() >= count {
                return self.store.events();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{} of {count} events: {:?}", self.store.events().len(), self.broker.log());
    }
}

fn plain(answer: &str) -> String {
    format!(r#"{{"messages": [{{"role": "user", "content": "hi"}}], "answer": "{answer}"}}"#)
}

fn answers(events: &[Event]) -> Vec<String> {
    let answer = |event: &Event| match event {
        Event::Interaction(it) => Some(it.answer.clone()),
        _ => None,
    };
    let mut answers: Vec<_> = events.iter().filter_map(answer).collect();
    answers.sort();
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_recorded_once_and_what_is_none_lies_with_the_dead_letters() {
    let Some(mut world) = World::start().await else { return };
    let ingest = world.ingest();
    world.send(Some("a"), &plain("one")).await;
    world.send(Some("a"), &plain("one")).await;
    world.send(Some("b"), "no JSON").await;
    world.send(None, r#"{"messages": [], "answer": "x"}"#).await;
    let said = samples::feedback(3, 77);
    let stray = Envelope::of(&RecordedEvent { seq: 1, event: Event::Feedback(said) }).unwrap();
    world.send(None, &serde_json::to_string(&stray).unwrap()).await;
    let with_feedback = plain("two").replacen("{", r#"{"feedback": {"correction": "better"}, "#, 1);
    world.send(Some("c"), &with_feedback).await;
    let asked = RecordedEvent { seq: 9, event: Event::Interaction(Box::new(samples::interaction(4))) };
    world.send(None, &serde_json::to_string(&Envelope::of(&asked).unwrap()).unwrap()).await;
    let events = world.until_events(4).await;
    assert_eq!(answers(&events), ["one", "report lost card", "two"]);
    let Some(Event::Interaction(theirs)) =
        events.iter().find(|it| matches!(it, Event::Interaction(it) if it.id == samples::interaction(4).id))
    else {
        panic!("{events:?}")
    };
    assert_eq!((theirs.version, theirs.metadata["source_version"].as_str()), (VersionNumber::BASE, "v12"));
    while world.told.load(Ordering::SeqCst) != 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let dead = loop {
        let dead = read_all(&world.broker.brokers(), &["elsewhere.dead-letters"]);
        if dead.len() >= 3 {
            break dead;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let reason = |value: &str| {
        let letter = dead.iter().find(|it| it.value.contains(value)).unwrap();
        letter.headers.iter().find(|(name, _)| name == "autoglm-reason").unwrap().1.clone()
    };
    assert!(reason("no JSON").starts_with("the message is no JSON"));
    assert_eq!(reason(r#""messages": []"#), "`messages` is empty");
    assert!(reason("feedback").starts_with("no interaction `chatcmpl-"), "{}", reason("feedback"));
    assert_eq!(dead.iter().find(|it| it.value == "no JSON").unwrap().key.as_deref(), Some("b"));

    // Killed with its process: what was taken in is known, whatever offsets were committed; what came later is taken in.
    ingest.abort();
    let _ = ingest.await;
    world.broker.kill();
    world.broker.resume();
    let _ingest = world.ingest();
    world.send(Some("d"), &plain("three")).await;
    world.until_events(5).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(answers(&world.store.events()), ["one", "report lost card", "three", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_full_holds_messages_up_and_loses_none() {
    let Some(world) = World::start().await else { return };
    world.store.set_full(true);
    for n in 0..5 {
        world.send(Some(&format!("k{n}")), &plain(&format!("answer {n}"))).await;
    }
    let first = world.ingest();
    tokio::time::sleep(Duration::from_secs(3)).await;
    first.abort();
    let _ = first.await;
    assert_eq!(world.store.events(), []);
    world.store.set_full(false);
    let _second = world.ingest();
    let events = world.until_events(5).await;
    assert_eq!(answers(&events).len(), 5);
}
