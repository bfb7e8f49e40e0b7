//! Several stores on one database: order, followers, notifications.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use autoglm_domain::*;
use autoglm_journal::{Config, JournalError};
use futures::{FutureExt as _, future::join_all};

use super::Database;
use crate::samples::{event, id};

/// The number in an interaction's id.
fn number(event: &Event) -> u64 {
    let Event::Interaction(interaction) = event else { panic!("a {}", event.name()) };
    interaction.id.uuid().as_u64_pair().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_follower_of_several_writers_passes_nothing_over() {
    const WRITERS: u64 = 4;
    const EACH: u64 = 150;
    let Some(database) = Database::server() else { return };
    let small = Config { max_batch_appends: 3, ..Config::default() };
    let stores = join_all((0..WRITERS).map(|_| database.open_with(small.clone()))).await;
    let done = AtomicBool::new(false);
    let write = async {
        join_all(stores.iter().enumerate().map(|(writer, store)| async move {
            // Several tasks a store, so that batches of different sizes meet.
            join_all((0..5).map(|task| async move {
                for n in (task..EACH).step_by(5) {
                    let n = writer as u64 * EACH + n;
                    store.append(vec![event::interaction(n)]).await.unwrap();
                    // What is refused leaves no hole.
                    let again = store.append(vec![event::experience(n), event::interaction(n)]).await;
                    assert_eq!(again.unwrap_err().kind, ErrorKind::Conflict);
                }
            }))
            .await;
        }))
        .await;
        done.store(true, Ordering::SeqCst);
    };
    let follower = database.open().await;
    let follow = async {
        let (mut seen, mut looks) = (Vec::new(), 0);
        loop {
            let last_look = done.load(Ordering::SeqCst);
            let page = follower.events_after(seen.len() as i64, 7).await.unwrap();
            looks += usize::from(!page.is_empty());
            for recorded in &page {
                assert_eq!(recorded.seq, seen.len() as i64 + 1, "a position was passed over");
                seen.push(number(&recorded.event));
            }
            if page.is_empty() && last_look {
                return (seen, looks);
            }
        }
    };
    let ((), (mut seen, looks)) = tokio::join!(write, follow);
    assert!(looks > 50, "the follower only looked at the end");
    seen.sort_unstable();
    assert_eq!(seen, (0..WRITERS * EACH).collect::<Vec<_>>());
    assert_eq!(follower.last_seq().await, Ok((WRITERS * EACH) as i64));
    assert_eq!(follower.experiences().await, Ok(vec![]));
}

#[tokio::test]
async fn stores_see_one_another_and_race_for_an_alias() {
    let Some(database) = Database::server() else { return };
    // Both make the tables.
    let (one, other) = tokio::join!(database.open(), database.open());
    one.append(vec![event::interaction(1), event::version(1), event::version(2)]).await.unwrap();
    other.append(vec![event::feedback(1, 1)]).await.unwrap();
    assert_eq!(one.interaction(id(1)).await.unwrap().feedback.len(), 1);
    let moves =
        [(&one, 1), (&other, 2)].map(|(store, to)| store.append(vec![event::alias_move("champion", 0, to)]));
    let results = join_all(moves).await;
    assert_eq!(results.iter().filter(|it| it.is_ok()).count(), 1, "{results:?}");
    let refused = results.into_iter().find_map(Result::err).unwrap();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert!(refused.message.starts_with("alias `champion` points at v"), "{refused}");
    assert_eq!(one.aliases().await, other.aliases().await);
    assert_eq!(other.alias_history(&Alias::champion()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_another_store_appends_is_heard_of_at_once() {
    let Some(database) = Database::server() else { return };
    let (one, other) = (database.open().await, database.open().await);
    let listener = other.listen();
    // The first ring says that it listens now.
    listener.appended().await;
    assert!(listener.appended().now_or_never().is_none());
    let mut slowest = Duration::ZERO;
    for n in 1..=20 {
        let begin = Instant::now();
        one.append(vec![event::interaction(n)]).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), listener.appended()).await.unwrap();
        slowest = slowest.max(begin.elapsed());
        // Heard of is there.
        assert_eq!(other.last_seq().await, Ok(n as i64));
    }
    println!("heard of after {slowest:?} at most");
    // What was refused is no news.
    one.append(vec![event::interaction(1)]).await.unwrap_err();
    let silence = tokio::time::timeout(Duration::from_millis(100), listener.appended()).await;
    assert!(silence.is_err(), "a refused append was told");
    one.order_training().await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), listener.training_ordered()).await.unwrap();
    // An order is answered by whoever takes it, and only the one who gave it has the answer.
    let take = async {
        for _ in 0..2 {
            let (id, order) = listener.ordered().await;
            other.answer(&id, &format!("{order}, done")).await.unwrap();
        }
    };
    let give = async |id, order| one.order(id, order, Duration::from_secs(20)).await.unwrap();
    let (pause, resume, ()) = tokio::join!(give("1", "pause it"), give("2", "resume it"), take);
    assert_eq!(pause.as_deref(), Some("pause it, done"));
    assert_eq!(resume.as_deref(), Some("resume it, done"));
    assert_eq!(one.order("3", "abort it", Duration::from_millis(100)).await, Ok(None));
    let long = one.order("4", &"x".repeat(8_000), Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(long, JournalError::LongOrder { bytes: 8_002, most: 7_900 });
    // After a restart it listens again by itself.
    {
        let mut server = database.server.lock();
        server.stop();
        server.resume();
    }
    one.append(vec![event::interaction(100)]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), listener.appended()).await.unwrap();
    for n in 101..200 {
        one.append(vec![event::interaction(n)]).await.unwrap();
        if tokio::time::timeout(Duration::from_millis(100), listener.appended()).await.is_ok() {
            return;
        }
    }
    panic!("nothing is heard after a restart");
}

#[tokio::test]
async fn names_and_experiences_between_two_positions() {
    let Some(database) = Database::server() else { return };
    let store = database.open().await;
    let events = vec![
        event::interaction(1),
        event::experience(1),
        event::version(1),
        event::amendment(1, 0.5),
        event::experience(2),
    ];
    store.append(events.clone()).await.unwrap();
    let mut names = store.names_between(0, 4).await.unwrap();
    names.sort();
    assert_eq!(names, ["experience", "experience_amended", "interaction", "version"]);
    assert_eq!(store.names_between(2, 3).await.unwrap(), ["version"]);
    assert!(store.names_between(5, 9).await.unwrap().is_empty());
    let found = store.experience_events_between(2, 5, 10).await.unwrap();
    let expected = [4, 5].map(|seq| RecordedEvent { seq, event: events[seq as usize - 1].clone() });
    assert_eq!(found, expected);
    assert_eq!(store.experience_events_between(0, 4, 1).await.unwrap().len(), 1);
}
