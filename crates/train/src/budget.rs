//! How long a run may take, turned into hyper-parameters.

use autoglm_domain::HyperParameters;
use serde::{Deserialize, Serialize};

use crate::Plan;

/// Tokens that a chat template adds to an example, roughly.
const TEMPLATE_TOKENS: f64 = 12.0;

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

/// Fills in `passes` and `max_seconds`, starting from the passes that `hyper` wishes for. The trainer bends the
/// learning rate's schedule so that it ends with the time, where that is shorter than the passes. Fixed `steps`
/// stay as they are.
pub fn fill(hyper: &HyperParameters, budget: &Budget, plan: &Plan) -> HyperParameters {
    let mut filled = HyperParameters { max_seconds: budget.seconds.max(0.0), ..hyper.clone() };
    if hyper.steps > 0 {
        return filled;
    }
    let tokens = budget.tokens(plan).max(1.0);
    let step_tokens = f64::from(hyper.batch_tokens.max(1)) * f64::from(hyper.accumulation.max(1));
    let wished = f64::from(hyper.passes).max(0.0);
    let enough = f64::from(budget.min_steps) * step_tokens / tokens;
    #[allow(
        clippy::cast_possible_truncation,
        reason = "passes are small, and their precision does not matter"
    )]
    let passes = wished.max(enough.min(f64::from(budget.max_passes))) as f32;
    filled.passes = passes;
    filled
}

impl Budget {
    /// An estimate of the tokens in one pass.
    fn tokens(&self, plan: &Plan) -> f64 {
        let (mut chars, mut examples) = (0.0, 0.0);
        for it in &plan.examples {
            let prompt: usize = it.prompt.iter().map(|message| message.content.chars().count()).sum();
            #[allow(clippy::cast_precision_loss, reason = "an estimate")]
            let length = (prompt + it.target.chars().count()) as f64;
            chars += length * f64::from(it.frequency);
            examples += f64::from(it.frequency);
        }
        chars / f64::from(self.chars_per_token.max(0.1)) + examples * TEMPLATE_TOKENS
    }
}
