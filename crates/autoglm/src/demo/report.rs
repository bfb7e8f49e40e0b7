//! `report.json`: everything that was measured. Every key is documented in `docs/report.md`.

use std::collections::BTreeMap;

use autoglm_domain::VersionNumber;
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::{options::DemoOptions, stream::StreamCounts};

/// A value for each task, in the stream's order; a JSON object.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ByTask<T>(pub(crate) Vec<(String, T)>);

impl<T: Serialize> Serialize for ByTask<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (task, value) in &self.0 {
            map.serialize_entry(task, value)?;
        }
        map.end()
    }
}

/// The report. Shares are 0 to 1; `None` is `null`: not measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Report {
    pub(crate) schema: u32,
    pub(crate) autoglm_version: String,
    pub(crate) stream: StreamReport,
    pub(crate) options: OptionsReport,
    pub(crate) accuracy_with_recall: Option<f64>,
    pub(crate) accuracy_weights: Option<f64>,
    pub(crate) accuracy_upper_bound: Option<f64>,
    pub(crate) accuracy_with_recall_by_task: ByTask<Option<f64>>,
    pub(crate) accuracy_weights_by_task: ByTask<Option<f64>>,
    pub(crate) accuracy_weights_best_by_task: ByTask<Option<f64>>,
    pub(crate) accuracy_upper_bound_by_task: ByTask<Option<f64>>,
    pub(crate) forgetting_by_task: ByTask<Option<f64>>,
    pub(crate) forgetting_max: Option<f64>,
    pub(crate) requests: u64,
    pub(crate) failed_requests: u64,
    pub(crate) failures: Vec<String>,
    pub(crate) unsent_requests: u64,
    pub(crate) measuring_requests: u64,
    pub(crate) feedback: u64,
    pub(crate) wrong_feedback: u64,
    pub(crate) latency_ms_p50: Option<f64>,
    pub(crate) latency_ms_p99: Option<f64>,
    pub(crate) answered_from_memory: u64,
    pub(crate) correction_seconds_p50: Option<f64>,
    pub(crate) correction_share_within_1s: Option<f64>,
    pub(crate) corrections_probed: usize,
    pub(crate) seconds: f64,
    pub(crate) seconds_upper_bound: Option<f64>,
    pub(crate) peak_rss_mb: Option<f64>,
    pub(crate) training_seconds: f64,
    pub(crate) training_tokens: f64,
    pub(crate) training_tokens_per_s: Option<f64>,
    pub(crate) champion: VersionNumber,
    pub(crate) versions: Vec<VersionReport>,
    pub(crate) spoiled_candidate: Option<SpoiledReport>,
    pub(crate) retention: RetentionReport,
    pub(crate) accuracy_over_traffic: Vec<TrafficPoint>,
    pub(crate) version_marks: Vec<VersionMark>,
    pub(crate) task_starts: Vec<TaskStart>,
    pub(crate) timeline: Vec<TimelineEntry>,
}

/// The stream that was played.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct StreamReport {
    pub(crate) name: String,
    pub(crate) tasks: Vec<String>,
    #[serde(flatten)]
    pub(crate) counts: StreamCounts,
}

/// The options that shape the result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct OptionsReport {
    pub(crate) seed: u64,
    pub(crate) minutes: f64,
    pub(crate) feedback_share: f64,
    pub(crate) noise: f64,
    pub(crate) feedback_kind: super::options::FeedbackKind,
    pub(crate) recall: super::options::RecallMode,
    pub(crate) concurrency: usize,
    pub(crate) limit: Option<usize>,
    pub(crate) task_in_metadata: bool,
}

impl From<&DemoOptions> for OptionsReport {
    fn from(options: &DemoOptions) -> Self {
        Self {
            seed: options.seed,
            minutes: options.minutes,
            feedback_share: options.feedback_share,
            noise: options.noise,
            feedback_kind: options.feedback_kind,
            recall: options.recall,
            concurrency: options.concurrency,
            limit: options.limit,
            task_in_metadata: !options.no_task,
        }
    }
}

/// One version, the bare base model (0) included.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct VersionReport {
    pub(crate) number: VersionNumber,
    pub(crate) hash: Option<String>,
    pub(crate) parent: Option<VersionNumber>,
    pub(crate) verdict: Option<&'static str>,
    pub(crate) reason: Option<String>,
    pub(crate) answered: u64,
    pub(crate) at_s: Option<f64>,
    pub(crate) spoiled: bool,
    pub(crate) metrics: BTreeMap<String, f64>,
}

/// What became of the candidate that was trained on shuffled targets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct SpoiledReport {
    pub(crate) version: VersionNumber,
    pub(crate) verdict: Option<&'static str>,
    pub(crate) reason: Option<String>,
    pub(crate) answered: u64,
}

/// Accuracy from the weights, task by version.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RetentionReport {
    pub(crate) held_out_per_task: usize,
    pub(crate) tasks: Vec<String>,
    pub(crate) versions: Vec<VersionNumber>,
    pub(crate) accuracy: Vec<Vec<Option<f64>>>,
}

/// One point of the accuracy curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct TrafficPoint {
    pub(crate) request: usize,
    pub(crate) accuracy: f64,
    pub(crate) accuracy_weights: Option<f64>,
}

/// Where on the curve a version first answered.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct VersionMark {
    pub(crate) request: usize,
    pub(crate) version: VersionNumber,
}

/// Where on the curve a task begins.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TaskStart {
    pub(crate) request: usize,
    pub(crate) task: String,
}

/// Something with a place in time; seconds since the first request.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum TimelineEntry {
    Phase {
        task: String,
        start_s: f64,
        traffic_end_s: f64,
        end_s: f64,
        requests: usize,
        accuracy: Option<f64>,
        consolidated: Option<bool>,
    },
    Run {
        id: String,
        trigger: String,
        state: &'static str,
        version: Option<VersionNumber>,
        start_s: f64,
        end_s: Option<f64>,
        new_experiences: u64,
        replayed_experiences: u64,
        tokens_per_s: Option<f64>,
    },
    Verdict {
        version: VersionNumber,
        verdict: &'static str,
        reason: String,
        at_s: f64,
    },
    Promotion {
        from: VersionNumber,
        to: VersionNumber,
        by: String,
        at_s: f64,
    },
}

impl TimelineEntry {
    /// When it began or happened, seconds since the first request.
    pub(crate) fn start_s(&self) -> f64 {
        match self {
            Self::Phase { start_s, .. } | Self::Run { start_s, .. } => *start_s,
            Self::Verdict { at_s, .. } | Self::Promotion { at_s, .. } => *at_s,
        }
    }
}

impl Report {
    /// The report as it is written to `report.json`: pretty, numbers rounded to four digits after the point.
    pub(crate) fn to_json(&self) -> autoglm_domain::Result<String> {
        let fault = |error| autoglm_domain::Error::internal(format!("cannot write the report: {error}"));
        let mut value = serde_json::to_value(self).map_err(fault)?;
        round(&mut value);
        let mut text = serde_json::to_string_pretty(&value).map_err(fault)?;
        text.push('\n');
        Ok(text)
    }
}

fn round(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Number(number) if number.is_f64() => {
            if let Some(rounded) =
                number.as_f64().and_then(|number| serde_json::Number::from_f64((number * 1e4).round() / 1e4))
            {
                *number = rounded;
            }
        }
        serde_json::Value::Array(values) => values.iter_mut().for_each(round),
        serde_json::Value::Object(values) => values.values_mut().for_each(round),
        _ => {}
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
pub(crate) mod tests;
