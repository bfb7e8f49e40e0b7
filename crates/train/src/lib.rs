//! When to train and on what.
//!
//! In come observations of scores, experiences and error patterns; out comes the reason to train now
//! ([`Triggers::due`]). In come experiences; out comes what to train on ([`plan()`]), frozen under its content
//! hash ([`Snapshot`]), and the record of a run from `planned` to its end ([`Runner`]). How an adapter is
//! trained is the engine's, behind the `Trainer` port; what becomes of the result is the registry's and the
//! gate's.

mod budget;
mod config;
mod error;
mod observe;
mod plan;
mod preference;
mod replay;
mod runner;
mod schedule;
mod snapshot;
mod supervise;
mod trigger;

pub use budget::{Budget, fill};
pub use config::Config;
pub use error::{Error, Result};
pub use observe::{Observation, Observer, PatternGrowth, Seen};
pub use plan::{Learned, Plan, PlanConfig, PlannedExample, Role, Strategy, divide, learned_by, plan};
pub use preference::prefer_corrections;
pub use runner::{Recovered, RunHandle, RunRequest, Runner};
pub use schedule::Schedule;
pub use snapshot::{Snapshot, SnapshotHeader};
pub use supervise::{FOUND_UNFINISHED, Finished};
pub use trigger::{TriggerConfig, Triggers};
