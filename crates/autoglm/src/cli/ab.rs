//! `autoglm ab`: versions against one another on live traffic.

use autoglm_domain::{AbState, AbTest, AbTestId, Allocation, Error, Result};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::printer::{Look, Outcome, Printer, Table, oneline, shortened, time};

use super::{
    data::Data,
    http::{Server, ServerArgs},
    settings_args::{DataArgs, SettingsArgs},
};

/// The test that runs, for people.
const CURRENT: &str = "current";

/// Commands of `ab`.
#[derive(Debug, Subcommand)]
pub(super) enum AbCommand {
    /// Ask a running server to share conversations out to versions
    Start(StartArgs),
    /// List tests, oldest first
    List(ListArgs),
    /// Show how a test stands
    Show(ShowArgs),
    /// End a test of a running server
    Stop(StopArgs),
}

/// Arguments of `ab start`.
#[derive(Debug, Args)]
pub(super) struct StartArgs {
    /// A version and its share, as in v12=0.5; at least two
    #[arg(long = "arm", value_name = "VERSION=SHARE", required = true, value_parser = arm)]
    arms: Vec<(String, f64)>,
    /// What they are compared by: a dimension, a rate, tokens, or an expression of the rollout policy
    #[arg(long, default_value = "accuracy")]
    metric: String,
    /// Send no more conversations to versions that cannot be best any more
    #[arg(long)]
    bandit: bool,
    /// Most probability of naming a version that is not best; 0.05 where none is given
    #[arg(long)]
    alpha: Option<f64>,
    /// Versions this close are as good as one another, in the metric's unit
    #[arg(long, value_name = "DIFFERENCE")]
    indifference: Option<f64>,
    /// Answers that every version must have given; 100 where none is given
    #[arg(long, value_name = "N")]
    min_requests: Option<u64>,
    /// Answers, all together, at which it ends undecided; 100000 where none is given
    #[arg(long, value_name = "N")]
    max_requests: Option<u64>,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `ab list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Arguments of `ab show`.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// A test's id, or `current`; the latest where none is given
    #[arg(value_name = "TEST")]
    id: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Arguments of `ab stop`.
#[derive(Debug, Args)]
pub(super) struct StopArgs {
    /// A test's id, or `current`
    #[arg(value_name = "TEST", default_value = CURRENT)]
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

/// `v12=0.5`.
fn arm(text: &str) -> std::result::Result<(String, f64), String> {
    let (version, share) = text.split_once('=').ok_or("write it as v12=0.5")?;
    match share.parse::<f64>() {
        Ok(share) if share > 0.0 && share.is_finite() => Ok((version.to_owned(), share)),
        _ => Err(format!("`{share}` is no share; write it as v12=0.5")),
    }
}

/// Runs a command of `ab`.
pub(super) async fn run(command: AbCommand, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    match command {
        AbCommand::Start(args) => start(args, settings, printer).await,
        AbCommand::List(args) => {
            let data = Data::read(&settings.load("warn", [args.data.named()])?).await?;
            list(&data, args.json, printer).await
        }
        AbCommand::Show(args) => {
            let data = Data::read(&settings.load("warn", [args.data.named()])?).await?;
            let test = find(&data, args.id.as_deref()).await?;
            if args.json { printer.json(&test) } else { show(&test, printer) }
        }
        AbCommand::Stop(args) => {
            let server = Server::of(&args.server, &settings.load("warn", [])?)?;
            let path = format!("/v1/autoglm/ab-tests/{}/stop", args.id);
            answer(server.post_json(&path, &json!({"reason": args.reason})).await?, args.json, printer)
        }
    }
}

async fn start(args: StartArgs, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let server = Server::of(&args.server, &settings.load("warn", [])?)?;
    let arms: Vec<Value> =
        args.arms.iter().map(|(version, share)| json!({"version": version, "share": share})).collect();
    let body = json!({
        "arms": arms,
        "metric": args.metric,
        "allocation": if args.bandit { Allocation::Bandit } else { Allocation::Fixed },
        "alpha": args.alpha,
        "indifference": args.indifference,
        "min_requests": args.min_requests,
        "max_requests": args.max_requests,
    });
    let begun = server.post_json("/v1/autoglm/ab-tests", &body).await?;
    if args.json {
        return printer.json(&begun);
    }
    printer.note("it has begun; `autoglm ab show` tells how it stands");
    printer.data(begun.get("id").and_then(Value::as_str).unwrap_or_default())
}

/// What a server says of a test.
fn answer(said: Value, json: bool, printer: &Printer) -> Outcome {
    if json {
        return printer.json(&said);
    }
    let test: AbTest = serde_json::from_value(said)
        .map_err(|error| Error::internal(format!("the server's answer is no test: {error}")))?;
    show(&test, printer)
}

async fn list(data: &Data, json: bool, printer: &Printer) -> Outcome {
    let tests = data.store.ab_tests().await?;
    if json {
        return printer.json(&tests);
    }
    let mut table = Table::new(&["TEST", "BEGAN", "VERSIONS", "METRIC", "SHARED OUT", "STATE", "REASON"]);
    for test in tests {
        let arms: Vec<String> =
            test.arms.iter().map(|arm| format!("{}={}", arm.version, arm.share)).collect();
        table.row([
            test.id.to_string(),
            time(test.at),
            arms.join(" "),
            test.metric.clone(),
            allocation(test.allocation).to_owned(),
            state(&test.state),
            shortened(&test.reason, 80),
        ]);
    }
    if table.is_empty() {
        printer.note("no versions were tested against one another so far");
        return Ok(());
    }
    printer.table(&table)
}

fn show(test: &AbTest, printer: &Printer) -> Outcome {
    let lines = [
        printer.styled(Look::Bold, &test.id.to_string()),
        format!("began       {} by {}", time(test.at), oneline(&test.by)),
        format!("metric      {}", test.metric),
        format!("shared out  {}", allocation(test.allocation)),
        format!("state       {}", state(&test.state)),
        format!("reason      {}", oneline(&test.reason)),
        String::new(),
    ];
    printer.data(&lines.join("\n"))?;
    let mut table = Table::new(&["VERSION", ">SHARE", ">ANSWERS", ">MEAN", "INTERVAL", "STANDING"]);
    for arm in &test.arms {
        let found = test.found.iter().find(|found| found.version == arm.version);
        let (count, mean, interval, standing) = match found {
            None => (0, "-".to_owned(), "-".to_owned(), "in"),
            Some(it) => (
                it.count,
                it.mean.map_or_else(|| "-".to_owned(), |mean| format!("{mean:.2}")),
                format!("{:.2} to {:.2}", it.lower, it.upper),
                if it.is_in { "in" } else { "out" },
            ),
        };
        let version = arm.version.to_string();
        table.row([version, arm.share.to_string(), count.to_string(), mean, interval, standing.to_owned()]);
    }
    printer.table(&table)
}

fn allocation(allocation: Allocation) -> &'static str {
    match allocation {
        Allocation::Fixed => "fixed shares",
        Allocation::Bandit => "bandit",
    }
}

fn state(state: &AbState) -> String {
    match state {
        AbState::Running => "running".into(),
        AbState::Decided { best: Some(best), .. } => format!("best is {best}"),
        AbState::Decided { best: None, .. } => "undecided".into(),
        AbState::Stopped { .. } => "stopped".into(),
    }
}

/// A test by its id, the one that runs, or the latest.
async fn find(data: &Data, name: Option<&str>) -> Result<AbTest> {
    let mut tests = data.store.ab_tests().await?.into_iter();
    let found = match name {
        None => tests.next_back(),
        Some(CURRENT) => tests.find(AbTest::is_running),
        Some(name) => {
            let id: AbTestId = name.parse()?;
            tests.find(|test| test.id == id)
        }
    };
    found.ok_or_else(|| {
        let message = match name {
            None => "no versions were tested against one another so far".to_owned(),
            Some(CURRENT) => "no test of versions runs".to_owned(),
            Some(name) => format!("no test `{name}`"),
        };
        Error::not_found(message).with_hint("`autoglm ab list`")
    })
}
