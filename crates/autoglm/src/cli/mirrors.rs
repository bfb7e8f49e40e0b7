//! `autoglm mirrors`

use autoglm_domain::{Error, ErrorKind, MirrorHealth, MirrorState, Result};
use autoglm_mirror::Board;
use clap::{Args, Subcommand};

use crate::{
    database::Database,
    printer::{Outcome, Printer, Table, shortened, time},
    settings::Settings,
};

use super::{
    http::{Server, ServerArgs},
    settings_args::{DataArgs, SettingsArgs},
};

/// Commands of `mirrors`.
#[derive(Debug, Subcommand)]
pub(super) enum MirrorsCommand {
    /// List the journal's mirrors: how far each is, and what stands in its way
    List(ListArgs),
}

/// Arguments of `mirrors list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    data: DataArgs,
}

/// Runs a command of `mirrors`.
pub(super) async fn run(command: MirrorsCommand, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let MirrorsCommand::List(args) = command;
    let settings = settings.load("warn", [args.data.named()])?;
    let states = match of_server(&args.server, &settings).await {
        // How far they are is in the database as well; what stands in their way only the server knows.
        Err(error) if error.kind == ErrorKind::Unavailable && args.server.server.is_none() => {
            printer.note(&format!("{}; this is what the database says", error.message));
            of_database(&settings).await?
        }
        states => states?,
    };
    if args.json {
        return printer.json(&states);
    }
    let mut table =
        Table::new(&["MIRROR", "STATE", "SINCE", ">POSITION", ">BEHIND", ">FAILURES", "LAST ERROR"]);
    for state in states {
        table.row([
            state.name.clone(),
            health(&state).to_owned(),
            if state.health == MirrorHealth::Idle { String::new() } else { time(state.since) },
            state.seq.to_string(),
            state.behind.to_string(),
            state.failures.to_string(),
            shortened(state.last_error.as_deref().unwrap_or_default(), 100),
        ]);
    }
    if table.is_empty() {
        printer.note("the journal has no mirrors; `kafka.brokers` and `lake.url` make some");
        return Ok(());
    }
    printer.table(&table)
}

async fn of_server(args: &ServerArgs, settings: &Settings) -> Result<Vec<MirrorState>> {
    let mut list = Server::of(args, settings)?.get_json("/v1/autoglm/mirrors").await?;
    serde_json::from_value(list["data"].take())
        .map_err(|error| Error::internal(format!("the server's list of mirrors is none: {error}")))
}

async fn of_database(settings: &Settings) -> Result<Vec<MirrorState>> {
    let database = Database::open_read_only(settings).await?;
    let states = Board::default().states(&*database.cursors()).await?;
    database.close().await?;
    Ok(states)
}

fn health(state: &MirrorState) -> &'static str {
    match state.health {
        MirrorHealth::Healthy => "healthy",
        MirrorHealth::CatchingUp => "catching up",
        MirrorHealth::Failing => "failing",
        MirrorHealth::Idle => "idle",
    }
}
