//! The circuit as requests share it.

use std::sync::Arc;

use autoglm_domain::Clock;
use parking_lot::Mutex;

use crate::{CircuitConfig, CircuitState, Result, UpstreamError, circuit::Circuit};

/// A circuit breaker for one upstream.
pub(crate) struct Breaker {
    base: String,
    config: CircuitConfig,
    clock: Arc<dyn Clock>,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    circuit: Circuit,
    /// Counts changes of state: what a request of an earlier state tells, no longer matters.
    epoch: u64,
}

impl Breaker {
    pub(crate) fn new(base: String, config: CircuitConfig, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { base, config, clock, shared: Mutex::default() })
    }

    /// Lets a request through, or refuses it at once.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Permit> {
        let now = self.clock.now();
        let mut shared = self.shared.lock();
        let (circuit, refused_ms) = match std::mem::take(&mut shared.circuit) {
            Circuit::Closed(closed) => (Circuit::Closed(closed), None),
            Circuit::Open(open) => match open.admit(now) {
                Ok(probing) => {
                    shared.epoch += 1;
                    tracing::info!(upstream = self.base, "the circuit is half-open: one request is a probe");
                    (Circuit::HalfOpen(probing), None)
                }
                Err((open, left_ms)) => (Circuit::Open(open), Some(left_ms)),
            },
            Circuit::HalfOpen(probing) => {
                let pause_ms = probing.pause_ms();
                (Circuit::HalfOpen(probing), Some(pause_ms))
            }
        };
        shared.circuit = circuit;
        match refused_ms {
            None => Ok(Permit { breaker: Arc::clone(self), epoch: shared.epoch, told: false }),
            Some(ms) => Err(UpstreamError::CircuitOpen { after_s: seconds(ms) }),
        }
    }

    /// A failure of a request that has already told of its success. It can open the circuit, and nothing else.
    pub(crate) fn blame(&self, error: &UpstreamError) {
        let closed_in = {
            let shared = self.shared.lock();
            matches!(shared.circuit, Circuit::Closed(_)).then_some(shared.epoch)
        };
        if let Some(epoch) = closed_in.filter(|_| error.is_failure()) {
            self.tell(epoch, Outcome::FailedLate);
        }
    }

    pub(crate) fn state(&self) -> CircuitState {
        match self.shared.lock().circuit {
            Circuit::Closed(_) => CircuitState::Closed,
            Circuit::Open(_) => CircuitState::Open,
            Circuit::HalfOpen(_) => CircuitState::HalfOpen,
        }
    }

    fn tell(&self, epoch: u64, outcome: Outcome) {
        let now = self.clock.now();
        let mut shared = self.shared.lock();
        if shared.epoch != epoch {
            return;
        }
        let (circuit, changed) = match (std::mem::take(&mut shared.circuit), outcome) {
            (Circuit::Closed(closed), Outcome::Abandoned) => (Circuit::Closed(closed), false),
            (Circuit::Closed(closed), outcome) => {
                let next = match outcome {
                    Outcome::FailedLate => closed.take_back(now, &self.config),
                    outcome => closed.record(outcome == Outcome::Failed, now, &self.config),
                };
                let opened = matches!(next, Circuit::Open(_));
                if opened {
                    tracing::warn!(upstream = self.base, "the circuit is open: requests are refused at once");
                }
                (next, opened)
            }
            (Circuit::HalfOpen(probing), Outcome::Succeeded) => {
                tracing::info!(upstream = self.base, "the circuit is closed again");
                (Circuit::Closed(probing.succeeded()), true)
            }
            (Circuit::HalfOpen(probing), Outcome::Failed | Outcome::FailedLate) => {
                tracing::warn!(upstream = self.base, "the probe failed: the circuit is open again");
                (Circuit::Open(probing.failed(now, &self.config)), true)
            }
            (Circuit::HalfOpen(probing), Outcome::Abandoned) => (Circuit::Open(probing.abandoned(now)), true),
            (open @ Circuit::Open(_), _) => (open, false),
        };
        shared.circuit = circuit;
        shared.epoch += u64::from(changed);
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Succeeded,
    Failed,
    /// After it was counted as a success.
    FailedLate,
    Abandoned,
}

/// One request that was let through. Dropping it without a word counts as nothing.
pub(crate) struct Permit {
    breaker: Arc<Breaker>,
    epoch: u64,
    told: bool,
}

impl Permit {
    /// The upstream answered.
    pub(crate) fn succeeded(mut self) {
        self.tell(Outcome::Succeeded);
    }

    /// What became of it: only what the upstream is to blame for counts as a failure.
    pub(crate) fn ended_with(mut self, error: &UpstreamError) {
        self.tell(if error.is_failure() { Outcome::Failed } else { Outcome::Succeeded });
    }

    fn tell(&mut self, outcome: Outcome) {
        self.told = true;
        self.breaker.tell(self.epoch, outcome);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.told {
            self.tell(Outcome::Abandoned);
        }
    }
}

/// Whole seconds, at least 1.
fn seconds(ms: i64) -> u32 {
    u32::try_from(ms.saturating_add(999) / 1000).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use autoglm_domain::{ManualClock, Timestamp};

    use super::*;

    fn breaker() -> (Arc<Breaker>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(Timestamp(1_700_000_000_000)));
        let config =
            CircuitConfig { window_s: 10, min_requests: 2, error_rate: 0.5, open_s: 3, max_open_s: 60 };
        (Breaker::new("http://up/v1".into(), config, Arc::clone(&clock) as Arc<dyn Clock>), clock)
    }

    fn failure() -> UpstreamError {
        UpstreamError::Failed { status: 500, message: "boom".into(), after_s: 1 }
    }

    fn refusal(breaker: &Arc<Breaker>) -> u32 {
        match breaker.admit().map(drop) {
            Err(UpstreamError::CircuitOpen { after_s, .. }) => after_s,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn requests_are_refused_while_it_is_open_and_one_probe_closes_it() {
        let (breaker, clock) = breaker();
        let late = breaker.admit().unwrap();
        for _ in 0..2 {
            breaker.admit().unwrap().ended_with(&failure());
        }
        assert_eq!((breaker.state(), refusal(&breaker)), (CircuitState::Open, 3));
        clock.advance_ms(1500);
        assert_eq!(refusal(&breaker), 2);
        clock.advance_ms(1500);
        let probe = breaker.admit().unwrap();
        assert_eq!((breaker.state(), refusal(&breaker)), (CircuitState::HalfOpen, 3));
        // A request from before it opened decides nothing.
        late.ended_with(&failure());
        assert_eq!(breaker.state(), CircuitState::HalfOpen);
        probe.succeeded();
        assert_eq!(breaker.state(), CircuitState::Closed);
        breaker.admit().unwrap().ended_with(&failure());
        assert_eq!(breaker.state(), CircuitState::Closed);
    }

    #[test]
    fn a_failed_probe_opens_it_for_longer_and_an_abandoned_one_makes_room_for_the_next() {
        let (breaker, clock) = breaker();
        for _ in 0..2 {
            breaker.admit().unwrap().ended_with(&failure());
        }
        clock.advance_ms(3000);
        breaker.admit().unwrap().ended_with(&failure());
        assert_eq!(refusal(&breaker), 6);
        clock.advance_ms(6000);
        drop(breaker.admit().unwrap());
        let probe = breaker.admit().unwrap();
        assert_eq!(refusal(&breaker), 6);
        // The upstream is well when it refuses a bad request.
        probe.ended_with(&UpstreamError::Refused { status: 400, message: "bad".into() });
        assert_eq!(breaker.state(), CircuitState::Closed);
    }
}
