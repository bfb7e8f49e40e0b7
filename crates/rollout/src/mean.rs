//! Confidence sequences for the mean of one variable in [0, 1], by betting.
//!
//! The same hedged capital process as for pairs ([`crate::PairedSequence`]), for where the two versions answered
//! different requests: each side has a sequence of its own, and what holds of both is what the union of their
//! errors allows. The grid is fine towards 0 and 1 (steps of 5% of the value below 0.05), because error rates and
//! token counts live there.

use std::sync::LazyLock;

use crate::gamblers::{BetPlan, Gamblers, LEAST_VARIANCE, MOST_AT_STAKE};

/// What the variance is taken to be before the first observation, with the weight of one.
const PRIOR_VARIANCE: f64 = 0.125;

/// The smallest mean of the grid that is not 0.
const LEAST: f64 = 1e-4;

/// Where steps in proportion to the value end, and how large the steps beyond are.
const PROPORTIONAL_UNTIL: f64 = 0.05;
const STEP: f64 = 0.0025;

/// Possible means, ascending from 0 to 1, symmetric about 1/2.
static GRID: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let mut below = vec![0.0];
    let mut mean = LEAST;
    while mean < PROPORTIONAL_UNTIL {
        below.push(mean);
        mean *= 1.05;
    }
    let mut at = PROPORTIONAL_UNTIL;
    while at < 0.5 - STEP / 2.0 {
        below.push(at);
        at += STEP;
    }
    let above: Vec<f64> = below.iter().rev().map(|mean| 1.0 - mean).collect();
    below.push(0.5);
    below.extend(above);
    below
});

/// A mean that may be looked at after every observation.
#[derive(Debug, Clone)]
pub struct MeanSequence {
    rising: Gamblers,
    falling: Gamblers,
    count: u64,
    sum: f64,
    /// `PRIOR_VARIANCE + Σ (x_i - μ̂_i)²`
    squares: f64,
}

impl MeanSequence {
    /// A sequence that holds at error probability `alpha`, each end alone at half of it. `alpha` is brought into
    /// [1e-12, 1].
    pub fn new(alpha: f64) -> Self {
        let alpha = if alpha.is_finite() { alpha.clamp(1e-12, 1.0) } else { 1e-12 };
        let target = (2.0 / alpha).ln();
        Self {
            rising: Gamblers::new(&GRID, target),
            falling: Gamblers::new(&GRID, target),
            count: 0,
            sum: 0.0,
            squares: PRIOR_VARIANCE,
        }
    }

    /// Takes in one observation, brought into [0, 1]; what is not a number is left out.
    pub fn push(&mut self, x: f64) {
        if x.is_nan() {
            return;
        }
        let x = x.clamp(0.0, 1.0);
        let turn = (self.count + 1) as f64;
        let plan = BetPlan {
            variance: (self.squares / turn).max(LEAST_VARIANCE),
            pairs: turn * (turn + 1.0).ln(),
            recalculate: false,
            at_stake: MOST_AT_STAKE,
        };
        self.rising.push(x, plan, self.falling.last_open());
        self.falling.push(1.0 - x, plan, self.rising.last_open());
        self.count += 1;
        self.sum += x;
        // Half an observation of 1/2 before the first, as the estimate that the bets go by.
        let centre = (self.sum + 0.5) / (self.count as f64 + 1.0);
        self.squares += (x - centre).powi(2);
    }

    /// Observations so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether no mean is left that all of it could have come from: it did not stay what it was. (Where the mean lies
    /// between two neighbours of the grid, a very long sequence comes to say so as well.)
    pub(crate) fn is_empty(&self) -> bool {
        self.rising.ruled_out() >= self.falling.last_open()
    }

    /// Mean so far; `None` before the first observation.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// Lower end, 0 to 1.
    pub fn lower(&self) -> f64 {
        GRID.get(self.rising.ruled_out()).copied().unwrap_or(0.0)
    }

    /// Upper end, 0 to 1.
    pub fn upper(&self) -> f64 {
        GRID.get(GRID.len() - 1 - self.falling.ruled_out()).copied().unwrap_or(1.0)
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    #[test]
    fn the_grid_is_ascending_and_symmetric() {
        assert!(GRID.windows(2).all(|pair| pair[0] < pair[1]));
        let mirrored = GRID.iter().rev().map(|mean| 1.0 - mean);
        assert!(GRID.iter().zip(mirrored).all(|(mean, mirror)| (mean - mirror).abs() < 1e-12));
        assert_eq!((GRID[0], GRID[GRID.len() - 1]), (0.0, 1.0));
    }

    /// At every observation the interval must hold the mean; over 400 runs at 10% some 40 may fail somewhere.
    #[test]
    fn the_interval_holds_all_the_time_and_closes_in() {
        for mean in [0.01, 0.3, 0.88] {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
            let mut failed = 0;
            let mut width = 0.0;
            for _ in 0..400 {
                let mut sequence = MeanSequence::new(0.1);
                let mut held = true;
                for _ in 0..600 {
                    sequence.push(f64::from(u8::from(rng.random::<f64>() < mean)));
                    held &= sequence.lower() <= mean && mean <= sequence.upper();
                }
                failed += u32::from(!held);
                width += (sequence.upper() - sequence.lower()) / 400.0;
            }
            assert!(failed <= 40, "{failed} of 400 at {mean}");
            let deviation = (mean * (1.0 - mean) / 600.0_f64).sqrt();
            assert!(width < 8.0 * deviation + 0.005, "{width} at {mean}");
        }
    }

    #[test]
    fn a_rare_event_that_becomes_common_is_seen_soon() {
        let mut sequence = MeanSequence::new(0.002);
        let seen = (1..=200).find(|n| {
            sequence.push(f64::from(u8::from(n % 5 == 0)));
            sequence.lower() > 0.03
        });
        assert!(seen.is_some_and(|n| n <= 80), "{seen:?}");
    }
}
