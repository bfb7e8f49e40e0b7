//! What can go wrong at the gate. A bad candidate is no error: that is a verdict.

use autoglm_domain::{AbTestId, Error, ErrorKind, RolloutId, VersionNumber};

/// Why there is no verdict, or a rollout could not be recorded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RolloutError {
    /// A setting that makes no sense.
    #[error("gate setting `{name}` is {value}, {limit}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What it was set to.
        value: String,
        /// What it has to be.
        limit: &'static str,
    },
    /// A setting of the policy that makes no sense.
    #[error("rollout setting `{name}` is {value}, {limit}")]
    Policy {
        /// The setting.
        name: &'static str,
        /// What it was set to.
        value: String,
        /// What it has to be.
        limit: &'static str,
    },
    /// A metric of the policy that makes no sense.
    #[error("rollout metric `{metric}` {reason}")]
    Metric {
        /// The metric.
        metric: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No candidate could ever get through.
    #[error("the rollout policy can never finish: {reason}")]
    NeverEnds {
        /// Why.
        reason: String,
    },
    /// Candidate and champion are the same version.
    #[error("{0} cannot be compared with itself")]
    SameVersion(VersionNumber),
    /// The engine cannot answer, whatever version is asked.
    #[error("the gate stopped after {pairs} pairs: {cause}")]
    EngineUnavailable {
        /// Pairs that were compared before.
        pairs: u64,
        /// What the engine said.
        cause: Error,
    },
    /// A version that should be compared is not resident; a fault of the caller, not of the version.
    #[error("{version} cannot answer: {cause}")]
    NotResident {
        /// The version.
        version: VersionNumber,
        /// What the engine said.
        cause: Error,
    },
    /// Another candidate is on its way.
    #[error("rollout {rollout} of {candidate} is not finished")]
    Busy {
        /// The unfinished rollout.
        rollout: RolloutId,
        /// Its candidate.
        candidate: VersionNumber,
    },
    /// Versions are being compared, which a candidate's traffic would disturb.
    #[error("the test of versions {0} is not over")]
    Testing(AbTestId),
    /// A change of state that is not on the way of a candidate.
    #[error("a rollout cannot go from {from} to {to}")]
    IllegalTransition {
        /// The recorded state.
        from: &'static str,
        /// The state that was asked for.
        to: &'static str,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] Error),
}

impl RolloutError {
    /// What sort of failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Setting { .. }
            | Self::Policy { .. }
            | Self::Metric { .. }
            | Self::NeverEnds { .. }
            | Self::SameVersion(_) => ErrorKind::Invalid,
            Self::EngineUnavailable { .. } => ErrorKind::Unavailable,
            Self::NotResident { .. } => ErrorKind::NotFound,
            Self::Busy { .. } | Self::Testing(_) | Self::IllegalTransition { .. } => ErrorKind::Conflict,
            Self::Store(error) => error.kind,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::EngineUnavailable { cause, .. } => Some(
                cause.hint.clone().unwrap_or_else(|| "run the gate again when the engine answers".into()),
            ),
            Self::NotResident { version, .. } => Some(format!("load {version} before its gate")),
            Self::Busy { .. } => Some("wait for its verdict; after a crash, recover() aborts it".into()),
            Self::Testing(_) => Some("wait for its end, or stop it".into()),
            Self::Store(error) => error.hint.clone(),
            Self::Setting { .. }
            | Self::Policy { .. }
            | Self::Metric { .. }
            | Self::NeverEnds { .. }
            | Self::SameVersion(_)
            | Self::IllegalTransition { .. } => None,
        }
    }
}

impl From<RolloutError> for Error {
    fn from(error: RolloutError) -> Self {
        Self { kind: error.kind(), message: error.to_string(), hint: error.hint(), later: None }
    }
}
