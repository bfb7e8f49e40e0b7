//! `autoglm config`

use clap::Args;

use crate::{
    printer::{Outcome, Printer},
    settings::Settings,
};

use super::settings_args::{DataArgs, SettingsArgs};

/// The page that `settings::reference` generates and checks.
const REFERENCE: &str = include_str!("../../../../docs/configuration.md");

/// Arguments of `config`.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// Print every setting with its default and meaning
    #[arg(long, conflicts_with = "json")]
    reference: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Prints the settings that hold.
pub(super) fn run(args: &ConfigArgs, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    if args.reference {
        return printer.data(REFERENCE);
    }
    let flags = settings.flags([args.data.named()]);
    if args.json {
        return printer.json(&Settings::show_json(&flags)?);
    }
    printer.data(&Settings::show(&flags)?)
}
