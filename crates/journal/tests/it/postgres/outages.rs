//! A server that is restarted, killed, or away: what was acknowledged is there, and nothing is there twice.

use std::time::{Duration, Instant};

use autoglm_domain::*;
use autoglm_journal::Config;
use futures::future::join_all;

use super::Database;
use crate::samples::event;

/// What number `n` appends.
fn append_of(n: u64) -> Vec<Event> {
    vec![event::interaction(n), event::feedback(n, n), event::experience(n)]
}

/// Every append that is there is whole, positions have no gaps; the numbers, in order.
async fn whole_appends(store: &impl Store) -> Vec<u64> {
    let events = store.events_after(0, usize::MAX).await.unwrap();
    for (place, recorded) in events.iter().enumerate() {
        assert_eq!(recorded.seq, place as i64 + 1);
    }
    let mut numbers = Vec::new();
    for append in events.chunks(3) {
        let Event::Interaction(first) = &append[0].event else { panic!("an append is torn: {append:?}") };
        let n = first.id.uuid().as_u64_pair().1;
        assert_eq!(append.iter().map(|it| it.event.clone()).collect::<Vec<_>>(), append_of(n));
        numbers.push(n);
    }
    numbers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn appends_wait_through_restarts_and_kills_and_none_is_lost_or_doubled() {
    const TASKS: u64 = 6;
    let Some(database) = Database::server() else { return };
    let stores = [database.open().await, database.open().await];
    let stop = std::sync::atomic::AtomicBool::new(false);
    let stopped = || stop.load(std::sync::atomic::Ordering::SeqCst);
    let write = join_all((0..TASKS).map(|task| {
        let store = &stores[task as usize % 2];
        async move {
            let mut acknowledged = Vec::new();
            for n in (task..).step_by(TASKS as usize) {
                if stopped() {
                    break;
                }
                match store.append(append_of(n)).await {
                    Ok(()) => acknowledged.push(n),
                    Err(error) => panic!("append {n}: {error}"),
                }
            }
            acknowledged
        }
    }));
    let disturb = async {
        for round in 0..6 {
            tokio::time::sleep(Duration::from_millis(150 + 70 * round)).await;
            let server = std::sync::Arc::clone(&database.server);
            let restart = move || {
                let mut server = server.lock();
                if round % 2 == 0 {
                    server.kill()
                } else {
                    server.stop()
                }
                server.resume();
            };
            tokio::task::spawn_blocking(restart).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    };
    let (acknowledged, ()) = tokio::join!(write, disturb);
    let mut acknowledged: Vec<u64> = acknowledged.into_iter().flatten().collect();
    let mut there = whole_appends(&stores[0]).await;
    println!("{} appends through three kills and three restarts", acknowledged.len());
    // Every append was acknowledged in the end, so exactly these are there, each once.
    acknowledged.sort_unstable();
    there.sort_unstable();
    assert_eq!(there, acknowledged);
    assert!(acknowledged.len() > 100, "only {} appends", acknowledged.len());
}

#[tokio::test]
async fn a_server_that_stays_away_makes_appends_and_reads_unavailable_until_it_is_back() {
    let Some(database) = Database::server() else { return };
    let impatient = Config { outage_ms: 1500, busy_timeout_ms: 100, ..Config::default() };
    let store = database.open_with(impatient).await;
    store.append(append_of(1)).await.unwrap();
    database.server.lock().stop();
    let begin = Instant::now();
    let error = store.append(append_of(2)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.message.starts_with("Postgres at `127.0.0.1:"), "{error}");
    assert!(error.message.contains("does not answer: "), "{error}");
    assert!(error.hint.is_some());
    assert!(begin.elapsed() >= Duration::from_millis(1500), "it did not wait");
    let error = store.recent_interactions(1).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    database.server.lock().resume();
    store.append(append_of(3)).await.unwrap();
    assert_eq!(whole_appends(&store).await, [1, 3]);
}

#[tokio::test]
async fn a_session_that_the_server_ends_in_the_middle_is_replaced() {
    let Some(database) = Database::server() else { return };
    let store = database.open().await;
    store.append(append_of(1)).await.unwrap();
    // Reads and appends, each on a session that was just ended.
    for n in 2..6 {
        database
            .run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'autoglm'")
            .await;
        if n % 2 == 0 {
            assert_eq!(store.assessment_lag().await, Ok(n - 1));
        }
        store.append(append_of(n)).await.unwrap();
    }
    assert_eq!(whole_appends(&store).await, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_writer_that_hangs_on_to_the_lock_makes_others_unavailable_and_then_loses_it() {
    let Some(database) = Database::server() else { return };
    let impatient = Config { busy_timeout_ms: 100, ..Config::default() };
    let store = database.open_with(impatient).await;
    store.append(append_of(1)).await.unwrap();
    let mut other = database.session().await;
    sqlx::raw_sql(
        "SET idle_in_transaction_session_timeout = '5s'; BEGIN; SELECT * FROM autoglm.head FOR UPDATE",
    )
    .execute(&mut other)
    .await
    .unwrap();
    let locked = store.append(append_of(2)).await.unwrap_err();
    assert_eq!(locked.kind, ErrorKind::Unavailable);
    assert_eq!(locked.message, "the database is locked by another process");
    // Reading goes on.
    assert_eq!(store.assessment_lag().await, Ok(1));
    let begin = Instant::now();
    while store.append(append_of(2)).await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(30), "the lock is never given up");
    }
    assert_eq!(whole_appends(&store).await, [1, 2]);
}
