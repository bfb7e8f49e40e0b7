//! The log, on stderr.

use std::io::IsTerminal as _;

use autoglm_domain::{Error, Result};
use tracing_subscriber::EnvFilter;

use crate::settings::LogSettings;

/// Starts logging: `RUST_LOG`, else the setting, else `level`. Starting twice keeps the first.
pub(super) fn start(settings: &LogSettings, level: &str) -> Result<()> {
    let variable = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let (text, from) = match variable {
        Some(text) => (text, "RUST_LOG"),
        None if !settings.level.is_empty() => (settings.level.clone(), "setting `log.level`"),
        None => (level.to_owned(), "level"),
    };
    let filter = EnvFilter::try_new(&text).map_err(|error| {
        Error::invalid(format!("{from} is `{text}`, not a log level: {error}"))
            .with_hint("write `info`, `debug`, or a filter such as `warn,autoglm_train=debug`")
    })?;
    let colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    if subscriber.try_init().is_err() {
        tracing::debug!("logging was started before");
    }
    Ok(())
}
