//! `autoglm lake`

use clap::{Args, Subcommand};

use crate::printer::{Outcome, Printer};

use super::settings_args::SettingsArgs;

/// Commands of `lake`.
#[derive(Debug, Subcommand)]
pub(super) enum LakeCommand {
    /// Compare two versions by what users got and said
    #[command(after_help = "Needs a build with the feature lake")]
    Ab(AbArgs),
}

/// Arguments of `lake ab`.
#[derive(Debug, Args)]
pub(super) struct AbArgs {
    /// The version to compare with, such as v12 or 12
    #[arg(long, value_name = "VERSION")]
    a: String,
    /// The version that is compared
    #[arg(long, value_name = "VERSION")]
    b: String,
    /// Most probability that an interval is wrong
    #[arg(long, default_value_t = 0.05)]
    alpha: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs a command of `lake`.
pub(super) async fn run(command: LakeCommand, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let LakeCommand::Ab(args) = command;
    ab(args, settings, printer).await
}

#[cfg(not(feature = "lake"))]
async fn ab(_: AbArgs, _: &SettingsArgs, _: &Printer) -> Outcome {
    Err(autoglm_domain::Error::invalid("this build has no feature `lake`")
        .with_hint("build it with `cargo build --release --features lake`")
        .into())
}

/// The lake that the settings name.
#[cfg(feature = "lake")]
fn files(settings: &crate::settings::Settings) -> autoglm_domain::Result<autoglm_lake::LakeFiles> {
    if !settings.lake.is_on() {
        return Err(autoglm_domain::Error::invalid("there is no lake: `lake.url` is not set")
            .with_hint("`--set lake.url=FOLDER`, or an address such as s3://BUCKET/PREFIX"));
    }
    Ok(autoglm_lake::LakeFiles::open(&settings.lake)?)
}

#[cfg(feature = "lake")]
async fn ab(args: AbArgs, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let settings = settings.load("warn", [])?;
    let (a, b) = (args.a.parse()?, args.b.parse()?);
    let report = crate::lake::compare(&files(&settings)?, a, b, args.alpha).await?;
    if args.json {
        return printer.json(&report);
    }
    let columns = ["METRIC", ">N A", ">N B", ">MEAN A", ">MEAN B", ">B - A", "INTERVAL", "FINDING"];
    let mut table = crate::printer::Table::new(&columns);
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    for row in &report.metrics {
        table.row([
            row.metric.clone(),
            row.count_a.to_string(),
            row.count_b.to_string(),
            number(row.mean_a),
            number(row.mean_b),
            row.difference.map_or_else(|| "-".to_owned(), |value| format!("{value:+.3}")),
            format!("{:+.3} to {:+.3}", row.lower, row.upper),
            row.finding.clone(),
        ]);
    }
    printer.note(&format!(
        "{a} gave {} answers and {b} {}; every interval holds at any time with probability {:.0}%",
        report.answers_a,
        report.answers_b,
        (1.0 - args.alpha) * 100.0
    ));
    printer.table(&table)
}
