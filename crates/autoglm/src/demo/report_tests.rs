use super::*;
use crate::demo::options::{FeedbackKind, RecallMode};

const TASKS: [&str; 10] = [
    "banking",
    "credit_cards",
    "kitchen_and_dining",
    "home",
    "auto_and_commute",
    "travel",
    "utility",
    "work",
    "small_talk",
    "meta",
];

fn by_task(value: impl Fn(usize) -> f64) -> ByTask<Option<f64>> {
    ByTask(TASKS.iter().enumerate().map(|(at, task)| ((*task).to_owned(), Some(value(at)))).collect())
}

fn version(number: u64, verdict: &'static str, answered: u64) -> VersionReport {
    VersionReport {
        number: VersionNumber(number),
        hash: Some(autoglm_domain::ContentHash::of(&number.to_le_bytes()).to_string()),
        parent: Some(VersionNumber(number.saturating_sub(1))),
        verdict: Some(verdict),
        reason: Some(
            "new skills: 0.03 to 0.81 on 92 held-out experiences, lower end of the difference 0.61 > 0"
                .into(),
        ),
        answered,
        at_s: Some(number as f64 * 33.0),
        spoiled: verdict == "reject",
        metrics: [("loss_last".to_owned(), 0.123_456)].into(),
    }
}

fn timeline() -> Vec<TimelineEntry> {
    let mut entries = Vec::new();
    for (at, task) in TASKS.iter().enumerate() {
        let start = at as f64 * 33.0;
        let (id, version) = (format!("run_{at}"), Some(VersionNumber(at as u64 + 1)));
        entries.push(TimelineEntry::Phase {
            task: (*task).to_owned(),
            start_s: start,
            traffic_end_s: start + 13.0,
            end_s: start + 33.0,
            requests: 1500,
            accuracy: Some(0.6),
            consolidated: Some(true),
        });
        entries.push(TimelineEntry::Run {
            id,
            trigger: "manual".into(),
            state: "succeeded",
            version,
            start_s: start + 13.5,
            end_s: Some(start + 28.0),
            new_experiences: 880,
            replayed_experiences: 400,
            tokens_per_s: Some(6800.0),
        });
        let verdict =
            ["promote", "promote", "promote", "promote", "reject", "promote", "inconclusive"][at % 7];
        let (version, reason, at_s) = (VersionNumber(at as u64 + 1), "as shown".into(), start + 30.0);
        entries.push(TimelineEntry::Verdict { version, verdict, reason, at_s });
    }
    entries
}

