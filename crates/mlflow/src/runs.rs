//! Training runs as MLflow runs.

use std::collections::BTreeMap;

use autoglm_domain::{ModelVersion, PairedEvidence, RunState, Timestamp, TrainingRun, Verdict};
use serde_json::{Value, json};

use crate::{
    Mlflow, Result,
    client::{tag, text},
};

/// The tag that says which training run of ours it is.
pub(crate) const RUN: &str = "autoglm.run";
/// The tag that says which version of ours it is.
pub(crate) const VERSION: &str = "autoglm.version";
/// Longest value of a parameter that MLflow takes.
const MAX_PARAM: usize = 6000;
/// Longest value of a tag.
pub(crate) const MAX_TAG: usize = 5000;

/// An MLflow run.
#[derive(Debug, Clone)]
pub(crate) struct ThereRun {
    pub(crate) id: String,
    /// Where its artifacts are.
    pub(crate) artifacts: String,
}

impl Mlflow {
    /// A training run in any state: made where it is not there yet, ended where it has ended.
    pub(crate) async fn push_run(&self, run: &TrainingRun) -> Result<()> {
        let there =
            self.run_with(RUN, &run.id.to_string(), &format!("run {}", run.id), run.at, tags(run)).await?;
        self.log(&there, &params(run), &BTreeMap::new(), run.at).await?;
        let status = match &run.state {
            RunState::Planned | RunState::Running => return Ok(()),
            RunState::Succeeded { .. } => "FINISHED",
            RunState::Failed { .. } => "FAILED",
            RunState::Cancelled { .. } => "KILLED",
        };
        let ended = run.ended_at.unwrap_or(run.at);
        self.log(&there, &[], &run.metrics, ended).await?;
        if let RunState::Failed { reason } | RunState::Cancelled { reason } = &run.state {
            self.tag_run(&there, "autoglm.reason", reason).await?;
        }
        let end = json!({"run_id": there.id, "status": status, "end_time": ended});
        self.client.post("runs/update", end).await.map(drop)
    }

    /// The MLflow run of a version: its training run's, or one of its own where it was not trained here.
    pub(crate) async fn run_of(&self, version: &ModelVersion) -> Result<ThereRun> {
        if let Some(run) = version.run {
            if let Some(there) = self.find_run(RUN, &run.to_string()).await? {
                return Ok(there);
            }
            // Its record may come from before the mirror began.
            let run = self.store.run(run).await?;
            self.push_run(&run).await?;
        }
        let (key, value) = match version.run {
            Some(run) => (RUN, run.to_string()),
            None => (VERSION, version.number.to_string()),
        };
        let tags = vec![("autoglm.base", version.base.to_string())];
        let there =
            self.run_with(key, &value, &format!("import {}", version.number), version.at, tags).await?;
        if version.run.is_none() {
            self.log(&there, &[], &version.metrics, version.at).await?;
            let end = json!({"run_id": there.id, "status": "FINISHED", "end_time": version.at});
            self.client.post("runs/update", end).await?;
        }
        Ok(there)
    }

    /// What a candidate was judged by, as metrics of its run.
    pub(crate) async fn push_verdict(&self, there: &ThereRun, verdict: &Verdict) -> Result<()> {
        let mut metrics = BTreeMap::new();
        let mut put = |name: &str, it: &PairedEvidence| {
            for (what, value) in [
                ("accuracy", it.candidate_mean),
                ("champion_accuracy", it.champion_mean),
                ("difference", it.difference),
                ("difference_lower", it.lower),
                ("difference_upper", it.upper),
                ("pairs", it.pairs as f64),
            ] {
                metrics.insert(format!("gate.{name}.{what}"), value);
            }
        };
        let evidence = &verdict.evidence;
        evidence.new_skill.iter().for_each(|it| put("new_skill", it));
        evidence.retention.iter().for_each(|it| put("retention", it));
        self.log(there, &[], &metrics, verdict.at).await?;
        self.tag_run(there, "autoglm.outcome", &outcome(verdict)).await?;
        self.tag_run(there, "autoglm.reason", &verdict.reason).await
    }

    pub(crate) async fn find_run(&self, key: &str, value: &str) -> Result<Option<ThereRun>> {
        let experiment = self.experiment().await?;
        let search = json!({
            "experiment_ids": [experiment], "filter": format!("tags.`{key}` = '{value}'"), "max_results": 1,
        });
        let found = self.client.post("runs/search", search).await?;
        match found.pointer("/runs/0/info") {
            Some(info) => there("runs/search", info).map(Some),
            None => Ok(None),
        }
    }

