//! Confidence sequences for the mean of paired differences, by betting.
//!
//! In come pairs of scores (champion, candidate), each 0 to 1; out goes, after every pair, an interval that
//! holds the mean of `candidate - champion`. The intervals hold *all at once* with probability `1 - alpha`,
//! so that one may look after every pair and stop whenever one likes.
//!
//! # Method
//!
//! Differences are mapped to `x = (candidate - champion + 1) / 2` in [0, 1]. For every possible mean `m` on a
//! grid a gambler bets that the mean is larger, another that it is smaller. Their capitals
//!
//! ```text
//! K⁺_t(m) = Π_{i<=t} (1 + λ⁺_i(m) (x_i - m))        K⁻_t(m) = Π_{i<=t} (1 - λ⁻_i(m) (x_i - m))
//! ```
//!
//! are non-negative supermartingales when the mean is at most (at least) `m`, so by Ville's inequality either
//! exceeds `2/alpha` *ever* with probability at most `alpha/2`: the hedged capital process with θ = 1/2 of
//! Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS-B 2023),
//! section 4.4, theorem 3. A mean is ruled out for good once its gambler is that rich (running intersection).
//!
//! Bets may depend on the past only. Without a horizon they are that paper's predictable plug-in
//! `λ_t = sqrt(2 ln(2/α) / (σ̂²_{t-1} t ln(t + 1)))`. With a horizon of `n` pairs they aim at the capital that
//! is still missing with the pairs that are still to come, `λ_t(m) = sqrt(2 (ln(2/α) - ln K_{t-1}(m)) /
//! (σ̂²_{t-1} (n - t + 1)))`, after Voráček and Orabona, "STaR-Bets: Sequential Target-Recalculating Bets for
//! Tighter Confidence Intervals" (2025). The horizon changes where the sequence is tightest, never its
//! validity. Both are cut so that no single pair can take more than a share of the capital: half of it without
//! a horizon (the paper's c = 1/2), nine tenths with one, where timid bets would not get there in time.
//!
//! # Grid
//!
//! An end of the interval is the last mean, counted from -1 (from 1), up to which all are ruled out. For a
//! mean between two grid points this errs on the wide side, by at most a step: 0.001 for differences within
//! ±0.2, 0.01 beyond. One pair costs one logarithm for every grid point that is still open.

use std::sync::LazyLock;

use autoglm_domain::PairedEvidence;

use crate::gamblers::{BetPlan, Gamblers, LEAST_VARIANCE, MOST_AT_STAKE, MOST_AT_STAKE_AIMED};

/// What the variance of `x` is taken to be before the first pair, with the weight of one pair. The paper
/// takes 1/4, the largest possible; paired differences are mostly 0, and the bets sharper for it.
const PRIOR_VARIANCE: f64 = 0.125;

/// The grid in thousandths of a difference: fine steps up to here, coarse ones beyond.
const FINE_UNTIL: i32 = 200;
const COARSE_STEP: usize = 10;

/// Possible mean differences, ascending from -1 to 1, symmetric about 0.
static GRID: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let coarse_below = (-1000..-FINE_UNTIL).step_by(COARSE_STEP);
    let coarse_above = (FINE_UNTIL + COARSE_STEP as i32..=1000).step_by(COARSE_STEP);
    coarse_below.chain(-FINE_UNTIL..=FINE_UNTIL).chain(coarse_above).map(|m| f64::from(m) / 1000.0).collect()
});

/// The same as means of `x`.
static MEANS: LazyLock<Vec<f64>> = LazyLock::new(|| GRID.iter().map(|d| (d + 1.0) / 2.0).collect());

/// A paired comparison that may be looked at after every pair; see the module for the method.
#[derive(Debug, Clone)]
pub struct PairedSequence {
    alpha: f64,
    horizon: Option<u64>,
    rising: Gamblers,
    falling: Gamblers,
    pairs: u64,
    champion_sum: f64,
    candidate_sum: f64,
    /// `PRIOR_VARIANCE + Σ (x_i - μ̂_i)²`
    squares: f64,
    /// `1/2 + Σ x_i`
    sum: f64,
}

