//! MLflow as a mirror: training runs, versions and aliases in a tracking server's own terms.
//!
//! In: events of the journal ([`Mlflow::push`]). Out: an MLflow run for each training run, with parameters, metrics and
//! tags; a version of one registered model for each version, with its adapter among the run's artifacts; aliases where
//! ours are. Everything is looked for by a tag before it is made, so that an event that is pushed again changes
//! nothing. The way back is [`Mlflow::moved_there`]: whether somebody in MLflow moved an alias. Nothing here moves one of
//! ours.
//!
//! The interface is MLflow's REST API 2.0 (<https://mlflow.org/docs/latest/rest-api.html>).

mod client;
mod config;
mod error;

mod aliases;
mod artifacts;
mod push;
mod runs;
mod versions;

pub use aliases::MovedThere;
pub use config::Config;
pub use error::{MlflowError, Result};
pub use push::Mlflow;
