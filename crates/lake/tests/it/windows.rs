//! Batches, windows and what is left of them.

use autoglm_domain::{Cursor, Cursors as _, Mirror as _, Span};

use super::*;

/// Positions that the lake's counting files hold, by reading the files' names and the journal's events.
async fn counted(world: &World) -> Vec<String> {
    world.lake().files().list().await.unwrap().iter().map(|file| file.name.to_string()).collect()
}

#[tokio::test]
async fn a_repeat_writes_the_same_files_bit_for_bit() {
    let world = World::new();
    world.store.append(samples::events()).await.unwrap();
    world.asked(100..150).await;
    world.delivered().await;
    let read = || -> Vec<_> {
        world
            .files()
            .into_iter()
            .map(|name| (std::fs::read(world.path().join(&name)).unwrap(), name))
            .collect()
    };
    let first = read();
    assert!(first.len() >= samples::events().len() - 1, "{:?}", world.files());
    let upto = world.store.last_seq().await.unwrap();
    world.lake().deliver(Span { after: 0, upto }).await.unwrap();
    assert_eq!(read(), first);
}

#[tokio::test]
async fn small_files_give_way_to_the_window_around_them() {
    let world = World::new();
    for n in 0..25 {
        world.asked(1 + n * 10..11 + n * 10).await;
        world.delivered().await;
    }
    assert!(world.files().len() >= 25, "one for each flush");
    world.asked(251..301).await;
    world.delivered().await;
    let names: Vec<_> = world.files().iter().map(|it| it.rsplit('/').next().unwrap().to_owned()).collect();
    assert_eq!(
        names,
        ["0000000000000001-0000000000000256.parquet", "0000000000000257-0000000000000300.parquet"]
    );
}

#[tokio::test]
async fn what_a_crash_leaves_of_a_window_does_not_count_and_goes_with_the_repeat() {
    let world = World::new();
    world.asked(1..201).await;
    world.delivered().await;
    let small = world.files();
    let left = std::fs::read(world.path().join(&small[0])).unwrap();
    world.asked(201..257).await;
    world.store.set_cursor("lake", Cursor { seq: 200, begun: 256 }).await.unwrap();
    world.lake().deliver(Span { after: 200, upto: 256 }).await.unwrap();
    assert_eq!(world.files().len(), 1);
    // As if the process had died before the deletion.
    std::fs::write(world.path().join(&small[0]), left).unwrap();
    assert_eq!(world.files().len(), 2);
    assert_eq!(counted(&world).await.len(), 1, "the wider one counts");
    world.lake().deliver(Span { after: 200, upto: 256 }).await.unwrap();
    assert_eq!(world.files(), counted(&world).await);
}

#[tokio::test]
async fn a_backlog_is_written_in_large_files_at_once() {
    let world = World::new();
    world.asked(1..20_001).await;
    let lake = world.lake();
    let mut at = 0;
    let mut batches = Vec::new();
    while at < 20_000 {
        let upto = lake.batch_end(at, 20_000);
        batches.push(upto - at);
        at = upto;
    }
    assert_eq!(batches[..3], [16_384, 2048, 256]);
    assert_eq!(batches.len(), 1 + 1 + 6 + 1, "{batches:?}");
    lake.deliver(Span { after: 0, upto: 16_384 }).await.unwrap();
    let days = world.files();
    assert!(days.iter().all(|it| it.ends_with("/0000000000000001-0000000000016384.parquet")), "{days:?}");
    // One a minute: twelve days.
    assert_eq!(days.len(), 12);
}

#[tokio::test]
async fn another_journals_lake_is_left_alone() {
    let world = World::new();
    world.asked(1..5).await;
    world.delivered().await;
    let other = World { config: world.config.clone(), ..World::new() };
    other.asked(7..9).await;
    let refused = other.lake().deliver(Span { after: 0, upto: 2 }).await.unwrap_err();
    assert_eq!(refused.kind, autoglm_domain::ErrorKind::Conflict);
    assert!(refused.message.ends_with("holds the events of another journal"), "{}", refused.message);
    let description = world.path().join("_lake.json");
    let text = std::fs::read_to_string(&description).unwrap();
    std::fs::write(&description, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    let refused = world.lake().deliver(Span { after: 0, upto: 4 }).await.unwrap_err();
    assert!(refused.message.contains("has format 2, newer than 1"), "{}", refused.message);
}

/// Dropped at any moment and begun again: in the end every event is in exactly one file that counts, and no file is left
/// that does not count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_short_at_any_moment_everything_is_there_once() {
    let world = World::new();
    let mut seed = 7_u64;
    let mut random = |most: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % most
    };
    let mut next = 1;
    for _ in 0..60 {
        let count = 1 + random(90);
        world.asked(next..next + count).await;
        next += count;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let feed = {
            let _inside = runtime.enter();
            world.feed()
        };
        tokio::time::sleep(Duration::from_millis(random(40))).await;
        feed.abort();
        let _ = feed.await;
        // Threads of the file system write on after that; the end of their runtime waits for them.
        let end = move || runtime.shutdown_timeout(Duration::from_secs(20));
        tokio::task::spawn_blocking(end).await.unwrap();
    }
    let last = world.store.last_seq().await.unwrap();
    let feed = world.feed();
    world.until(|state| state.seq == last).await;
    feed.abort();
    let _ = feed.await;
    assert_eq!(world.files(), counted(&world).await);
    let mut covered: Vec<_> =
        world.lake().files().list().await.unwrap().iter().map(|file| file.name.span()).collect();
    covered.sort_by_key(|span| span.after);
    covered.dedup();
    assert!(covered.windows(2).all(|two| two[0].upto <= two[1].after), "{covered:?}");
}
