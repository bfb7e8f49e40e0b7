//! What the triggers look at, gathered from what the loop has at hand.

use std::collections::{BTreeMap, VecDeque};

use autoglm_domain::{Assessment, ErrorPattern, PatternId, RunState, Timestamp, TrainingRun, Trigger};

use crate::{FOUND_UNFINISHED, TriggerConfig};

/// Most sizes that are remembered of one pattern; beyond it every second one is let go.
const MAX_SIZES: usize = 512;

/// How an error pattern grew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternGrowth {
    /// Which.
    pub pattern: PatternId,
    /// Its size now.
    pub count: u64,
    /// Its growth within the window, and since the last run.
    pub growth: u64,
}

/// Everything that decides whether a run is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// The time.
    pub now: Timestamp,
    /// When observation began; stands for the last run where there was none.
    pub started_at: Timestamp,
    /// Whether a person asked for a run.
    pub requested: bool,
    /// Whether a run is in progress.
    pub running: bool,
    /// Overall scores of the interactions assessed since the last run was planned, newest first.
    pub scores: Vec<f64>,
    /// Experiences fit for training that came in since the last run was planned.
    pub arrived: u64,
    /// Patterns that grew.
    pub patterns: Vec<PatternGrowth>,
    /// When the latest run ended, however it did.
    pub last_end: Option<Timestamp>,
    /// When the latest scheduled run was planned.
    pub last_scheduled: Option<Timestamp>,
}

/// What the loop has at hand when it asks.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The time.
    pub now: Timestamp,
    /// Whether a person asked for a run.
    pub requested: bool,
    /// The latest assessments, newest first; as many as the score window.
    pub assessments: &'a [Assessment],
    /// Every run.
    pub runs: &'a [TrainingRun],
    /// Every pattern.
    pub patterns: &'a [ErrorPattern],
    /// When each experience that is fit for training (not held out, positive weight) was remembered.
    pub experiences_at: &'a [Timestamp],
}

/// Turns what the loop has at hand into observations; remembers how large the patterns were.
#[derive(Debug)]
pub struct Observer {
    started_at: Timestamp,
    window_ms: i64,
    sizes: BTreeMap<PatternId, VecDeque<(Timestamp, u64)>>,
}

impl Observer {
    /// An observer that begins now.
    pub fn new(config: &TriggerConfig, started_at: Timestamp) -> Self {
        Self { started_at, window_ms: i64::from(config.pattern_window_s) * 1000, sizes: BTreeMap::new() }
    }

    /// What there is to see.
    pub fn observe(&mut self, seen: Seen<'_>) -> Observation {
        self.sizes.retain(|id, _| seen.patterns.iter().any(|pattern| pattern.id == *id));
        let since = last_run(seen.runs).unwrap_or(Timestamp(i64::MIN));

        let scheduled = seen.runs.iter().filter(|run| counts(run) && run.trigger == Trigger::Schedule);
        Observation {
            now: seen.now,
            started_at: self.started_at,
            requested: seen.requested,
            running: seen.runs.iter().any(|run| matches!(run.state, RunState::Planned | RunState::Running)),
            scores: seen.assessments.iter().filter(|a| a.at > since).map(|a| a.overall).collect(),
            arrived: seen.experiences_at.iter().filter(|at| **at > since).count() as u64,
            patterns: seen.patterns.iter().map(|pattern| self.grown(pattern, seen.now, since)).collect(),
            last_end: seen.runs.iter().filter_map(|run| run.ended_at).max(),
            last_scheduled: scheduled.map(|run| run.at).max(),
        }
    }

    fn grown(&mut self, pattern: &ErrorPattern, now: Timestamp, last_run: Timestamp) -> PatternGrowth {
        let from = Timestamp(now.0.saturating_sub(self.window_ms)).max(last_run);
        let sizes = self.sizes.entry(pattern.id).or_default();
        if sizes.is_empty() && pattern.first_at <= from {
            // Seen for the first time though it is older: what it grew by before is not known.
            sizes.push_back((now, pattern.count));
        }
        // Keep one size from before the window: it is what the pattern had when the window began.
        while sizes.get(1).is_some_and(|(at, _)| *at <= from) {
            sizes.pop_front();
        }
        let before = match sizes.front() {
            Some((at, count)) if *at <= from || pattern.first_at <= from => *count,
            _ => 0,
        };
        if sizes.back().is_none_or(|(_, count)| *count != pattern.count) {
            sizes.push_back((now, pattern.count));
        }
        if sizes.len() > MAX_SIZES {
            let mut keep = false;
            sizes.retain(|_| {
                keep = !keep;
                keep
            });
        }
        PatternGrowth {
            pattern: pattern.id,
            count: pattern.count,
            growth: pattern.count.saturating_sub(before),
        }
    }
}

