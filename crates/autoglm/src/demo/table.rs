//! The table at the end, for people.

use std::fmt::Write as _;

use super::report::{ByTask, Report};

/// A share as a percentage with one digit, or a dash.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1}%", share * 100.0))
}

/// 12,000 and the like.
pub(crate) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Percentage points.
fn points(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1}", share * 100.0))
}

/// Accuracy by task, and below it the demo in a few lines.
pub(crate) fn table(report: &Report) -> String {
    let bound = report.accuracy_upper_bound.is_some();
    let mut header = vec!["task", "best", "final", "forgotten", "with recall"];
    if bound {
        header.push("joint");
    }
    let value = |by_task: &ByTask<Option<f64>>, row: usize| by_task.0.get(row).and_then(|(_, value)| *value);
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (row, task) in report.stream.tasks.iter().enumerate() {
        let mut cells = vec![
            task.clone(),
            percent(value(&report.accuracy_weights_best_by_task, row)),
            percent(value(&report.accuracy_weights_by_task, row)),
            points(value(&report.forgetting_by_task, row)),
            percent(value(&report.accuracy_with_recall_by_task, row)),
        ];
        if bound {
            cells.push(percent(value(&report.accuracy_upper_bound_by_task, row)));
        }
        rows.push(cells);
    }
    let best = super::measure::mean(report.accuracy_weights_best_by_task.0.iter().map(|(_, best)| *best));
    let mut mean = vec![
        "mean".to_owned(),
        percent(best),
        percent(report.accuracy_weights),
        points(super::measure::mean(report.forgetting_by_task.0.iter().map(|(_, fall)| *fall))),
        percent(report.accuracy_with_recall),
    ];
    if bound {
        mean.push(percent(report.accuracy_upper_bound));
    }
    let mut text = aligned(&header, &rows, &mean);
    summary(&mut text, report);
    text
}

fn aligned(header: &[&str], rows: &[Vec<String>], mean: &[String]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row.get(column)).chain([mean.get(column)]).flatten();
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or_default();
        widest.max(header.get(column).map_or(0, |title| title.len()))
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (column, (cell, width)) in cells.zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if column == 0 { ("", pad.as_str()) } else { (pad.as_str(), "") };
            line.push_str(&[gap, before, cell, after].concat());
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(&mut header.iter().copied());
    rows.iter().for_each(|row| line(&mut row.iter().map(String::as_str)));
    line(&mut mean.iter().map(String::as_str));
    text
}

fn summary(text: &mut String, report: &Report) {
    let mut write = |line: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    };
    let count =
        |verdict: &str| report.versions.iter().filter(|version| version.verdict == Some(verdict)).count();
    write(String::new());
    write(format!(
        "{} requests, {} failed; {} in {:.0} s{}",
        thousands(report.requests),
        report.failed_requests,
        plural(report.versions.iter().filter(|version| version.number.0 > 0).count(), "version"),
        report.seconds,
        report.peak_rss_mb.map(|mb| format!(", {mb:.0} MB at most")).unwrap_or_default(),
    ));
    write(format!(
        "{} promoted, {} rejected, {} inconclusive; {} answers now",
        count("promote"),
        count("reject"),
        count("inconclusive"),
        report.champion
    ));
    if let Some(spoiled) = &report.spoiled_candidate {
        let verdict = spoiled.verdict.unwrap_or("not judged");
        write(format!("the spoiled candidate {}: {verdict}, answered {}", spoiled.version, spoiled.answered));
    }
    if let (Some(seconds), Some(share)) = (report.correction_seconds_p50, report.correction_share_within_1s) {
        write(format!(
            "a correction took effect in {:.0} ms (median of {}; {} within a second)",
            seconds * 1e3,
            report.corrections_probed,
            percent(Some(share))
        ));
    }
    if let Some(rate) = report.training_tokens_per_s {
        let tokens = thousands(report.training_tokens as u64);
        write(format!("trained on {tokens} tokens, {rate:.0} a second"));
    }
    if !report.stream.counts.broken.is_empty() {
        let lines: Vec<String> =
            report.stream.counts.broken.iter().take(10).map(|broken| broken.line.to_string()).collect();
        let more = if report.stream.counts.broken.len() > lines.len() { ", …" } else { "" };
        write(format!(
            "{} left out: line {}{more}",
            plural(report.stream.counts.broken.len(), "broken line"),
            lines.join(", ")
        ));
    }
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_separated() {
        let written = [0, 999, 1_000, 14_984, 1_234_567].map(super::thousands);
        assert_eq!(written, ["0", "999", "1,000", "14,984", "1,234,567"]);
    }

    #[test]
    fn the_table_is_aligned_and_says_what_happened() {
        insta::assert_snapshot!(super::table(&crate::demo::report::tests::sample()));
    }
}
