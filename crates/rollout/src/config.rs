//! Settings of the gate.

use serde::{Deserialize, Serialize};

use crate::RolloutError;

/// Settings of the gate. The defaults promote a version that learned its new material and moved a few
/// points on the old; `docs/experiments/0003-gate-power.md` has the power they give.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GateConfig {
    /// Probability of promoting a candidate that does not deserve it, 0 to 1 (exclusive). Promotion needs
    /// *every* test to pass, so each runs at the whole `alpha` (Berger's intersection-union test).
    pub alpha: f64,
    /// The candidate must be shown to gain more than this on what is new, as a share of 1.
    pub min_gain: f64,
    /// The candidate must be shown not to fall by this much, pooled over what was learned before, once there
    /// are enough pairs to show it.
    pub margin: f64,
    /// With few pairs such a margin cannot be shown by any test. With `n` planned pairs the margin is
    /// `margin_scale / sqrt(n)` where that is larger.
    pub margin_scale: f64,
    /// The margin never exceeds this, however few pairs there are.
    pub max_margin: f64,
    /// How far a single cluster may fall, where its suite says nothing else.
    pub tolerance: f64,
    /// From this many pairs on a cluster fell when its mean difference is below `-tolerance`; with fewer it
    /// must also be shown that it fell at all.
    pub min_cluster_pairs: u64,
    /// With fewer held-out experiences of what is new, the gain is to be shown over these and what was learned
    /// before together.
    pub min_new_skill_pairs: u64,
    /// Most held-out experiences of what is new that are asked.
    pub max_new_skill_pairs: u64,
    /// Most held-out experiences of one cluster that are asked.
    pub max_cluster_pairs: u64,
    /// Pairs in flight at once.
    pub concurrency: usize,
    /// An answer that takes longer counts as wrong, milliseconds.
    pub request_timeout_ms: u64,
    /// An answer may have this many tokens more than its target, or …
    pub slack_tokens: u32,
    /// … this share of the target's tokens more, whichever is more.
    pub slack_share: f64,
    /// How often a request is repeated that the engine had no room for.
    pub retries: u32,
    /// Pause before the first repetition, milliseconds; doubles with each.
    pub retry_pause_ms: u64,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            alpha: 0.05,
            min_gain: 0.0,
            margin: 0.06,
            margin_scale: 1.5,
            max_margin: 0.4,
            tolerance: 0.1,
            min_cluster_pairs: 100,
            min_new_skill_pairs: 20,
            max_new_skill_pairs: 400,
            max_cluster_pairs: 200,
            concurrency: 16,
            request_timeout_ms: 30_000,
            slack_tokens: 8,
            slack_share: 0.5,
            retries: 6,
            retry_pause_ms: 50,
        }
    }
}

impl GateConfig {
    /// `Invalid` naming the first setting that makes no sense.
    pub fn check(&self) -> Result<(), RolloutError> {
        let within = |name, value: f64, most: f64, limit| {
            if value.is_finite() && (0.0..=most).contains(&value) {
                Ok(())
            } else {
                Err(RolloutError::Setting { name, value: value.to_string(), limit })
            }
        };
        let positive = |name, value: u64| {
            if value > 0 {
                Ok(())
            } else {
                Err(RolloutError::Setting { name, value: value.to_string(), limit: "it must be at least 1" })
            }
        };
        if !(self.alpha > 0.0 && self.alpha < 0.5) {
            let value = self.alpha.to_string();
            return Err(RolloutError::Setting {
                name: "alpha",
                value,
                limit: "it must be above 0 and below 0.5",
            });
        }
        within("min_gain", self.min_gain, 1.0, "it must be within 0 and 1")?;
        within("margin", self.margin, 1.0, "it must be within 0 and 1")?;
        within("max_margin", self.max_margin, 1.0, "it must be within 0 and 1")?;
        if self.max_margin < self.margin {
            let value = self.max_margin.to_string();
            return Err(RolloutError::Setting {
                name: "max_margin",
                value,
                limit: "it must be at least `margin`",
            });
        }
        within("margin_scale", self.margin_scale, 1e3, "it must be within 0 and 1000")?;
        within("tolerance", self.tolerance, 1.0, "it must be within 0 and 1")?;
        within("slack_share", self.slack_share, 1e3, "it must be within 0 and 1000")?;
        positive("concurrency", self.concurrency as u64)?;
        positive("request_timeout_ms", self.request_timeout_ms)?;
        positive("max_new_skill_pairs", self.max_new_skill_pairs)?;
        positive("max_cluster_pairs", self.max_cluster_pairs)
    }

    /// The non-inferiority margin for `pairs` planned pairs.
    pub fn margin_for(&self, pairs: u64) -> f64 {
        let provable = self.margin_scale / (pairs.max(1) as f64).sqrt();
        provable.max(self.margin).min(self.max_margin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_margin_narrows_with_pairs_down_to_the_configured_one() {
        let config = GateConfig::default();
        assert_eq!(config.margin_for(10), 0.4);
        assert!((config.margin_for(400) - 0.075).abs() < 1e-12);
        assert_eq!(config.margin_for(1_000_000), 0.06);
    }

    #[test]
    fn senseless_settings_are_named() {
        assert_eq!(GateConfig::default().check(), Ok(()));
        let message = |config: GateConfig| config.check().unwrap_err().to_string();
        assert_eq!(
            message(GateConfig { alpha: 0.0, ..Default::default() }),
            "gate setting `alpha` is 0, it must be above 0 and below 0.5"
        );
        assert_eq!(
            message(GateConfig { tolerance: f64::NAN, ..Default::default() }),
            "gate setting `tolerance` is NaN, it must be within 0 and 1"
        );
        assert_eq!(
            message(GateConfig { concurrency: 0, ..Default::default() }),
            "gate setting `concurrency` is 0, it must be at least 1"
        );
    }
}
