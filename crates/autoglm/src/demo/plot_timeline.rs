//! The time line: traffic, training runs and verdicts over the demo's seconds.

use std::fmt::Write as _;

use super::{
    report::{Report, TimelineEntry},
    svg::{Scale, escape, lines, step, wrapped},
};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 238.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 948.0;
const LANES: [(&str, f64); 3] = [("traffic", 12.0), ("training", 84.0), ("verdict", 140.0)];
const AXIS: f64 = 200.0;

/// The plot as an SVG element.
pub(crate) fn plot(report: &Report) -> String {
    let end = report.timeline.iter().map(last_second).fold(report.seconds.max(1.0), f64::max);
    let x = Scale { from: 0.0, to: end, left: LEFT, right: RIGHT };
    let mut svg = format!(
        r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="time-title time-text"><title id="time-title">Time line of traffic, training runs and verdicts</title><desc id="time-text">The same is listed in the table of versions below.</desc>"#
    );
    for (name, y) in LANES {
        let _ = write!(
            svg,
            r#"<text class="lane" x="{:.1}" y="{:.1}" text-anchor="end">{name}</text>"#,
            LEFT - 12.0,
            y + 20.0
        );
    }
    axis(&mut svg, &x, end);
    let mut free_from = f64::MIN;
    for entry in &report.timeline {
        match entry {
            TimelineEntry::Phase { task, start_s, traffic_end_s, end_s, .. } => {
                phase(&mut svg, &x, task, *start_s, *traffic_end_s, *end_s);
            }
            TimelineEntry::Run { .. } => run(&mut svg, &x, report, entry, end),
            TimelineEntry::Verdict { version, verdict, reason, at_s } => {
                let at = x.at(*at_s);
                let title = format!("{version} {verdict}: {reason}");
                let labelled = at >= free_from;
                verdict_mark(&mut svg, at, verdict, &title, labelled.then(|| version.to_string()));
                if labelled {
                    free_from = at + 24.0;
                }
            }
            TimelineEntry::Promotion { .. } => {}
        }
    }
    svg.push_str("</svg>");
    svg
}

fn last_second(entry: &TimelineEntry) -> f64 {
    match entry {
        TimelineEntry::Phase { end_s, .. } => *end_s,
        TimelineEntry::Run { start_s, end_s, .. } => end_s.unwrap_or(*start_s),
        TimelineEntry::Verdict { at_s, .. } | TimelineEntry::Promotion { at_s, .. } => *at_s,
    }
}

fn axis(svg: &mut String, x: &Scale, end: f64) {
    let (unit, divisor) = if end > 180.0 { ("min", 60.0) } else { ("s", 1.0) };
    let step = step(end / divisor, 10).max(if divisor > 1.0 { 0.5 } else { 1.0 });
    let mut value = 0.0;
    while value * divisor <= end {
        let at = x.at(value * divisor);
        let label = if value == 0.0 { format!("0 {unit}") } else { format!("{value}") };
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{at:.1}" x2="{at:.1}" y1="8" y2="{AXIS}"/><text class="tick" x="{at:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#,
            AXIS + 18.0
        );
        value += step;
    }
}

fn phase(svg: &mut String, x: &Scale, task: &str, start: f64, traffic_end: f64, end: f64) {
    let (left, middle, right) = (x.at(start), x.at(traffic_end), x.at(end));
    let name = escape(task);
    let _ = write!(
        svg,
        r#"<rect class="traffic" x="{left:.1}" y="12" width="{:.1}" height="20" rx="2"><title>{name}: traffic from {start:.1} s to {traffic_end:.1} s</title></rect>"#,
        (middle - left).max(1.0)
    );
    let _ = write!(
        svg,
        r#"<rect class="trickle" x="{middle:.1}" y="20" width="{:.1}" height="4"><title>{name}: a trickle of traffic while the server consolidates, until {end:.1} s</title></rect>"#,
        (right - middle).max(0.0)
    );
    let width = right - left;
    if width > 20.0 {
        let label = wrapped(task, (width / 6.4) as usize, 3);
        lines(svg, "label", left + width / 2.0, 46.0, &label);
    }
}

fn run(svg: &mut String, x: &Scale, report: &Report, entry: &TimelineEntry, end: f64) {
    let TimelineEntry::Run { state, version, start_s, end_s, trigger, new_experiences, .. } = entry else {
        return;
    };
    let verdict = report.versions.iter().find(|known| Some(known.number) == *version).and_then(|v| v.verdict);
    let class = verdict.unwrap_or("open");
    let (left, right) = (x.at(*start_s), x.at(end_s.unwrap_or(end)));
    let made = version.map(|version| format!(" made {version}")).unwrap_or_default();
    let trigger = escape(&trigger.replace('_', " "));
    let _ = write!(
        svg,
        r#"<rect class="run {class}" x="{left:.1}" y="90" width="{:.1}" height="20" rx="2"><title>run {state}{made} ({trigger}, {new_experiences} new experiences), from {start_s:.1} s</title></rect>"#,
        (right - left).max(1.5)
    );
}

/// A filled triangle, a cross or a ring: the outcomes differ in shape, not in colour alone.
fn verdict_mark(svg: &mut String, at: f64, verdict: &str, title: &str, label: Option<String>) {
    let shape = match verdict {
        "promote" => format!("M{:.1} 160L{at:.1} 149L{:.1} 160Z", at - 6.0, at + 6.0),
        "reject" => {
            let (l, r) = (at - 5.0, at + 5.0);
            format!("M{l:.1} 150L{r:.1} 160M{l:.1} 160L{r:.1} 150")
        }
        _ => format!("M{:.1} 155a5 5 0 1 0 10 0a5 5 0 1 0 -10 0", at - 5.0),
    };
    let _ = write!(
        svg,
        r#"<path class="verdict {}" d="{shape}"><title>{}</title></path>"#,
        escape(verdict),
        escape(title)
    );
    if let Some(label) = label {
        let _ =
            write!(svg, r#"<text class="version" x="{at:.1}" y="178" text-anchor="middle">{label}</text>"#);
    }
}
