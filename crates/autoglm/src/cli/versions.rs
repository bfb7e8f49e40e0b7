//! `autoglm versions`: works on the data directory; a running server sees the moves within a second or so.

use std::{io::IsTerminal as _, path::PathBuf};

use autoglm_domain::{Alias, AliasMove, Error, Result, VersionNumber};
use autoglm_registry::{Change, ROLLBACK, VersionDiff, VersionView};
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::{
    printer::{Look, Outcome, Printer, Table, oneline, shortened, time},
    settings::{Settings, plain_numbers},
};

use super::{
    data::{Data, who},
    settings_args::{DataArgs, SettingsArgs, model},
};

/// Commands of `versions`.
#[derive(Debug, Subcommand)]
pub(super) enum VersionsCommand {
    /// List versions, oldest first
    List(ListArgs),
    /// Show one version
    Show(ShowArgs),
    /// Show what differs between two versions
    Diff(DiffArgs),
    /// Let a version answer, without the gate's verdict
    Promote(PromoteArgs),
    /// Go back to the champion before this one, or to a named version
    Rollback(RollbackArgs),
    /// Write a version as a PEFT folder
    Export(ExportArgs),
    /// Register the adapter in a PEFT folder as a version
    Import(ImportArgs),
}

/// Arguments of `versions list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Arguments of `versions show`.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// An alias, v3, or the first digits of a hash
    version: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Arguments of `versions diff`.
#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The first version
    a: String,
    /// The second version
    b: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Arguments of `versions promote`.
#[derive(Debug, Args)]
pub(super) struct PromoteArgs {
    /// An alias, v3, or the first digits of a hash
    version: String,
    /// The alias to move
    #[arg(long, default_value = "champion")]
    alias: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "by hand")]
    reason: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Arguments of `versions rollback`.
#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// The version to go back to
    version: Option<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "by hand")]
    reason: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Arguments of `versions export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// An alias, v3, or the first digits of a hash
    version: String,
    /// Folder to write; it must not exist or be empty
    folder: PathBuf,
    #[command(flatten)]
    data: DataArgs,
}

/// Arguments of `versions import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Folder with adapter_config.json and adapter_model.safetensors
    folder: PathBuf,
    /// A remark, for the record
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// The base model that the adapter belongs to, instead of the starter model
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Runs a command of `versions`.
pub(super) async fn run(command: VersionsCommand, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let load = |data: &DataArgs, base: Option<String>| settings.load("warn", [data.named(), model(base)]);
    match command {
        VersionsCommand::List(args) => {
            list(&Data::read(&load(&args.data, None)?).await?, args.json, printer).await
        }
        VersionsCommand::Show(args) => {
            let data = Data::read(&load(&args.data, None)?).await?;
            show(&data, &args, printer).await
        }
        VersionsCommand::Diff(args) => {
            let data = Data::read(&load(&args.data, None)?).await?;
            let (a, b) = (data.registry.resolve(&args.a).await?, data.registry.resolve(&args.b).await?);
            let diff = data.registry.diff(a, b).await?;
            if args.json { printer.json(&diff) } else { show_diff(&diff, printer) }
        }
        VersionsCommand::Promote(args) => {
            let data = Data::write(&load(&args.data, None)?).await?;
            promote(data, args, printer).await
        }
        VersionsCommand::Rollback(args) => {
            let data = Data::write(&load(&args.data, None)?).await?;
            rollback(data, args, printer).await
        }
        VersionsCommand::Export(args) => {
            let data = Data::read(&load(&args.data, None)?).await?;
            let version = data.registry.resolve(&args.version).await?;
            if version == VersionNumber::BASE {
                return Err(Error::invalid("the base model has no adapter to export").into());
            }
            data.registry.export(version, &args.folder).await?;
            printer.note(&format!("{version} is written as a PEFT adapter"));
            printer.data(&args.folder.display().to_string())
        }
        VersionsCommand::Import(args) => {
            let settings = load(&args.data, args.model.clone())?;
            import(&settings, args, printer).await
        }
    }
}

async fn list(data: &Data, json: bool, printer: &Printer) -> Outcome {
    let versions = data.registry.list().await?;
    if json {
        return printer.json(&versions);
    }
    let champion = data.registry.aliases().current(&Alias::champion());
    if champion == VersionNumber::BASE {
        printer.note("the base model answers (v0)");
    }
    if versions.is_empty() {
        printer.note("no versions so far");
        return Ok(());
    }
    let mut table = Table::new(&["VERSION", "HASH", "REGISTERED", "PARENT", ">LOSS", "ALIASES", "NOTE"]);
    for VersionView { version, aliases } in versions {
        table.row([
            version.number.to_string(),
            version.hash.short(),
            time(version.at),
            version.parent.to_string(),
            version.metrics.get("loss_last").map_or_else(|| "-".into(), |loss| format!("{loss:.3}")),
            names(&aliases),
            shortened(version.note.as_deref().unwrap_or_default(), 60),
        ]);
    }
    printer.table(&table)
}

