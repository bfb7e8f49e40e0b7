//! `autoglm bench`

use std::{path::PathBuf, time::Duration};

use autoglm_domain::Error;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::{
    bench,
    demo::RecallMode,
    printer::{Outcome, Printer},
    settings::{KeptWeights, Settings},
};

use super::settings_args::{SettingsArgs, model};

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
    /// Measure with this model folder, GGUF file or hub id instead of the starter model
    #[arg(long, global = true, value_name = "MODEL")]
    model: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

/// What to measure.
#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// What one correction changes, and how soon
    Corrections(CorrectionsArgs),
    /// Promotions and rollbacks under load
    Swap(SwapArgs),
    /// A champion that disappoints under load: how soon nobody is answered by it any more
    Rollback(RollbackArgs),
    /// Latency of short requests with and without training beside them
    Serving(ServingArgs),
    /// Requests a second by the number of connections
    Load(LoadArgs),
    /// What the gateway adds in front of an upstream that answers at once, with recording and a shadow; other gateways beside it
    Gateway(GatewayArgs),
    /// Prefill, decode and a training step on random weights
    Engine(EngineArgs),
    /// How well a model foresees a text
    Perplexity(PerplexityArgs),
    /// How often the rollout policy is wrong, over simulated rollouts of recorded pairs
    Rollouts(RolloutsArgs),
}

#[derive(Debug, Args)]
struct CorrectionsArgs {
    /// Corrections to make
    #[arg(long, default_value_t = 200, value_name = "N")]
    corrections: usize,
    /// Seed of the choice of utterances
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// How the server uses its memory while it answers
    #[arg(long, value_enum, default_value_t = RecallMode::Answer, value_name = "MODE")]
    recall: RecallMode,
}

#[derive(Debug, Args)]
struct SwapArgs {
    /// Promotions, each followed by a rollback
    #[arg(long, default_value_t = 1000, value_name = "N")]
    swaps: usize,
    /// Connections that ask meanwhile
    #[arg(long, default_value_t = 8, value_name = "N")]
    connections: usize,
}

#[derive(Debug, Args)]
struct RollbackArgs {
    /// Requests a second, sent whether or not earlier ones were answered
    #[arg(long, default_value_t = 200.0, value_name = "RATE")]
    rate: f64,
    /// Let a double of an upstream answer, at once and without a model
    #[arg(long)]
    instant: bool,
}

#[derive(Debug, Args)]
struct ServingArgs {
    /// Requests a second; several may be given
    #[arg(long, value_delimiter = ',', default_value = "20,100", value_name = "RATE")]
    rates: Vec<f64>,
    /// Rounds, each without training and then with it
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: usize,
    /// Seconds of each half of a round
    #[arg(long, default_value_t = 10.0, value_name = "S")]
    seconds: f64,
}

#[derive(Debug, Args)]
struct LoadArgs {
    /// Numbers of connections
    #[arg(long, value_delimiter = ',', default_value = "1,8,32", value_name = "N")]
    connections: Vec<usize>,
    /// Seconds for each
    #[arg(long, default_value_t = 10.0, value_name = "S")]
    seconds: f64,
}

#[derive(Debug, Args)]
struct GatewayArgs {
    /// Connections that ask
    #[arg(long, default_value_t = 16, value_name = "N")]
    connections: usize,
    /// Requests a second, one measurement each, after the one without a pause
    #[arg(long, value_delimiter = ',', default_value = "500,2000", value_name = "RATE")]
    rates: Vec<f64>,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5.0, value_name = "S")]
    seconds: f64,
    /// Share of the conversations that a candidate answers too, in percent
    #[arg(long, default_value_t = 10.0, value_name = "PERCENT")]
    shadow: f64,
    /// Where the upstream listens, for gateways that are started beforehand
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    upstream: std::net::SocketAddr,
    /// Another gateway that asks this upstream: NAME=MODEL@BASE_URL, or with #PID at its end; may be repeated
    #[arg(long, value_name = "PEER")]
    peer: Vec<bench::gateway::Peer>,
    /// Send so many requests instead, and tell the memory ten times
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
}

#[derive(Debug, Args)]
struct EngineArgs {
    /// Shapes of the model
    #[arg(long, value_enum, value_delimiter = ',', default_value = "small,big", value_name = "SIZE")]
    sizes: Vec<bench::engine::Size>,
    /// How the weights are kept
    #[arg(long, value_enum, value_delimiter = ',', default_value = "f32", value_name = "FORMAT")]
    weights: Vec<KeptWeights>,
    /// What is done with it
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "infer,versions,train",
        value_name = "MODE"
    )]
    modes: Vec<bench::engine::Mode>,
    /// Threads
    #[arg(long, default_value_t = 2, value_name = "N")]
    threads: usize,
    /// Repetitions; decoding steps are repeated six times as often
    #[arg(long, default_value_t = 5, value_name = "N")]
    repeats: usize,
}

