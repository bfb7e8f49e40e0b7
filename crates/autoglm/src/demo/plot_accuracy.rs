//! Accuracy over traffic: two rolling curves, the tasks as bands, the versions as marks.

use std::fmt::Write as _;

use super::{
    report::{Report, TrafficPoint},
    svg::{Scale, escape, lines, step, wrapped},
    table::{percent, thousands},
};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 366.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 948.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 296.0;

/// The plot as an SVG element.
pub(crate) fn plot(report: &Report) -> String {
    let points = &report.accuracy_over_traffic;
    let requests = points.last().map_or(1, |point| point.request + 1) as f64;
    let x = Scale { from: 0.0, to: requests, left: LEFT, right: RIGHT };
    let y = Scale { from: 0.0, to: 1.0, left: BOTTOM, right: TOP };
    let mut svg = format!(
        r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="accuracy-title accuracy-text"><title id="accuracy-title">Accuracy over traffic</title><desc id="accuracy-text">{}</desc>"#,
        escape(&description(report))
    );
    bands(&mut svg, report, &x, requests);
    grid(&mut svg, &x, &y, requests);
    let weights_differ = report.answered_from_memory > 0;
    if weights_differ {
        curve(&mut svg, "curve second", points, &x, &y, |point| point.accuracy_weights);
    }
    curve(&mut svg, "curve first", points, &x, &y, |point| Some(point.accuracy));
    marks(&mut svg, report, &x);
    svg.push_str("</svg>");
    svg
}

fn description(report: &Report) -> String {
    let last = report.accuracy_over_traffic.last();
    format!(
        "Share of right answers among the last 200, over {} answers of {} tasks; at the end {}.",
        thousands(last.map_or(0, |point| point.request as u64 + 1)),
        report.stream.tasks.len(),
        percent(last.map(|point| point.accuracy))
    )
}

fn bands(svg: &mut String, report: &Report, x: &Scale, requests: f64) {
    let starts = &report.task_starts;
    for (at, start) in starts.iter().enumerate() {
        let end = starts.get(at + 1).map_or(requests, |next| next.request as f64);
        let (left, right) = (x.at(start.request as f64), x.at(end));
        let width = (right - left).max(0.0);
        let class = if at % 2 == 0 { "band" } else { "band odd" };
        let name = escape(&start.task);
        let _ = write!(
            svg,
            r#"<rect class="{class}" x="{left:.1}" y="{TOP}" width="{width:.1}" height="{:.1}"><title>{name}</title></rect>"#,
            BOTTOM - TOP
        );
        let label = wrapped(&start.task, (width / 6.4) as usize, 3);
        if width > 20.0 {
            lines(svg, "label", left + width / 2.0, BOTTOM + 40.0, &label);
        }
    }
}

fn grid(svg: &mut String, x: &Scale, y: &Scale, requests: f64) {
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let at = y.at(share);
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{at:.1}" y2="{at:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}%</text>"#,
            LEFT - 8.0,
            at + 4.0,
            share * 100.0
        );
    }
    let step = step(requests, 8).max(1.0);
    let mut value = 0.0;
    // The last stretch of the axis belongs to its name.
    while x.at(value) < RIGHT - 64.0 {
        let at = x.at(value);
        let anchor = if value == 0.0 { "start" } else { "middle" };
        let _ = write!(
            svg,
            r#"<text class="tick" x="{at:.1}" y="{:.1}" text-anchor="{anchor}">{}</text>"#,
            BOTTOM + 17.0,
            thousands(value as u64)
        );
        value += step;
    }
    let _ = write!(
        svg,
        r#"<text class="tick" x="{RIGHT}" y="{:.1}" text-anchor="end">answers</text>"#,
        BOTTOM + 17.0
    );
}

fn curve(
    svg: &mut String,
    class: &str,
    points: &[TrafficPoint],
    x: &Scale,
    y: &Scale,
    value: impl Fn(&TrafficPoint) -> Option<f64>,
) {
    let mut path = String::new();
    for point in points {
        let Some(value) = value(point) else { continue };
        let verb = if path.is_empty() { 'M' } else { 'L' };
        let _ = write!(path, "{verb}{:.1} {:.1}", x.at(point.request as f64), y.at(value));
    }
    if !path.is_empty() {
        let _ = write!(svg, r#"<path class="{class}" d="{path}"/>"#);
    }
}

fn marks(svg: &mut String, report: &Report, x: &Scale) {
    let mut free_from = f64::MIN;
    for mark in report.version_marks.iter().filter(|mark| mark.version.0 > 0) {
        let at = x.at(mark.request as f64);
        let _ = write!(
            svg,
            r#"<line class="mark" x1="{at:.1}" x2="{at:.1}" y1="{:.1}" y2="{BOTTOM}"><title>{} from answer {}</title></line>"#,
            TOP - 6.0,
            mark.version,
            mark.request + 1
        );
        // Labels that would run into one another are left to the tool tip.
        if at >= free_from {
            let _ = write!(
                svg,
                r#"<text class="version" x="{at:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                TOP - 12.0,
                mark.version
            );
            free_from = at + 26.0;
        }
    }
}
