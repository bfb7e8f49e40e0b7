//! The states of a circuit breaker and its legal transitions, without a clock or a lock.
//!
//! Closed lets everything through and counts; at too high a share of failures it opens. Open lets nothing through
//! until its pause is over; then the next request is let through as a probe and the circuit is half-open, which ends
//! with that probe: closed when it succeeds, open for twice as long when it fails (Nygard 2018, "Release It!",
//! chapter 5).

use std::collections::VecDeque;

use autoglm_domain::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Result, UpstreamError};

/// When requests to the upstream are refused without asking it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitConfig {
    /// Seconds that are looked back on.
    pub window_s: u64,
    /// Fewest requests in that time before anything is concluded.
    pub min_requests: u32,
    /// Share of failures among them from which requests are refused.
    pub error_rate: f64,
    /// Seconds until a request is let through as a probe; doubled each time that the probe fails.
    pub open_s: u64,
    /// Most seconds between two probes.
    pub max_open_s: u64,
}

impl Default for CircuitConfig {
    fn default() -> Self {
        Self { window_s: 30, min_requests: 5, error_rate: 0.5, open_s: 2, max_open_s: 30 }
    }
}

impl CircuitConfig {
    pub(crate) fn validate(&self) -> Result<()> {
        let refused =
            |key: &str, reason: String| Err(UpstreamError::Setting { key: format!("circuit.{key}"), reason });
        if !(1..=3600).contains(&self.window_s) {
            return refused("window_s", format!("is {}; it must be from 1 to 3600", self.window_s));
        }
        if self.min_requests == 0 {
            return refused("min_requests", "is 0; it must be at least 1".into());
        }
        if !(self.error_rate > 0.0 && self.error_rate <= 1.0) {
            return refused("error_rate", format!("is {}; it must be above 0, at most 1", self.error_rate));
        }
        if self.open_s == 0 || self.open_s > self.max_open_s || self.max_open_s > 86_400 {
            return refused(
                "open_s",
                format!("is {}; it must be from 1 to `max_open_s`, at most 86400", self.open_s),
            );
        }
        Ok(())
    }
}

/// Which state the circuit is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CircuitState {
    /// Requests go through.
    Closed,
    /// Requests are refused.
    Open,
    /// One request is on its way to find out.
    HalfOpen,
}

/// A circuit in one of its states.
#[derive(Debug)]
pub(crate) enum Circuit {
    Closed(Closed),
    Open(Open),
    HalfOpen(HalfOpen),
}

impl Default for Circuit {
    fn default() -> Self {
        Self::Closed(Closed::default())
    }
}

/// Lets everything through, and counts.
#[derive(Debug, Default)]
pub(crate) struct Closed {
    seconds: VecDeque<Second>,
}

#[derive(Debug, Clone, Copy)]
struct Second {
    at: i64,
    requests: u32,
    failures: u32,
}

/// Lets nothing through until `until`.
#[derive(Debug)]
pub(crate) struct Open {
    until: Timestamp,
    pause_ms: i64,
}

/// One probe is on its way.
#[derive(Debug)]
pub(crate) struct HalfOpen {
    pause_ms: i64,
}

impl Closed {
    /// Counts one outcome.
    pub(crate) fn record(self, failed: bool, now: Timestamp, config: &CircuitConfig) -> Circuit {
        self.count(1, failed, now, config)
    }

    /// What was counted as a success has failed after all.
    pub(crate) fn take_back(self, now: Timestamp, config: &CircuitConfig) -> Circuit {
        self.count(0, true, now, config)
    }

    fn count(mut self, requests: u32, failed: bool, now: Timestamp, config: &CircuitConfig) -> Circuit {
        let second = now.0.div_euclid(1000);
        let oldest = second - i64::try_from(config.window_s).unwrap_or(i64::MAX);
        // What lies in the future is from before the clock was set back.
        self.seconds.retain(|it| it.at > oldest && it.at <= second);
        if self.seconds.back().is_none_or(|last| last.at != second) {
            self.seconds.push_back(Second { at: second, requests: 0, failures: 0 });
        }
        if let Some(last) = self.seconds.back_mut() {
            last.requests = last.requests.saturating_add(requests);
            last.failures = last.failures.saturating_add(u32::from(failed));
        }
        let sum = |of: fn(&Second) -> u32| self.seconds.iter().map(|it| u64::from(of(it))).sum::<u64>();
        let (all, failures) = (sum(|it| it.requests), sum(|it| it.failures));
        let enough = all >= u64::from(config.min_requests);
        if failed && enough && failures as f64 >= config.error_rate * all as f64 {
            let pause_ms = milliseconds(config.open_s);
            return Circuit::Open(Open { until: later(now, pause_ms), pause_ms });
        }
        Circuit::Closed(self)
    }
}

