//! Models that other systems announce: registered here, and sent the way of every candidate.

use std::sync::Arc;

use autoglm_domain::{AdapterHost as _, Error, ErrorKind, Result, Rollout, VersionNumber};
use autoglm_gateway::{Announced, Announcement, Announcements, ModelSource, RolloutStart};
use autoglm_registry::{GitImport, GitPick, GitSource};
use autoglm_webhook::{Inbound, InboundConfig};

use super::{
    Parts,
    orders::Orders,
    relay::{self, Order},
};

/// The number under which an adapter is tried on; nobody has it.
const TRIAL: VersionNumber = VersionNumber(u64::MAX);

/// Takes announcements.
pub(crate) struct Announcing {
    parts: Arc<Parts>,
    inbound: Inbound,
}

impl Announcing {
    /// `None` where the settings name no secret. `Invalid` where the secret is not there.
    pub(super) fn new(parts: &Arc<Parts>) -> Result<Option<Self>> {
        let inbound = Inbound::new(&parts.settings.webhook.inbound, Arc::clone(&parts.clock))?;
        Ok(inbound.map(|inbound| Self { parts: Arc::clone(parts), inbound }))
    }
}

#[async_trait::async_trait]
impl Announcements for Announcing {
    fn check(&self, timestamp: &str, signature: &str, body: &[u8]) -> Result<()> {
        Ok(self.inbound.check(timestamp, signature, body)?)
    }

    async fn announced(&self, announcement: Announcement) -> Result<Announced> {
        let orders = Orders(Arc::clone(&self.parts));
        let rollout = match orders.elsewhere() {
            Some(store) => relay::rollout(&self.parts, store, Order::Announced(announcement)).await?,
            None => take_in(&orders, announcement).await?,
        };
        Ok(Announced { version: rollout.candidate, rollout: rollout.id })
    }
}

/// Registers what was announced and begins its rollout, in the process that leads; one at a time.
pub(super) async fn take_in(orders: &Orders, announcement: Announcement) -> Result<Rollout> {
    let parts = &orders.0;
    let allowed = allowed(announcement.source, &parts.settings.webhook.inbound)?;
    let _turn = parts.announced.lock().await;
    check_free(orders).await?;
    let found = read(parts, allowed).await?;
    // One that does not fit the base model is refused here, not when it is asked to answer.
    parts.engine.load(TRIAL, &found.adapter).await?;
    parts.engine.unload(TRIAL);
    let note = announcement.note.unwrap_or_else(|| "announced by webhook".into());
    let registered = parts.registry.register_git(found, parts.base, Some(note.clone())).await;
    let version = registered.map_err(Error::from)?.number;
    parts.residents.make_room(parts);
    orders.begin(RolloutStart { version: version.to_string(), by: "webhook".into(), reason: note }).await
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

/// That nothing else is being trained or judged.
async fn check_free(orders: &Orders) -> Result<()> {
    orders.leads()?;
    let parts = &orders.0;
    let busy = |what: String| Err(Error::conflict(what).with_hint("announce it again when that has ended"));
    if let Some((run, _)) = parts.runner.active() {
        return busy(format!("{run} is training, and its version goes first"));
    }
    match parts.store.rollouts().await?.into_iter().find(Rollout::is_unfinished) {
        Some(rollout) => busy(format!("{} is being judged", rollout.candidate)),
        None => Ok(()),
    }
}
