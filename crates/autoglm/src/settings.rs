//! Everything that can be set, in one tree: `autoglm.toml` < environment < flags.
//!
//! In: a file, environment variables (`AUTOGLM_SERVER__LISTEN`), flags (`--set server.listen=…`). Out: a
//! [`Settings`], whose sections are the configurations of the crates that own them. A key that does not exist is
//! refused with the nearest one that does, and with where it was given.

mod database_url;
mod error;
#[cfg(test)]
mod reference;
mod schema;
mod show;
mod sources;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use autoglm_domain::{Error, Result};
use autoglm_engine::{ComputeDevice, WeightFormat};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub(crate) use database_url::DatabaseUrl;
pub(crate) use schema::plain_numbers;
pub(crate) use sources::{Flags, Named};

/// Name of the database in the data directory.
const DATABASE: &str = "autoglm.db";

/// The model that is served.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ModelSettings {
    /// A model folder, a GGUF file, or a hub id such as `owner/model`; empty is the starter model that comes with autoglm.
    pub(crate) path: String,
}

/// The engine: serving, and training beside it.
///
/// Its keys are checked against the schema, so serde need not refuse unknown ones (it cannot with `flatten`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct EngineSettings {
    /// Limits of serving.
    #[serde(flatten)]
    pub(crate) serving: autoglm_engine::ServingConfig,
    /// Threads that train; 0 is one for each processor.
    pub(crate) training_threads: usize,
    /// Longest that training stands aside for requests before it goes on with a layer, milliseconds; 0 never
    /// waits.
    pub(crate) longest_wait_ms: u64,
    /// What requests are computed on: `cpu`, `cuda` or `cuda:1` and so on, in a build with the feature `cuda`. On a
    /// device the weights are floats: 32-bit where `weights` keeps them so, else bfloat16. Training and embeddings
    /// stay on the processor.
    pub(crate) device: ComputeDevice,
    /// How the base's weights are kept in memory: `as_stored`, `f32`, `bf16` (half the memory, about twice the
    /// speed), `q8_0` or `q4_k` (a quarter and less). As stored, blocks of a GGUF file stay blocks and floats of any width
    /// become 32-bit.
    pub(crate) weights: KeptWeights,
}

/// How the base's weights are kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeptWeights {
    /// As the file has them.
    #[default]
    #[value(skip)]
    AsStored,
    /// 32-bit floats
    F32,
    /// bfloat16
    Bf16,
    /// ggml's q8_0
    #[value(name = "q8_0")]
    Q8_0,
    /// ggml's q4_K
    #[serde(rename = "q4_k")]
    #[value(name = "q4_k")]
    Q4K,
}

impl KeptWeights {
    /// The format, where one is set.
    pub(crate) fn format(self) -> Option<WeightFormat> {
        match self {
            Self::AsStored => None,
            Self::F32 => Some(WeightFormat::F32),
            Self::Bf16 => Some(WeightFormat::Bf16),
            Self::Q8_0 => Some(WeightFormat::Q8_0),
            Self::Q4K => Some(WeightFormat::Q4K),
        }
    }
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            serving: autoglm_engine::ServingConfig::default(),
            training_threads: 0,
            longest_wait_ms: autoglm_engine::Courtesy::default().longest_wait_ms,
            device: ComputeDevice::default(),
            weights: KeptWeights::default(),
        }
    }
}

impl EngineSettings {
    /// How many threads train.
    pub(crate) fn threads(&self) -> usize {
        match self.training_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}

/// Where the data lies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StoreSettings {
    /// Folder of the database, of adapters and of data-set snapshots; made where it is missing.
    pub(crate) data_dir: PathBuf,
    /// A Postgres database in place of the file, `postgres://USER@HOST:5432/DATABASE`, which several servers may
    /// share; adapters and snapshots stay in files, in a folder that all of them see (`registry.artifacts`). The
    /// password may come from `PGPASSWORD` or `~/.pgpass`; in the address it is never shown.
    pub(crate) url: DatabaseUrl,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { data_dir: "autoglm-data".into(), url: DatabaseUrl::default() }
    }
}

