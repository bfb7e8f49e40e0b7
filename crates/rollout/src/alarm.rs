//! An alarm that rings when a mean has come to lie beyond its limit, however long it was within it before.
//!
//! In comes one value after another, each in [0, 1], with the limit that holds for it; out goes whether it is shown that
//! their mean is beyond the limit, or has been since some time. Where the mean of every value, given those before it,
//! keeps its limit, an alarm at `alpha` *ever* rings with probability at most `alpha`.
//!
//! # Method
//!
//! For every moment `j` a gambler begins to bet that the mean is beyond the limit from then on; the capital
//! `Π_{j<=i<=t} (1 + λ_i (z_i - m_i))` of each is a supermartingale, also where the limits `m_i` change, as long as each
//! is known before its value. Gambler `j` begins with the share `w_j` of a capital of 1, where `Σ w_j <= 1`; what has not
//! been given out lies still. The sum of it all is a supermartingale from 1 on, and reaches `1/alpha` with probability at
//! most `alpha` (Ville). This is the mixture over the moments of change of Shin, Ramdas and Rinaldo, "E-detectors: a
//! nonparametric framework for sequential change detection" (2022), sections 2 and 4, with weights that add up, so that
//! the chance of a false alarm is limited and not only its frequency. What a long good time costs is therefore `ln(1/w_j)`
//! of evidence: with `Σ_{j>t} w_j = 1 / (1 + ln(1 + t))` that is some `ln j + 2 ln ln j`.
//!
//! Bets are shares of what can be bet, `λ = s c / m` for `s` = 1, 1/2, 1/4, …, a gambler for each (the mixture over
//! baselines of section 4), so that large changes are seen soon and small ones at all. The gamblers of one `s` bet alike,
//! and their capital together is one number.

/// Largest share of its capital that a gambler puts at stake on one value.
const MOST_AT_STAKE: f64 = 0.9;

/// Gamblers begin with stakes of so many sizes, each half the one before.
const SIZES: usize = 8;

/// Limits are never taken to be smaller, so that bets stay finite.
const LEAST_LIMIT: f64 = 1e-6;

/// See the module.
#[derive(Debug, Clone)]
pub struct Alarm {
    /// `1 / alpha`
    target: f64,
    bets: [Bet; SIZES],
    count: u64,
    since: Option<Since>,
}

/// The gamblers whose stakes are of one size.
#[derive(Debug, Clone, Copy, Default)]
struct Bet {
    /// What all of them have.
    capital: f64,
    /// What the one has who would have begun best, as a logarithm (Page's CUSUM): says since when it goes badly.
    best: f64,
    since: Since,
}

/// What came in since the mean is likely to have changed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Since {
    /// Values.
    pub(crate) count: u64,
    sum: f64,
}

impl Since {
    /// Their mean, 0 to 1.
    pub(crate) fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }
}

impl Alarm {
    /// An alarm that rings falsely with probability at most `alpha`, which is brought into [1e-12, 1].
    pub fn new(alpha: f64) -> Self {
        let alpha = if alpha.is_finite() { alpha.clamp(1e-12, 1.0) } else { 1e-12 };
        Self { target: 1.0 / alpha, bets: [Bet::default(); SIZES], count: 0, since: None }
    }

    /// Takes in one value, brought into [0, 1], whose mean should be at most `limit`. What is not a number is left out,
    /// and so is what has a limit that nothing can exceed.
    pub fn push(&mut self, value: f64, limit: f64) {
        if value.is_nan() || limit.is_nan() || limit >= 1.0 || self.since.is_some() {
            return;
        }
        let (value, limit) = (value.clamp(0.0, 1.0), limit.max(LEAST_LIMIT));
        let stake = (still_kept(self.count) - still_kept(self.count + 1)) / SIZES as f64;
        self.count += 1;
        let mut most = MOST_AT_STAKE / limit;
        let mut all = still_kept(self.count);
        for bet in &mut self.bets {
            let growth = 1.0 + most * (value - limit);
            bet.capital = (bet.capital + stake) * growth;
            if bet.best <= 0.0 {
                (bet.best, bet.since) = (0.0, Since::default());
            }
            bet.best += growth.ln();
            bet.since = Since { count: bet.since.count + 1, sum: bet.since.sum + value };
            all += bet.capital;
            most /= 2.0;
        }
        if all >= self.target {
            let richest = self.bets.iter().max_by(|a, b| a.capital.total_cmp(&b.capital));
            self.since = richest.map(|bet| bet.since);
        }
    }