impl Open {
    /// Lets a probe through once the pause is over; until then says how many milliseconds are left.
    pub(crate) fn admit(self, now: Timestamp) -> std::result::Result<HalfOpen, (Self, i64)> {
        let left = self.until.since_ms(now);
        // More than the pause is left only when the clock was set back.
        if left <= 0 || left > self.pause_ms {
            return Ok(HalfOpen { pause_ms: self.pause_ms });
        }
        Err((self, left))
    }
}

impl HalfOpen {
    /// The probe succeeded: as new.
    pub(crate) fn succeeded(self) -> Closed {
        Closed::default()
    }

    /// The probe failed: twice the pause.
    pub(crate) fn failed(self, now: Timestamp, config: &CircuitConfig) -> Open {
        let pause_ms = self.pause_ms.saturating_mul(2).min(milliseconds(config.max_open_s));
        Open { until: later(now, pause_ms), pause_ms }
    }

    /// The probe was given up before it told anything: the next request is one.
    pub(crate) fn abandoned(self, now: Timestamp) -> Open {
        Open { until: now, pause_ms: self.pause_ms }
    }

    /// For how long others are told to wait.
    pub(crate) fn pause_ms(&self) -> i64 {
        self.pause_ms
    }
}

fn milliseconds(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)
}

fn later(now: Timestamp, ms: i64) -> Timestamp {
    Timestamp(now.0.saturating_add(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: CircuitConfig =
        CircuitConfig { window_s: 10, min_requests: 4, error_rate: 0.5, open_s: 2, max_open_s: 6 };

    fn at(ms: i64) -> Timestamp {
        Timestamp(1_000_000 + ms)
    }

    fn closed_after(outcomes: &[(i64, bool)]) -> Circuit {
        outcomes.iter().fold(Circuit::default(), |circuit, (ms, failed)| match circuit {
            Circuit::Closed(closed) => closed.record(*failed, at(*ms), &CONFIG),
            other => other,
        })
    }

    fn open(circuit: Circuit) -> Open {
        match circuit {
            Circuit::Open(open) => open,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_opens_at_the_error_rate_and_not_before_there_are_enough_requests() {
        assert!(matches!(closed_after(&[(0, true), (1, true), (2, true)]), Circuit::Closed(_)));
        assert!(matches!(closed_after(&[(0, true), (1, true), (2, true), (3, true)]), Circuit::Open(_)));
        let third = [(0, false), (1, false), (2, false), (3, false), (4, true), (5, true)];
        assert!(matches!(closed_after(&third), Circuit::Closed(_)));
        let half = [(0, false), (1, false), (2, true), (3, true)];
        assert!(matches!(closed_after(&half), Circuit::Open(_)));
        // A success never opens it, even when the share is high enough by then.
        assert!(matches!(closed_after(&[(0, true), (1, true), (2, true), (3, false)]), Circuit::Closed(_)));
    }

    #[test]
    fn a_success_that_failed_after_all_counts_as_one_failure() {
        let mut circuit = closed_after(&[(0, false), (0, false), (0, false), (0, false)]);
        for broken in 1..=2 {
            let Circuit::Closed(closed) = circuit else { panic!("open after {} of 4", broken - 1) };
            circuit = closed.take_back(at(500), &CONFIG);
        }
        assert!(matches!(circuit, Circuit::Open(_)));
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let old = [(0, true), (1, true), (2, true), (10_000, true), (10_001, false), (10_002, false)];
        assert!(matches!(closed_after(&old), Circuit::Closed(_)));
        let set_back = [(60_000, true), (60_001, true), (60_002, true), (0, true)];
        assert!(matches!(closed_after(&set_back), Circuit::Closed(_)));
    }

    #[test]
    fn after_the_pause_one_probe_decides_and_a_failed_one_doubles_the_pause_up_to_the_limit() {
        let opened = open(closed_after(&[(0, true), (0, true), (0, true), (0, true)]));
        let (opened, left) = opened.admit(at(500)).unwrap_err();
        assert_eq!(left, 1500);
        let probing = opened.admit(at(2000)).unwrap();
        let (opened, left) = probing.failed(at(2000), &CONFIG).admit(at(2000)).unwrap_err();
        assert_eq!(left, 4000);
        let probing = opened.admit(at(6000)).unwrap();
        let (opened, left) = probing.failed(at(6000), &CONFIG).admit(at(6000)).unwrap_err();
        assert_eq!(left, 6000);
        let closed = opened.admit(at(12_000)).unwrap().succeeded();
        // As new: one failure says nothing.
        assert!(matches!(closed.record(true, at(12_000), &CONFIG), Circuit::Closed(_)));
    }

    #[test]
    fn an_abandoned_probe_lets_the_next_one_through_and_a_clock_set_back_does_not_lock_it() {
        let opened = open(closed_after(&[(0, true), (0, true), (0, true), (0, true)]));
        let probing = opened.admit(at(2000)).unwrap();
        let probing = probing.abandoned(at(2100)).admit(at(2100)).unwrap();
        let opened = probing.failed(at(2100), &CONFIG);
        assert!(opened.admit(at(-3_600_000)).is_ok());
    }
}
