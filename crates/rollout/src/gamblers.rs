//! The gamblers behind a confidence sequence: see [`crate::PairedSequence`] for the method and its sources.

/// Largest share of its capital that a gambler with a horizon puts at stake on one observation.
pub(crate) const MOST_AT_STAKE_AIMED: f64 = 0.9;

/// The same without a horizon, or beyond it.
pub(crate) const MOST_AT_STAKE: f64 = 0.5;

/// Bets are never based on less variance than this, so that they stay finite when all observations agree.
pub(crate) const LEAST_VARIANCE: f64 = 1e-6;

/// How the next bet is sized.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BetPlan {
    /// Estimated variance of `x` from the observations so far.
    pub(crate) variance: f64,
    /// Observations over which the capital is to be made.
    pub(crate) pairs: f64,
    /// Whether capital already made (or lost) counts: true with a horizon.
    pub(crate) recalculate: bool,
    /// Largest share of the capital that the observation can take.
    pub(crate) at_stake: f64,
}

/// Gamblers who bet that the mean of a variable in [0, 1] is larger than `m`, one for each grid point.
#[derive(Debug, Clone)]
pub(crate) struct Gamblers {
    /// Possible means, ascending from 0 to 1 and symmetric about 1/2, so that betting on a smaller mean of `x` is
    /// betting on a larger one of `1 - x`.
    means: &'static [f64],
    /// `ln K⁺_t(m)`; once at the target it stays there.
    log_capital: Vec<f64>,
    /// Grid points below this index are ruled out. Starts at 1: a mean of at least 0 needs no proof.
    open_from: usize,
    /// Capital (its logarithm) that rules a mean out.
    target: f64,
}

impl Gamblers {
    pub(crate) fn new(means: &'static [f64], target: f64) -> Self {
        Self { means, log_capital: vec![0.0; means.len()], open_from: 1, target }
    }

    /// Index of the last mean that is ruled out from below.
    pub(crate) fn ruled_out(&self) -> usize {
        self.open_from - 1
    }

    /// Index, counted from the other end, up to which means are open for the gamblers on the other side.
    pub(crate) fn last_open(&self) -> usize {
        self.means.len() - self.open_from
    }

    /// Plays one round with `x` for the open grid points up to `last`, and rules out what can be.
    pub(crate) fn push(&mut self, x: f64, plan: BetPlan, last: usize) {
        let open = self.open_from.min(last + 1)..last + 1;
        let scale = 2.0 / (plan.variance * plan.pairs);
        let fixed = (scale * self.target).sqrt();
        let points = self.means.get(open.clone()).unwrap_or_default();
        let capitals = self.log_capital.get_mut(open).unwrap_or_default();
        for (log_capital, mean) in capitals.iter_mut().zip(points) {
            if *log_capital >= self.target {
                continue;
            }
            let wanted = if plan.recalculate { (scale * (self.target - *log_capital)).sqrt() } else { fixed };
            *log_capital += (wanted.min(plan.at_stake / mean) * (x - mean)).ln_1p();
        }
        while self.open_from <= last
            && self.log_capital.get(self.open_from).is_some_and(|capital| *capital >= self.target)
        {
            self.open_from += 1;
        }
    }
}
