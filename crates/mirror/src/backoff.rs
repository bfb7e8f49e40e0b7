//! Pauses between tries, with jitter.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// The pause after the first failure, at most; doubled after each further one.
const BASE: Duration = Duration::from_millis(250);
/// The longest pause.
const MOST: Duration = Duration::from_secs(30);

/// Pauses between half of and the whole of `min(MOST, BASE * 2^(n - 1))` after `n` failures ("equal jitter", Brooker
/// 2015, "Exponential Backoff And Jitter"): servers that lost one broker do not come back to it at once, and none of them
/// comes back without a pause.
#[derive(Debug)]
pub(crate) struct Backoff(ChaCha8Rng);

impl Backoff {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// The pause after `failures` failures in a row.
    pub(crate) fn pause(&mut self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let most = (BASE * 2_u32.pow(doublings)).min(MOST);
        most.mul_f64(self.0.random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_differ() {
        let mut backoff = Backoff::new(7);
        for (failures, most_ms) in [(1, 250), (2, 500), (3, 1000), (7, 16_000), (8, 30_000), (4000, 30_000)] {
            let pauses: Vec<_> = (0..50).map(|_| backoff.pause(failures).as_millis()).collect();
            assert!(
                pauses.iter().all(|pause| (most_ms / 2..=most_ms).contains(pause)),
                "{failures}: {pauses:?}"
            );
            assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        }
    }
}
