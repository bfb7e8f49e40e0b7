//! `autoglm train`: training runs inside the server, beside the base weights; this asks it to begin.

use std::time::Duration;

use autoglm_domain::{Error, Result};
use clap::Args;
use serde_json::{Value, json};

use crate::printer::{Outcome, Printer};

use super::{
    http::{Server, ServerArgs},
    settings_args::SettingsArgs,
};

/// How often a run is looked at with `--wait`.
const POLL: Duration = Duration::from_millis(500);

/// Arguments of `train`.
#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Wait until the run has ended
    #[arg(long)]
    wait: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks the server for a training run.
pub(super) async fn run(args: TrainArgs, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let server = Server::of(&args.server, &settings.load("warn", [])?)?;
    let ordered = server.post_json("/v1/autoglm/train", &json!({"reason": args.reason})).await?;
    let id = ordered.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    if !args.wait {
        printer.note("the run has begun; `autoglm runs list` shows how far it is");
        return if args.json { printer.json(&json!({"id": id})) } else { printer.data(&id) };
    }
    printer.note(&format!("{id} has begun"));
    let ended = wait(&server, &id).await?;
    let state = ended.get("state").and_then(Value::as_str).unwrap_or_default();
    if state != "succeeded" {
        let reason = ended.get("reason").and_then(Value::as_str).unwrap_or("no reason was given");
        return Err(Error::conflict(format!("{id} {state}: {reason}")).into());
    }
    if args.json {
        return printer.json(&ended);
    }
    let version = ended.get("version").and_then(Value::as_u64).unwrap_or_default();
    printer.note("the gate decides whether it answers; `autoglm rollouts list`");
    printer.data(&format!("v{version}"))
}

async fn wait(server: &Server, id: &str) -> Result<Value> {
    loop {
        let status = server.get_json("/v1/autoglm/status").await?;
        let runs = status.get("runs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let run = runs.iter().find(|run| run.get("id").and_then(Value::as_str) == Some(id));
        let run =
            run.ok_or_else(|| Error::not_found(format!("{id} is not among the server's latest runs")))?;
        let state = run.get("state").and_then(Value::as_str).unwrap_or_default();
        if !matches!(state, "planned" | "running") {
            return Ok(run.clone());
        }
        tokio::time::sleep(POLL).await;
    }
}
