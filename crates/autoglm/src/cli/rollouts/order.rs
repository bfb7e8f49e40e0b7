//! `autoglm rollouts start`, `pause`, `resume`, `confirm`, `abort`: a person's word, to a running server.

use std::time::Duration;

use autoglm_domain::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::{
    cli::{
        http::{Server, ServerArgs},
        settings_args::SettingsArgs,
    },
    printer::{Outcome, Printer},
};

use super::CURRENT;

/// How often a rollout is looked at with `--wait`.
const POLL: Duration = Duration::from_millis(500);

/// Arguments of `rollouts start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// v3, or the first digits of a hash
    version: String,
    #[command(flatten)]
    server: ServerArgs,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Wait until it has ended
    #[arg(long)]
    wait: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of the other orders.
#[derive(Debug, Args)]
pub(crate) struct OrderArgs {
    /// A rollout's id, or `current`
    #[arg(value_name = "ROLLOUT", default_value = CURRENT)]
    id: String,
    #[command(flatten)]
    server: ServerArgs,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Sends a version on its way.
pub(super) async fn start(args: StartArgs, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let server = Server::of(&args.server, &settings.load("warn", [])?)?;
    let body = json!({"version": args.version, "reason": args.reason});
    let begun = server.post_json("/v1/autoglm/rollouts", &body).await?;
    if args.wait {
        printer.note(&format!("{} has begun", text(&begun, "id")));
        let ended = wait(&server, text(&begun, "id")).await?;
        return show(&ended, args.json, printer);
    }
    printer.note("it has begun; `autoglm rollouts show` tells how far it is");
    if args.json { printer.json(&begun) } else { printer.data(text(&begun, "id")) }
}

/// Any other order.
pub(super) async fn order(
    action: &str,
    args: OrderArgs,
    settings: &SettingsArgs,
    printer: &Printer,
) -> Outcome {
    let server = Server::of(&args.server, &settings.load("warn", [])?)?;
    let path = format!("/v1/autoglm/rollouts/{}/{action}", args.id);
    let rollout = server.post_json(&path, &json!({"reason": args.reason})).await?;
    show(&rollout, args.json, printer)
}

/// The rollout's summary once it has ended.
async fn wait(server: &Server, id: &str) -> Result<Value> {
    loop {
        let answer = server.get_json("/v1/autoglm/rollouts").await?;
        let rollouts = answer.get("data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let ended = rollouts
            .iter()
            .find(|it| text(it, "id") == id && matches!(text(it, "state"), "decided" | "aborted"));
        if let Some(ended) = ended {
            return Ok(ended.clone());
        }
        tokio::time::sleep(POLL).await;
    }
}

fn show(rollout: &Value, json: bool, printer: &Printer) -> Outcome {
    if json {
        return printer.json(rollout);
    }
    let state = match text(rollout, "state") {
        "live" => text(rollout, "stage"),
        "decided" => text(rollout, "outcome"),
        "paused" if rollout.get("confirm").and_then(Value::as_bool) == Some(true) => "awaits a word",
        other => other,
    };
    let percent = rollout.get("percent").and_then(Value::as_f64);
    let percent = percent.map(|percent| format!(" at {percent}%")).unwrap_or_default();
    let reason = match text(rollout, "reason") {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    printer.data(&format!("{}: {state}{percent}{reason}", text(rollout, "candidate")))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}
