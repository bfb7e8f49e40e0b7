//! The loop's bells: who rings, who listens, and whether anything is under way.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// The loop's bells and what it is doing.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    pub(crate) recorded: Notify,
    pub(crate) requested: Notify,
    wanted: AtomicBool,
    working: AtomicUsize,
}

impl Signals {
    /// An answer or feedback was recorded.
    pub(crate) fn recorded(&self) {
        self.recorded.notify_one();
    }

    /// Somebody wants a training run; it counts as pending from now on.
    pub(crate) fn request(&self) {
        self.wanted.store(true, Ordering::SeqCst);
        self.requested.notify_one();
    }

    /// Whether somebody wanted a run since the last call. Take it while [`Signals::work`] is held, so that the loop
    /// never looks idle in between.
    pub(crate) fn take_request(&self) -> bool {
        self.wanted.swap(false, Ordering::SeqCst)
    }

    /// Whether a run or a rollout is under way or asked for.
    pub(crate) fn busy(&self) -> bool {
        self.wanted.load(Ordering::SeqCst) || self.working.load(Ordering::SeqCst) > 0
    }

    /// Marks work as under way until the guard is dropped.
    pub(crate) fn work(self: &Arc<Self>) -> Working {
        self.working.fetch_add(1, Ordering::SeqCst);
        Working(Arc::clone(self))
    }
}

/// Work under way.
pub(crate) struct Working(Arc<Signals>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.working.fetch_sub(1, Ordering::SeqCst);
    }
}
