//! What can go wrong with plans, snapshots and runs.

use autoglm_domain::{ErrorKind, ExperienceId, TrainingRunId};

/// Why a run could not be planned, started or finished.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// An experience that the gate needs was about to be trained on.
    #[error("{0} is held out for the gate and must not be trained on")]
    HeldOut(ExperienceId),
    /// There is nothing to learn from.
    #[error("there is nothing to train on: of {given} experiences none has a positive weight")]
    Nothing {
        /// How many there were.
        given: usize,
    },
    /// A setting of the plan is out of its range.
    #[error("the setting `{name}` is {value}, which is not {allowed}")]
    Setting {
        /// Its name.
        name: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// No strategy of this name.
    #[error("no strategy `{0}`")]
    Strategy(String),
    /// A schedule that cannot be read.
    #[error("`{0}` is not a schedule")]
    Schedule(String),
    /// A snapshot's bytes are not those of a snapshot.
    #[error("line {line} of the snapshot: {what}")]
    Snapshot {
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// One run at a time.
    #[error("the run {0} is in progress")]
    Busy(TrainingRunId),
    /// The run was cancelled.
    #[error("the run {run} was cancelled: {reason}")]
    Cancelled {
        /// Which.
        run: TrainingRunId,
        /// Why.
        reason: String,
    },
    /// The run was stopped by the end of the process; the next one goes on with it.
    #[error("the run {0} is interrupted and goes on at the next start")]
    Suspended(TrainingRunId),
    /// The trainer failed.
    #[error("the run {run} failed: {source}")]
    Failed {
        /// Which.
        run: TrainingRunId,
        /// Why.
        source: autoglm_domain::Error,
    },
    /// The store or another port failed.
    #[error(transparent)]
    Port(#[from] autoglm_domain::Error),
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What sort of failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Nothing { .. } | Self::Setting { .. } | Self::Strategy(_) | Self::Schedule(_) => {
                ErrorKind::Invalid
            }
            Self::HeldOut(_) | Self::Snapshot { .. } => ErrorKind::Internal,
            Self::Busy(_) | Self::Cancelled { .. } | Self::Suspended(_) => ErrorKind::Conflict,
            Self::Failed { source, .. } | Self::Port(source) => source.kind,
        }
    }

    /// What the person can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Nothing { .. } => {
                "give feedback or corrections first; what nobody vouched for is not learned"
            }
            Self::Strategy(_) => "strategies are `replay`, `naive` and `joint`",
            Self::Schedule(_) => "write `off`, `daily 03:00` (UTC) or `every 3600` (seconds)",
            Self::Snapshot { .. } => "the artifact was written by another version of autoglm, or is none",
            Self::Busy(_) => "wait for its end or cancel it",
            Self::Failed { source, .. } | Self::Port(source) => return source.hint.clone(),
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl From<Error> for autoglm_domain::Error {
    fn from(error: Error) -> Self {
        if let Error::Port(error) = error {
            return error;
        }
        Self { kind: error.kind(), message: error.to_string(), hint: error.hint(), later: None }
    }
}
