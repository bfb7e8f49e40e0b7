//! `autoglm trace`: from an answer to the version, the run, the experiences and the feedback behind it; and from an
//! experience to the versions that learned from it.

mod chain;
mod gather;
mod nearest;
mod render;

use autoglm_domain::{Error, Event, InteractionId, Result};
use clap::Args;

use crate::printer::{Outcome, Printer};

use super::{
    data::Data,
    settings_args::{DataArgs, SettingsArgs},
};
use chain::Trace;
use gather::Gatherer;

/// Experiences that are shown without `--all`.
const SHOWN: usize = 5;

/// Arguments of `trace`.
#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    /// An answer (chatcmpl-…), feedback (fb_…), experience (exp_…), training run (run_…), rollout (roll_…), or a
    /// version (v3, a hash, an alias)
    id: String,
    /// Show every experience that was learned from, not only the nearest
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Prints a trace.
pub(super) async fn run(args: TraceArgs, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let data = Data::read(&settings.load("warn", [args.data.named()])?).await?;
    let trace = trace(&data, &args.id, if args.all { usize::MAX } else { SHOWN }).await?;
    if args.json { printer.json(&trace) } else { printer.data(&render::text(&trace, printer)) }
}

/// The trace of whatever `id` names, with at most `shown` experiences.
async fn trace(data: &Data, id: &str, shown: usize) -> Result<Trace> {
    let gatherer = Gatherer { data, shown };
    match id.split_once(['-', '_']).map_or("", |(kind, _)| kind) {
        "chatcmpl" => gatherer.of_interaction(id.parse()?).await,
        "fb" => gatherer.of_interaction(interaction_of(data, id).await?).await,
        "exp" => gatherer.of_experience(id.parse()?).await,
        "run" => gatherer.of_run(id.parse()?).await,
        "roll" => gatherer.of_rollout(id.parse()?).await,
        _ => gatherer.of_version(data.registry.resolve(id).await?).await,
    }
}

/// The interaction that a piece of feedback speaks of. There is no index of feedback; the journal is read.
async fn interaction_of(data: &Data, id: &str) -> Result<InteractionId> {
    const PAGE: usize = 1000;
    let id: autoglm_domain::FeedbackId = id.parse()?;
    let mut seq = 0;
    loop {
        let events = data.store.events_after(seq, PAGE).await?;
        for recorded in &events {
            if let Event::Feedback(feedback) = &recorded.event
                && feedback.id == id
            {
                return Ok(feedback.interaction);
            }
        }
        match events.last() {
            Some(last) => seq = last.seq,
            None => return Err(Error::not_found(format!("no feedback `{id}`"))),
        }
    }
}
