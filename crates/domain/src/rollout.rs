//! A candidate on its way to the users.

use serde::{Deserialize, Serialize};

use crate::{ClusterId, RolloutId, Timestamp, VersionNumber};

/// How far a candidate is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum RolloutState {
    /// File form, shapes, norms, numbers.
    Scanning,
    /// Held-out experiences, candidate against champion.
    OfflineGate,
    /// A verdict was given.
    Decided {
        /// What it was.
        verdict: Verdict,
    },
    /// Stopped before a verdict.
    Aborted {
        /// Why.
        reason: String,
    },
}

/// The way of one candidate; recorded again at every change of state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its id.
    pub id: RolloutId,
    /// When it began.
    pub at: Timestamp,
    /// The new version.
    pub candidate: VersionNumber,
    /// The version that answered users when it began.
    pub champion: VersionNumber,
    /// How far it is.
    #[serde(flatten)]
    pub state: RolloutState,
}

impl Rollout {
    /// Whether it still awaits its verdict.
    pub fn is_unfinished(&self) -> bool {
        match self.state {
            RolloutState::Scanning | RolloutState::OfflineGate => true,
            RolloutState::Decided { .. } | RolloutState::Aborted { .. } => false,
        }
    }
}

/// What a verdict can be. Only `Promote` moves an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Better on what is new, not worse on what was learned.
    Promote,
    /// Shown to be worse, or broken.
    Reject,
    /// The evidence does not suffice either way.
    Inconclusive,
}

/// A paired comparison: mean of (candidate - champion) with its confidence sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairedEvidence {
    /// Pairs looked at.
    pub pairs: u64,
    /// Champion's mean score, 0 to 1.
    pub champion_mean: f64,
    /// Candidate's mean score, 0 to 1.
    pub candidate_mean: f64,
    /// Mean difference, -1 to 1.
    pub difference: f64,
    /// Lower end of the confidence sequence for the mean difference.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// Error probability that the sequence holds at.
    pub alpha: f64,
}

/// Retention of one cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterEvidence {
    /// The cluster.
    pub cluster: ClusterId,
    /// A name for people: the task where known.
    pub name: String,
    /// How far it may fall, 0 to 1.
    pub tolerance: f64,
    /// The comparison.
    pub paired: PairedEvidence,
    /// Whether it fell by more than its tolerance.
    pub fell: bool,
}

/// All that a verdict rests on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Held-out experiences of what is new.
    pub new_skill: Option<PairedEvidence>,
    /// Held-out experiences of everything learned before, pooled.
    pub retention: Option<PairedEvidence>,
    /// The same by cluster.
    pub clusters: Vec<ClusterEvidence>,
    /// What the scan found; empty when it passed.
    pub scan: Vec<String>,
}

/// The end of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Promote, reject or inconclusive.
    pub outcome: Outcome,
    /// One sentence with the deciding numbers.
    pub reason: String,
    /// When it was given.
    pub at: Timestamp,
    /// What it rests on.
    pub evidence: Evidence,
}
