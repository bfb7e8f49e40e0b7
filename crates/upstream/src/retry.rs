//! What is tried again, how often, and after which pause.

use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{Result, UpstreamError};

/// What is tried again: connections that fail, and the statuses 408, 429, 500, 502, 503 and 504, before the first byte
/// of the answer. Nothing is once a token was handed on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// How often a request is sent at most; 1 tries nothing again.
    pub attempts: u32,
    /// Longest pause before the second attempt, milliseconds; doubled for each further one. The pause is drawn evenly
    /// from 0 to that.
    pub base_ms: u64,
    /// Most milliseconds of a pause.
    pub max_pause_ms: u64,
    /// Longest `Retry-After` that is waited for, seconds; the client is told of a longer one.
    pub max_retry_after_s: u64,
    /// Retries for each request, over all requests: while much fails, little is tried again.
    pub share: f64,
    /// Retries that may be saved up, and that there are at the start.
    pub reserve: u32,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { attempts: 3, base_ms: 200, max_pause_ms: 2000, max_retry_after_s: 5, share: 0.1, reserve: 10 }
    }
}

impl RetryConfig {
    pub(crate) fn validate(&self) -> Result<()> {
        let refused =
            |key: &str, reason: String| Err(UpstreamError::Setting { key: format!("retry.{key}"), reason });
        if !(1..=20).contains(&self.attempts) {
            return refused("attempts", format!("is {}; it must be from 1 to 20", self.attempts));
        }
        if !(0.0..=1.0).contains(&self.share) {
            return refused("share", format!("is {}; it must be from 0 to 1", self.share));
        }
        if self.max_pause_ms > 600_000 || self.max_retry_after_s > 600 {
            return refused("max_pause_ms", "and `max_retry_after_s` must be at most ten minutes".into());
        }
        Ok(())
    }
}

/// Pauses with full jitter, within a budget.
///
/// The pause before attempt `n + 1` is drawn evenly from 0 to `min(max_pause, base * 2^(n - 1))` (Brooker 2015,
/// "Exponential Backoff And Jitter"). The budget is a bucket: each request puts `share` in, each retry takes 1 out.
pub(crate) struct Retries {
    config: RetryConfig,
    shared: Mutex<Shared>,
}

struct Shared {
    random: ChaCha8Rng,
    budget: f64,
}

impl Retries {
    pub(crate) fn new(config: RetryConfig, seed: u64) -> Self {
        let shared = Shared { random: ChaCha8Rng::seed_from_u64(seed), budget: f64::from(config.reserve) };
        Self { config, shared: Mutex::new(shared) }
    }

    /// A new request: it adds to the budget.
    pub(crate) fn begin(&self) {
        let mut shared = self.shared.lock();
        shared.budget = (shared.budget + self.config.share).min(f64::from(self.config.reserve));
    }

    /// Milliseconds to wait before the next attempt after `made` of them, where there may be one. `retry_after_s` is
    /// what the upstream asks for.
    pub(crate) fn pause_ms(&self, made: u32, retry_after_s: Option<u64>) -> Option<u64> {
        if made >= self.config.attempts
            || retry_after_s.is_some_and(|wait| wait > self.config.max_retry_after_s)
        {
            return None;
        }
        let mut shared = self.shared.lock();
        if shared.budget < 1.0 {
            return None;
        }
        shared.budget -= 1.0;
        let doubled = self.config.base_ms.saturating_mul(1 << made.saturating_sub(1).min(30));
        let jitter = shared.random.random_range(0..=doubled.min(self.config.max_pause_ms));
        Some(retry_after_s.unwrap_or(0).saturating_mul(1000) + jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries(config: RetryConfig) -> Retries {
        Retries::new(config, 7)
    }

    #[test]
    fn pauses_spread_over_the_whole_range_and_repeat_with_the_seed() {
        let config = RetryConfig { attempts: 9, reserve: 4000, ..RetryConfig::default() };
        let draw = || {
            let retries = retries(config.clone());
            (0..1000).map(|_| retries.pause_ms(2, None).unwrap()).collect::<Vec<_>>()
        };
        let pauses = draw();
        assert_eq!(pauses, draw());
        // Evenly from 0 to 400: a mean of 200 with a standard error of 400 / sqrt(12 * 1000) = 3.7.
        let mean = pauses.iter().sum::<u64>() as f64 / 1000.0;
        assert!((mean - 200.0).abs() < 15.0, "{mean}");
        assert!(pauses.iter().all(|pause| *pause <= 400) && pauses.iter().any(|pause| *pause < 20));
        let retries = retries(config);
        assert!((0..1000).all(|_| retries.pause_ms(8, None).unwrap() <= 2000));
    }

    #[test]
    fn the_number_of_attempts_and_the_budget_bound_it() {
        let retries = retries(RetryConfig { attempts: 3, share: 0.5, reserve: 2, ..RetryConfig::default() });
        assert_eq!(retries.pause_ms(3, None), None);
        assert!(retries.pause_ms(1, None).is_some() && retries.pause_ms(2, None).is_some());
        assert_eq!(retries.pause_ms(1, None), None, "the reserve is used up");
        retries.begin();
        assert_eq!(retries.pause_ms(1, None), None);
        retries.begin();
        assert!(retries.pause_ms(1, None).is_some());
    }

    #[test]
    fn what_the_upstream_asks_for_is_honoured_up_to_the_limit() {
        let retries = retries(RetryConfig { max_retry_after_s: 5, ..RetryConfig::default() });
        let pause = retries.pause_ms(1, Some(5)).unwrap();
        assert!((5000..=5200).contains(&pause), "{pause}");
        assert_eq!(retries.pause_ms(1, Some(6)), None);
    }
}
