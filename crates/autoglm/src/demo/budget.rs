//! How the demo's time is divided: a pace for each task's traffic, time to consolidate, time to measure.

use std::time::{Duration, Instant};

/// Kept back for the last measurement and the report.
const MEASURE_SHARE: f64 = 0.12;
/// Kept back for the merge after the last task: a longer run over everything that was learned.
const MERGE_SHARE: f64 = 0.2;
/// Of a task's time, how much its traffic takes; the rest is for training, verdict and measuring.
const TRAFFIC_SHARE: f64 = 0.3;
/// Training runs shorter than this teach a small model little and forget much: several tasks share one then.
const SHORTEST_ROUND_S: f64 = 18.0;
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

/// Which tasks a training run follows, and how long it may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rounds {
    tasks: usize,
    count: usize,
    minutes: f64,
}

impl Rounds {
    /// Training runs for `tasks` in `minutes`: one after each task, or fewer where each would otherwise be shorter
    /// than [`SHORTEST_ROUND_S`]. `wished` overrules that.
    pub(crate) fn new(minutes: f64, tasks: usize, wished: Option<usize>) -> Self {
        let tasks = tasks.max(1);
        let afforded = (rounds_s(minutes) / SHORTEST_ROUND_S) as usize;
        Self { tasks, count: wished.unwrap_or(afforded).clamp(1, tasks), minutes }
    }

    /// Whether a run follows task `at`; one always follows the last.
    pub(crate) fn ends_with(&self, at: usize) -> bool {
        (at + 1) * self.count / self.tasks > at * self.count / self.tasks
    }

    /// The task after which half of them are played and a run has just ended.
    pub(crate) fn halfway(&self) -> usize {
        ((self.tasks - 1) / 2..self.tasks).find(|at| self.ends_with(*at)).unwrap_or(self.tasks - 1)
    }

    /// The part of the whole time that one task's traffic takes.
    fn traffic_part(&self) -> f64 {
        TRAFFIC_SHARE / self.tasks as f64
    }

    /// The part that task `at` takes with the round that ends with it, if one does.
    fn part(&self, at: usize) -> f64 {
        let round = if self.ends_with(at) { (1.0 - TRAFFIC_SHARE) / self.count as f64 } else { 0.0 };
        self.traffic_part() + round
    }

    /// Seconds of one round: training, verdict and measuring. The server's training runs should be bounded by
    /// somewhat less.
    pub(crate) fn seconds(&self) -> f64 {
        rounds_s(self.minutes) / self.count as f64
    }
}

/// Seconds for all tasks, traffic and rounds together.
fn playing_s(minutes: f64) -> f64 {
    minutes * 60.0 * (1.0 - MEASURE_SHARE - MERGE_SHARE)
}

/// Seconds of all rounds together.
fn rounds_s(minutes: f64) -> f64 {
    playing_s(minutes) * (1.0 - TRAFFIC_SHARE)
}

/// Divides what is left of the time among the tasks and rounds that are left, so that one slow task shortens the
/// others instead of the demo outlasting its time.
#[derive(Debug, Clone)]
pub(crate) struct Pacer {
    end: Instant,
    rounds: Rounds,
    at: usize,
}

impl Pacer {
    /// A pacer from `start` for all tasks.
    pub(crate) fn new(start: Instant, rounds: Rounds) -> Self {
        Self { end: start + Duration::from_secs_f64(playing_s(rounds.minutes)), rounds, at: 0 }
    }

    /// The next task's time, seen from `now`; it has `requests` to send.
    pub(crate) fn next(&mut self, now: Instant, requests: usize) -> PhasePlan {
        let at = self.at.min(self.rounds.tasks - 1);
        let parts_left: f64 = (at..self.rounds.tasks).map(|at| self.rounds.part(at)).sum();
        let whole = self.end.saturating_duration_since(now).div_f64(parts_left);
        let traffic = whole.mul_f64(self.rounds.traffic_part()).max(Duration::from_millis(500));
        let end = now + whole.mul_f64(self.rounds.part(at));
        self.at += 1;
        PhasePlan {
            pace: requests.max(1) as f64 / traffic.as_secs_f64(),
            traffic_deadline: now + traffic.mul_f64(TRAFFIC_SLACK),
            end,
        }
    }
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
        let mut pacer = Pacer::new(start, Rounds::new(10.0, 4, None));
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
        let mut pacer = Pacer::new(start, Rounds::new(0.1, 2, None));
        let plan = pacer.next(start + Duration::from_secs(60), 100);
        assert_eq!(plan.pace, 200.0);
    }

    #[test]
    fn many_small_tasks_share_a_round() {
        let each = Rounds::new(10.0, 4, None);
        assert!((0..4).all(|at| each.ends_with(at)));
        assert!((each.seconds() - 71.4).abs() < 1e-9);
        assert_eq!(each.halfway(), 1);
        // 199.9 s for rounds of at least 18 s.
        let shared = Rounds::new(7.0, 18, None);
        let ends: Vec<usize> = (0..18).filter(|at| shared.ends_with(*at)).collect();
        assert_eq!(ends, [1, 3, 4, 6, 8, 9, 11, 13, 14, 16, 17]);
        assert!((shared.seconds() - 18.17).abs() < 0.01);
        assert_eq!(shared.halfway(), 8);
        assert!(Rounds::new(0.1, 3, None).ends_with(2));
        let wished = Rounds::new(0.1, 3, Some(9));
        assert!((0..3).all(|at| wished.ends_with(at)));
    }

    #[test]
    fn a_task_without_a_round_takes_its_traffic_alone() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start, Rounds::new(10.0, 4, Some(2)));
        let first = pacer.next(start, 306);
        assert_eq!((first.end - start).as_secs_f64().round(), 31.0);
        assert!((first.pace - 10.0).abs() < 1e-6);
        let second = pacer.next(first.end, 306);
        assert_eq!((second.end - start).as_secs_f64().round(), 204.0);
    }
}
