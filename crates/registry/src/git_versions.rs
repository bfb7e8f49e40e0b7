//! Versions of a registry to and from git repositories.

use autoglm_domain::{ContentHash, Evidence, ModelVersion, RolloutState, VersionNumber};
use serde_json::{Value, json};

use crate::{
    Error, GitExport, GitImport, GitSource, GitTarget, NewVersion, Registry, Result,
    folder::blocking,
    git::Programs,
    git_export::{Papers, check_author, export},
    git_import::import,
};

impl Registry {
    /// Commits a version to a branch of a git repository and pushes it: adapter (by git-lfs), card, metrics and lineage.
    /// A version that a commit of the branch holds already makes no second one.
    ///
    /// # Errors
    /// `Unavailable` when `git` or `git-lfs` is missing or the remote does not take it, `NotFound` without such a version.
    pub async fn export_git(&self, number: VersionNumber, target: &GitTarget) -> Result<GitExport> {
        check_author(&target.author)?;
        let version = self.get(number).await?;
        let Some(adapter) = self.adapter(number).await? else {
            return Err(Error::NoVersion(number.to_string()));
        };
        let papers = self.papers(&version).await?;
        let target = target.clone();
        blocking(move || export(&target, Programs::default(), &adapter, &version, &papers)).await
    }

    /// What a git repository holds; nothing is registered. Checked against its record where it has one.
    ///
    /// # Errors
    /// `Unavailable` when `git` or `git-lfs` is missing or the remote does not answer, `NotFound` without such a branch or
    /// commit, `Invalid` when the adapter does not pass the scan or is not the one of its record.
    pub async fn read_git(&self, source: &GitSource) -> Result<GitImport> {
        let (source, limits) = (source.clone(), self.limits.clone());
        blocking(move || import(&source, Programs::default(), &limits)).await
    }

    /// Registers what [`Registry::read_git`] brought, as a version of `base`. With the same parent and data at hand it is
    /// the same version as there, to its hash; otherwise a child of the base model whose note says what it was.
    pub async fn register_git(
        &self,
        found: GitImport,
        base: ContentHash,
        note: Option<String>,
    ) -> Result<ModelVersion> {
        let Some(record) = found.record else {
            return self.register(NewVersion::imported(found.adapter, base, note)).await;
        };
        if record.base != base {
            return Err(Error::ForeignBase { number: record.number, theirs: record.base, ours: base });
        }
        let versions = self.store.versions().await?;
        if let Some(there) = versions.iter().find(|it| it.hash == record.hash) {
            self.artifacts.put(found.adapter.pack()).await?;
            return Ok(there.clone());
        }
        let snapshot = match record.snapshot {
            Some(hash) if self.artifacts.contains(hash).await? => Some(hash),
            _ => None,
        };
        let was = format!("{} of another registry, {}", record.number, record.hash.short());
        self.register(NewVersion {
            snapshot,
            hyper: record.hyper,
            metrics: record.metrics,
            ..NewVersion::imported(
                found.adapter,
                base,
                Some(note.or(record.note).map_or(was.clone(), |it| format!("{it} ({was})"))),
            )
        })
        .await
    }

    /// What a version was measured by and where it comes from.
    async fn papers(&self, version: &ModelVersion) -> Result<Papers> {
        let run = match version.run {
            Some(run) => Some(self.store.run(run).await?),
            None => None,
        };
        let mut rollouts = self.store.rollouts().await?;
        rollouts.retain(|rollout| rollout.candidate == version.number);
        let gate: Vec<Value> = rollouts
            .iter()
            .filter_map(|rollout| match &rollout.state {
                RolloutState::Decided { verdict } => {
                    let Evidence { new_skill, retention, .. } = &verdict.evidence;
                    Some(json!({
                        "rollout": rollout.id, "champion": rollout.champion, "outcome": verdict.outcome,
                        "reason": verdict.reason, "new_skill": new_skill, "retention": retention,
                    }))
                }
                _ => None,
            })
            .collect();
        let parents = self.lineage(version.parent).await?;
        let parents: Vec<Value> = parents
            .iter()
            .map(|it| json!({"version": it.number, "hash": it.hash, "adapter": it.adapter, "at": it.at}))
            .collect();
        Ok(Papers {
            metrics: json!({"training": version.metrics, "gate": gate}),
            lineage: json!({
                "version": version.number, "hash": version.hash, "base": version.base,
                "snapshot": version.snapshot, "run": run, "parents": parents,
            }),
        })
    }
}
