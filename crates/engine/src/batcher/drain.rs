//! How fast the queue empties, and so how long a newcomer will wait.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Requests whose leaving is remembered.
const REMEMBERED: usize = 64;

/// The pace at which requests have left the queue lately, while some were in it.
#[derive(Debug, Default)]
pub(super) struct Drain {
    since: Option<Instant>, // when the last one left, or the first one came into the empty queue
    gaps: VecDeque<Duration>,
    sum: Duration,
}

impl Drain {
    /// A request came into the empty queue: what was before says nothing about the pace.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// A request left for the batch; `more` says whether others still wait.
    pub(super) fn left(&mut self, now: Instant, more: bool) {
        if let Some(since) = self.since {
            let gap = now.saturating_duration_since(since);
            self.gaps.push_back(gap);
            self.sum += gap;
            if self.gaps.len() > REMEMBERED {
                self.sum -= self.gaps.pop_front().unwrap_or_default();
            }
        }
        self.since = more.then_some(now);
    }

    /// How long it takes until `ahead` requests have left, by the mean of the latest gaps. A gap that is not over
    /// yet counts once it is longer than the mean, so that an engine that stands still is noticed.
    pub(super) fn wait(&self, ahead: usize, now: Instant) -> Duration {
        let open = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let mean =
            self.sum.checked_div(u32::try_from(self.gaps.len()).unwrap_or(u32::MAX)).unwrap_or_default();
        let gap = if open > mean { (self.sum + open) / (self.gaps.len() as u32 + 1) } else { mean };
        gap.saturating_mul(u32::try_from(ahead).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_the_time_in_which_some_waited() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut drain = Drain::default();
        assert_eq!(drain.wait(5, start), Duration::ZERO);
        drain.begin(at(0));
        drain.left(at(300), true);
        drain.left(at(400), false);
        // Nobody waited for an hour.
        drain.begin(at(3_600_000));
        drain.left(at(3_600_200), true);
        assert_eq!(drain.wait(3, at(3_600_200)), Duration::from_millis(600));
        // Nobody has left for 2.6 s: four gaps of 0.8 s on average.
        assert_eq!(drain.wait(1, at(3_602_800)), Duration::from_millis(800));
        (0..1000).for_each(|i| drain.left(at(4_000_000 + 10 * i), true));
        assert_eq!(drain.wait(2, at(4_009_990)), Duration::from_millis(20));
    }
}
