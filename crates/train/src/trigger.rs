//! When a run is due.
//!
//! Every condition counts only what happened since the last run was planned: scores, experiences, growth
//! and appointments. So a condition that stays true fires once, and again only on new evidence.

use autoglm_domain::Trigger;
use serde::{Deserialize, Serialize};

use crate::{Error, Observation, Result, Schedule};

/// When a run starts by itself. A threshold of 0 switches its condition off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TriggerConfig {
    /// Whether runs start by themselves at all; by hand they always can.
    pub enabled: bool,
    /// Mean score, 0 to 100, above which what was learned is merged into the weights.
    pub score_ceiling: f64,
    /// Mean score, 0 to 100, below which a run is started.
    pub score_floor: f64,
    /// Assessed interactions whose mean it is; all of them since the last run.
    pub score_window: usize,
    /// New experiences that start a run.
    pub new_experiences: u64,
    /// New experiences without which no score and no pattern starts a run: there would be nothing to learn.
    pub min_new: u64,
    /// Growth of one error pattern that starts a run.
    pub pattern_growth: u64,
    /// Within how many seconds it must grow so much.
    pub pattern_window_s: u32,
    /// `off`, `daily 03:00` (UTC) or `every 3600` (seconds); needs one new experience.
    pub schedule: Schedule,
    /// Seconds between the end of one run and the start of the next, except by hand.
    pub min_seconds_between: u32,
}

impl Default for TriggerConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            score_ceiling: 85.0,
            score_floor: 40.0,
            score_window: 100,
            new_experiences: 200,
            min_new: 20,
            pattern_growth: 25,
            pattern_window_s: 3600,
            schedule: Schedule::Daily { hour: 3, minute: 0 },
            min_seconds_between: 60,
        }
    }
}

/// The triggers.
#[derive(Debug, Clone, PartialEq)]
pub struct Triggers {
    config: TriggerConfig,
}

impl Triggers {
    /// Triggers by `config`; `Invalid` when a threshold cannot be met.
    pub fn new(config: TriggerConfig) -> Result<Self> {
        for (name, value) in
            [("triggers.score_ceiling", config.score_ceiling), ("triggers.score_floor", config.score_floor)]
        {
            if !(0.0..=100.0).contains(&value) {
                let value = value.to_string();
                return Err(Error::Setting { name, value, allowed: "between 0 and 100" });
            }
        }
        if config.score_window == 0 {
            let (name, value) = ("triggers.score_window", "0".to_owned());
            return Err(Error::Setting { name, value, allowed: "at least 1" });
        }
        Ok(Self { config })
    }

    /// The settings.
    pub fn config(&self) -> &TriggerConfig {
        &self.config
    }

    /// The reason to start a run now, if there is one. Where several hold, the most urgent: by hand, scores
    /// too low, a growing pattern, enough new experiences, scores high enough to merge, the schedule.
    pub fn due(&self, seen: &Observation) -> Option<Trigger> {
        if seen.running {
            return None;
        }
        if seen.requested {
            return Some(Trigger::Manual);
        }
        if !self.config.enabled || self.is_too_soon(seen) {
            return None;
        }
        self.score_below(seen)
            .or_else(|| self.growing_pattern(seen))
            .or_else(|| self.new_experiences(seen))
            .or_else(|| self.score_above(seen))
            .or_else(|| self.scheduled(seen))
    }

    fn is_too_soon(&self, seen: &Observation) -> bool {
        let pause_ms = i64::from(self.config.min_seconds_between) * 1000;
        seen.last_end.is_some_and(|ended| seen.now.since_ms(ended) < pause_ms)
    }

    fn has_new(&self, seen: &Observation) -> bool {
        seen.arrived >= self.config.min_new.max(1)
    }

    /// Mean of a full window of scores.
    fn mean(&self, seen: &Observation) -> Option<f64> {
        let window = seen.scores.get(..self.config.score_window)?;
        #[allow(clippy::cast_precision_loss, reason = "a window is far below 2^52")]
        let mean = window.iter().sum::<f64>() / window.len() as f64;
        Some(mean)
    }

