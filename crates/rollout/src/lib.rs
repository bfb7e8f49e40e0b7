//! The gate between a candidate version and its users.
//!
//! In come a candidate, the champion, what the scan found, and held-out experiences in two [`Suites`]: of
//! what this run should have taught, and of every cluster that was learned before. Both versions answer
//! them, a [`Scorer`] judges the answers, and out goes a `Verdict`: promote, reject or inconclusive, with the
//! evidence and one sentence that says why. Only promote may move an alias.
//!
//! In reading order: [`PairedSequence`] is the statistics, [`Judge`] the decision rule, [`Gate`] asks the
//! engine, [`RolloutRunner`] records how far a candidate is, so that nothing is lost when the process dies.
//! Nothing here knows how an adapter is loaded or where it is stored, and nothing here scans one.

mod cache;
mod config;
mod error;
mod gate;
mod judge;
mod live;
mod reason;
mod runner;
mod score;
mod sequence;
mod stage;
mod suite;

pub use cache::AnswerCache;
pub use config::GateConfig;
pub use error::RolloutError;
pub use gate::Gate;
pub use judge::{ClusterPlan, Judge, Part, Ruling};
pub use live::{Canary, OnLive, OnTraffic, Paused, Shadow, Watch};
pub use runner::{Finished, Recovered, RolloutRunner, promote_champion};
pub use score::{NormalisedMatch, Scorer};
pub use sequence::PairedSequence;
pub use stage::{Decidable, Decided, OfflineGate, Scanned, Scanning, Stage, check_transition};
pub use suite::{Question, RetentionSuite, Suites};
