//! The command line: arguments to calls, one file a command.
//!
//! Stdout is data, stderr is for people. A command ends with the exit code of its error's kind
//! ([`autoglm_domain::ErrorKind::exit_code`]); wrong usage is 2, as any other invalid input.

mod data;
mod http;
mod logging;
mod settings_args;

mod ab;
mod bench;
mod chat;
mod completions;
mod config;
mod demo;
mod experiences;
mod judge;
mod lake;
mod mirrors;
mod patterns;
mod pretrain;
mod quantize;
mod rollback;
mod rollouts;
mod runs;
mod score;
mod serve;
mod trace;
mod train;
mod versions;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use autoglm_domain::Error;
use clap::{Parser, Subcommand};

use crate::printer::{Failure, Outcome, Printer};
use settings_args::SettingsArgs;

/// A language-model server that learns from its own traffic
#[derive(Debug, Parser)]
#[command(name = "autoglm", version)]
#[command(after_help = "\
Exit codes: 0 done, 1 a fault of ours, 2 invalid input, 3 not found, 4 denied, 5 conflict, 6 unavailable.
Every setting: autoglm config --reference")]
pub(crate) struct Cli {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer requests, and learn from them
    Serve(serve::ServeArgs),
    /// Watch a server learn from a stream of real utterances
    Demo(demo::DemoArgs),
    /// Talk to a running server
    Chat(chat::ChatArgs),
    /// Ask a running server to train now
    Train(train::TrainArgs),
    /// List, compare, promote and roll back model versions
    #[command(subcommand)]
    Versions(versions::VersionsCommand),
    /// Show where an answer came from
    Trace(trace::TraceArgs),
    /// List training runs
    #[command(subcommand)]
    Runs(runs::RunsCommand),
    /// Send candidates on their way, follow them, and see what was decided on what evidence
    #[command(subcommand)]
    Rollouts(rollouts::RolloutsCommand),
    /// Take back what came to the users last: a candidate on live traffic, else the champion
    Rollback(rollback::RollbackArgs),
    /// Compare versions on live traffic, with fixed shares or a bandit
    #[command(subcommand)]
    Ab(ab::AbCommand),
    /// List the journal's mirrors: Kafka, Parquet files
    #[command(subcommand)]
    Mirrors(mirrors::MirrorsCommand),
    /// Ask the Parquet files that the journal is copied to
    #[command(subcommand)]
    Lake(lake::LakeCommand),
    /// List, export and import what was learned from
    #[command(subcommand)]
    Experiences(experiences::ExperiencesCommand),
    /// Measure how far the judge of pairs agrees with people
    #[command(subcommand)]
    Judge(judge::JudgeCommand),
    /// List patterns of wrong answers
    #[command(subcommand)]
    Patterns(patterns::PatternsCommand),
    /// Print what a model thinks of a text, token by token
    Score(score::ScoreArgs),
    /// Train a small model from plain text
    Pretrain(pretrain::PretrainArgs),
    /// Write a model as a GGUF file, with fewer bits a weight if you like
    Quantize(quantize::QuantizeArgs),
    /// Measure a server of its own: corrections, swaps, serving while training, load
    Bench(bench::BenchArgs),
    /// Print the settings that hold, or all there are
    Config(config::ConfigArgs),
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
}

/// Runs the command line of this process.
pub(crate) fn main() -> ExitCode {
    let printer = Printer::of_process();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout and are no error; a reader that went away is none either.
            let code = if error.use_stderr() { 2 } else { 0 };
            return error.print().map_or(ExitCode::from(code), |()| ExitCode::from(code));
        }
    };
    match start(cli, &printer) {
        Ok(()) | Err(Failure::ReaderGone) => ExitCode::SUCCESS,
        Err(Failure::Error(error)) => {
            printer.error(&error);
            ExitCode::from(error.kind.exit_code())
        }
    }
}

fn start(cli: Cli, printer: &Printer) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::unavailable(format!("cannot start the threads of the runtime: {error}")))?;
    let outcome = runtime.block_on(run(cli, printer));
    // A command that is over does not wait for what it left behind, such as a read from stdin.
    runtime.shutdown_background();
    outcome
}

async fn run(cli: Cli, printer: &Printer) -> Outcome {
    // Before any part makes a client of its own.
    crate::http::choose_provider();
    let settings = &cli.settings;
    match cli.command {
        Command::Serve(args) => serve::run(args, settings, printer).await,
        Command::Demo(args) => demo::run(args, settings, printer).await,
        Command::Chat(args) => chat::run(args, settings, printer).await,
        Command::Train(args) => train::run(args, settings, printer).await,
        Command::Versions(command) => versions::run(command, settings, printer).await,
        Command::Trace(args) => trace::run(args, settings, printer).await,
        Command::Runs(command) => runs::run(command, settings, printer).await,
        Command::Rollouts(command) => rollouts::run(command, settings, printer).await,
        Command::Rollback(args) => rollback::run(args, settings, printer).await,
        Command::Ab(command) => ab::run(command, settings, printer).await,
        Command::Mirrors(command) => mirrors::run(command, settings, printer).await,
        Command::Lake(command) => lake::run(command, settings, printer).await,
        Command::Experiences(command) => experiences::run(command, settings, printer).await,
        Command::Judge(command) => judge::run(command, settings, printer).await,
        Command::Patterns(command) => patterns::run(command, settings, printer).await,
        Command::Score(args) => score::run(&args, settings, printer),
        Command::Pretrain(args) => pretrain::run(args, settings, printer),
        Command::Quantize(args) => quantize::run(&args, settings, printer),
        Command::Bench(args) => bench::run(args, settings, printer).await,
        Command::Config(args) => config::run(&args, settings, printer),
        Command::Completions(args) => completions::run(&args, printer),
    }
}
