//! `autoglm rollback`: whatever came last to the users goes, at once, with a server or without.
//!
//! Works on the store, which a running server looks at several times a second: a candidate on live traffic is stopped;
//! where there is none, or it is champion already, the champion before it answers again.

use autoglm_domain::{
    Alias, AliasMove, Clock as _, Event, LiveStage, Rollout, RolloutState, Store, SystemClock,
};
use autoglm_registry::ROLLBACK;
use clap::Args;
use serde::Serialize;

use crate::printer::{Outcome, Printer};

use super::{
    data::{Data, who},
    settings_args::{DataArgs, SettingsArgs},
};

/// Arguments of `rollback`.
#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "by hand")]
    reason: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// What was done.
#[derive(Debug, Serialize)]
struct RolledBack {
    /// The candidate that was stopped.
    stopped: Option<Rollout>,
    /// The champion's move back.
    moved: Option<AliasMove>,
}

/// Rolls back.
pub(super) async fn run(args: RollbackArgs, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let data = Data::write(&settings.load("warn", [args.data.named()])?).await?;
    let on_traffic = data.store.rollouts().await?.into_iter().find(|rollout| rollout.live().is_some());
    let done = match on_traffic {
        Some(rollout) => stop(&*data.store, rollout, &args.reason).await?,
        None => {
            let moved = data.registry.rollback(&who(), &args.reason).await?;
            RolledBack { stopped: None, moved: Some(moved) }
        }
    };
    data.close().await?;
    if args.json {
        return printer.json(&done);
    }
    if let Some(stopped) = &done.stopped {
        printer.data(&format!("{} is stopped", stopped.candidate))?;
    }
    if let Some(AliasMove { alias, from, to, .. }) = &done.moved {
        printer.data(&format!("{alias}: {from} -> {to}"))?;
    }
    printer.note("a running server follows with its next look at the store");
    Ok(())
}

/// Stops a candidate; one that is champion already gives its place back in the same append.
async fn stop(store: &dyn Store, rollout: Rollout, reason: &str) -> autoglm_domain::Result<RolledBack> {
    let reason = format!("{ROLLBACK}{reason}");
    let moved = rollout.live().is_some_and(|live| live.stage == LiveStage::Watch).then(|| AliasMove {
        alias: Alias::champion(),
        from: rollout.candidate,
        to: rollout.champion,
        at: SystemClock.now(),
        by: who(),
        reason: reason.clone(),
        rollout: Some(rollout.id),
    });
    let state = RolloutState::Aborted { reason: format!("{reason}, by {}", who()) };
    let stopped = Rollout { state, ..rollout };
    let mut events = vec![Event::Rollout(Box::new(stopped.clone()))];
    events.extend(moved.clone().map(Event::AliasMoved));
    store.append(events).await?;
    Ok(RolledBack { stopped: Some(stopped), moved })
}
