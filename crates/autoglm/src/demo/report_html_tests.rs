use super::*;
use crate::demo::report::{TimelineEntry, tests::sample};

/// Walks the tags: every one is closed in order, attributes are quoted, `&` begins an entity.
fn check_well_formed(html: &str) {
    let body = html.strip_prefix("<!DOCTYPE html>\n").expect("a doctype");
    let mut open: Vec<&str> = Vec::new();
    let mut rest = body;
    while let Some(at) = rest.find('<') {
        check_text(&rest[..at], open.last());
        let end = at + rest[at..].find('>').expect("a tag that ends");
        let tag = &rest[at + 1..end];
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closing");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes in <{tag}>");
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

fn check_text(text: &str, inside: Option<&&str>) {
    if inside == Some(&"style") {
        return;
    }
    assert!(!text.contains('>'), "a stray > in {text:?}");
    for (at, _) in text.match_indices('&') {
        let entity = text[at..].find(';').map(|end| &text[at..at + end + 1]);
        assert!(matches!(entity, Some("&amp;" | "&lt;" | "&gt;" | "&quot;" | "&#39;")), "{text:?}");
    }
}

#[test]
fn the_page_is_well_formed_and_refers_to_nothing_outside() {
    let html = page(&sample());
    check_well_formed(&html);
    for outside in ["http://", "https://", "src=", "href=", "url(", "@import", "<script"] {
        assert!(!html.contains(outside), "{outside}");
    }
    if let Ok(path) = std::env::var("AUTOGLM_SAMPLE_REPORT") {
        std::fs::write(path, &html).unwrap();
    }
}

#[test]
fn what_a_stream_names_cannot_break_the_page() {
    let mut report = sample();
    let evil = r#"<script>alert("x")</script> & 'more'"#;
    report.stream.name = evil.into();
    report.stream.tasks[0] = evil.into();
    report.retention.tasks[0] = evil.into();
    report.task_starts[0].task = evil.into();
    report.versions[0].reason = Some(evil.into());
    if let Some(TimelineEntry::Phase { task, .. }) = report.timeline.first_mut() {
        *task = evil.into();
    }
    let html = page(&report);
    check_well_formed(&html);
    assert!(!html.contains("<script"));
}

#[test]
fn a_demo_that_learned_nothing_still_has_a_page() {
    let mut report = sample();
    report.accuracy_over_traffic.clear();
    report.version_marks.clear();
    report.task_starts.clear();
    report.timeline.clear();
    report.versions.clear();
    report.spoiled_candidate = None;
    report.accuracy_with_recall = None;
    report.accuracy_weights = None;
    report.accuracy_upper_bound = None;
    report.forgetting_max = None;
    report.correction_seconds_p50 = None;
    report.peak_rss_mb = None;
    report.retention.versions.clear();
    report.retention.accuracy.iter_mut().for_each(Vec::clear);
    report.failed_requests = 3;
    let html = page(&report);
    check_well_formed(&html);
    assert!(html.contains("<h1>16,204 requests, and 3 requests failed</h1>"));
    assert!(!html.contains("NaN") && !html.contains("inf"));
}

#[test]
fn the_plots_say_in_words_what_they_show() {
    let html = page(&sample());
    assert_eq!(html.matches("role=\"img\"").count(), 2);
    assert!(html.contains("over 15,000 answers of 10 tasks"));
    assert!(html.contains("v4 from answer 5993"));
    assert!(html.contains("<td style=\"--shade:75.4%\">91</td>"));
}
