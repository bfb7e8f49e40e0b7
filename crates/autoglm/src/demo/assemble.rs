//! Puts the report together from what the player, the watcher and the measurements hold.

use autoglm_domain::{RunState, Timestamp, TrainingRun, VersionNumber};

use super::{
    client::Source,
    measure::{Retention, TaskScore, mean},
    options::DemoOptions,
    report::{
        ByTask, Report, RetentionReport, SpoiledReport, StreamReport, TaskStart, TimelineEntry, TrafficPoint,
        VersionMark, VersionReport,
    },
    stream::Stream,
    tally::{RequestRecord, Tally, quantile},
    watch::{Watcher, outcome_word},
};

/// Most points of the accuracy curve.
const MOST_POINTS: usize = 600;

/// Everything that a report is made from.
pub(crate) struct Findings<'a> {
    pub(crate) options: &'a DemoOptions,
    pub(crate) stream: &'a Stream,
    pub(crate) tally: &'a Tally,
    pub(crate) watcher: &'a Watcher,
    pub(crate) retention: &'a Retention,
    /// Held-out utterances of a task that the retention matrix rests on.
    pub(crate) per_task: usize,
    /// The version that answers at the end.
    pub(crate) champion: VersionNumber,
    /// Its weights on all held-out utterances, one a task.
    pub(crate) weights: &'a [TaskScore],
    /// The server with recall on all held-out utterances; empty where recall is off.
    pub(crate) recall: &'a [TaskScore],
    /// The jointly trained version on all held-out utterances; empty where it was not asked for.
    pub(crate) upper_bound: &'a [TaskScore],
    pub(crate) phases: Vec<TimelineEntry>,
    pub(crate) spoiled: Option<VersionNumber>,
    /// When the demo began.
    pub(crate) began: Timestamp,
    pub(crate) seconds: f64,
    pub(crate) seconds_upper_bound: Option<f64>,
    pub(crate) measuring_requests: u64,
}

