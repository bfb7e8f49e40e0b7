//! The loop against a mirror that fails, hangs and is killed.

use std::{sync::Arc, time::Duration};

use autoglm_domain::*;
use autoglm_doubles::{MemoryStore, version};
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _};

use crate::{Board, Feed};

/// Takes batches of at most four that end at multiples of four, as the lake's do.
#[derive(Default)]
struct Copy {
    begun: Mutex<Vec<Span>>,
    delivered: Mutex<Vec<Span>>,
    down: Mutex<Option<Error>>,
    slow: Mutex<Duration>,
}

#[async_trait::async_trait]
impl Mirror for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn pace(&self) -> Duration {
        Duration::from_millis(100)
    }

    fn batch_end(&self, after: i64, last: i64) -> i64 {
        last.min((after / 4 + 1) * 4)
    }

    async fn deliver(&self, span: Span) -> Result<()> {
        self.begun.lock().push(span);
        let slow = *self.slow.lock();
        tokio::time::sleep(slow).await;
        if let Some(error) = self.down.lock().clone() {
            return Err(error);
        }
        self.delivered.lock().push(span);
        Ok(())
    }
}

struct World {
    store: Arc<MemoryStore>,
    copy: Arc<Copy>,
    board: Arc<Board>,
}

impl World {
    fn new() -> Self {
        Self { store: Arc::default(), copy: Arc::default(), board: Arc::default() }
    }

    /// Appends `count` events.
    async fn happens(&self, count: u64) {
        let from = self.store.events().len() as u64 + 1;
        let events = (from..from + count).map(|n| Event::Version(Box::new(version(n)))).collect();
        self.store.append(events).await.unwrap();
    }

    fn feed(&self) -> tokio::task::JoinHandle<()> {
        let clock = Arc::new(ManualClock::at(Timestamp(7)));
        let (copy, store, board) = (Arc::clone(&self.copy), Arc::clone(&self.store), Arc::clone(&self.board));
        tokio::spawn(Feed::new(copy, store, board, clock, 1).run())
    }

    async fn state(&self) -> MirrorState {
        self.board.states(&*self.store).await.unwrap().remove(0)
    }

