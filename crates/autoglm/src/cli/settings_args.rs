//! Flags that change settings.

use std::path::PathBuf;

use autoglm_domain::Result;
use clap::Args;

use crate::settings::{Flags, Named, Settings};

use super::logging;

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Settings")]
pub(super) struct SettingsArgs {
    /// Read this file instead of autoglm.toml
    #[arg(long, global = true, value_name = "FILE", env = "AUTOGLM_CONFIG", hide_env_values = true)]
    pub(super) config: Option<PathBuf>,
    /// Set one setting, as in server.listen=0.0.0.0:80; may be repeated
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
}

impl SettingsArgs {
    /// With flags that have names of their own; those that were not given are left out.
    pub(super) fn flags(&self, named: impl IntoIterator<Item = Option<Named>>) -> Flags {
        Flags {
            config: self.config.clone(),
            set: self.set.clone(),
            named: named.into_iter().flatten().collect(),
        }
    }

    /// The settings, with logging started: at `level` where no setting says otherwise.
    pub(super) fn load(
        &self,
        level: &str,
        named: impl IntoIterator<Item = Option<Named>>,
    ) -> Result<Settings> {
        let settings = Settings::load(&self.flags(named))?;
        logging::start(&settings.log, level)?;
        Ok(settings)
    }
}

/// Where the data lies.
#[derive(Debug, Clone, Args)]
pub(super) struct DataArgs {
    /// Folder of the data, instead of the setting store.data_dir
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
}

impl DataArgs {
    /// As a setting.
    pub(super) fn named(&self) -> Option<Named> {
        let value = self.data_dir.as_ref()?.to_string_lossy().into_owned();
        Some(Named { flag: "--data-dir", key: "store.data_dir", value })
    }
}

/// `--model`, as a setting.
pub(super) fn model(value: Option<String>) -> Option<Named> {
    Some(Named { flag: "--model", key: "model.path", value: value? })
}

/// `--listen`, as a setting.
pub(super) fn listen(value: Option<String>) -> Option<Named> {
    Some(Named { flag: "--listen", key: "server.listen", value: value? })
}
