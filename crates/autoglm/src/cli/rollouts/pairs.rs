//! `autoglm rollouts pairs`

use autoglm_domain::{Error, PairOrder, Result, Rollout, ShadowAnswer, ShadowPair};
use clap::{Args, ValueEnum};

use crate::{
    cli::{data::Data, settings_args::DataArgs},
    printer::{Outcome, Printer, Table, shortened, time},
};

use super::find;

/// Characters of an answer in the table.
const SHOWN: usize = 50;

/// Arguments of `rollouts pairs`.
#[derive(Debug, Args)]
pub(crate) struct PairsArgs {
    /// A rollout's id, `current`, or a candidate; the latest rollout that has pairs where none is given
    #[arg(value_name = "ROLLOUT")]
    id: Option<String>,
    /// Which come first
    #[arg(long, value_enum, default_value_t = Order::Worst, value_name = "ORDER")]
    order: Order,
    /// Most pairs
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: usize,
    /// Print JSON, with whole answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) data: DataArgs,
}

/// Which pairs come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    /// Those where the candidate did worst
    Worst,
    /// Those whose answers differ most
    MostDifferent,
    /// The oldest
    Oldest,
}

impl From<Order> for PairOrder {
    fn from(order: Order) -> Self {
        match order {
            Order::Worst => Self::Worst,
            Order::MostDifferent => Self::MostDifferent,
            Order::Oldest => Self::Oldest,
        }
    }
}

/// Shows pairs.
pub(super) async fn run(data: &Data, args: &PairsArgs, printer: &Printer) -> Outcome {
    let rollout = named_or_latest(data, args.id.as_deref()).await?;
    let pairs = data.store.shadow_pairs(rollout.id, args.order.into(), args.limit).await?;
    if args.json {
        return printer.json(&pairs);
    }
    if !introduced(&rollout, pairs.is_empty(), printer) {
        return Ok(());
    }
    let mut table = Table::new(&["REQUEST", "AT", "ROUTE", ">GAIN", ">DISTANCE", "CHAMPION", "CANDIDATE"]);
    for pair in &pairs {
        table.row(row(pair));
    }
    printer.table(&table)
}

/// Says whose answers follow, or, where there are `none`, that there are none; whether there are some.
pub(super) fn introduced(rollout: &Rollout, none: bool, printer: &Printer) -> bool {
    let Rollout { id, champion, candidate, .. } = rollout;
    printer.note(&match none {
        true => format!("{id} has no pairs"),
        false => format!(
            "{id}: champion {champion}, candidate {candidate}; a gain of -1 is all to the candidate's loss"
        ),
    });
    !none
}

/// The rollout of that name, or the latest one that has pairs.
pub(super) async fn named_or_latest(data: &Data, name: Option<&str>) -> Result<Rollout> {
    match name {
        Some(name) => find(data, name).await,
        None => latest_with_pairs(data).await,
    }
}

async fn latest_with_pairs(data: &Data) -> Result<Rollout> {
    for rollout in data.store.rollouts().await?.into_iter().rev() {
        if !data.store.shadow_pairs(rollout.id, PairOrder::Oldest, 1).await?.is_empty() {
            return Ok(rollout);
        }
    }
    Err(Error::not_found("no rollout has pairs")
        .with_hint("a candidate answers beside the champion while it is in the shadow (`rollout.live`)"))
}

fn row(pair: &ShadowPair) -> [String; 7] {
    [
        pair.interaction.to_string(),
        time(pair.at),
        pair.route.clone(),
        format!("{:+.2}", pair.gain()),
        format!("{:.2}", pair.diff.distance),
        said(&pair.champion),
        said(&pair.candidate),
    ]
}

/// An answer in a few words.
fn said(answer: &ShadowAnswer) -> String {
    if let Some(error) = &answer.error {
        return format!("failed: {}", shortened(error, SHOWN));
    }
    let calls: Vec<&str> = answer.tool_calls.iter().map(|call| call.name.as_str()).collect();
    match calls.is_empty() {
        true => shortened(&answer.text, SHOWN),
        false => format!("calls {}", shortened(&calls.join(", "), SHOWN)),
    }
}
