//! `report.html`: one file without references to anything outside it, in light and dark.

use std::fmt::Write as _;

use super::{
    measure::mean,
    plot_accuracy, plot_timeline,
    report::{ByTask, Report},
    svg::escape,
    table::{percent, thousands},
};

const STYLE: &str = include_str!("report.css");

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <title>autoglm demo: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        escape(&report.stream.name)
    );
    heading(&mut html, report);
    tiles(&mut html, report);
    accuracy(&mut html, report);
    retention(&mut html, report);
    timeline(&mut html, report);
    tasks(&mut html, report);
    versions(&mut html, report);
    footer(&mut html, report);
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

macro_rules! put {
    // Writing to a string cannot fail.
    ($html:expr, $($text:tt)*) => { let _ = writeln!($html, $($text)*); };
}

fn heading(html: &mut String, report: &Report) {
    put!(html, "<header><p class=\"kicker\">autoglm demo</p>");
    put!(html, "<h1>{}</h1>", escape(&verdict_line(report)));
    put!(
        html,
        "<p class=\"lead\">{} utterances of {} in {} tasks, one after another, played as traffic at a server that \
         learned from the feedback of simulated users. Measured on {} utterances that were never sent.</p></header>",
        thousands(report.accuracy_over_traffic.last().map_or(0, |point| point.request as u64 + 1)),
        escape(&report.stream.name),
        report.stream.tasks.len(),
        thousands(report.stream.counts.held_out as u64)
    );
}

fn verdict_line(report: &Report) -> String {
    let failed = match report.failed_requests {
        0 => "no request failed".to_owned(),
        1 => "1 request failed".to_owned(),
        many => format!("{many} requests failed"),
    };
    match (report.accuracy_with_recall, report.accuracy_weights) {
        (Some(recall), Some(weights)) => format!(
            "{} right with recall, {} from the weights alone, and {failed}",
            percent(Some(recall)),
            percent(Some(weights))
        ),
        (None, Some(weights)) => format!("{} right from the weights, and {failed}", percent(Some(weights))),
        _ => format!("{} requests, and {failed}", thousands(report.requests)),
    }
}

fn tiles(html: &mut String, report: &Report) {
    put!(html, "<dl class=\"tiles\">");
    for (value, name, note) in tile_list(report) {
        put!(
            html,
            "<div><dt>{name}</dt><dd><strong>{}</strong><span>{}</span></dd></div>",
            escape(&value),
            escape(&note)
        );
    }
    put!(html, "</dl>");
}

fn tile_list(report: &Report) -> Vec<(String, &'static str, String)> {
    let worst = report.forgetting_by_task.0.iter().filter(|(_, fall)| *fall == report.forgetting_max);
    let worst = worst.map(|(task, _)| task.replace('_', " ")).next().unwrap_or_default();
    let promoted = report.versions.iter().filter(|version| version.verdict == Some("promote")).count();
    let judged = report.versions.iter().filter(|version| version.verdict.is_some()).count();
    let mut tiles = vec![
        (percent(report.accuracy_with_recall), "with recall", "mean over the tasks".to_owned()),
        (percent(report.accuracy_weights), "weights alone", "mean over the tasks".to_owned()),
    ];
    if report.accuracy_upper_bound.is_some() {
        let note = "trained on everything at once".to_owned();
        tiles.push((percent(report.accuracy_upper_bound), "joint training", note));
    }
    let forgetting = report.forgetting_max.map(|fall| format!("{:.1} pt", fall * 100.0));
    tiles.push((forgetting.unwrap_or_else(dash), "most forgotten", worst));
    tiles.push((format!("{promoted} of {judged}"), "candidates promoted", spoiled_note(report)));
    let correction = report.correction_seconds_p50.map(|seconds| format!("{:.0} ms", seconds * 1e3));
    let note = format!("{} within a second", percent(report.correction_share_within_1s));
    tiles.push((correction.unwrap_or_else(dash), "until a correction counts", note));
    tiles.push((
        report.failed_requests.to_string(),
        "failed requests",
        format!("of {}", thousands(report.requests)),
    ));
    let memory = report.peak_rss_mb.map(|mb| format!("{mb:.0} MB at most")).unwrap_or_default();
    tiles.push((format!("{:.0} s", report.seconds), "for the whole demo", memory));
    tiles
}

fn dash() -> String {
    "–".to_owned()
}

fn spoiled_note(report: &Report) -> String {
    match &report.spoiled_candidate {
        None => String::new(),
        Some(spoiled) if spoiled.answered == 0 && spoiled.verdict == Some("reject") => {
            "the spoiled one rejected".to_owned()
        }
        Some(spoiled) => {
            format!("spoiled: {}, answered {}", spoiled.verdict.unwrap_or("not judged"), spoiled.answered)
        }
    }
}

fn accuracy(html: &mut String, report: &Report) {
    put!(html, "<section><h2>Accuracy over traffic</h2>");
    put!(html, "<p class=\"legend\"><span class=\"key first\"></span>right among the last 200 answers");
    if report.answered_from_memory > 0 {
        put!(html, "<span class=\"key second\"></span>right among the last 200 that the weights gave");
    }
    put!(html, "<span class=\"key mark\"></span>a version's first answer</p>");
    put!(html, "<div class=\"plot\">{}</div></section>", plot_accuracy::plot(report));
}