    async fn until_seq(&self, seq: i64) {
        while self.store.cursors().await.unwrap().first().is_none_or(|(_, cursor)| cursor.seq != seq) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn delivered(&self) -> Vec<(i64, i64)> {
        self.copy.delivered.lock().iter().map(|span| (span.after, span.upto)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn everything_is_delivered_in_order_in_the_mirrors_batches() {
    let world = World::new();
    world.happens(10).await;
    let feed = world.feed();
    world.until_seq(10).await;
    assert_eq!(world.delivered(), [(0, 4), (4, 8), (8, 10)]);
    world.happens(3).await;
    world.until_seq(13).await;
    assert_eq!(world.delivered()[3..], [(10, 12), (12, 13)]);
    let state = world.state().await;
    assert_eq!((state.health, state.behind, state.failures), (MirrorHealth::Healthy, 0, 0));
    feed.abort();
    let _ = feed.await;
    assert_eq!(world.state().await.health, MirrorHealth::Idle);
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_is_down_costs_delay_and_is_told_of() {
    let world = World::new();
    world.happens(6).await;
    *world.copy.down.lock() = Some(Error::unavailable("the broker is away"));
    let _feed = world.feed();
    tokio::time::sleep(Duration::from_secs(90)).await;
    let state = world.state().await;
    assert_eq!((state.health, state.seq, state.behind), (MirrorHealth::Failing, 0, 6));
    assert_eq!(state.last_error.as_deref(), Some("the broker is away"));
    // After 0.25, 0.5, 1, 2, 4, 8, 16 and then every 15 to 30 s: not at once, and not never.
    assert!((9..=14).contains(&state.failures), "{} tries in 90 s", state.failures);
    world.happens(1).await;
    *world.copy.down.lock() = None;
    world.until_seq(7).await;
    // The batch that failed is the one that is delivered, and then the rest.
    assert_eq!(world.delivered(), [(0, 4), (4, 7)]);
    let state = world.state().await;
    assert_eq!((state.health, state.failures), (MirrorHealth::Healthy, 0));
    assert_eq!(state.last_error.as_deref(), Some("the broker is away"), "it is not forgotten");
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_cut_short_is_repeated_and_is_the_same_batch() {
    let world = World::new();
    world.happens(2).await;
    *world.copy.slow.lock() = Duration::from_secs(1);
    let feed = world.feed();
    tokio::time::sleep(Duration::from_millis(500)).await;
    feed.abort();
    let _ = feed.await;
    // The journal has grown meanwhile; the batch has not.
    world.happens(5).await;
    let _feed = world.feed();
    world.until_seq(7).await;
    assert_eq!(world.delivered(), [(0, 2), (2, 4), (4, 7)]);
    assert_eq!(world.copy.begun.lock()[..2], [Span { after: 0, upto: 2 }; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_keeps_no_cursor_keeps_the_mirror_where_it_is() {
    let world = World::new();
    world.happens(2).await;
    world.store.set_full(true);
    let _feed = world.feed();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.delivered(), [], "nothing is begun that is not written down");
    assert_eq!(world.state().await.last_error.as_deref(), Some("the disk is full"));
    world.store.set_full(false);
    world.until_seq(2).await;
    assert_eq!(world.delivered(), [(0, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_lost_events_is_not_mirrored_over_the_copy() {
    let world = World::new();
    world.happens(6).await;
    world.store.set_cursor("copy", Cursor::at(6)).await.unwrap();
    let other = World { store: Arc::default(), ..world };
    // As after a restore: the cursor is beyond the journal's end.
    other.happens(6).await;
    other.store.set_cursor("copy", Cursor::at(6)).await.unwrap();
    let restored = Restored(Arc::clone(&other.store));
    let clock = Arc::new(ManualClock::at(Timestamp(7)));
    let feed = Feed::new(other.copy.clone(), Arc::new(restored), other.board.clone(), clock, 1);
    let _feed = tokio::spawn(feed.run());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let state = other.state().await;
    assert_eq!(state.last_error.as_deref(), Some("mirror `copy` is at 6, and the journal ends at 3"));
    assert_eq!(other.delivered(), []);
}

/// A store whose journal ends earlier than its cursors say.
struct Restored(Arc<MemoryStore>);

#[async_trait::async_trait]
impl Cursors for Restored {
    async fn last_seq(&self) -> Result<i64> {
        Ok(3)
    }

    async fn cursors(&self) -> Result<Vec<(String, Cursor)>> {
        self.0.cursors().await
    }

    async fn set_cursor(&self, mirror: &str, cursor: Cursor) -> Result<()> {
        self.0.set_cursor(mirror, cursor).await
    }
}

/// Killed at random moments while events come in: every event is delivered, and a batch that was begun is never begun
/// as another one.
#[tokio::test(start_paused = true)]
async fn killed_at_any_moment_it_repeats_and_loses_nothing() {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(11);
    let world = World::new();
    for _ in 0..300 {
        *world.copy.slow.lock() = Duration::from_millis(random.random_range(0..40));
        *world.copy.down.lock() = random.random_bool(0.2).then(|| Error::unavailable("away"));
        world.happens(random.random_range(0..7)).await;
        let feed = world.feed();
        tokio::time::sleep(Duration::from_millis(random.random_range(0..120))).await;
        feed.abort();
        let _ = feed.await;
    }
    *world.copy.down.lock() = None;
    let _feed = world.feed();
    world.until_seq(world.store.events().len() as i64).await;
    let mut reached = 0;
    for span in world.copy.delivered.lock().iter() {
        // Either the next one, or the last one again.
        assert!(span.after == reached || span.upto == reached, "{span:?} after {reached}");
        reached = span.upto;
    }
    assert_eq!(reached, world.store.events().len() as i64);
    let begun = world.copy.begun.lock();
    let mut ends = std::collections::HashMap::new();
    for span in begun.iter() {
        assert_eq!(
            *ends.entry(span.after).or_insert(span.upto),
            span.upto,
            "another batch from {}",
            span.after
        );
    }
    assert!(begun.len() > world.copy.delivered.lock().len() + 20, "hardly anything was cut short");
}