    fn score_below(&self, seen: &Observation) -> Option<Trigger> {
        let mean = self.mean(seen)?;
        (mean < self.config.score_floor && self.has_new(seen)).then_some(Trigger::ScoreBelow { mean })
    }

    fn score_above(&self, seen: &Observation) -> Option<Trigger> {
        let mean = self.mean(seen)?;
        let above = self.config.score_ceiling > 0.0 && mean > self.config.score_ceiling;
        (above && self.has_new(seen)).then_some(Trigger::ScoreAbove { mean })
    }

    fn growing_pattern(&self, seen: &Observation) -> Option<Trigger> {
        if self.config.pattern_growth == 0 || !self.has_new(seen) {
            return None;
        }
        let fastest = seen.patterns.iter().max_by_key(|pattern| pattern.growth)?;
        (fastest.growth >= self.config.pattern_growth)
            .then_some(Trigger::GrowingPattern { pattern: fastest.pattern, count: fastest.count })
    }

    fn new_experiences(&self, seen: &Observation) -> Option<Trigger> {
        let due = self.config.new_experiences > 0 && seen.arrived >= self.config.new_experiences;
        due.then_some(Trigger::NewExperiences { count: seen.arrived })
    }

    fn scheduled(&self, seen: &Observation) -> Option<Trigger> {
        let since = seen.last_scheduled.unwrap_or(seen.started_at);
        (seen.arrived > 0 && self.config.schedule.is_due(since, seen.now)).then_some(Trigger::Schedule)
    }
}

#[cfg(test)]
mod tests {
    use autoglm_domain::{PatternId, Timestamp};

    use super::*;
    use crate::PatternGrowth;

    fn quiet() -> Observation {
        Observation {
            now: Timestamp(1_000_000_000),
            started_at: Timestamp(1_000_000_000),
            requested: false,
            running: false,
            scores: vec![70.0; 100],
            arrived: 50,
            patterns: vec![],
            last_end: None,
            last_scheduled: None,
        }
    }

    fn due(seen: &Observation) -> Option<Trigger> {
        Triggers::new(TriggerConfig::default()).unwrap().due(seen)
    }

    fn grown(id: u128, growth: u64) -> PatternGrowth {
        PatternGrowth { pattern: PatternId::new(uuid::Uuid::from_u128(id)), count: growth + 100, growth }
    }

    type Change = fn(&mut Observation);

    #[test]
    fn each_condition_starts_a_run_at_its_threshold_and_not_below() {
        let pattern = PatternId::new(uuid::Uuid::from_u128(2));
        let cases: Vec<(&str, Change, Option<Trigger>)> = vec![
            ("quiet", |_| {}, None),
            ("asked for", |o| o.requested = true, Some(Trigger::Manual)),
            ("at the ceiling", |o| o.scores = vec![85.0; 100], None),
            ("above the ceiling", |o| o.scores = vec![86.0; 100], Some(Trigger::ScoreAbove { mean: 86.0 })),
            ("window not full", |o| o.scores = vec![86.0; 99], None),
            (
                "only the window counts",
                |o| o.scores = [vec![86.0; 100], vec![0.0; 50]].concat(),
                Some(Trigger::ScoreAbove { mean: 86.0 }),
            ),
            ("at the floor", |o| o.scores = vec![40.0; 100], None),
            ("below the floor", |o| o.scores = vec![39.0; 100], Some(Trigger::ScoreBelow { mean: 39.0 })),
            ("199 new", |o| o.arrived = 199, None),
            ("200 new", |o| o.arrived = 200, Some(Trigger::NewExperiences { count: 200 })),
            ("little growth", |o| o.patterns = vec![grown(1, 24)], None),
            (
                "growth",
                |o| o.patterns = vec![grown(1, 24), grown(2, 25)],
                Some(Trigger::GrowingPattern { pattern, count: 125 }),
            ),
            ("a day later", |o| o.now.0 += 24 * 3_600_000, Some(Trigger::Schedule)),
        ];
        for (name, change, expected) in cases {
            let mut seen = quiet();
            change(&mut seen);
            assert_eq!(due(&seen), expected, "{name}");
        }
    }

