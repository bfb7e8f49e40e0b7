//! Versions as versions of one registered model.

use autoglm_domain::{ErrorKind, ModelVersion, Verdict, VersionNumber};
use serde_json::{Value, json};

use crate::{
    Mlflow, Result, artifacts,
    client::text,
    runs::{MAX_TAG, VERSION, cut, outcome, tag_of},
};

/// The tag with a version's content hash, by which it is found again.
const HASH: &str = "autoglm.hash";

impl Mlflow {
    /// A version: its run, its adapter, and a version of the registered model.
    pub(crate) async fn push_version(&self, version: &ModelVersion) -> Result<()> {
        let there = self.run_of(version).await?;
        self.upload(&there, version).await?;
        if self.number_there(version).await?.is_some() {
            return Ok(());
        }
        self.make_model().await?;
        let mut tags = vec![
            (HASH, version.hash.to_string()),
            (VERSION, version.number.to_string()),
            ("autoglm.adapter", version.adapter.to_string()),
            ("autoglm.base", version.base.to_string()),
            ("autoglm.parent", version.parent.to_string()),
            ("autoglm.code_version", version.code_version.clone()),
        ];
        tags.extend(version.snapshot.map(|hash| ("autoglm.snapshot", hash.to_string())));
        let tags: Vec<Value> = tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        let new = json!({
            "name": self.config.model, "run_id": there.id, "tags": tags,
            "source": format!("runs:/{}/{}", there.id, artifacts::FOLDER),
            "description": version.note.clone().unwrap_or_default(),
        });
        self.client.post("model-versions/create", new).await.map(drop)
    }

    /// What a candidate's rollout came to, at its version and its run.
    pub(crate) async fn push_outcome(&self, candidate: VersionNumber, verdict: &Verdict) -> Result<()> {
        let version = self.store.version(candidate).await?;
        self.push_version(&version).await?;
        let there = self.run_of(&version).await?;
        self.push_verdict(&there, verdict).await?;
        let Some(number) = self.number_there(&version).await? else { return Ok(()) };
        for (key, value) in
            [("autoglm.outcome", outcome(verdict)), ("autoglm.reason", verdict.reason.clone())]
        {
            let value = cut(&value, MAX_TAG);
            let tag = json!({"name": self.config.model, "version": number, "key": key, "value": value});
            self.client.post("model-versions/set-tag", tag).await?;
        }
        Ok(())
    }

    /// MLflow's number of a version of ours, where it has one.
    pub(crate) async fn number_there(&self, version: &ModelVersion) -> Result<Option<String>> {
        const SEARCH: &str = "model-versions/search";
        let filter = format!("name = '{}' AND tags.`{HASH}` = '{}'", self.config.model, version.hash);
        let found = self.client.get(SEARCH, &[("filter", &filter), ("max_results", "1")]).await?;
        match found.pointer("/model_versions/0") {
            Some(there) => text(SEARCH, there, "/version").map(Some),
            None => Ok(None),
        }
    }

    /// Our version of one of MLflow's numbers; `None` where it is none of ours.
    pub(crate) async fn version_of(&self, number: &str) -> Result<Option<VersionNumber>> {
        let query = [("name", self.config.model.as_str()), ("version", number)];
        let found = self.client.get("model-versions/get", &query).await?;
        let ours = found.get("model_version").and_then(|there| tag_of(there, VERSION));
        Ok(ours.and_then(|text| text.parse().ok()))
    }

    /// The registered model, where it is not there yet.
    pub(crate) async fn make_model(&self) -> Result<()> {
        match self.client.post("registered-models/create", json!({"name": self.config.model})).await {
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
            made => made.map(drop),
        }
    }
}