    /// Whether it rings. It does not stop.
    pub fn rings(&self) -> bool {
        self.since.is_some()
    }

    /// Once it rings: what came in since the change.
    pub(crate) fn since(&self) -> Option<Since> {
        self.since
    }
}

/// `Σ_{j>t} w_j`: what has not been given out after `t` values.
fn still_kept(t: u64) -> f64 {
    1.0 / (1.0 + (t as f64).ln_1p())
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    fn bit(rng: &mut rand_chacha::ChaCha8Rng, probability: f64) -> f64 {
        f64::from(u8::from(rng.random::<f64>() < probability))
    }

    /// The definition, word for word: a gambler for each moment and size.
    #[test]
    fn it_is_the_sum_of_gamblers_who_begin_at_every_moment() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let values: Vec<(f64, f64)> =
            (0..60).map(|n| (bit(&mut rng, 0.3), if n < 30 { 0.25 } else { 0.4 })).collect();
        let mut alarm = Alarm::new(1e-12);
        values.iter().for_each(|(value, limit)| alarm.push(*value, *limit));
        let mut sum = 0.0;
        for (begin, _) in values.iter().enumerate() {
            for size in 0..SIZES {
                let mut capital = (still_kept(begin as u64) - still_kept(begin as u64 + 1)) / SIZES as f64;
                for (value, limit) in &values[begin..] {
                    capital *= 1.0 + 0.9 / limit / f64::powi(2.0, size as i32) * (value - limit);
                }
                sum += capital;
            }
        }
        let fast: f64 = alarm.bets.iter().map(|bet| bet.capital).sum();
        assert!((fast / sum - 1.0).abs() < 1e-9, "{fast} {sum}");
    }

    /// Means at the limit, over 3,000 values, in 1,000 runs at 5%: some 50 may ring.
    #[test]
    fn it_seldom_rings_falsely_however_long_it_goes_on() {
        for limit in [0.02, 0.51] {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
            let mut rang = 0;
            for _ in 0..1000 {
                let mut alarm = Alarm::new(0.05);
                for _ in 0..3000 {
                    alarm.push(bit(&mut rng, limit), limit);
                }
                rang += u32::from(alarm.rings());
            }
            assert!(rang <= 50, "{rang} of 1000 at {limit}");
            assert!(rang > 0, "an alarm that never rings is not worth having");
        }
    }

    /// What was good before costs little: the logarithm of how long it was.
    #[test]
    fn it_rings_soon_after_the_mean_has_changed_and_says_since_when() {
        let after = |good: u64| {
            let mut alarm = Alarm::new(0.001);
            (0..good).for_each(|_| alarm.push(0.0, 0.05));
            assert!(!alarm.rings());
            let bad = (1..100).find(|_| {
                alarm.push(1.0, 0.05);
                alarm.rings()
            });
            let since = alarm.since().unwrap();
            assert_eq!((Some(since.count), since.mean()), (bad, 1.0));
            bad.unwrap()
        };
        assert!(after(0) <= 4, "{}", after(0));
        assert!(after(100) <= 7, "{}", after(100));
        assert!(after(100_000) <= 9, "{}", after(100_000));
    }

    #[test]
    fn what_says_nothing_is_left_out() {
        let mut alarm = Alarm::new(0.5);
        for _ in 0..100 {
            alarm.push(f64::NAN, 0.1);
            alarm.push(1.0, f64::NAN);
            alarm.push(1.0, 1.0);
        }
        assert_eq!((alarm.count, alarm.rings()), (0, false));
        alarm.push(7.0, -3.0);
        assert!(alarm.rings(), "nothing may come in beyond a limit of 0");
    }
}
