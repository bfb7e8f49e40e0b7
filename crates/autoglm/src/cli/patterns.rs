//! `autoglm patterns`

use clap::{Args, Subcommand};

use crate::printer::{Outcome, Printer, Table, time};

use super::{
    data::Data,
    settings_args::{DataArgs, SettingsArgs},
};

/// Commands of `patterns`.
#[derive(Debug, Subcommand)]
pub(super) enum PatternsCommand {
    /// List patterns of wrong answers, largest first
    List(ListArgs),
}

/// Arguments of `patterns list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Runs a command of `patterns`.
pub(super) async fn run(command: PatternsCommand, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let PatternsCommand::List(args) = command;
    let data = Data::read(&settings.load("warn", [args.data.named()])?).await?;
    let patterns = data.store.patterns().await?;
    if args.json {
        return printer.json(&patterns);
    }
    let mut table = Table::new(&["PATTERN", ">FAILURES", "FIRST", "LATEST", "NAME"]);
    for pattern in patterns {
        table.row([
            pattern.id.to_string(),
            pattern.count.to_string(),
            time(pattern.first_at),
            time(pattern.last_at),
            pattern.name,
        ]);
    }
    if table.is_empty() {
        printer.note("no patterns of wrong answers so far");
        return Ok(());
    }
    printer.table(&table)
}
