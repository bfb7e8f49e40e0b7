//! `autoglm runs`

use autoglm_domain::{RunState, TrainingRun, Trigger};
use clap::{Args, Subcommand};

use crate::printer::{Outcome, Printer, Table, shortened, time};

use super::{
    data::Data,
    settings_args::{DataArgs, SettingsArgs},
};

/// Commands of `runs`.
#[derive(Debug, Subcommand)]
pub(super) enum RunsCommand {
    /// List training runs, oldest first
    List(ListArgs),
}

/// Arguments of `runs list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Runs a command of `runs`.
pub(super) async fn run(command: RunsCommand, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let RunsCommand::List(args) = command;
    let data = Data::read(&settings.load("warn", [args.data.named()])?).await?;
    let runs = data.store.runs().await?;
    if args.json {
        return printer.json(&runs);
    }
    let columns = ["RUN", "PLANNED", "TRIGGER", ">NEW", ">REPLAY", "PARENT", ">LOSS", ">SECONDS", "STATE"];
    let mut table = Table::new(&columns);
    for run in runs {
        table.row(row(&run));
    }
    if table.is_empty() {
        printer.note("no training runs so far");
        return Ok(());
    }
    printer.table(&table)
}

fn row(run: &TrainingRun) -> [String; 9] {
    let metric = |name: &str, digits: usize| {
        run.metrics.get(name).map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    [
        run.id.to_string(),
        time(run.at),
        trigger(&run.trigger),
        run.new_experiences.to_string(),
        run.replayed_experiences.to_string(),
        run.parent.to_string(),
        metric("loss_last", 3),
        metric("seconds", 1),
        state(&run.state),
    ]
}

/// Why a run began, in a few words.
pub(super) fn trigger(trigger: &Trigger) -> String {
    match trigger {
        Trigger::ScoreAbove { mean } => format!("score above ({mean:.0})"),
        Trigger::ScoreBelow { mean } => format!("score below ({mean:.0})"),
        Trigger::NewExperiences { count } => format!("{count} new experiences"),
        Trigger::GrowingPattern { count, .. } => format!("pattern grew to {count}"),
        Trigger::Schedule => "schedule".into(),
        Trigger::Manual => "by hand".into(),
    }
}

/// How far a run is, in a few words.
pub(super) fn state(state: &RunState) -> String {
    match state {
        RunState::Planned => "planned".into(),
        RunState::Running => "running".into(),
        RunState::Succeeded { version } => format!("made {version}"),
        RunState::Failed { reason } => format!("failed: {}", shortened(reason, 60)),
        RunState::Cancelled { reason } => format!("cancelled: {}", shortened(reason, 60)),
    }
}