/// A whole report with made-up numbers.
pub(crate) fn sample() -> Report {
    let verdicts = [
        "promote",
        "promote",
        "promote",
        "promote",
        "reject",
        "promote",
        "inconclusive",
        "promote",
        "promote",
        "promote",
    ];
    let versions = (1..=10).map(|n| version(n, verdicts[n as usize - 1], if n == 5 { 0 } else { 1_530 }));
    let measured: Vec<u64> = [1, 2, 3, 4, 6, 8, 9, 10].to_vec();
    let cell = |task: usize, column: usize| {
        let version = measured[column] as usize;
        (version > task).then(|| 0.92 - 0.01 * (version - task) as f64 - 0.013 * ((task * 7) % 5) as f64)
    };
    let points = (0..600).map(|at| {
        let inside = (at % 60) as f64 / 60.0;
        let accuracy = 0.2 + 0.65 * inside.powf(0.4) + 0.02 * (at as f64 * 0.7).sin();
        TrafficPoint { request: at * 25 + 24, accuracy, accuracy_weights: (at > 5).then_some(accuracy * 0.7) }
    });
    Report {
        schema: 1,
        autoglm_version: "0.1.0".into(),
        stream: StreamReport {
            name: "CLINC150".into(),
            tasks: TASKS.map(String::from).to_vec(),
            counts: StreamCounts {
                lines: 17_984,
                traffic: 14_984,
                held_out: 3_000,
                ..StreamCounts::default()
            },
        },
        options: OptionsReport {
            seed: 7,
            minutes: 6.0,
            feedback_share: 0.6,
            noise: 0.02,
            feedback_kind: FeedbackKind::Mixed,
            recall: RecallMode::Answer,
            concurrency: 8,
            limit: None,
            task_in_metadata: true,
        },
        accuracy_with_recall: Some(0.8843),
        accuracy_weights: Some(0.8127),
        accuracy_upper_bound: Some(0.8561),
        accuracy_with_recall_by_task: by_task(|at| 0.9 - 0.004 * at as f64),
        accuracy_weights_by_task: by_task(|at| 0.8 + 0.003 * at as f64),
        accuracy_weights_best_by_task: by_task(|at| 0.84 - 0.001 * at as f64),
        accuracy_upper_bound_by_task: by_task(|at| 0.86 - 0.002 * at as f64),
        forgetting_by_task: by_task(|at| 0.04 - 0.004 * at as f64),
        forgetting_max: Some(0.04),
        requests: 16_204,
        failed_requests: 0,
        failures: Vec::new(),
        unsent_requests: 0,
        measuring_requests: 3_000,
        feedback: 8_990,
        wrong_feedback: 181,
        latency_ms_p50: Some(11.25),
        latency_ms_p99: Some(48.5),
        answered_from_memory: 6_120,
        correction_seconds_p50: Some(0.0183),
        correction_share_within_1s: Some(1.0),
        corrections_probed: 74,
        seconds: 341.27,
        seconds_upper_bound: Some(92.5),
        peak_rss_mb: Some(612.4),
        training_seconds: 145.0,
        training_tokens: 986_000.0,
        training_tokens_per_s: Some(6_800.0),
        champion: VersionNumber(10),
        versions: versions.collect(),
        spoiled_candidate: Some(SpoiledReport {
            version: VersionNumber(5),
            verdict: Some("reject"),
            reason: Some("banking fell from 0.91 to 0.07, more than its tolerance of 0.05".into()),
            answered: 0,
        }),
        retention: RetentionReport {
            held_out_per_task: 150,
            tasks: TASKS.map(String::from).to_vec(),
            versions: measured.iter().map(|number| VersionNumber(*number)).collect(),
            accuracy: (0..10).map(|task| (0..measured.len()).map(|at| cell(task, at)).collect()).collect(),
        },
        accuracy_over_traffic: points.collect(),
        version_marks: measured
            .iter()
            .map(|n| VersionMark { request: *n as usize * 1_498, version: VersionNumber(*n) })
            .collect(),
        task_starts: TASKS
            .iter()
            .enumerate()
            .map(|(at, task)| TaskStart { request: at * 1_498, task: (*task).to_owned() })
            .collect(),
        timeline: timeline(),
    }
}

/// The sample without its long lists.
fn short() -> Report {
    let mut report = sample();
    report.accuracy_over_traffic.truncate(2);
    report.version_marks.truncate(1);
    report.task_starts.truncate(1);
    report.timeline.truncate(3);
    report.versions.truncate(1);
    report
}

#[test]
fn the_json_is_what_it_was() {
    insta::assert_snapshot!(short().to_json().unwrap());
}

#[test]
fn every_key_is_documented() {
    let documented = include_str!("../../../../docs/report.md");
    let value: serde_json::Value = serde_json::from_str(&sample().to_json().unwrap()).unwrap();
    let mut missing = Vec::new();
    collect_missing(&value, documented, &mut missing);
    assert!(missing.is_empty(), "docs/report.md lacks {missing:?}");
}

/// Keys of all objects but those whose keys are tasks or metrics.
fn collect_missing(value: &serde_json::Value, documented: &str, missing: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                if !documented.contains(&format!("`{key}`")) {
                    missing.push(key.clone());
                }
                if !key.ends_with("_by_task") && key != "metrics" {
                    collect_missing(value, documented, missing);
                }
            }
        }
        serde_json::Value::Array(values) => {
            values.iter().for_each(|v| collect_missing(v, documented, missing))
        }
        _ => {}
    }
}

#[test]
fn numbers_are_rounded_and_whole_ones_stay_whole() {
    let mut value = serde_json::json!({"a": [0.123_456_7, 3, 2.0], "b": {"c": 1e-9}});
    round(&mut value);
    assert_eq!(value.to_string(), r#"{"a":[0.1235,3,2.0],"b":{"c":0.0}}"#);
}