/// Whether a run dealt with its trigger: not when the process ended under it, because then it is due again.
fn counts(run: &TrainingRun) -> bool {
    !matches!(&run.state, RunState::Cancelled { reason } if reason == FOUND_UNFINISHED)
}

/// When the latest run that dealt with its trigger was planned: what came later is not in it.
fn last_run(runs: &[TrainingRun]) -> Option<Timestamp> {
    let dealt_with = runs.iter().filter(|run| run.ended_at.is_some() && counts(run));
    dealt_with.map(|run| run.at).max()
}

#[cfg(test)]
mod tests {
    use autoglm_domain::{InteractionId, VersionNumber};
    use std::collections::BTreeMap as Map;

    use super::*;

    const MINUTE: i64 = 60_000;

    fn pattern(count: u64, first_at: i64) -> ErrorPattern {
        ErrorPattern {
            id: PatternId::new(uuid::Uuid::from_u128(7)),
            name: "a as b".into(),
            count,
            first_at: Timestamp(first_at),
            last_at: Timestamp(first_at),
            examples: Vec::<InteractionId>::new(),
            centroid: vec![],
        }
    }

    fn run(at: i64, trigger: Trigger, state: RunState) -> TrainingRun {
        let hash = autoglm_domain::ContentHash::of(b"x");
        TrainingRun {
            id: autoglm_domain::TrainingRunId::new(uuid::Uuid::from_u128(at as u128)),
            at: Timestamp(at),
            ended_at: (!matches!(state, RunState::Planned | RunState::Running)).then_some(Timestamp(at + 10)),
            trigger,
            base: hash,
            parent: VersionNumber::BASE,
            snapshot: hash,
            new_experiences: 0,
            replayed_experiences: 0,
            strategy: "replay".into(),
            hyper: autoglm_domain::HyperParameters::default(),
            seed: 0,
            metrics: Map::new(),
            state,
        }
    }

    fn seen<'a>(
        now: i64,
        runs: &'a [TrainingRun],
        patterns: &'a [ErrorPattern],
        at: &'a [Timestamp],
    ) -> Seen<'a> {
        let now = Timestamp(now);
        Seen { now, requested: false, assessments: &[], runs, patterns, experiences_at: at }
    }

    fn observer() -> Observer {
        Observer::new(&TriggerConfig { pattern_window_s: 600, ..TriggerConfig::default() }, Timestamp(0))
    }

    fn growth(observer: &mut Observer, minute: i64, count: u64, first: i64, runs: &[TrainingRun]) -> u64 {
        observer.observe(seen(minute * MINUTE, runs, &[pattern(count, first * MINUTE)], &[])).patterns[0]
            .growth
    }

    #[test]
    fn growth_is_what_came_within_the_window_and_since_the_last_run() {
        let mut observer = observer();
        // Known for long when it is first seen: nothing says that it grew.
        assert_eq!(growth(&mut observer, 100, 40, 0, &[]), 0);
        assert_eq!(growth(&mut observer, 105, 50, 0, &[]), 10);
        assert_eq!(growth(&mut observer, 109, 58, 0, &[]), 18);
        // The window now begins at minute 105, when it had 50.
        assert_eq!(growth(&mut observer, 115, 60, 0, &[]), 10);
        assert_eq!(growth(&mut observer, 125, 60, 0, &[]), 0);
        assert_eq!(growth(&mut observer, 126, 75, 0, &[]), 15);
        let failed = RunState::Failed { reason: "x".into() };
        let runs = [run(126 * MINUTE + 1, Trigger::Manual, failed)];
        assert_eq!(growth(&mut observer, 127, 80, 0, &runs), 5, "what grew before the run is dealt with");
        // A pattern that was born within the window grew by all that it has.
        let mut fresh = super::tests::observer();
        assert_eq!(growth(&mut fresh, 100, 30, 99, &[]), 30);
        assert_eq!(growth(&mut fresh, 101, 33, 99, &[]), 33);
    }

    #[test]
    fn only_what_came_after_the_last_run_is_counted() {
        let times = [1, 5, 10, 15, 20].map(Timestamp);
        let done = RunState::Succeeded { version: VersionNumber(1) };
        let cut = RunState::Cancelled { reason: FOUND_UNFINISHED.into() };
        let stopped = RunState::Cancelled { reason: "by a person".into() };
        for (state, expected) in [(done, 2), (cut, 5), (stopped, 2), (RunState::Running, 5)] {
            let runs = [run(10, Trigger::Schedule, state.clone())];
            let observation = observer().observe(seen(30, &runs, &[], &times));
            assert_eq!(observation.arrived, expected, "{state:?}");
            assert_eq!(observation.running, state == RunState::Running);
            let counted = expected == 2 || state == RunState::Running;
            assert_eq!(observation.last_scheduled, counted.then_some(Timestamp(10)));
        }
    }
}
