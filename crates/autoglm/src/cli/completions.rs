//! `autoglm completions`

use clap::{Args, CommandFactory as _};

use crate::printer::{Outcome, Printer};

use super::Cli;

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// Which shell
    shell: clap_complete::Shell,
}

/// Prints a shell's completions.
pub(super) fn run(args: &CompletionsArgs, printer: &Printer) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "autoglm", &mut script);
    printer.raw(&script)
}
