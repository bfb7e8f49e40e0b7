//! The gate between a candidate version and its users.
//!
//! In come a candidate, the champion, what the scan found, and held-out experiences in two [`Suites`]: of
//! what this run should have taught, and of every cluster that was learned before. Both versions answer
//! them, a [`Scorer`] judges the answers, and out goes a `Verdict`: promote, reject or inconclusive, with the
//! evidence and one sentence that says why. Only promote may move an alias. With `live` in the [`RolloutPolicy`]
//! that is the first of several stages: shadow, canary steps and a watch window follow, on real traffic, and a
//! [`StageAnalysis`] rules on what comes in there.
//!
//! In reading order: [`PairedSequence`] is the statistics, [`Judge`] the decision rule of the gate, [`Gate`] asks
//! the engine, [`RolloutRunner`] records how far a candidate is, so that nothing is lost when the process dies;
//! then [`RolloutPolicy`], [`StageAnalysis`] and the types of a rollout on traffic ([`OnTraffic`]), and tests of
//! several versions against one another ([`AbAnalysis`]). Nothing here knows how an adapter is loaded or where it is
//! stored, how traffic is split, or how two answers are compared; nothing here scans an adapter.

mod alarm;
mod gamblers;
mod mean;
mod quantile;
mod sequence;

mod cache;
mod changed;
mod config;
mod gate;
mod judge;
mod reason;
mod runner;
mod score;
mod stage;
mod suite;

mod analysis;
mod compare;
mod expression;
mod live;
mod metric;
mod observation;
mod policy;
mod recent;
mod sentence;
mod slices;
pub mod sticky;

mod ab;
mod trial;

mod error;

pub use ab::{AbAnalysis, AbReport, assigned};
pub use alarm::Alarm;
pub use analysis::{StageAnalysis, StageResult};
pub use cache::AnswerCache;
pub use config::GateConfig;
pub use error::RolloutError;
pub use gate::Gate;
pub use judge::{ClusterPlan, Judge, Part, Ruling};
pub use live::{BeforeWatch, Canary, OnLive, OnTraffic, Paused, Shadow, Watch};
pub use mean::MeanSequence;
pub use metric::{Better, MetricConfig, MetricRole};
pub use observation::{Arm, Observation, Said};
pub use policy::{
    CanaryPolicy, Confirmation, Next, OnInconclusive, RolloutPolicy, ShadowPolicy, WatchPolicy,
};
pub use quantile::QuantileSequence;
pub use runner::{Confirm, Finished, Recovered, RolloutRunner, promote_champion};
pub use score::{NormalisedMatch, Scorer};
pub use sequence::PairedSequence;
pub use slices::{SliceKind, SliceSummary, Slices};
pub use stage::{Decidable, Decided, OfflineGate, Scanned, Scanning, Stage, check_transition};
pub use suite::{Question, RetentionSuite, Suites};
pub use trial::{PairSet, TrialConfig, TrialReport, TrialRow, run_trial};