    #[test]
    fn nothing_starts_without_something_new_to_learn() {
        let changes: [Change; 3] = [
            |o| o.scores = vec![99.0; 100],
            |o| o.scores = vec![1.0; 100],
            |o| o.patterns = vec![grown(1, 99)],
        ];
        for change in changes {
            let mut seen = quiet();
            change(&mut seen);
            seen.arrived = 19;
            assert_eq!(due(&seen), None);
            seen.arrived = 20;
            assert!(due(&seen).is_some());
        }
        let tomorrow = Observation { now: Timestamp(2_000_000_000), arrived: 0, ..quiet() };
        assert_eq!(due(&tomorrow), None);
        assert_eq!(due(&Observation { arrived: 1, ..tomorrow }), Some(Trigger::Schedule));
    }

    #[test]
    fn runs_keep_their_distance_except_by_hand() {
        let mut seen = Observation { arrived: 500, ..quiet() };
        seen.last_end = Some(Timestamp(seen.now.0 - 59_999));
        assert_eq!(due(&seen), None);
        seen.requested = true;
        assert_eq!(due(&seen), Some(Trigger::Manual));
        seen.running = true;
        assert_eq!(due(&seen), None);
        (seen.running, seen.requested) = (false, false);
        seen.last_end = Some(Timestamp(seen.now.0 - 60_000));
        assert_eq!(due(&seen), Some(Trigger::NewExperiences { count: 500 }));
    }

    #[test]
    fn the_most_urgent_reason_is_given() {
        let mut seen = Observation { arrived: 500, patterns: vec![grown(1, 30)], ..quiet() };
        seen.scores = vec![10.0; 100];
        assert_eq!(due(&seen), Some(Trigger::ScoreBelow { mean: 10.0 }));
        seen.scores = vec![90.0; 100];
        assert!(matches!(due(&seen), Some(Trigger::GrowingPattern { .. })));
        seen.patterns.clear();
        assert_eq!(due(&seen), Some(Trigger::NewExperiences { count: 500 }));
        seen.arrived = 100;
        assert_eq!(due(&seen), Some(Trigger::ScoreAbove { mean: 90.0 }));
    }

    #[test]
    fn a_threshold_of_zero_is_off_and_an_impossible_one_is_refused() {
        let config = TriggerConfig {
            score_ceiling: 0.0,
            score_floor: 0.0,
            new_experiences: 0,
            pattern_growth: 0,
            schedule: Schedule::Off,
            ..TriggerConfig::default()
        };
        let triggers = Triggers::new(config).unwrap();
        for score in [0.0, 100.0] {
            let seen = Observation {
                arrived: 9_999,
                scores: vec![score; 100],
                patterns: vec![grown(1, 999)],
                now: Timestamp(i64::MAX / 2),
                ..quiet()
            };
            assert_eq!(triggers.due(&seen), None);
        }
        let off = Triggers::new(TriggerConfig { enabled: false, ..TriggerConfig::default() }).unwrap();
        let seen = Observation { arrived: 9_999, ..quiet() };
        assert_eq!(off.due(&seen), None);
        assert_eq!(off.due(&Observation { requested: true, ..seen }), Some(Trigger::Manual));

        let bad = Triggers::new(TriggerConfig { score_ceiling: f64::NAN, ..TriggerConfig::default() });
        assert!(bad.unwrap_err().to_string().contains("`triggers.score_ceiling` is NaN"));
        assert!(Triggers::new(TriggerConfig { score_window: 0, ..TriggerConfig::default() }).is_err());
    }
}
