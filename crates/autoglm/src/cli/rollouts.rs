//! `autoglm rollouts`: candidates on their way, and a person's word on them.
//!
//! What was recorded is read from the store, beside a running server or without one. A word goes to the running server,
//! which acts on it before it answers.

mod order;
mod pairs;
mod show;
mod slices;

use autoglm_domain::{Error, LiveStage, Outcome as Ruling, Rollout, RolloutId, RolloutState};
use clap::{Args, Subcommand};

use crate::printer::{Outcome, Printer, Table, shortened, time};

use super::{
    data::Data,
    settings_args::{DataArgs, SettingsArgs},
};

/// Commands of `rollouts`.
#[derive(Debug, Subcommand)]
pub(super) enum RolloutsCommand {
    /// List candidates on their way, oldest first
    List(ListArgs),
    /// Show what a verdict rests on, and the looks at a candidate on live traffic
    Show(show::ShowArgs),
    /// Read what champion and candidate answered to the same requests
    Pairs(pairs::PairsArgs),
    /// Sum up these answers by route, cluster and principal group
    Slices(slices::SlicesArgs),
    /// Ask a running server to send a version on its way to the users
    Start(order::StartArgs),
    /// Hold a candidate on live traffic where it is
    Pause(order::OrderArgs),
    /// Let a paused candidate go on
    Resume(order::OrderArgs),
    /// Let a candidate go on that has passed and awaits somebody's word
    Confirm(order::OrderArgs),
    /// Stop a candidate on live traffic, without a verdict
    Abort(order::OrderArgs),
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

/// Runs a command of `rollouts`.
pub(super) async fn run(command: RolloutsCommand, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let data = async |data: &DataArgs| Data::read(&settings.load("warn", [data.named()])?).await;
    match command {
        RolloutsCommand::List(args) => list(&data(&args.data).await?, args.json, printer).await,
        RolloutsCommand::Show(args) => show::run(&data(&args.data).await?, &args, printer).await,
        RolloutsCommand::Pairs(args) => pairs::run(&data(&args.data).await?, &args, printer).await,
        RolloutsCommand::Slices(args) => {
            let policy = settings.load("warn", [args.data.named()])?.rollout;
            slices::run(&data(&args.data).await?, &policy, &args, printer).await
        }
        RolloutsCommand::Start(args) => order::start(args, settings, printer).await,
        RolloutsCommand::Pause(args) => order::order("pause", args, settings, printer).await,
        RolloutsCommand::Resume(args) => order::order("resume", args, settings, printer).await,
        RolloutsCommand::Confirm(args) => order::order("confirm", args, settings, printer).await,
        RolloutsCommand::Abort(args) => order::order("abort", args, settings, printer).await,
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
        RolloutState::Paused { reason, confirm: true, .. } => ("awaits a word", reason),
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

/// A rollout by its id, by its candidate (the latest one of it), or `current`, which is the one on live traffic.
async fn find(data: &Data, name: &str) -> autoglm_domain::Result<Rollout> {
    let rollouts = data.store.rollouts().await?;
    let found = match name.parse::<RolloutId>() {
        Ok(id) => rollouts.into_iter().find(|rollout| rollout.id == id),
        Err(error) if name.starts_with("roll_") => return Err(error),
        Err(_) if name == CURRENT => rollouts.into_iter().find(|rollout| rollout.live().is_some()),
        Err(_) => {
            let candidate = data.registry.resolve(name).await?;
            rollouts.into_iter().rfind(|rollout| rollout.candidate == candidate)
        }
    };
    found.ok_or_else(|| match name {
        CURRENT => Error::not_found("no candidate is on live traffic")
            .with_hint("`autoglm rollouts list` names them all"),
        _ => Error::not_found(format!("no rollout `{name}`")).with_hint("`autoglm rollouts list`"),
    })
}

/// The rollout that is on live traffic, for people.
const CURRENT: &str = "current";
