//! Settings of training.

use autoglm_domain::HyperParameters;
use serde::{Deserialize, Serialize};

use crate::{Budget, PlanConfig, TriggerConfig};

/// When to train, on what, how long, and with which hyper-parameters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// When a run starts.
    pub triggers: TriggerConfig,
    /// What it trains on.
    pub plan: PlanConfig,
    /// How long it may take.
    pub budget: Budget,
    /// How it trains; `steps` 0, `passes` and `max_seconds` are filled from the budget.
    pub hyper: HyperParameters,
}
