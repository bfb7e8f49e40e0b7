//! What the batching thread has done so far, for metrics.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Counted since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    admitted: AtomicU64,
    waited_us: AtomicU64,
    preemptions: AtomicU64,
}

impl Counts {
    /// A request came into the batch after this time in the queue.
    pub(super) fn admitted(&self, waited: Duration) {
        self.admitted.fetch_add(1, Ordering::Relaxed);
        self.waited_us.fetch_add(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A sequence was taken out of the batch before its end.
    pub(super) fn preempted(&self) {
        self.preemptions.fetch_add(1, Ordering::Relaxed);
    }

    /// Admitted requests, the time that they waited together, and preemptions.
    pub(super) fn read(&self) -> (u64, Duration, u64) {
        let waited = Duration::from_micros(self.waited_us.load(Ordering::Relaxed));
        (self.admitted.load(Ordering::Relaxed), waited, self.preemptions.load(Ordering::Relaxed))
    }
}
