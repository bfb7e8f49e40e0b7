use std::time::Duration;

use super::*;

fn record(index: u64, version: u64) -> RequestRecord {
    RequestRecord {
        index,
        task: 0,
        right: true,
        version: Some(VersionNumber(version)),
        source: Source::Weights,
        latency: Duration::from_millis(1),
        rolling: 1.0,
        rolling_weights: Some(1.0),
    }
}

#[test]
fn the_curve_is_thinned_and_keeps_the_last_answer() {
    let records: Vec<_> = (0..2_005).map(|index| record(index, 0)).collect();
    let points = curve(&records);
    // Every fourth of 2,005, and the last.
    assert_eq!((points.len(), points[0].request, points.last().unwrap().request), (502, 3, 2_004));
    assert_eq!(curve(&records[..3]).len(), 3);
    assert!(curve(&[]).is_empty());
}

#[test]
fn a_version_is_marked_where_it_first_answered() {
    let records = [record(0, 0), record(1, 1), record(2, 0), record(3, 1), record(4, 2)];
    let marks: Vec<_> = version_marks(&records).iter().map(|mark| (mark.request, mark.version.0)).collect();
    assert_eq!(marks, [(0, 0), (1, 1), (4, 2)]);
}

#[test]
fn the_process_knows_its_peak() {
    let peak = peak_rss_mb().unwrap();
    assert!(peak > 1.0 && peak < 100_000.0, "{peak}");
}
