//! `autoglm judge`: how far the judge of pairs agrees with people.

use std::{path::PathBuf, sync::Arc};

use autoglm_domain::{Clock, SystemClock};
use clap::{Args, Subcommand};

use crate::{
    node::judging,
    printer::{Outcome, Printer, Table},
};

use super::settings_args::SettingsArgs;

/// Commands of `judge`.
#[derive(Debug, Subcommand)]
pub(super) enum JudgeCommand {
    /// Ask the judge about pairs that people have labelled
    Check(CheckArgs),
}

/// Arguments of `judge check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// JSON lines with `prompt`, `first`, `second` and `preferred` (`first`, `second` or `tie`)
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs a command of `judge`.
pub(super) async fn run(command: JudgeCommand, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let JudgeCommand::Check(args) = command;
    let settings = settings.load("warn", [])?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let standing = judging::check(&settings, &clock, &args.file).await?;
    if args.json {
        return printer.json(&standing);
    }
    let mut table = Table::new(&["MEASURED", ">VALUE"]);
    for (name, value) in [
        ("labelled pairs", standing.pairs.to_string()),
        ("equal verdicts", format!("{:.1}%", standing.share * 100.0)),
        ("Cohen's kappa", format!("{:.2}", standing.kappa)),
        ("  95% interval", format!("{:.2} to {:.2}", standing.lower, standing.upper)),
        ("  needed, at its lower end", format!("{:.2}", settings.evaluate.judge.min_kappa)),
        ("its verdicts count", if standing.trusted { "yes" } else { "no" }.to_owned()),
    ] {
        table.row([name.to_owned(), value]);
    }
    printer.table(&table)
}