fn names(aliases: &[Alias]) -> String {
    aliases.iter().map(|alias| alias.0.as_str()).collect::<Vec<_>>().join(", ")
}

async fn show(data: &Data, args: &ShowArgs, printer: &Printer) -> Outcome {
    let number = data.registry.resolve(&args.version).await?;
    if number == VersionNumber::BASE {
        return Err(Error::invalid("v0 is the base model, not a version that was made")
            .with_hint("`autoglm versions list`")
            .into());
    }
    let view = data.registry.show(number).await?;
    if args.json {
        return printer.json(&view);
    }
    printer.data(&description(&view, printer)?)
}

fn description(view: &VersionView, printer: &Printer) -> Result<String> {
    let VersionView { version, aliases } = view;
    let mut lines = vec![printer.styled(Look::Bold, &version.number.to_string())];
    let mut line = |name: &str, value: String| lines.push(format!("{name:<24}{}", oneline(&value)));
    line("hash", version.hash.to_string());
    line("registered", time(version.at));
    line("made by", format!("autoglm {}", version.code_version));
    line("parent", version.parent.to_string());
    line("base", version.base.to_string());
    line("adapter", version.adapter.to_string());
    for (name, value) in [
        ("aliases", (!aliases.is_empty()).then(|| names(aliases))),
        ("snapshot", version.snapshot.map(|hash| hash.to_string())),
        ("run", version.run.map(|run| run.to_string())),
        ("note", version.note.clone()),
    ] {
        value.into_iter().for_each(|value| line(name, value));
    }
    for (name, value) in &version.metrics {
        line(name, value.to_string());
    }
    if let Some(hyper) = &version.hyper {
        let mut hyper = serde_json::to_value(hyper).map_err(|error| Error::internal(error.to_string()))?;
        plain_numbers(&mut hyper);
        for (name, value) in hyper.as_object().into_iter().flatten() {
            line(name, value.to_string());
        }
    }
    Ok(lines.join("\n"))
}

fn show_diff(diff: &VersionDiff, printer: &Printer) -> Outcome {
    let mut table = Table::new(&["WHAT", ">A", ">B"]);
    table.row(["version".into(), diff.a.to_string(), diff.b.to_string()]);
    let same = if diff.same_adapter { "the same" } else { "another" };
    table.row(["adapter".into(), String::new(), same.into()]);
    let data = &diff.snapshot;
    table.row([
        "experiences".into(),
        (data.removed + data.common).to_string(),
        (data.added + data.common).to_string(),
    ]);
    table.row(["  only there".into(), data.removed.to_string(), data.added.to_string()]);
    for (name, Change { a, b }) in diff.metrics.iter().chain(&diff.hyper) {
        table.row([name.clone(), value(a.as_ref()), value(b.as_ref())]);
    }
    printer.table(&table)
}

fn value(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

async fn promote(data: Data, args: PromoteArgs, printer: &Printer) -> Outcome {
    let version = data.registry.resolve(&args.version).await?;
    let findings = data.registry.scan(version).await?;
    if !findings.is_empty() {
        return Err(Error::invalid(format!("{version} did not pass the scan: {}", findings.join("; ")))
            .with_hint("a damaged adapter never answers; train or import another")
            .into());
    }
    let alias = Alias(args.alias);
    let moved = data.registry.point(alias, None, version, &who(), &args.reason, None).await?;
    data.close().await?;
    show_move(&moved, args.json, printer)
}

async fn rollback(data: Data, args: RollbackArgs, printer: &Printer) -> Outcome {
    let moved = match &args.version {
        None => data.registry.rollback(&who(), &args.reason).await?,
        Some(name) => {
            let version = data.registry.resolve(name).await?;
            let reason = format!("{ROLLBACK}{}", args.reason);
            data.registry.point(Alias::champion(), None, version, &who(), &reason, None).await?
        }
    };
    data.close().await?;
    show_move(&moved, args.json, printer)
}

fn show_move(moved: &AliasMove, json: bool, printer: &Printer) -> Outcome {
    if json {
        return printer.json(moved);
    }
    printer.data(&format!("{}: {} -> {}", moved.alias, moved.from, moved.to))?;
    printer.note("a running server follows with its next look at the store");
    Ok(())
}

async fn import(settings: &Settings, args: ImportArgs, printer: &Printer) -> Outcome {
    if std::io::stderr().is_terminal() {
        printer.faint("reading the base model, whose hash the version carries");
    }
    let (base, model) = crate::node::base_model(settings)?;
    let data = Data::write(settings).await?;
    let adapter = autoglm_registry::read_folder(&args.folder, &settings.registry.scan).await?;
    // An adapter of another model is refused here, not when it is asked to answer.
    if let Some(model) = &model {
        autoglm_engine::Decoder::load_adapter(model, &adapter).map_err(Error::from)?;
    }
    let version = data.registry.import(&args.folder, base, args.note).await?;
    data.close().await?;
    if args.json {
        return printer.json(&version);
    }
    printer.note(&format!("registered; `autoglm versions promote {}` lets it answer", version.number));
    printer.data(&version.number.to_string())
}
