//! `autoglm experiences`

use std::{
    io::{BufRead, BufReader, Write as _},
    path::PathBuf,
};

use autoglm_domain::{ChatMessage, Error, Experience, Result, Role};
use clap::{Args, Subcommand};

use crate::{
    node::Node,
    printer::{Outcome, Printer, Table, shortened, time},
};

use super::{
    data::Data,
    settings_args::{DataArgs, SettingsArgs, model},
};

/// Most characters of a prompt or target in a table.
const SHOWN: usize = 48;
/// How long an import waits until no other process leads.
const TURN: std::time::Duration = std::time::Duration::from_secs(5);

/// Commands of `experiences`.
#[derive(Debug, Subcommand)]
pub(super) enum ExperiencesCommand {
    /// List experiences, oldest first
    List(ListArgs),
    /// Write experiences as lines of JSON
    Export(ExportArgs),
    /// Read what export wrote; importing twice changes nothing
    Import(ImportArgs),
}

/// Arguments of `experiences list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only those of this task
    #[arg(long)]
    task: Option<String>,
    /// Only the latest N
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Arguments of `experiences export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// File to write; stdout without one
    file: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
}

/// Arguments of `experiences import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// File to read; stdin without one
    file: Option<PathBuf>,
    /// Name broken lines and go on without them
    #[arg(long)]
    keep_going: bool,
    /// The model whose embeddings are used, instead of the starter model
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Runs a command of `experiences`.
pub(super) async fn run(command: ExperiencesCommand, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    match command {
        ExperiencesCommand::List(args) => {
            let data = Data::read(&settings.load("warn", [args.data.named()])?).await?;
            list(&data, &args, printer).await
        }
        ExperiencesCommand::Export(args) => {
            let data = Data::read(&settings.load("warn", [args.data.named()])?).await?;
            export(&data, &args, printer).await
        }
        ExperiencesCommand::Import(args) => import(args, settings, printer).await,
    }
}

async fn list(data: &Data, args: &ListArgs, printer: &Printer) -> Outcome {
    let mut experiences = data.store.experiences().await?;
    if let Some(task) = &args.task {
        experiences.retain(|experience| experience.task.as_ref() == Some(task));
    }
    let surplus = args.limit.map_or(0, |limit| experiences.len().saturating_sub(limit));
    experiences.drain(..surplus);
    if args.json {
        let bare = experiences.into_iter().map(without_embedding).collect::<Result<Vec<_>>>()?;
        return printer.json(&bare);
    }
    if experiences.is_empty() {
        printer.note("no experiences so far; feedback and corrections make them");
        return Ok(());
    }
    let columns = [
        "EXPERIENCE",
        "REMEMBERED",
        ">WEIGHT",
        "CLUSTER",
        "TASK",
        "HELD OUT",
        "VERIFIED BY",
        "PROMPT",
        "TARGET",
    ];
    let mut table = Table::new(&columns);
    for experience in experiences {
        table.row([
            experience.id.to_string(),
            time(experience.at),
            format!("{:.2}", experience.weight),
            experience.cluster.to_string(),
            experience.task.clone().unwrap_or_else(|| "-".into()),
            if experience.held_out { "yes" } else { "-" }.into(),
            experience.provenance.verifier.clone(),
            shortened(question(&experience.prompt), SHOWN),
            shortened(&experience.target, SHOWN),
        ]);
    }
    printer.table(&table)
}

/// The last thing that a user said.
pub(super) fn question(prompt: &[ChatMessage]) -> &str {
    let user = prompt.iter().rfind(|message| message.role == Role::User).or(prompt.last());
    user.map_or("", |message| message.content.as_str())
}

/// The embedding is long, means nothing to a person, and is made again on import.
fn without_embedding(experience: Experience) -> Result<serde_json::Value> {
    let mut value = serde_json::to_value(experience).map_err(|error| Error::internal(error.to_string()))?;
    if let Some(fields) = value.as_object_mut() {
        fields.shift_remove("embedding");
    }
    Ok(value)
}

async fn export(data: &Data, args: &ExportArgs, printer: &Printer) -> Outcome {
    let experiences = data.store.experiences().await?;
    let count = experiences.len();
    let mut text = Vec::new();
    for experience in experiences {
        let line = without_embedding(experience)?;
        serde_json::to_writer(&mut text, &line).map_err(|error| Error::internal(error.to_string()))?;
        text.push(b'\n');
    }
    match &args.file {
        None => printer.raw(&text)?,
        Some(path) => {
            let written = std::fs::File::create(path).and_then(|mut file| {
                file.write_all(&text)?;
                file.sync_all()
            });
            written
                .map_err(|error| Error::unavailable(format!("cannot write {}: {error}", path.display())))?;
        }
    }
    printer.note(&format!("{count} experiences exported"));
    Ok(())
}

async fn import(args: ImportArgs, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let settings = settings.load("warn", [args.data.named(), model(args.model)])?;
    let input: Box<dyn BufRead + Send> = match &args.file {
        None => Box::new(BufReader::new(std::io::stdin())),
        Some(path) => {
            let file = std::fs::File::open(path).map_err(|error| {
                let message = format!("cannot read {}: {error}", path.display());
                match error.kind() {
                    std::io::ErrorKind::NotFound => Error::not_found(message),
                    _ => Error::invalid(message),
                }
            })?;
            Box::new(BufReader::new(file))
        }
    };
    let node = Node::open(&settings).await?;
    let imported = match node.leads_within(TURN).await {
        Ok(()) => node.memory.import(input, args.keep_going).await.map_err(Error::from),
        Err(error) => Err(error),
    };
    node.close().await;
    let imported = imported?;
    for line in &imported.broken {
        printer.note(&format!("line {}: {}", line.line, line.reason));
    }
    if args.json {
        return printer.json(&imported);
    }
    printer.data(&format!(
        "{} added, {} merged, {} broken lines",
        imported.added,
        imported.merged,
        imported.broken.len()
    ))
}
