//! `autoglm rollouts show`

use autoglm_domain::{
    Evidence, GateAnswers, JudgeStanding, LiveStage, MetricEvidence, MetricStatus, PairedEvidence, Rollout,
    RolloutProgress, RolloutState, StageRuling,
};
use clap::Args;
use serde_json::{Value, json};

use crate::{
    cli::{data::Data, settings_args::DataArgs},
    printer::{Look, Outcome, Printer, Table, oneline, time},
};

use super::{find, state};

/// Arguments of `rollouts show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// A rollout's id, `current`, or a candidate such as v3 (its latest rollout)
    #[arg(value_name = "ROLLOUT")]
    id: String,
    /// Show the N latest looks, instead of the last one at each stage
    #[arg(long, value_name = "N")]
    looks: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) data: DataArgs,
}

/// Shows a rollout.
pub(super) async fn run(data: &Data, args: &ShowArgs, printer: &Printer) -> Outcome {
    let rollout = find(data, &args.id).await?;
    let looks = looks(data, &rollout, args.looks).await?;
    if args.json {
        let mut shown = json!(rollout);
        if let Value::Object(fields) = &mut shown {
            fields.insert("looks".into(), json!(looks));
        }
        return printer.json(&shown);
    }
    printer.data(&description(&rollout, printer))?;
    show_gate(rollout.evidence(), printer)?;
    looks.iter().try_for_each(|look| show_look(look, printer))
}

/// The looks that are asked for, oldest first.
async fn looks(
    data: &Data,
    rollout: &Rollout,
    most: Option<usize>,
) -> autoglm_domain::Result<Vec<RolloutProgress>> {
    if let Some(most) = most {
        let mut looks = data.store.rollout_progress(rollout.id, most).await?;
        looks.reverse();
        return Ok(looks);
    }
    let mut found = rollout.evidence().clone();
    // Where it is now, which no evidence holds before the stage is over.
    if rollout.is_unfinished()
        && let Some(latest) = data.store.rollout_progress(rollout.id, 1).await?.pop()
    {
        found.look(latest);
    }
    Ok(found.live)
}

fn description(rollout: &Rollout, printer: &Printer) -> String {
    let (state, reason) = state(&rollout.state);
    let mut lines = vec![
        printer.styled(Look::Bold, &rollout.id.to_string()),
        format!("began      {}", time(rollout.at)),
        format!("candidate  {}", rollout.candidate),
        format!("champion   {}", rollout.champion),
        format!("state      {state}"),
    ];
    if let Some(live) = rollout.live() {
        lines.push(format!("stage      {}", live.stage));
    }
    if !reason.is_empty() {
        lines.push(format!("reason     {}", oneline(reason)));
    }
    if let RolloutState::Decided { verdict } = &rollout.state {
        lines.push(format!("decided    {}", time(verdict.at)));
    }
    let evidence = rollout.evidence();
    lines.extend(evidence.scan.iter().map(|finding| format!("scan       {}", oneline(finding))));
    if !evidence.gate.is_empty() {
        lines.push(format!("gate       {}", oneline(&evidence.gate)));
    }
    if !evidence.answers.is_empty() {
        let GateAnswers { compared, changed, .. } = &*evidence.answers;
        lines.push(format!("answers    {changed} of {compared} changed at the gate"));
    }
    lines.join("\n")
}

/// What held-out experiences said.
fn show_gate(evidence: &Evidence, printer: &Printer) -> Outcome {
    let columns = ["EVIDENCE", ">PAIRS", ">CHAMPION", ">CANDIDATE", ">DIFFERENCE", "INTERVAL", "FINDING"];
    let mut table = Table::new(&columns);
    for (name, paired) in [("new skill", &evidence.new_skill), ("retention, pooled", &evidence.retention)] {
        if let Some(paired) = paired {
            table.row(row(name, paired, ""));
        }
    }
    for cluster in &evidence.clusters {
        let finding = format!(
            "{}, may fall {}",
            if cluster.fell { "fell" } else { "held" },
            percent(cluster.tolerance)
        );
        table.row(row(&format!("  {}", cluster.name), &cluster.paired, &finding));
    }
    if table.is_empty() {
        return Ok(());
    }
    printer.data("")?;
    printer.table(&table)
}

fn row(name: &str, paired: &PairedEvidence, finding: &str) -> [String; 7] {
    [
        name.to_owned(),
        paired.pairs.to_string(),
        percent(paired.champion_mean),
        percent(paired.candidate_mean),
        format!("{:+.1}%", paired.difference * 100.0),
        format!("{:+.1}% to {:+.1}%", paired.lower * 100.0, paired.upper * 100.0),
        finding.to_owned(),
    ]
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// One look: what it came to, and every metric with its interval.
fn show_look(look: &RolloutProgress, printer: &Printer) -> Outcome {
    let counted = if look.stage == LiveStage::Shadow { "pairs" } else { "answers" };
    let line = format!(
        "{}  {}: {} after {} {counted}: {}",
        time(look.at),
        look.stage,
        ruling(look.ruling),
        look.observations,
        oneline(&look.reason)
    );
    printer.data("")?;
    printer.data(&line)?;
    if let Some(judge) = &look.judge {
        printer.data(&format!("  {}", standing_of(judge)))?;
    }
    let columns =
        ["METRIC", ">CHAMPION", ">CANDIDATE", ">HELD", "INTERVAL", ">LIMIT", "STANDING", ">ANSWERS"];
    let mut table = Table::new(&columns);
    for metric in &look.metrics {
        table.row(metric_row(metric));
    }
    printer.table(&table)
}

/// A judge's agreement with people, in a sentence.
pub(crate) fn standing_of(judge: &JudgeStanding) -> String {
    format!(
        "the judge agrees with {} of {} labels of people's, kappa {:.2} ({:.2} to {:.2}); its verdicts {}",
        percent(judge.share),
        judge.pairs,
        judge.kappa,
        judge.lower,
        judge.upper,
        if judge.trusted { "count" } else { "do not count" }
    )
}

fn metric_row(it: &MetricEvidence) -> [String; 8] {
    let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
    let interval = match (it.lower, it.upper) {
        (None, None) => "-".to_owned(),
        (lower, upper) => format!("{} to {}", shown(lower), shown(upper)),
    };
    [
        it.metric.clone(),
        shown(it.champion),
        shown(it.candidate),
        shown(it.estimate),
        interval,
        number(it.limit),
        standing(it.status).to_owned(),
        format!("{} / {}", it.champion_count, it.candidate_count),
    ]
}

/// Three digits that matter, without more than are needed.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        it if it >= 100.0 => 0,
        it if it >= 10.0 => 1,
        it if it >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn ruling(ruling: StageRuling) -> &'static str {
    match ruling {
        StageRuling::Succeed => "passed",
        StageRuling::Fail => "failed",
        StageRuling::Wait => "waits",
        StageRuling::Inconclusive => "undecided",
    }
}

fn standing(status: MetricStatus) -> &'static str {
    match status {
        MetricStatus::Shown => "shown",
        MetricStatus::Within => "within",
        MetricStatus::Beyond => "beyond, by chance perhaps",
        MetricStatus::Breached => "breached",
        MetricStatus::Open => "open",
    }
}
