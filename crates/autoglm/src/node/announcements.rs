//! Models that other systems announce: registered here, and sent the way of every candidate.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use autoglm_domain::{AdapterHost as _, Error, ErrorKind, Result, Rollout, RolloutId, VersionNumber};
use autoglm_gateway::{Announced, Announcement, Announcements, ModelSource};
use autoglm_registry::{GitImport, GitPick, GitSource};
use autoglm_webhook::{Inbound, InboundConfig};

use super::{Parts, residents};

/// Time between two looks whether the rollout has begun.
const LOOK: Duration = Duration::from_millis(20);
/// The number under which an adapter is tried on; nobody has it.
const TRIAL: VersionNumber = VersionNumber(u64::MAX);

/// Takes announcements.
pub(crate) struct Announcing {
    parts: Arc<Parts>,
    inbound: Inbound,
    /// Held from the look whether another candidate is on its way until this one is.
    turn: tokio::sync::Mutex<()>,
}

impl Announcing {
    /// `None` where the settings name no secret. `Invalid` where the secret is not there.
    pub(super) fn new(parts: &Arc<Parts>) -> Result<Option<Self>> {
        let inbound = Inbound::new(&parts.settings.webhook.inbound, Arc::clone(&parts.clock))?;
        Ok(inbound.map(|inbound| Self {
            parts: Arc::clone(parts),
            inbound,
            turn: tokio::sync::Mutex::default(),
        }))
    }
}

#[async_trait::async_trait]
impl Announcements for Announcing {
    fn check(&self, timestamp: &str, signature: &str, body: &[u8]) -> Result<()> {
        Ok(self.inbound.check(timestamp, signature, body)?)
    }

    async fn announced(&self, announcement: Announcement) -> Result<Announced> {
        let parts = &self.parts;
        let allowed = allowed(announcement.source, &parts.settings.webhook.inbound)?;
        let _turn = self.turn.lock().await;
        check_free(parts).await?;
        let found = read(parts, allowed).await?;
        // One that does not fit the base model is refused here, not when it is asked to answer.
        parts.engine.load(TRIAL, &found.adapter).await?;
        parts.engine.unload(TRIAL);
        let note = Some(announcement.note.unwrap_or_else(|| "announced by webhook".into()));
        let version = parts.registry.register_git(found, parts.base, note).await.map_err(Error::from)?.number;
        parts.residents.make_room(parts);
        residents::ensure(parts, version).await?;
        let rollout = begin(parts, version).await?;
        tracing::info!(%version, %rollout, "an announced model is on its way");
        Ok(Announced { version, rollout })
    }
}

/// The source, where a model may come from there: a folder below one of those that are set, links followed first, or a
/// repository that is set.
fn allowed(source: ModelSource, config: &InboundConfig) -> Result<ModelSource> {
    let denied = |what: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Denied, format!("no model may be announced from `{what}`"))
            .with_hint("`webhook.inbound.folders` and `webhook.inbound.remotes` say from where")
    };
    match source {
        ModelSource::Folder(folder) => {
            let real = folder.canonicalize().map_err(|_| denied(&folder.display()))?;
            let mut folders = config.folders.iter().filter_map(|it| it.canonicalize().ok());
            match folders.any(|it| real.starts_with(it)) {
                true => Ok(ModelSource::Folder(real)),
                false => Err(denied(&folder.display())),
            }
        }
        ModelSource::Git { ref remote, .. } if !config.remotes.contains(remote) => Err(denied(remote)),
        git @ ModelSource::Git { .. } => Ok(git),
    }
}

/// The adapter, scanned; one out of a repository is held to its record there.
async fn read(parts: &Parts, source: ModelSource) -> Result<GitImport> {
    match source {
        ModelSource::Folder(folder) => {
            let adapter = autoglm_registry::read_folder(&folder, &parts.settings.registry.scan).await?;
            Ok(GitImport { commit: None, adapter, record: None })
        }
        ModelSource::Git { remote, branch, version, rev } => {
            let pick = match (version, rev) {
                (Some(number), _) => GitPick::Version(number),
                (None, Some(rev)) => GitPick::Rev(rev),
                (None, None) => GitPick::Latest,
            };
            let source = GitSource { remote, branch: branch.unwrap_or_else(|| "main".into()), pick };
            Ok(parts.registry.read_git(&source).await?)
        }
    }
}

/// That nothing else is being trained or judged here.
async fn check_free(parts: &Parts) -> Result<()> {
    if !parts.leading.now() {
        return Err(Error::unavailable("another process leads the loop, and takes announcements")
            .with_hint("send it there: `leading` in GET /v1/autoglm/status says who does"));
    }
    let busy = |what: String| Err(Error::conflict(what).with_hint("announce it again when that has ended"));
    if let Some((run, _)) = parts.runner.active() {
        return busy(format!("{run} is training, and its version goes first"));
    }
    match parts.store.rollouts().await?.into_iter().find(Rollout::is_unfinished) {
        Some(rollout) => busy(format!("{} is being judged", rollout.candidate)),
        None => Ok(()),
    }
}

/// Begins a rollout, which goes on by itself.
async fn begin(parts: &Arc<Parts>, version: VersionNumber) -> Result<RolloutId> {
    let before: BTreeSet<RolloutId> = parts.store.rollouts().await?.iter().map(|it| it.id).collect();
    let working = parts.signals.work();
    let way = tokio::spawn({
        let parts = Arc::clone(parts);
        async move {
            let _working = working;
            let proven = crate::consolidate::prove(&parts, version, version.0).await;
            if let Err(error) = &proven {
                tracing::warn!(%error, %version, "an announced model could not be judged");
            }
            proven.map(drop)
        }
    });
    loop {
        let rollouts = parts.store.rollouts().await?;
        let begun = rollouts.iter().rev().find(|it| it.candidate == version && !before.contains(&it.id));
        if let Some(rollout) = begun {
            return Ok(rollout.id);
        }
        if way.is_finished() {
            let ended = way.await.map_err(|error| Error::internal(error.to_string()))?;
            return Err(ended.err().unwrap_or_else(|| Error::internal("its rollout left no record")));
        }
        tokio::time::sleep(LOOK).await;
    }
}
