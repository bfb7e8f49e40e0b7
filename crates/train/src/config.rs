//! Settings of training.

use autoglm_domain::HyperParameters;
use serde::{Deserialize, Serialize};

use crate::{Budget, PlanConfig, TriggerConfig};

/// When to train, on what, how long, and with which hyper-parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// When a run starts.
    pub triggers: TriggerConfig,
    /// What it trains on.
    pub plan: PlanConfig,
    /// How long it may take.
    pub budget: Budget,
    /// Seconds between checkpoints of a run, with which the next start goes on where the process ends under it; 0 keeps
    /// none, and such a run is cancelled.
    pub checkpoint_s: f32,
    /// How it trains; `steps` 0, `passes` and `max_seconds` are filled from the budget.
    pub hyper: HyperParameters,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            triggers: TriggerConfig::default(),
            plan: PlanConfig::default(),
            budget: Budget::default(),
            checkpoint_s: 30.0,
            hyper: HyperParameters::default(),
        }
    }
}
