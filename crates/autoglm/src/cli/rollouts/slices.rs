//! `autoglm rollouts slices`

use autoglm_rollout::{RolloutPolicy, SliceKind, SliceSummary};
use clap::Args;

use crate::{
    cli::{data::Data, settings_args::DataArgs},
    printer::{Outcome, Printer, Table},
    proving,
};

use super::pairs::{introduced, named_or_latest};

/// Arguments of `rollouts slices`.
#[derive(Debug, Args)]
pub(crate) struct SlicesArgs {
    /// A rollout's id, `current`, or a candidate; the latest rollout that has pairs where none is given
    #[arg(value_name = "ROLLOUT")]
    id: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) data: DataArgs,
}

/// Shows the slices, with the intervals that `policy` gives them.
pub(super) async fn run(
    data: &Data,
    policy: &RolloutPolicy,
    args: &SlicesArgs,
    printer: &Printer,
) -> Outcome {
    let rollout = named_or_latest(data, args.id.as_deref()).await?;
    let slices = proving::slices(&*data.store, policy, rollout.id).await?;
    if args.json {
        return printer.json(&slices);
    }
    if !introduced(&rollout, slices.is_empty(), printer) {
        return Ok(());
    }
    let columns =
        ["BY", "WHICH", ">PAIRS", ">GAIN", "INTERVAL", ">SAME", ">DISTANCE", ">REFUSALS", ">FORMAT ERRORS"];
    let mut table = Table::new(&columns);
    for slice in &slices {
        table.row(row(slice));
    }
    printer.table(&table)
}

fn row(slice: &SliceSummary) -> [String; 9] {
    let by = match slice.kind {
        SliceKind::All => String::new(),
        part => part.to_string(),
    };
    let gain = &slice.gain;
    [
        by,
        slice.key.clone(),
        slice.pairs.to_string(),
        format!("{:+.3}", gain.difference),
        format!("{:+.3} to {:+.3}", gain.lower, gain.upper),
        format!("{:.1}%", slice.normalised * 100.0),
        format!("{:.2}", slice.distance),
        format!("{:+.1}%", slice.refusals * 100.0),
        format!("{:+.1}%", slice.format_errors * 100.0),
    ]
}
