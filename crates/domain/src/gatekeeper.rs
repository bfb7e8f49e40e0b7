//! Port: who else has a say in how far a candidate goes.

use serde::{Deserialize, Serialize};

use crate::{LiveStage, Rollout};

/// What a gatekeeper is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// May the candidate enter its next stage on live traffic?
    ConfirmRollout,
    /// May it become champion?
    ConfirmPromotion,
    /// Should it go, while users hear it?
    Rollback,
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ConfirmRollout => "confirm-rollout",
            Self::ConfirmPromotion => "confirm-promotion",
            Self::Rollback => "rollback",
        })
    }
}

/// A question about a candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct Inquiry {
    /// What is asked.
    pub question: Question,
    /// The candidate's way so far.
    pub rollout: Rollout,
    /// The stage that it would enter; the one that it is in for [`Question::Rollback`]; `None` where it would become
    /// champion without being watched.
    pub stage: Option<LiveStage>,
    /// Why autoglm would let it go on, in one sentence.
    pub reason: String,
}

/// What gatekeepers said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    /// All of them: yes. To [`Question::Rollback`]: let it stay.
    GoOn,
    /// One of them: no. To [`Question::Rollback`]: let it go.
    Refused {
        /// Which.
        by: String,
        /// Why, in its words.
        reason: String,
    },
    /// One of them does not say, or not now. That is never a yes.
    Later {
        /// Which, and what came instead.
        reason: String,
    },
}

/// Port: those who are asked before a candidate goes on.
#[async_trait::async_trait]
pub trait Gatekeeper: Send + Sync {
    /// Whether anybody is to be asked this at all.
    fn is_asked(&self, question: Question) -> bool;

    /// Asks once, and comes back with what was said within the gatekeepers' own limits of time.
    async fn ask(&self, inquiry: &Inquiry) -> Say;
}
