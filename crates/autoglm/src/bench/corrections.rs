//! Correct it once: what one correction changes, and how soon.

use autoglm_domain::Result;
use serde::Serialize;

use super::Host;
use crate::{
    demo::{ParaphraseReport, RecallMode, measure_paraphrases},
    printer::{Outcome, Printer, Table},
    settings::Settings,
};

/// Longest that a correction may take to change the answer, seconds.
const LIMIT_S: f64 = 1.0;

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct CorrectionsReport {
    /// The figures.
    #[serde(flatten)]
    pub(crate) measured: ParaphraseReport,
    /// How memory was used.
    pub(crate) recall: RecallMode,
    /// Longest that a correction may take, seconds.
    pub(crate) limit_s: f64,
    /// Whether the 99th percentile keeps to it.
    pub(crate) within_limit: bool,
}

/// Makes `corrections` corrections at a fresh server.
pub(crate) async fn run(
    settings: Settings,
    corrections: usize,
    seed: u64,
    recall: RecallMode,
) -> Result<CorrectionsReport> {
    let host = Host::start(settings).await?;
    let measured = measure_paraphrases(&host.client()?, &host.stream, corrections, seed, recall).await;
    host.close().await?;
    let measured = measured?;
    let within_limit = measured.seconds_p99 < LIMIT_S;
    Ok(CorrectionsReport { measured, recall, limit_s: LIMIT_S, within_limit })
}

/// Prints it.
pub(crate) fn print(report: &CorrectionsReport, printer: &Printer) -> Outcome {
    let measured = &report.measured;
    let percent = |share: f64| format!("{:.1}%", share * 100.0);
    let seconds = |seconds: f64| super::latency::ms(seconds * 1e3);
    let mut table = Table::new(&["MEASURED", ">VALUE"]);
    for (name, value) in [
        ("corrections", measured.corrections.to_string()),
        ("same question right at once", percent(measured.same_right_at_once)),
        ("same question right within a second", percent(measured.same_right)),
        ("held-out question of the same meaning right", percent(measured.paraphrase_right)),
        ("  before its correction", percent(measured.paraphrase_right_before)),
        ("correction to changed answer, p50", seconds(measured.seconds_p50)),
        ("correction to changed answer, p99", seconds(measured.seconds_p99)),
        ("correction to changed answer, slowest", seconds(measured.seconds_max)),
    ] {
        table.row([name.to_owned(), value]);
    }
    printer.table(&table)
}