    /// The run that has the tag `key`; made where there is none.
    async fn run_with(
        &self,
        key: &str,
        value: &str,
        name: &str,
        at: Timestamp,
        mut tags: Vec<(&str, String)>,
    ) -> Result<ThereRun> {
        if let Some(there) = self.find_run(key, value).await? {
            return Ok(there);
        }
        tags.push((key, value.to_owned()));
        let tags: Vec<Value> = tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        let run = json!({
            "experiment_id": self.experiment().await?, "start_time": at, "run_name": name, "tags": tags,
        });
        let made = self.client.post("runs/create", run).await?;
        there("runs/create", made.pointer("/run/info").unwrap_or(&Value::Null))
    }

    /// Metrics at step 0 and a time that is always the same: what is logged again is one value.
    async fn log(
        &self,
        there: &ThereRun,
        params: &[(String, String)],
        metrics: &BTreeMap<String, f64>,
        at: Timestamp,
    ) -> Result<()> {
        if params.is_empty() && metrics.is_empty() {
            return Ok(());
        }
        let params: Vec<Value> =
            params.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        let metric =
            |(key, value): (&String, &f64)| json!({"key": key, "value": value, "timestamp": at, "step": 0});
        let metrics: Vec<Value> = metrics.iter().filter(|(_, value)| value.is_finite()).map(metric).collect();
        let batch = json!({"run_id": there.id, "params": params, "metrics": metrics});
        self.client.post("runs/log-batch", batch).await.map(drop)
    }

    async fn tag_run(&self, there: &ThereRun, key: &str, value: &str) -> Result<()> {
        let tag = json!({"run_id": there.id, "key": key, "value": cut(value, MAX_TAG)});
        self.client.post("runs/set-tag", tag).await.map(drop)
    }

    /// The experiment's id; it is made where it is missing.
    pub(crate) async fn experiment(&self) -> Result<String> {
        const GET: &str = "experiments/get-by-name";
        if let Some(id) = self.experiment.get() {
            return Ok(id.clone());
        }
        let name = self.config.experiment.as_str();
        let found = self.client.get(GET, &[("experiment_name", name)]).await;
        let id = match found {
            Ok(found) => text(GET, &found, "/experiment/experiment_id")?,
            Err(error) if error.kind() == autoglm_domain::ErrorKind::NotFound => {
                let made = self.client.post("experiments/create", json!({"name": name})).await?;
                text("experiments/create", &made, "/experiment_id")?
            }
            Err(error) => return Err(error),
        };
        Ok(self.experiment.get_or_init(|| async { id }).await.clone())
    }
}

fn there(call: &'static str, info: &Value) -> Result<ThereRun> {
    Ok(ThereRun { id: text(call, info, "/run_id")?, artifacts: text(call, info, "/artifact_uri")? })
}

fn tags(run: &TrainingRun) -> Vec<(&'static str, String)> {
    vec![
        ("autoglm.snapshot", run.snapshot.to_string()),
        ("autoglm.base", run.base.to_string()),
        ("autoglm.parent", run.parent.to_string()),
        ("autoglm.code_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("mlflow.source.name", "autoglm".to_owned()),
    ]
}

/// Hyper-parameters and what the run was planned with.
fn params(run: &TrainingRun) -> Vec<(String, String)> {
    let mut params = vec![
        ("strategy".to_owned(), run.strategy.clone()),
        ("seed".to_owned(), run.seed.to_string()),
        ("new_experiences".to_owned(), run.new_experiences.to_string()),
        ("replayed_experiences".to_owned(), run.replayed_experiences.to_string()),
    ];
    let trigger = serde_json::to_value(&run.trigger).unwrap_or_default();
    params.push(("trigger".into(), trigger["kind"].as_str().unwrap_or_default().to_owned()));
    if let Ok(Value::Object(hyper)) = serde_json::to_value(&run.hyper) {
        for (name, value) in hyper {
            let value = match value {
                Value::String(text) => text,
                // As it was set: 32-bit numbers have fewer digits than their 64-bit neighbours.
                #[allow(clippy::cast_possible_truncation, reason = "it was a 32-bit number before")]
                Value::Number(number) if number.is_f64() => {
                    (number.as_f64().unwrap_or_default() as f32).to_string()
                }
                other => other.to_string(),
            };
            params.push((name, cut(&value, MAX_PARAM)));
        }
    }
    params
}

/// `promote`, `reject` or `inconclusive`.
pub(crate) fn outcome(verdict: &Verdict) -> String {
    let value = serde_json::to_value(verdict.outcome).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

pub(crate) fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// The tag of a run or version as MLflow lists it.
pub(crate) fn tag_of<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    tag(value.get("tags"), key)
}
