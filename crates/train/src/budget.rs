//! How long a run may take, turned into hyper-parameters.

use autoglm_domain::{HyperParameters, RunState, TrainingRun};
use serde::{Deserialize, Serialize};

use crate::Plan;

/// Tokens that a chat template adds to an example, roughly.
const TEMPLATE_TOKENS: f64 = 12.0;

/// Share of the budget that is planned for; the rest is for the estimate's error.
const PLANNED_SHARE: f64 = 0.9;

/// How long a run may take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Seconds of training; 0 is without limit.
    pub seconds: f32,
    /// Fewest steps: a small data set is passed over more often.
    pub min_steps: u32,
    /// Most passes over the data, whatever `min_steps` says: more would only learn it by heart.
    pub max_passes: f32,
    /// Characters in a token, to estimate a data set's size before it is tokenised.
    pub chars_per_token: f32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { seconds: 600.0, min_steps: 30, max_passes: 20.0, chars_per_token: 3.5 }
    }
}

/// Fills in `passes` and `max_seconds`, starting from the passes that `hyper` wishes for. With the speed of
/// an earlier run ([`Budget::speed`]) the passes are cut so that the learning rate's schedule ends within
/// the budget instead of being broken off. Fixed `steps` stay as they are.
pub fn fill(
    hyper: &HyperParameters,
    budget: &Budget,
    plan: &Plan,
    tokens_per_s: Option<f64>,
) -> HyperParameters {
    let mut filled = HyperParameters { max_seconds: budget.seconds.max(0.0), ..hyper.clone() };
    if hyper.steps > 0 {
        return filled;
    }
    let tokens = budget.tokens(plan).max(1.0);
    let step_tokens = f64::from(hyper.batch_tokens.max(1)) * f64::from(hyper.accumulation.max(1));
    let wished = f64::from(hyper.passes).max(0.0);
    let enough = f64::from(budget.min_steps) * step_tokens / tokens;
    let mut passes = wished.max(enough.min(f64::from(budget.max_passes)));
    if let Some(speed) = tokens_per_s.filter(|speed| budget.seconds > 0.0 && *speed > 0.0) {
        let affordable = f64::from(budget.seconds) * PLANNED_SHARE * speed / tokens;
        // At least one step, whatever the estimate says.
        passes = passes.min(affordable).max(step_tokens.min(tokens) / tokens);
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "passes are small, and their precision does not matter"
    )]
    let passes = passes as f32;
    filled.passes = passes;
    filled
}

impl Budget {
    /// Tokens per second of the latest run that succeeded, where it says so.
    pub fn speed(runs: &[TrainingRun]) -> Option<f64> {
        let done = runs.iter().filter(|run| matches!(run.state, RunState::Succeeded { .. }));
        let speeds = done.filter_map(|run| Some((run.at, *run.metrics.get("tokens_per_s")?)));
        speeds
            .max_by_key(|(at, _)| *at)
            .map(|(_, speed)| speed)
            .filter(|speed| speed.is_finite() && *speed > 0.0)
    }

    /// An estimate of the tokens in one pass.
    fn tokens(&self, plan: &Plan) -> f64 {
        let chars: usize = plan
            .examples
            .iter()
            .map(|it| {
                it.target.chars().count() + it.prompt.iter().map(|m| m.content.chars().count()).sum::<usize>()
            })
            .sum();
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let (chars, examples) = (chars as f64, plan.examples.len() as f64);
        chars / f64::from(self.chars_per_token.max(0.1)) + examples * TEMPLATE_TOKENS
    }
}