impl Findings<'_> {
    /// The report.
    pub(crate) fn report(&self) -> Report {
        let all = |scores: &[TaskScore]| self.by_task(|task| scores.get(task)?.accuracy(usize::MAX));
        let over_tasks = |scores: &[TaskScore]| mean(scores.iter().map(|score| score.accuracy(usize::MAX)));
        let tally = self.tally;
        let latencies = || tally.records.iter().map(|record| record.latency.as_secs_f64() * 1e3);
        let forgetting = self.by_task(|task| self.retention.forgetting(task, self.champion));
        let training = self.training();
        let in_time = tally.corrections.iter().flatten().count();
        let probed = tally.corrections.len();
        Report {
            schema: 1,
            autoglm_version: env!("CARGO_PKG_VERSION").into(),
            stream: StreamReport {
                name: self.stream.name.clone(),
                tasks: self.task_names(),
                counts: self.stream.counts.clone(),
            },
            options: self.options.into(),
            accuracy_with_recall: over_tasks(self.recall),
            accuracy_weights: over_tasks(self.weights),
            accuracy_upper_bound: over_tasks(self.upper_bound),
            accuracy_with_recall_by_task: all(self.recall),
            accuracy_weights_by_task: all(self.weights),
            accuracy_weights_best_by_task: self.by_task(|task| self.retention.best(task)),
            accuracy_upper_bound_by_task: all(self.upper_bound),
            forgetting_max: forgetting.0.iter().filter_map(|(_, fall)| *fall).max_by(f64::total_cmp),
            forgetting_by_task: forgetting,
            requests: tally.requests,
            failed_requests: tally.failed,
            failures: tally.failures.clone(),
            unsent_requests: tally.unsent,
            measuring_requests: self.measuring_requests,
            feedback: tally.feedback,
            wrong_feedback: tally.wrong_feedback,
            latency_ms_p50: quantile(latencies(), 0.5),
            latency_ms_p99: quantile(latencies(), 0.99),
            answered_from_memory: tally
                .records
                .iter()
                .filter(|record| record.source == Source::Memory)
                .count() as u64,
            correction_seconds_p50: self.correction_p50(),
            correction_share_within_1s: (probed > 0).then(|| in_time as f64 / probed as f64),
            corrections_probed: probed,
            seconds: self.seconds,
            seconds_upper_bound: self.seconds_upper_bound,
            peak_rss_mb: peak_rss_mb(),
            training_seconds: training.seconds,
            training_tokens: training.tokens,
            training_tokens_per_s: (training.seconds > 0.0).then(|| training.tokens / training.seconds),
            champion: self.champion,
            versions: self.versions(),
            spoiled_candidate: self.spoiled(),
            retention: RetentionReport {
                held_out_per_task: self.per_task,
                tasks: self.task_names(),
                versions: self.retention.versions.clone(),
                accuracy: self.retention.accuracy.clone(),
            },
            accuracy_over_traffic: curve(&tally.records),
            version_marks: version_marks(&tally.records),
            task_starts: self.task_starts(),
            timeline: self.timeline(),
        }
    }

    fn task_names(&self) -> Vec<String> {
        self.stream.tasks.iter().map(|task| task.name.clone()).collect()
    }

    fn by_task<T>(&self, value: impl Fn(usize) -> T) -> ByTask<T> {
        let names = self.stream.tasks.iter().map(|task| task.name.clone());
        ByTask(names.enumerate().map(|(task, name)| (name, value(task))).collect())
    }

    /// A correction that did not take effect in time counts as slower than all that did.
    fn correction_p50(&self) -> Option<f64> {
        let seconds = self.tally.corrections.iter().map(|seconds| seconds.unwrap_or(f64::INFINITY));
        quantile(seconds, 0.5).filter(|seconds| seconds.is_finite())
    }

    fn training(&self) -> Training {
        let metric = |run: &TrainingRun, name: &str| run.metrics.get(name).copied().unwrap_or_default();
        let runs = &self.watcher.runs;
        Training {
            seconds: runs.iter().map(|run| metric(run, "seconds")).sum(),
            tokens: runs.iter().map(|run| metric(run, "tokens")).sum(),
        }
    }

    fn since_start(&self, at: Timestamp) -> f64 {
        at.since_ms(self.began) as f64 / 1e3
    }

    fn answered(&self, version: VersionNumber) -> u64 {
        self.watcher.answered.get(&version).copied().unwrap_or_default()
    }

    fn versions(&self) -> Vec<VersionReport> {
        let base = VersionReport {
            number: VersionNumber::BASE,
            hash: None,
            parent: None,
            verdict: None,
            reason: Some("the bare base model".into()),
            answered: self.answered(VersionNumber::BASE),
            at_s: None,
            spoiled: false,
            metrics: Default::default(),
        };
        let trained = self.watcher.versions.iter().map(|version| {
            let verdict = self.watcher.verdict(version.number);
            VersionReport {
                number: version.number,
                hash: Some(version.hash.to_string()),
                parent: Some(version.parent),
                verdict: verdict.map(|verdict| outcome_word(verdict.outcome)),
                reason: verdict.map(|verdict| verdict.reason.clone()).or_else(|| version.note.clone()),
                answered: self.answered(version.number),
                at_s: Some(self.since_start(version.at)),
                spoiled: self.spoiled == Some(version.number),
                metrics: version.metrics.clone(),
            }
        });
        std::iter::once(base).chain(trained).collect()
    }

    fn spoiled(&self) -> Option<SpoiledReport> {
        let version = self.spoiled?;
        let verdict = self.watcher.verdict(version);
        Some(SpoiledReport {
            version,
            verdict: verdict.map(|verdict| outcome_word(verdict.outcome)),
            reason: verdict.map(|verdict| verdict.reason.clone()),
            answered: self.answered(version),
        })
    }

    fn task_starts(&self) -> Vec<TaskStart> {
        let mut starts = Vec::new();
        for (task, name) in self.task_names().into_iter().enumerate() {
            let first = self.tally.records.iter().position(|record| record.task == task);
            starts.extend(first.map(|request| TaskStart { request, task: name }));
        }
        starts
    }

    fn timeline(&self) -> Vec<TimelineEntry> {
        let mut entries = self.phases.clone();
        entries.extend(self.watcher.runs.iter().map(|run| self.run_entry(run)));
        entries.extend(self.watcher.verdicts.iter().map(|judged| TimelineEntry::Verdict {
            version: judged.version,
            verdict: outcome_word(judged.verdict.outcome),
            reason: judged.verdict.reason.clone(),
            at_s: self.since_start(judged.verdict.at),
        }));
        entries.extend(self.watcher.promotions.iter().map(|promotion| TimelineEntry::Promotion {
            from: promotion.from,
            to: promotion.to,
            by: promotion.by.clone(),
            at_s: self.since_start(promotion.at),
        }));
        entries.sort_by(|a, b| a.start_s().total_cmp(&b.start_s()));
        entries
    }

    fn run_entry(&self, run: &TrainingRun) -> TimelineEntry {
        let (state, version) = match &run.state {
            RunState::Planned => ("planned", None),
            RunState::Running => ("running", None),
            RunState::Succeeded { version } => ("succeeded", Some(*version)),
            RunState::Failed { .. } => ("failed", None),
            RunState::Cancelled { .. } => ("cancelled", None),
        };
        let start = self.watcher.run_started.get(&run.id).copied().unwrap_or(run.at);
        TimelineEntry::Run {
            id: run.id.to_string(),
            trigger: trigger_word(run),
            state,
            version,
            start_s: self.since_start(start),
            end_s: run.ended_at.map(|at| self.since_start(at)),
            new_experiences: run.new_experiences,
            replayed_experiences: run.replayed_experiences,
            tokens_per_s: run.metrics.get("tokens_per_s").copied(),
        }
    }
}

struct Training {
    seconds: f64,
    tokens: f64,
}

/// The trigger's name as it is stored, e.g. `new_experiences`.
pub(crate) fn trigger_word(run: &TrainingRun) -> String {
    let stored = serde_json::to_value(&run.trigger).unwrap_or_default();
    stored.get("kind").and_then(serde_json::Value::as_str).unwrap_or("unknown").to_owned()
}

/// At most [`MOST_POINTS`] points, the last answer always among them.
fn curve(records: &[RequestRecord]) -> Vec<TrafficPoint> {
    let step = records.len().div_ceil(MOST_POINTS).max(1);
    let last = records.len().saturating_sub(1);
    let kept = records.iter().enumerate().filter(|(at, _)| (at + 1).is_multiple_of(step) || *at == last);
    kept.map(|(request, record)| TrafficPoint {
        request,
        accuracy: record.rolling,
        accuracy_weights: record.rolling_weights,
    })
    .collect()
}

/// The first answer of each version. A rollback to a version that answered before makes no mark.
fn version_marks(records: &[RequestRecord]) -> Vec<VersionMark> {
    let mut marks: Vec<VersionMark> = Vec::new();
    for (request, record) in records.iter().enumerate() {
        let Some(version) = record.version else { continue };
        if !marks.iter().any(|mark| mark.version == version) {
            marks.push(VersionMark { request, version });
        }
    }
    marks
}

/// The process's highest resident memory so far, where the system tells.
fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
