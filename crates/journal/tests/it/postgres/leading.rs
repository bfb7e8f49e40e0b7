//! Who leads: one at a time, whatever happens to it.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use autoglm_domain::*;
use autoglm_journal::PostgresStore;
use futures::{FutureExt as _, future::join_all};

use super::Database;
use crate::samples::{self, event};

/// Ends the sessions that hold a lock of ours.
const DEPOSE: &str = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted";

#[tokio::test]
async fn one_leads_and_only_it_may_write_what_is_the_leaders() {
    let Some(database) = Database::server() else { return };
    let (one, other) = (database.open().await, database.open().await);
    let refused = one.as_leader().append(vec![event::experience(1)]).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert_eq!(refused.message, "this process does not lead the loop on this database");
    let first = one.lead().await;
    assert_eq!((first.term(), first.last_seq()), (1, 0));
    let waiting = tokio::time::timeout(Duration::from_millis(600), other.lead()).await;
    assert!(waiting.is_err(), "two lead");
    one.as_leader().append(vec![event::experience(1)]).await.unwrap();
    // One batch, of which one append is not allowed; the others are written.
    let (ours, theirs) = (other.as_leader(), other.clone());
    let mixed = tokio::join!(
        theirs.append(vec![event::interaction(1)]),
        ours.append(vec![event::experience(2)]),
        theirs.append(vec![event::interaction(2)])
    );
    assert_eq!((mixed.0, mixed.1.unwrap_err().kind, mixed.2), (Ok(()), ErrorKind::Conflict, Ok(())));
    assert_eq!(other.last_seq().await, Ok(3));
    // It resigns, and the other leads at once.
    first.resign().await.unwrap();
    let begin = Instant::now();
    let second = tokio::time::timeout(Duration::from_secs(30), other.lead()).await.unwrap();
    println!("the next leads after {:?}", begin.elapsed());
    assert_eq!((second.term(), second.last_seq()), (2, 3));
    assert!(one.as_leader().append(vec![event::experience(3)]).await.is_err());
    other.as_leader().append(vec![event::experience(3)]).await.unwrap();
}

#[tokio::test]
async fn a_leader_that_has_not_noticed_its_loss_writes_nothing() {
    let Some(database) = Database::server() else { return };
    let (one, other) = (database.open().await, database.open().await);
    let mut first = one.lead().await;
    one.as_leader().append(vec![event::experience(1)]).await.unwrap();
    database.run(DEPOSE).await;
    let second = tokio::time::timeout(Duration::from_secs(30), other.lead()).await.unwrap();
    assert_eq!(second.term(), 2);
    // `first` still believes in itself here: nothing has asked the server since.
    let refused = one.as_leader().append(vec![event::experience(2)]).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict, "{refused}");
    let cursor = Cursor { seq: 0, begun: 1 };
    assert_eq!(one.as_leader().set_cursor("lake", cursor).await.unwrap_err().kind, ErrorKind::Conflict);
    assert_eq!(other.as_leader().set_cursor("lake", cursor).await, Ok(()));
    let why = tokio::time::timeout(Duration::from_secs(30), first.lost()).await.unwrap();
    println!("lost: {why}");
    assert!(second_still_leads(&other).await);
    assert_eq!(other.experiences().await, Ok(vec![samples::experience(1), samples::experience(9)]));
}

async fn second_still_leads(store: &PostgresStore) -> bool {
    store.as_leader().append(vec![event::experience(9)]).await.is_ok()
}

/// Leaders are deposed again and again; of each, what it wrote lies between the beginnings of two terms.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn terms_never_overlap() {
    const PROCESSES: u64 = 3;
    let Some(database) = Database::server() else { return };
    let stores = join_all((0..PROCESSES).map(|_| database.open())).await;
    // For so long, and on a busy machine until there is enough to say anything.
    let begin = Instant::now();
    let (begun, acknowledged) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let is_over = || {
        let is_enough = begun.load(Ordering::SeqCst) > 4 && acknowledged.load(Ordering::SeqCst) > 100;
        let spent = begin.elapsed();
        spent >= Duration::from_secs(60) || (is_enough && spent >= Duration::from_secs(4))
    };
    let (is_over, begun, acknowledged) = (&is_over, &begun, &acknowledged);
    let over = || async {
        while !is_over() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let over = &over;
    let lead = stores.iter().enumerate().map(|(process, store)| async move {
        let mut terms = Vec::new();
        let mut n = process as u64 * 1_000_000;
        while !is_over() {
            let mut leadership = tokio::select! {
                leadership = store.lead() => leadership,
                () = over() => break,
            };
            terms.push((leadership.term(), leadership.last_seq()));
            begun.fetch_add(1, Ordering::SeqCst);
            let write = async {
                while !is_over() {
                    n += 1;
                    // The text says in which term its writer believed to be.
                    let term = leadership.term().to_string();
                    let experience = Experience { target: term, ..samples::experience(n) };
                    let append =
                        store.as_leader().append(vec![Event::Experience(Box::new(experience))]).await;
                    acknowledged.fetch_add(usize::from(append.is_ok()), Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            // Writing goes on for a while after the loss, as it would in a process that is slow to notice.
            let _ = tokio::time::timeout(Duration::from_millis(900), write).await;
            let _ = leadership.lost().now_or_never();
        }
        terms
    });
    let depose = async {
        while !is_over() {
            tokio::time::sleep(Duration::from_millis(350)).await;
            database.run(DEPOSE).await;
        }
    };
    let (terms, ()) = tokio::join!(join_all(lead), depose);
    let mut begins: Vec<(i64, i64)> = terms.into_iter().flatten().collect();
    begins.sort_unstable();
    println!("terms and where they began: {begins:?}");
    assert!(begins.len() > 4, "too few terms to say anything: {begins:?}");
    assert!(begins.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{begins:?}");
    let mut written = 0;
    for recorded in stores[0].events_after(0, usize::MAX).await.unwrap() {
        let Event::Experience(experience) = recorded.event else { panic!("another event") };
        let term: i64 = experience.target.parse().unwrap();
        let (place, (_, from)) = begins.iter().enumerate().find(|(_, begin)| begin.0 == term).unwrap();
        let until = begins.get(place + 1).map_or(i64::MAX, |next| next.1);
        assert!(
            *from < recorded.seq && recorded.seq <= until,
            "term {term} wrote {} outside itself",
            recorded.seq
        );
        written += 1;
    }
    assert!(written > 100, "{written} events");
}