#[derive(Debug, Args)]
struct PerplexityArgs {
    /// The text, in UTF-8
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Tokens of a window; the model's context, at most 512, where none is given
    #[arg(long, value_name = "N")]
    window: Option<usize>,
    /// Tokens from one window to the next; half a window where none is given
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
}

#[derive(Debug, Args)]
struct RolloutsArgs {
    /// Simulated rollouts, half of them of candidates that are no better
    #[arg(long, default_value_t = 1000, value_name = "N")]
    rollouts: usize,
    /// Seed
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// Measures and prints.
pub(super) async fn run(args: BenchArgs, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let settings: Settings = settings.load("warn", [model(args.model)])?;
    let json = args.json;
    match args.command {
        BenchCommand::Corrections(args) => {
            within("corrections", args.corrections as f64, 1.0, 1e6)?;
            let report = bench::corrections::run(settings, args.corrections, args.seed, args.recall).await?;
            show(&report, json, printer, bench::corrections::print)
        }
        BenchCommand::Swap(args) => {
            within("swaps", args.swaps as f64, 1.0, 1e6)?;
            within("connections", args.connections as f64, 1.0, 1024.0)?;
            let report = bench::swap::run(settings, args.swaps, args.connections).await?;
            show(&report, json, printer, bench::swap::print)?;
            if report.is_clean() {
                return Ok(());
            }
            let failure = report.failures.first().map(|first| format!(": {first}")).unwrap_or_default();
            Err(Error::internal(format!("some requests did not go as promised{failure}")).into())
        }
        BenchCommand::Rollback(args) => {
            within("rate", args.rate, 1.0, 10_000.0)?;
            let report = bench::rollback::run(settings, args.rate, args.instant).await?;
            show(&report, json, printer, bench::rollback::print)?;
            if report.is_clean() {
                return Ok(());
            }
            let failure = report.failures.first().map(|first| format!(": {first}")).unwrap_or_default();
            Err(Error::internal(format!("the rollback did not go as promised{failure}")).into())
        }
        BenchCommand::Serving(args) => {
            within("rounds", args.rounds as f64, 1.0, 1000.0)?;
            args.rates.iter().try_for_each(|rate| within("rates", *rate, 0.1, 10_000.0))?;
            let time = seconds(args.seconds)?;
            let report = bench::serving::run(settings, &args.rates, args.rounds, time).await?;
            show(&report, json, printer, bench::serving::print)
        }
        BenchCommand::Load(args) => {
            args.connections.iter().try_for_each(|n| within("connections", *n as f64, 1.0, 1024.0))?;
            let report = bench::load::run(settings, &args.connections, seconds(args.seconds)?).await?;
            show(&report, json, printer, bench::load::print)
        }
        BenchCommand::Gateway(args) => {
            within("connections", args.connections as f64, 1.0, 1024.0)?;
            within("shadow", args.shadow, 0.0, 100.0)?;
            args.rates.iter().try_for_each(|rate| within("rates", *rate, 1.0, 100_000.0))?;
            let plan = bench::gateway::Plan {
                connections: args.connections,
                rates: args.rates,
                time: seconds(args.seconds)?,
                shadow: args.shadow / 100.0,
                upstream: args.upstream,
                peers: args.peer,
                requests: args.requests,
            };
            let report = bench::gateway::run(settings, &plan, |text| printer.note(text)).await?;
            show(&report, json, printer, bench::gateway::print)
        }
        BenchCommand::Engine(args) => {
            within("threads", args.threads as f64, 1.0, 1024.0)?;
            within("repeats", args.repeats as f64, 1.0, 1000.0)?;
            let weights: Vec<_> = args.weights.iter().filter_map(|kept| kept.format()).collect();
            let run = || bench::engine::run(&args.sizes, &weights, &args.modes, args.threads, args.repeats);
            let report = tokio::task::block_in_place(run)?;
            show(&report, json, printer, bench::engine::print)
        }
        BenchCommand::Perplexity(args) => {
            let run = || bench::perplexity::run(&settings, &args.text, args.window, args.stride, printer);
            let report = tokio::task::block_in_place(run)?;
            show(&report, json, printer, bench::perplexity::print)
        }
        BenchCommand::Rollouts(args) => {
            within("rollouts", args.rollouts as f64, 2.0, 1e6)?;
            let note = |text: &str| printer.note(text);
            let run = || bench::rollouts::run(&settings.rollout, args.rollouts, args.seed, note);
            let report = tokio::task::block_in_place(run)?;
            show(&report, json, printer, bench::rollouts::print)
        }
    }
}

fn show<R: Serialize>(
    report: &R,
    json: bool,
    printer: &Printer,
    print: impl FnOnce(&R, &Printer) -> Outcome,
) -> Outcome {
    if json { printer.json(report) } else { print(report, printer) }
}

fn seconds(seconds: f64) -> Result<Duration, Error> {
    within("seconds", seconds, 0.1, 3600.0)?;
    Ok(Duration::from_secs_f64(seconds))
}

fn within(flag: &str, value: f64, least: f64, most: f64) -> Result<(), Error> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid(format!("--{flag} {value} is not between {least} and {most}")))
}
