//! `autoglm rollouts`

use autoglm_domain::{Error, LiveStage, Outcome as Ruling, PairedEvidence, Rollout, RolloutId, RolloutState};
use clap::{Args, Subcommand};

use crate::printer::{Look, Outcome, Printer, Table, oneline, shortened, time};

use super::{
    data::Data,
    settings_args::{DataArgs, SettingsArgs},
};

/// Commands of `rollouts`.
#[derive(Debug, Subcommand)]
pub(super) enum RolloutsCommand {
    /// List candidates on their way, oldest first
    List(ListArgs),
    /// Show what a verdict rests on
    Show(ShowArgs),
}

/// Arguments of `rollouts list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Arguments of `rollouts show`.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// A rollout's id, or a candidate such as v3 (its latest rollout)
    #[arg(value_name = "ROLLOUT")]
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Runs a command of `rollouts`.
pub(super) async fn run(command: RolloutsCommand, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    match command {
        RolloutsCommand::List(args) => {
            let data = Data::read(&settings.load("warn", [args.data.named()])?).await?;
            list(&data, args.json, printer).await
        }
        RolloutsCommand::Show(args) => {
            let data = Data::read(&settings.load("warn", [args.data.named()])?).await?;
            show(&data, &args, printer).await
        }
    }
}

async fn list(data: &Data, json: bool, printer: &Printer) -> Outcome {
    let rollouts = data.store.rollouts().await?;
    if json {
        return printer.json(&rollouts);
    }
    let mut table = Table::new(&["ROLLOUT", "BEGAN", "CANDIDATE", "CHAMPION", "STATE", "REASON"]);
    for rollout in rollouts {
        let (state, reason) = state(&rollout.state);
        table.row([
            rollout.id.to_string(),
            time(rollout.at),
            rollout.candidate.to_string(),
            rollout.champion.to_string(),
            state.to_owned(),
            shortened(reason, 100),
        ]);
    }
    if table.is_empty() {
        printer.note("no candidate has met the gate so far");
        return Ok(());
    }
    printer.table(&table)
}

/// Where a rollout is, and why where there is a reason.
pub(super) fn state(state: &RolloutState) -> (&'static str, &str) {
    match state {
        RolloutState::Scanning => ("scanning", ""),
        RolloutState::OfflineGate => ("offline gate", ""),
        RolloutState::Live(live) => match live.stage {
            LiveStage::Shadow => ("shadow", ""),
            LiveStage::Canary { .. } => ("canary", ""),
            LiveStage::Watch => ("watch", ""),
        },
        RolloutState::Paused { reason, .. } => ("paused", reason),
        RolloutState::Decided { verdict } => (ruling(verdict.outcome), &verdict.reason),
        RolloutState::Aborted { reason } => ("aborted", reason),
    }
}

/// A verdict in one word.
fn ruling(outcome: Ruling) -> &'static str {
    match outcome {
        Ruling::Promote => "promote",
        Ruling::Reject => "reject",
        Ruling::Inconclusive => "inconclusive",
    }
}

async fn show(data: &Data, args: &ShowArgs, printer: &Printer) -> Outcome {
    let rollout = find(data, &args.id).await?;
    if args.json {
        return printer.json(&rollout);
    }
    let (state, reason) = state(&rollout.state);
    let mut lines = vec![
        printer.styled(Look::Bold, &rollout.id.to_string()),
        format!("began      {}", time(rollout.at)),
        format!("candidate  {}", rollout.candidate),
        format!("champion   {}", rollout.champion),
        format!("state      {state}"),
    ];
    if !reason.is_empty() {
        lines.push(format!("reason     {}", oneline(reason)));
    }
    let RolloutState::Decided { verdict } = &rollout.state else {
        return printer.data(&lines.join("\n"));
    };
    lines.push(format!("decided    {}", time(verdict.at)));
    lines.extend(verdict.evidence.scan.iter().map(|finding| format!("scan       {}", oneline(finding))));
    lines.push(String::new());
    printer.data(&lines.join("\n"))?;
    let columns = ["EVIDENCE", ">PAIRS", ">CHAMPION", ">CANDIDATE", ">DIFFERENCE", "INTERVAL", "FINDING"];
    let mut table = Table::new(&columns);
    let evidence = &verdict.evidence;
    for (name, paired) in [("new skill", &evidence.new_skill), ("retention, pooled", &evidence.retention)] {
        if let Some(paired) = paired {
            table.row(row(name, paired, ""));
        }
    }
    for cluster in &evidence.clusters {
        let finding = format!(
            "{}, may fall {}",
            if cluster.fell { "fell" } else { "held" },
            percent(cluster.tolerance)
        );
        table.row(row(&format!("  {}", cluster.name), &cluster.paired, &finding));
    }
    if table.is_empty() { Ok(()) } else { printer.table(&table) }
}

fn row(name: &str, paired: &PairedEvidence, finding: &str) -> [String; 7] {
    [
        name.to_owned(),
        paired.pairs.to_string(),
        percent(paired.champion_mean),
        percent(paired.candidate_mean),
        format!("{:+.1}%", paired.difference * 100.0),
        format!("{:+.1}% to {:+.1}%", paired.lower * 100.0, paired.upper * 100.0),
        finding.to_owned(),
    ]
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

async fn find(data: &Data, name: &str) -> autoglm_domain::Result<Rollout> {
    let rollouts = data.store.rollouts().await?;
    let found = match name.parse::<RolloutId>() {
        Ok(id) => rollouts.into_iter().find(|rollout| rollout.id == id),
        Err(error) if name.starts_with("roll_") => return Err(error),
        Err(_) => {
            let candidate = data.registry.resolve(name).await?;
            rollouts.into_iter().rfind(|rollout| rollout.candidate == candidate)
        }
    };
    found.ok_or_else(|| Error::not_found(format!("no rollout `{name}`")).with_hint("`autoglm rollouts list`"))
}
