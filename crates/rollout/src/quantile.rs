//! Confidence sequences for quantiles: how slow the slowest answers are, looked at as often as one likes.
//!
//! After `t` observations, with `l(t) = (1.4 ln ln(2.1 t) + ln(10/alpha)) / t` and
//! `f(t, p) = 1.5 sqrt(p (1 - p) l(t)) + 0.8 l(t)`, the quantile at `p` lies between the empirical quantiles at
//! `p - f` and `p + f`, at all times at once with probability `1 - alpha` (Howard and Ramdas 2022, "Sequential
//! estimation of quantiles with applications to A/B testing and best-arm identification", Bernoulli 28(3),
//! section 1). Where `p + f` is beyond 1 there is no upper end yet.
//!
//! Observations are counted in buckets 1% wide, so that memory does not grow; an end is the outer edge of its
//! bucket, which errs on the wide side by at most that 1%.

/// Each bucket is this factor wide.
const WIDTH: f64 = 1.01;

/// Everything up to this is in the first bucket.
const LEAST: f64 = 1e-3;

/// Buckets up to some 1e8: ln(1e11) / ln(1.01).
const BUCKETS: usize = 2547;

/// A quantile of a positive variable that may be looked at after every observation.
#[derive(Debug, Clone)]
pub struct QuantileSequence {
    p: f64,
    alpha: f64,
    counts: Vec<u64>,
    count: u64,
}

impl QuantileSequence {
    /// A sequence for the quantile at `p`, 0 to 1 (exclusive), that holds at error probability `alpha`.
    pub fn new(p: f64, alpha: f64) -> Self {
        let alpha = if alpha.is_finite() { alpha.clamp(1e-12, 1.0) } else { 1e-12 };
        Self { p, alpha, counts: vec![0; BUCKETS], count: 0 }
    }

    /// Takes in one observation; what is not a number is left out, what is negative counts as 0.
    pub fn push(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        if let Some(count) = self.counts.get_mut(bucket(value)) {
            *count += 1;
        }
        self.count += 1;
    }

    /// Observations so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The empirical quantile, by the middle of its bucket; `None` before the first observation.
    pub fn estimate(&self) -> Option<f64> {
        let bucket = self.bucket_at(self.p)?;
        Some(upper_edge(bucket) / WIDTH.sqrt())
    }

    /// Lower end; `None` while there is none.
    pub fn lower(&self) -> Option<f64> {
        let at = self.p - self.radius();
        if at <= 0.0 {
            return None;
        }
        let bucket = self.bucket_at(at)?;
        // All that is known of the first bucket is that it is at least 0.
        Some(if bucket == 0 { 0.0 } else { upper_edge(bucket - 1) })
    }

    /// Upper end; `None` while there is none.
    pub fn upper(&self) -> Option<f64> {
        let at = self.p + self.radius();
        if at >= 1.0 {
            return None;
        }
        let bucket = self.bucket_at(at)?;
        (bucket + 1 < BUCKETS).then(|| upper_edge(bucket))
    }

    /// `f(t, p)`, in shares of the observations.
    fn radius(&self) -> f64 {
        let t = self.count as f64;
        // ln ln(2.1 t) is negative for the first observation; the bound only widens where that is cut.
        let l = (1.4 * (2.1 * t).ln().ln().max(0.0) + (10.0 / self.alpha).ln()) / t;
        1.5 * (self.p * (1.0 - self.p) * l).sqrt() + 0.8 * l
    }

    /// The bucket of the smallest value that a share `at` of the observations does not exceed.
    fn bucket_at(&self, at: f64) -> Option<usize> {
        if self.count == 0 {
            return None;
        }
        let rank = ((at * self.count as f64).ceil() as u64).clamp(1, self.count);
        let mut below = 0;
        self.counts.iter().position(|count| {
            below += count;
            below >= rank
        })
    }
}

fn bucket(value: f64) -> usize {
    if value <= LEAST {
        return 0;
    }
    // A float too large for an index saturates, and the last bucket takes it.
    (((value / LEAST).ln() / WIDTH.ln()).ceil() as usize).min(BUCKETS - 1)
}

fn upper_edge(bucket: usize) -> f64 {
    LEAST * WIDTH.powi(i32::try_from(bucket).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    #[test]
    fn values_come_back_within_a_bucket() {
        for value in [0.002, 1.0, 17.3, 250.0, 1e6] {
            let mut sequence = QuantileSequence::new(0.5, 0.05);
            sequence.push(value);
            let estimate = sequence.estimate().unwrap();
            assert!((estimate / value - 1.0).abs() < 0.011, "{value}: {estimate}");
        }
    }

    /// Exponential latencies: the quantile at p is -ln(1 - p). At 10%, of 300 runs some 30 may fail.
    #[test]
    fn the_interval_holds_all_the_time() {
        for p in [0.5, 0.95] {
            let truth = -(1.0_f64 - p).ln();
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(11);
            let mut failed = 0;
            let mut widths = 0.0;
            for _ in 0..300 {
                let mut sequence = QuantileSequence::new(p, 0.1);
                let mut held = true;
                for _ in 0..500 {
                    sequence.push(-(1.0 - rng.random::<f64>()).ln());
                    held &= sequence.lower().is_none_or(|lower| lower <= truth);
                    held &= sequence.upper().is_none_or(|upper| upper >= truth);
                }
                failed += u32::from(!held);
                let upper = sequence.upper().unwrap_or(9.0);
                widths += (upper - sequence.lower().unwrap()) / truth / 300.0;
            }
            assert!(failed <= 30, "{failed} at {p}");
            // At 0.95 there is no upper end yet after 500.
            assert!(p > 0.9 || widths < 1.0, "{widths} at {p}");
        }
    }

    /// By hand: t = 1000, alpha = 0.05 gives l = (1.4 ln ln 2100 + ln 200) / 1000 = 0.0081468, and at p = 0.95
    /// f = 1.5 sqrt(0.0475 l) + 0.8 l = 0.0360250.
    #[test]
    fn the_radius_is_the_formula() {
        let mut sequence = QuantileSequence::new(0.95, 0.05);
        (0..1000).for_each(|_| sequence.push(1.0));
        assert!((sequence.radius() - 0.036_025_0).abs() < 1e-6, "{}", sequence.radius());
        assert_eq!(QuantileSequence::new(0.5, 0.05).upper(), None);
    }
}
