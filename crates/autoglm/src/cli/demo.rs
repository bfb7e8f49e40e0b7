//! `autoglm demo`

use clap::Args;

use crate::{
    demo::DemoOptions,
    node::demo_run,
    printer::{Outcome, Printer},
};

use super::settings_args::{SettingsArgs, model};

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    #[command(flatten)]
    options: DemoOptions,
    /// Serve this model folder, GGUF file or hub id instead of the starter model
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
}

/// Plays the demo.
pub(super) async fn run(args: DemoArgs, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    args.options.check()?;
    let settings = settings.load("warn", [model(args.model)])?;
    Ok(demo_run(&args.options, settings, printer).await?)
}
