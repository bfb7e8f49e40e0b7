//! Pauses between attempts.

use std::time::Duration;

use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// The first pause is at most this long.
const FIRST: Duration = Duration::from_millis(500);

/// Pauses that double up to a limit, each drawn evenly from the upper half of its range, so that a receiver that comes
/// back is not met by all at once and no attempt follows the last one at once.
#[derive(Debug)]
pub struct Backoff {
    most: Duration,
    random: Mutex<ChaCha8Rng>,
}

impl Backoff {
    /// Pauses of at most `most`, drawn from `seed`.
    pub fn new(most: Duration, seed: u64) -> Self {
        Self { most, random: Mutex::new(ChaCha8Rng::seed_from_u64(seed)) }
    }

    /// The pause after `failed` attempts, of which there was at least one.
    pub fn pause(&self, failed: u32) -> Duration {
        let doubled = FIRST.saturating_mul(1 << failed.saturating_sub(1).min(20));
        doubled.min(self.most).mul_f64(self.random.lock().random_range(0.5..1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_with_jitter() {
        let backoff = Backoff::new(Duration::from_secs(4), 7);
        for (failed, most_ms) in [(1, 500), (2, 1000), (3, 2000), (4, 4000), (5, 4000), (1_000_000, 4000)] {
            let pauses: Vec<_> = (0..200).map(|_| backoff.pause(failed).as_millis()).collect();
            assert!(pauses.iter().all(|ms| (most_ms / 2..=most_ms).contains(ms)), "{failed}: {pauses:?}");
            let mean = pauses.iter().sum::<u128>() as f64 / 200.0;
            // Evenly from a half to the whole: three quarters, with a standard error of 1% of the range.
            assert!((mean / most_ms as f64 - 0.75).abs() < 0.05, "{failed}: {mean}");
        }
    }
}