fn retention(html: &mut String, report: &Report) {
    let matrix = &report.retention;
    put!(html, "<section><h2>What each version knows</h2>");
    put!(
        html,
        "<p>Right answers from the weights alone, on {} held-out utterances a task, the same for each version. Read \
         a row from left to right to see a task learned and kept.</p>",
        matrix.held_out_per_task
    );
    put!(html, "<div class=\"plot\"><table class=\"heat\"><thead><tr><th scope=\"col\">task</th>");
    for version in &matrix.versions {
        put!(html, "<th scope=\"col\">{version}</th>");
    }
    put!(html, "</tr></thead><tbody>");
    for (task, row) in matrix.tasks.iter().zip(&matrix.accuracy) {
        put!(html, "<tr><th scope=\"row\">{}</th>", escape(&task.replace('_', " ")));
        for cell in row {
            heat_cell(html, *cell);
        }
        put!(html, "</tr>");
    }
    put!(html, "</tbody></table></div></section>");
}

/// Accuracies crowd near the top, so the shade grows with their cube.
fn heat_cell(html: &mut String, value: Option<f64>) {
    match value {
        Some(value) => {
            let shade = value.powi(3) * 100.0;
            put!(html, "<td style=\"--shade:{shade:.1}%\">{:.0}</td>", value * 100.0);
        }
        None => {
            put!(html, "<td class=\"none\"><span aria-label=\"not measured\">·</span></td>");
        }
    }
}

fn timeline(html: &mut String, report: &Report) {
    put!(html, "<section><h2>Runs and verdicts</h2>");
    put!(
        html,
        "<p class=\"legend\"><span class=\"shape promote\">▲</span>promoted<span class=\"shape reject\">✕</span>\
         rejected<span class=\"shape inconclusive\">○</span>inconclusive; a run has the colour of its verdict</p>"
    );
    put!(html, "<div class=\"plot\">{}</div></section>", plot_timeline::plot(report));
}

fn tasks(html: &mut String, report: &Report) {
    let bound = report.accuracy_upper_bound.is_some();
    let value = |by_task: &ByTask<Option<f64>>, row: usize| by_task.0.get(row).and_then(|(_, value)| *value);
    let points = |fall: Option<f64>| fall.map_or_else(dash, |fall| format!("{:.1}", fall * 100.0));
    let joint =
        |share: Option<f64>| if bound { format!("<td>{}</td>", percent(share)) } else { String::new() };
    put!(
        html,
        "<section><h2>Task by task</h2><div class=\"plot\"><table><thead><tr><th scope=\"col\">task</th>"
    );
    put!(html, "<th scope=\"col\">best</th><th scope=\"col\">final</th><th scope=\"col\">forgotten</th>");
    put!(
        html,
        "<th scope=\"col\">with recall</th>{}",
        if bound { "<th scope=\"col\">joint</th>" } else { "" }
    );
    put!(html, "</tr></thead><tbody>");
    for (row, task) in report.stream.tasks.iter().enumerate() {
        put!(
            html,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>{}</tr>",
            escape(&task.replace('_', " ")),
            percent(value(&report.accuracy_weights_best_by_task, row)),
            percent(value(&report.accuracy_weights_by_task, row)),
            points(value(&report.forgetting_by_task, row)),
            percent(value(&report.accuracy_with_recall_by_task, row)),
            joint(value(&report.accuracy_upper_bound_by_task, row)),
        );
    }
    put!(
        html,
        "</tbody><tfoot><tr><th scope=\"row\">mean</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>{}</tr></tfoot>",
        percent(mean(report.accuracy_weights_best_by_task.0.iter().map(|(_, best)| *best))),
        percent(report.accuracy_weights),
        points(mean(report.forgetting_by_task.0.iter().map(|(_, fall)| *fall))),
        percent(report.accuracy_with_recall),
        joint(report.accuracy_upper_bound),
    );
    put!(
        html,
        "</table></div><p class=\"note\">Best and forgotten are measured on {} utterances a task, final and with \
         recall on all of them.</p></section>",
        report.retention.held_out_per_task
    );
}

fn versions(html: &mut String, report: &Report) {
    put!(html, "<section><h2>Versions</h2><div class=\"plot\"><table class=\"versions\"><thead><tr>");
    for title in ["version", "hash", "at", "verdict", "answered", "why"] {
        put!(html, "<th scope=\"col\">{title}</th>");
    }
    put!(html, "</tr></thead><tbody>");
    for version in &report.versions {
        let hash: String = version.hash.as_deref().unwrap_or("").chars().take(12).collect();
        let verdict = version.verdict.unwrap_or("");
        put!(
            html,
            "<tr><th scope=\"row\">{}{}</th><td><code>{}</code></td><td>{}</td><td class=\"{verdict}\">{verdict}</td>\
             <td>{}</td><td class=\"why\">{}</td></tr>",
            version.number,
            if version.spoiled { " <small>spoiled</small>" } else { "" },
            escape(&hash),
            version.at_s.map(|at| format!("{at:.0} s")).unwrap_or_default(),
            thousands(version.answered),
            escape(version.reason.as_deref().unwrap_or(""))
        );
    }
    put!(html, "</tbody></table></div></section>");
}

fn footer(html: &mut String, report: &Report) {
    let options = &report.options;
    put!(
        html,
        "<footer><p>autoglm {}, seed {}, {}% of the answers with feedback, {}% of it wrong on purpose. Everything on \
         this page and more is in <code>report.json</code>.</p></footer>",
        escape(&report.autoglm_version),
        options.seed,
        (options.feedback_share * 1000.0).round() / 10.0,
        (options.noise * 1000.0).round() / 10.0
    );
}

#[cfg(test)]
#[path = "report_html_tests.rs"]
mod tests;