/// What is logged to stderr.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogSettings {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `warn,autoglm_train=debug`; empty is `info`
    /// for `serve` and `warn` for every other command. The variable `RUST_LOG` goes before it.
    pub(crate) level: String,
}

/// All settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// The model that is served.
    pub(crate) model: ModelSettings,
    /// Another server that answers in place of the engine.
    pub(crate) upstream: autoglm_upstream::Config,
    /// The HTTP server.
    pub(crate) server: autoglm_gateway::Config,
    /// Serving and training.
    pub(crate) engine: EngineSettings,
    /// Where the data lies.
    pub(crate) store: StoreSettings,
    /// Kafka: the journal's mirror in it, and interactions from it.
    pub(crate) kafka: autoglm_kafka::Config,
    /// The journal's mirror in Parquet files.
    pub(crate) lake: autoglm_lake::Config,
    /// The database.
    pub(crate) journal: autoglm_journal::Config,
    /// Model versions and adapters.
    pub(crate) registry: autoglm_registry::Config,
    /// The experience pool.
    pub(crate) memory: autoglm_memory::Config,
    /// How answers are judged.
    pub(crate) evaluate: autoglm_evaluate::Config,
    /// When to train and on what.
    pub(crate) train: autoglm_train::Config,
    /// What a new version has to go through.
    pub(crate) rollout: autoglm_rollout::RolloutPolicy,
    /// MLflow.
    pub(crate) mlflow: autoglm_mlflow::Config,
    /// Webhooks.
    pub(crate) webhook: autoglm_webhook::Config,
    /// What is logged.
    pub(crate) log: LogSettings,
}

impl Settings {
    /// The settings that hold for this process.
    pub(crate) fn load(flags: &Flags) -> Result<Self> {
        sources::read(flags, std::env::vars_os()).map(|read| read.settings)
    }

    /// What holds, as TOML, with where each value that is no default came from.
    pub(crate) fn show(flags: &Flags) -> Result<String> {
        Ok(show::toml(&sources::read(flags, std::env::vars_os())?))
    }

    /// What holds, as JSON, without the API keys.
    pub(crate) fn show_json(flags: &Flags) -> Result<serde_json::Value> {
        let read = sources::read(flags, std::env::vars_os())?;
        Ok(show::without_secrets(read.tree))
    }

    /// The database file.
    pub(crate) fn database(&self) -> PathBuf {
        self.store.data_dir.join(DATABASE)
    }

    /// The address of the server that these settings describe, for clients on this machine.
    pub(crate) fn server_url(&self) -> String {
        let listen = self.server.listen.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:");
        format!("http://{listen}")
    }

    /// Refuses mirrors that this build does not have, and settings of them that cannot be.
    fn check_mirrors(&self) -> Result<()> {
        self.kafka.validate()?;
        self.lake.validate()?;
        let lacking = |setting: &str, feature: &str| {
            Err(Error::invalid(format!("`{setting}` is set, and this build has no feature `{feature}`"))
                .with_hint(format!("build it with `cargo build --release --features {feature}`")))
        };
        if !self.kafka.brokers.is_empty() && !cfg!(feature = "kafka") {
            return lacking("kafka.brokers", "kafka");
        }
        if self.lake.is_on() && !cfg!(feature = "lake") {
            return lacking("lake.url", "lake");
        }
        Ok(())
    }

    /// Refuses what no crate could work with, where that can be told without opening anything.
    fn check(&self) -> Result<()> {
        let within = |section: &str, error: autoglm_domain::Error| {
            let message = format!("section [{section}]: {}", error.message);
            Err(autoglm_domain::Error { message, ..error })
        };
        self.store.url.check()?;
        self.upstream.validate()?;
        self.check_mirrors()?;
        self.memory.validate().or_else(|error| within("memory", error.into()))?;
        self.evaluate.validate().or_else(|error| within("evaluate", error.into()))?;
        self.rollout.check().or_else(|error| within("rollout", error.into()))?;
        self.mlflow.validate()?;
        self.webhook.validate()?;
        autoglm_train::Triggers::new(self.train.triggers.clone())
            .map(drop)
            .or_else(|error| within("train", error.into()))
    }
}
