//! How the demo's time is divided: a pace for each task's traffic, time to consolidate, time to measure.

use std::time::{Duration, Instant};

/// Kept back for the last measurement and the report.
const MEASURE_SHARE: f64 = 0.12;
/// Kept back for the merge after the last task: a longer run over everything that was learned.
const MERGE_SHARE: f64 = 0.2;
/// Of a task's time, how much its traffic takes; the rest is for training, verdict and measuring.
const TRAFFIC_SHARE: f64 = 0.3;
/// A task's traffic may take this many times what was planned before the rest of it is left unsent.
const TRAFFIC_SLACK: f64 = 2.0;
/// Even when time has run out, a training run under way is waited for this long.
const SHORTEST_WAIT: Duration = Duration::from_secs(10);

/// One task's time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PhasePlan {
    /// Requests a second.
    pub(crate) pace: f64,
    /// When no more of the task's traffic is begun.
    pub(crate) traffic_deadline: Instant,
    /// When the next task should begin.
    pub(crate) end: Instant,
}

impl PhasePlan {
    /// How long to wait for the learning loop, seen from `now`.
    pub(crate) fn patience(&self, now: Instant) -> Duration {
        self.end.saturating_duration_since(now).max(SHORTEST_WAIT)
    }
}

/// Divides what is left of the time among the tasks that are left, so that one slow task shortens the others
/// instead of the demo outlasting its time.
#[derive(Debug, Clone)]
pub(crate) struct Pacer {
    end: Instant,
    tasks_left: usize,
}

impl Pacer {
    /// A pacer for `minutes` from `start`, with `tasks` to play.
    pub(crate) fn new(start: Instant, minutes: f64, tasks: usize) -> Self {
        let playing = Duration::from_secs_f64(minutes * 60.0 * (1.0 - MEASURE_SHARE - MERGE_SHARE));
        Self { end: start + playing, tasks_left: tasks.max(1) }
    }

    /// The next task's time, seen from `now`; it has `requests` to send.
    pub(crate) fn next(&mut self, now: Instant, requests: usize) -> PhasePlan {
        let share = self.end.saturating_duration_since(now).div_f64(self.tasks_left as f64);
        self.tasks_left = self.tasks_left.saturating_sub(1).max(1);
        let traffic = share.mul_f64(TRAFFIC_SHARE).max(Duration::from_millis(500));
        PhasePlan {
            pace: requests.max(1) as f64 / traffic.as_secs_f64(),
            traffic_deadline: now + traffic.mul_f64(TRAFFIC_SLACK),
            end: now + share,
        }
    }
}

/// Seconds that one task leaves for training, verdict and measuring when `tasks` share `minutes`. The server's
/// training runs should be bounded by somewhat less.
pub(crate) fn consolidation_seconds(minutes: f64, tasks: usize) -> f64 {
    minutes * 60.0 * (1.0 - MEASURE_SHARE - MERGE_SHARE) * (1.0 - TRAFFIC_SHARE) / tasks.max(1) as f64
}

/// Seconds of the merge after the last task, training and verdict together.
pub(crate) fn merge_seconds(minutes: f64) -> f64 {
    minutes * 60.0 * MERGE_SHARE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_share_the_time_and_a_late_one_shortens_the_rest() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start, 10.0, 4);
        // 600 s less 32% are 408 s: 102 s a task, 30.6 s of them traffic.
        let first = pacer.next(start, 306);
        assert!((first.pace - 10.0).abs() < 1e-6, "{}", first.pace);
        assert_eq!((first.end - start).as_secs_f64().round(), 102.0);
        assert_eq!((first.traffic_deadline - start).as_millis(), 61_200);
        let late = start + Duration::from_secs(198);
        let second = pacer.next(late, 210);
        // 210 s left for three tasks.
        assert_eq!((second.end - late).as_secs_f64().round(), 70.0);
        assert!((second.pace - 10.0).abs() < 1e-6);
        assert_eq!(second.patience(late + Duration::from_secs(69)), SHORTEST_WAIT);
        assert_eq!(second.patience(late + Duration::from_secs(40)).as_secs_f64().round(), 30.0);
    }

    #[test]
    fn when_time_is_out_the_pace_is_finite() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start, 0.1, 2);
        let plan = pacer.next(start + Duration::from_secs(60), 100);
        assert_eq!(plan.pace, 200.0);
        assert!((consolidation_seconds(10.0, 4) - 71.4).abs() < 1e-9);
    }
}
