//! `autoglm versions`: works on the data directory; a running server sees the moves within a second or so.

use std::{io::IsTerminal as _, path::PathBuf};

use autoglm_domain::{Adapter, Alias, AliasMove, Error, Result, VersionNumber};
use autoglm_registry::{
    Accuracy, Change, Example, GitImport, GitPick, GitSource, GitTarget, ROLLBACK, VersionDiff,
    VersionHistory, VersionView,
};
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
    /// Write a version as a PEFT folder, or as a commit of a git repository
    Export(ExportArgs),
    /// Register an adapter as a version: a PEFT folder's, or one out of a git repository
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
    #[arg(required_unless_present = "git", conflicts_with = "git")]
    folder: Option<PathBuf>,
    /// Commit it to this git repository instead, an address or a path, with the weights in git-lfs
    #[arg(long, value_name = "REMOTE")]
    git: Option<String>,
    /// The repository's branch; made where it is missing
    #[arg(long, value_name = "BRANCH", default_value = "main", requires = "git")]
    branch: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Arguments of `versions import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Folder with adapter_config.json and adapter_model.safetensors
    #[arg(required_unless_present = "git", conflicts_with = "git")]
    folder: Option<PathBuf>,
    /// Take it from this git repository instead, an address or a path
    #[arg(long, value_name = "REMOTE")]
    git: Option<String>,
    /// The repository's branch
    #[arg(long, value_name = "BRANCH", default_value = "main", requires = "git")]
    branch: String,
    /// Which version of the repository, by its number there; the latest commit is the default
    #[arg(long, value_name = "NUMBER", requires = "git")]
    version: Option<VersionNumber>,
    /// Which commit of the repository
    #[arg(long, value_name = "REV", requires = "git", conflicts_with = "version")]
    rev: Option<String>,
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
            let settings = load(&args.data, None)?;
            export(&Data::read(&settings).await?, &settings, args, printer).await
        }
        VersionsCommand::Import(args) => {
            let settings = load(&args.data, args.model.clone())?;
            import(&settings, args, printer).await
        }
    }
}

async fn list(data: &Data, json: bool, printer: &Printer) -> Outcome {
    let versions = data.registry.history().await?;
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
    let mut table = Table::new(&[
        "VERSION",
        "HASH",
        "REGISTERED",
        "PARENT",
        ">LOSS",
        ">ACCURACY",
        "95%",
        "LIVE SINCE",
        "BACK TO IT",
        "ALIASES",
        "NOTE",
    ]);
    for VersionHistory { view: VersionView { version, aliases }, accuracy, live_at, rollback } in versions {
        let percent = |value: f64| format!("{:.1}%", 100.0 * value);
        let interval = |it: &Accuracy| format!("{} to {}", percent(it.lower), percent(it.upper));
        table.row([
            version.number.to_string(),
            version.hash.short(),
            time(version.at),
            version.parent.to_string(),
            version.metrics.get("loss_last").map_or_else(|| "-".into(), |loss| format!("{loss:.3}")),
            accuracy.as_ref().map_or_else(|| "-".into(), |it| percent(it.mean)),
            accuracy.as_ref().map_or_else(|| "-".into(), interval),
            live_at.map_or_else(|| "-".into(), time),
            rollback.reason.map_or_else(|| "yes".into(), |reason| format!("no: {reason}")),
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
    let answers = &diff.answers;
    if answers.compared > 0 {
        let changed = format!("{} of {} changed", answers.changed, answers.compared);
        table.row(["answers".into(), String::new(), changed]);
    }
    printer.table(&table)?;
    show_examples(diff, printer)
}

/// Some experiences that only one of both learned from, and answers that changed.
fn show_examples(diff: &VersionDiff, printer: &Printer) -> Outcome {
    let part = |text: &str| shortened(text, 60);
    let data = &diff.snapshot;
    if !data.only_a.is_empty() || !data.only_b.is_empty() {
        let mut table = Table::new(&["ONLY IN", "EXPERIENCE", "PROMPT", "TARGET"]);
        for (version, examples) in [(diff.a, &data.only_a), (diff.b, &data.only_b)] {
            for example in examples {
                let Example { experience, prompt, target } = example;
                table.row([version.to_string(), experience.clone(), part(prompt), part(target)]);
            }
        }
        printer.data("")?;
        printer.table(&table)?;
    }
    if diff.answers.examples.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["ANSWER TO", "FIRST", "SECOND"]);
    for answer in &diff.answers.examples {
        table.row([answer.to.clone(), part(&answer.a), part(&answer.b)]);
    }
    printer.data("")?;
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

async fn export(data: &Data, settings: &Settings, args: ExportArgs, printer: &Printer) -> Outcome {
    let version = data.registry.resolve(&args.version).await?;
    if version == VersionNumber::BASE {
        return Err(Error::invalid("the base model has no adapter to export").into());
    }
    let Some(remote) = args.git else {
        let folder = args.folder.unwrap_or_default();
        data.registry.export(version, &folder).await?;
        if args.json {
            return printer.json(&serde_json::json!({"version": version, "folder": folder}));
        }
        printer.note(&format!("{version} is written as a PEFT adapter"));
        return printer.data(&folder.display().to_string());
    };
    let target = GitTarget { remote, branch: args.branch, author: settings.registry.git_author.clone() };
    let exported = data.registry.export_git(version, &target).await?;
    if args.json {
        return printer.json(&exported);
    }
    match exported.new {
        true => printer.note(&format!("{version} is a commit of `{}` now", target.branch)),
        false => printer.note(&format!("{version} was on `{}` already", target.branch)),
    }
    printer.data(&exported.commit)
}

/// An adapter on its way into the registry.
enum Incoming {
    Folder(PathBuf, Adapter),
    Git(Box<GitImport>),
}

impl Incoming {
    async fn read(data: &Data, settings: &Settings, args: &ImportArgs) -> Result<Self> {
        let Some(remote) = args.git.clone() else {
            let folder = args.folder.clone().unwrap_or_default();
            let adapter = autoglm_registry::read_folder(&folder, &settings.registry.scan).await?;
            return Ok(Self::Folder(folder, adapter));
        };
        let pick = match (args.version, args.rev.clone()) {
            (Some(number), _) => GitPick::Version(number),
            (None, Some(rev)) => GitPick::Rev(rev),
            (None, None) => GitPick::Latest,
        };
        let source = GitSource { remote, branch: args.branch.clone(), pick };
        Ok(Self::Git(Box::new(data.registry.read_git(&source).await?)))
    }

    fn adapter(&self) -> &Adapter {
        match self {
            Self::Folder(_, adapter) => adapter,
            Self::Git(found) => &found.adapter,
        }
    }
}

async fn import(settings: &Settings, args: ImportArgs, printer: &Printer) -> Outcome {
    if std::io::stderr().is_terminal() {
        printer.faint("reading the base model, whose hash the version carries");
    }
    let (base, model) = crate::node::base_model(settings)?;
    let data = Data::write(settings).await?;
    let incoming = Incoming::read(&data, settings, &args).await?;
    // An adapter of another model is refused here, not when it is asked to answer.
    if let Some(model) = &model {
        autoglm_engine::Decoder::load_adapter(model, incoming.adapter()).map_err(Error::from)?;
    }
    let version = match incoming {
        Incoming::Folder(folder, _) => data.registry.import(&folder, base, args.note).await?,
        Incoming::Git(found) => {
            if let Some(record) = &found.record {
                printer
                    .note(&format!("the adapter is the one that {} was there, bit for bit", record.number));
            }
            data.registry.register_git(*found, base, args.note).await?
        }
    };
    data.close().await?;
    if args.json {
        return printer.json(&version);
    }
    printer.note(&format!("registered; `autoglm versions promote {}` lets it answer", version.number));
    printer.data(&version.number.to_string())
}