impl PairedSequence {
    /// A sequence that holds at error probability `alpha` (both ends together; each end alone at half of
    /// it), equally good at every number of pairs. `alpha` is brought into [1e-12, 1].
    pub fn new(alpha: f64) -> Self {
        let alpha = if alpha.is_finite() { alpha.clamp(1e-12, 1.0) } else { 1e-12 };
        let target = (2.0 / alpha).ln();
        Self {
            alpha,
            horizon: None,
            rising: Gamblers::new(&MEANS, target),
            falling: Gamblers::new(&MEANS, target),
            pairs: 0,
            champion_sum: 0.0,
            candidate_sum: 0.0,
            squares: PRIOR_VARIANCE,
            sum: 0.5,
        }
    }

    /// Like [`PairedSequence::new`], tightest after `pairs` pairs: for a suite whose size is known. Valid at
    /// every other number of pairs too, before and after.
    pub fn with_horizon(alpha: f64, pairs: u64) -> Self {
        Self { horizon: Some(pairs.max(1)), ..Self::new(alpha) }
    }

    /// Takes in one pair of scores, each brought into [0, 1]; what is not a number is the worst score, 0.
    pub fn push(&mut self, champion: f64, candidate: f64) {
        let score = |value: f64| if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) };
        let (champion, candidate) = (score(champion), score(candidate));
        let x = (candidate - champion + 1.0) / 2.0;
        let plan = self.next_bet();
        self.rising.push(x, plan, self.falling.last_open());
        self.falling.push(1.0 - x, plan, self.rising.last_open());
        self.pairs += 1;
        self.champion_sum += champion;
        self.candidate_sum += candidate;
        self.sum += x;
        let centre = self.sum / (self.pairs as f64 + 1.0);
        self.squares += (x - centre).powi(2);
    }

    /// Sizes the next bet from the pairs so far alone.
    fn next_bet(&self) -> BetPlan {
        let turn = self.pairs + 1; // t
        let variance = (self.squares / turn as f64).max(LEAST_VARIANCE);
        match self.horizon {
            Some(horizon) if turn <= horizon => {
                let pairs = (horizon - turn + 1) as f64;
                BetPlan { variance, pairs, recalculate: true, at_stake: MOST_AT_STAKE_AIMED }
            }
            _ => {
                let pairs = turn as f64 * (turn as f64 + 1.0).ln();
                BetPlan { variance, pairs, recalculate: false, at_stake: MOST_AT_STAKE }
            }
        }
    }

    /// Pairs so far.
    pub fn pairs(&self) -> u64 {
        self.pairs
    }

    /// Lower end for the mean difference, -1 to 1.
    pub fn lower(&self) -> f64 {
        GRID.get(self.rising.ruled_out()).copied().unwrap_or(-1.0)
    }

    /// Upper end for the mean difference, -1 to 1.
    pub fn upper(&self) -> f64 {
        GRID.get(GRID.len() - 1 - self.falling.ruled_out()).copied().unwrap_or(1.0)
    }

    /// Whether no mean is left that all of it could have come from: it did not stay what it was. (Where the mean lies
    /// between two neighbours of the grid, a very long sequence comes to say so as well.)
    pub(crate) fn is_empty(&self) -> bool {
        self.rising.ruled_out() >= self.falling.last_open()
    }

    /// Mean difference so far, 0 before the first pair.
    pub fn difference(&self) -> f64 {
        (self.candidate_sum - self.champion_sum) / self.pairs.max(1) as f64
    }

    /// Variance of the difference, estimated with a prior of one pair.
    pub fn variance(&self) -> f64 {
        4.0 * self.squares / (self.pairs as f64 + 1.0)
    }

    /// All of it, as a verdict records it.
    pub fn evidence(&self) -> PairedEvidence {
        let pairs = self.pairs.max(1) as f64;
        PairedEvidence {
            pairs: self.pairs,
            champion_mean: self.champion_sum / pairs,
            candidate_mean: self.candidate_sum / pairs,
            difference: self.difference(),
            lower: self.lower(),
            upper: self.upper(),
            alpha: self.alpha,
        }
    }
}
