//! News: all of it, in order, also to a receiver that was away.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use autoglm_domain::{Clock, Cursor, Cursors, ManualClock, Store, Timestamp};
use autoglm_webhook::{Config, Follower, HookConfig, NoticeKind};
use tokio::task::JoinHandle;

use crate::receiver::{Journal, Receiver, SecretFile};

const NOW: i64 = 1_700_000_000_000;

struct World {
    journal: Arc<Journal>,
    clock: Arc<ManualClock>,
    secret: SecretFile,
}

impl World {
    /// Versions 1 to 3, of which nobody was told.
    async fn new() -> Self {
        let journal = Journal::with_versions(3).await;
        Self { journal, clock: Arc::new(ManualClock::at(Timestamp(NOW))), secret: SecretFile::new() }
    }

    /// A process that follows for the hook `a`.
    fn follow(&self, address: &str, events: Vec<NoticeKind>) -> JoinHandle<()> {
        let hook = HookConfig {
            url: format!("http://{address}/hook"),
            events,
            secret_env: String::new(),
            secret_file: self.secret.0.clone(),
            // A machine may be busy; one attempt is silent on purpose, and is waited for as long.
            timeout_ms: 5000,
        };
        let config = Config {
            hooks: [("a".to_owned(), hook)].into(),
            max_pause_s: 1,
            keep_s: 60,
            ..Config::default()
        };
        let store: Arc<dyn Store> = self.journal.store.clone();
        let cursors: Arc<dyn Cursors> = self.journal.store.clone();
        let clock: Arc<dyn Clock> = self.clock.clone();
        let mut all = Follower::all(&config, &store, &cursors, &clock, 7).unwrap();
        let follower = all.pop().unwrap();
        tokio::spawn(async move { follower.follow().await })
    }

    /// Waits until the hook begins to hear.
    async fn begun(&self) {
        while self.journal.store.cursors().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until it is kept that everything up to `seq` was taken.
    async fn kept(&self, seq: i64) {
        let begin = Instant::now();
        while self.journal.store.cursor("webhook-a").await.unwrap() != Some(Cursor::at(seq)) {
            assert!(begin.elapsed() < Duration::from_secs(20), "the cursor never comes to {seq}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_hook_hears_what_happens_from_then_on_in_order() {
    let world = World::new().await;
    let receiver = Receiver::default();
    let (address, _serving) = receiver.start(None).await;
    let following = world.follow(&address, vec![]);
    world.begun().await;
    for (from, to) in [(0, 1), (1, 2), (2, 3)] {
        world.journal.promote(from, to, NOW).await;
    }
    assert_eq!(receiver.taken(3).await, [4, 5, 6]);
    let got = receiver.taken.lock()[0].clone();
    assert_eq!(got.delivery, "4");
    assert_eq!(got.body["event"], "version.promoted");
    assert_eq!(got.body["data"]["to"], "v1");
    following.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_was_down_over_a_restart_gets_what_it_missed_once() {
    let world = World::new().await;
    let receiver = Receiver::default();
    let (address, serving) = receiver.start(None).await;
    let following = world.follow(&address, vec![]);
    world.begun().await;
    world.journal.promote(0, 1, NOW).await;
    assert_eq!(receiver.taken(1).await, [4]);
    // It was taken before its sender knows, and what its sender does not know it sends again.
    world.kept(4).await;
    drop(serving);
    world.journal.promote(1, 2, NOW).await;
    world.journal.promote(2, 3, NOW).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    following.abort();
    drop(following.await);

    let (_, _serving) = receiver.start(Some(&address)).await;
    let following = world.follow(&address, vec![]);
    assert_eq!(receiver.taken(3).await, [4, 5, 6]);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(receiver.taken(3).await.len(), 3, "nothing is sent twice");
    following.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_fails_is_tried_again_and_nothing_overtakes() {
    let world = World::new().await;
    // 0 is silence beyond the limit.
    let receiver = Receiver::answering(&[(500, ""), (0, ""), (404, ""), (200, "")]);
    let (address, _serving) = receiver.start(None).await;
    let following = world.follow(&address, vec![]);
    world.begun().await;
    world.journal.promote(0, 1, NOW).await;
    world.journal.promote(1, 2, NOW).await;
    assert_eq!(receiver.taken(2).await, [4, 5]);
    let attempts: Vec<String> = receiver.attempts.lock().iter().map(|got| got.delivery.clone()).collect();
    assert_eq!(attempts, ["4", "4", "4", "4", "5"]);
    following.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_asked_for_or_what_is_old_is_left_out() {
    let world = World::new().await;
    let receiver = Receiver::default();
    let (address, _serving) = receiver.start(None).await;
    world.journal.store.set_cursor("webhook-a", Cursor::at(0)).await.unwrap();
    world.journal.promote(0, 1, NOW - 61_000).await;
    world.journal.promote(1, 2, NOW - 59_000).await;
    let following = world.follow(&address, vec![NoticeKind::Promoted]);
    assert_eq!(receiver.taken(1).await, [5]);
    following.abort();
}
