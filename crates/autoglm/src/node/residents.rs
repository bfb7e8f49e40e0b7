//! Which versions are in the engine, and which of them the aliases serve.
//!
//! An alias is served from the moment that its version is resident, never before: a move that another process
//! made (a rollback by the command line) is followed by loading first and pointing then.

use std::{collections::BTreeMap, sync::Arc};

use autoglm_domain::{
    AdapterHost as _, Alias, Error, ErrorKind, ModelVersion, Result, RolloutState, VersionNumber,
};
use parking_lot::RwLock;

use super::Parts;

/// Versions behind the champion that stay in the engine, so that a rollback needs no loading.
const KEPT: usize = 4;

/// The served state of aliases and versions.
#[derive(Default)]
pub(crate) struct Residents {
    served: RwLock<Served>,
    /// Held from reading the store to serving what was read: a slower reader must not put back what a quicker one
    /// has replaced.
    following: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Served {
    aliases: BTreeMap<Alias, VersionNumber>,
    known: Arc<Vec<ModelVersion>>,
}

impl Residents {
    /// The version that `alias` serves; the base model before its first move.
    pub(crate) fn serving(&self, alias: &Alias) -> VersionNumber {
        self.served.read().aliases.get(alias).copied().unwrap_or_default()
    }

    /// The version of an alias by name, where there is such an alias.
    pub(crate) fn alias(&self, name: &str) -> Option<VersionNumber> {
        self.served.read().aliases.get(&Alias(name.to_owned())).copied()
    }

    /// Every alias with the version it serves.
    pub(crate) fn aliases(&self) -> Vec<(Alias, VersionNumber)> {
        self.served.read().aliases.iter().map(|(alias, version)| (alias.clone(), *version)).collect()
    }

    /// Every registered version.
    pub(crate) fn known(&self) -> Arc<Vec<ModelVersion>> {
        Arc::clone(&self.served.read().known)
    }

    /// Reads aliases and versions from the store, loads what an alias names, and then serves it.
    pub(crate) async fn follow(&self, parts: &Parts) -> Result<()> {
        let _following = self.following.lock().await;
        let aliases = parts.store.aliases().await?;
        let known = parts.store.versions().await?;
        for (_, version) in &aliases {
            ensure(parts, *version).await?;
        }
        *self.served.write() = Served { aliases: aliases.into_iter().collect(), known: Arc::new(known) };
        parts.registry.refresh().await?;
        Ok(())
    }

    /// Frees what is neither served by an alias nor among the latest, before another version is loaded.
    pub(crate) fn make_room(&self, parts: &Parts) {
        let served = self.served.read();
        let mut resident = parts.engine.resident();
        resident.sort_unstable_by(|a, b| b.cmp(a));
        let mut named: Vec<VersionNumber> = served.aliases.values().copied().collect();
        named.extend(parts.traffic.versions());
        for version in resident.into_iter().skip(KEPT) {
            if version != VersionNumber::BASE && !named.contains(&version) {
                parts.engine.unload(version);
            }
        }
    }
}

/// Makes a version resident.
pub(crate) async fn ensure(parts: &Parts, version: VersionNumber) -> Result<()> {
    if parts.engine.resident().contains(&version) {
        return Ok(());
    }
    let registered = parts.store.version(version).await?;
    if registered.base != parts.base {
        return Err(Error::invalid(format!(
            "{version} was trained on base model {}, but {} is loaded",
            registered.base.short(),
            parts.base.short()
        ))
        .with_hint("serve the model it was trained on, or use another data directory"));
    }
    let Some(adapter) = parts.registry.adapter(version).await? else { return Ok(()) };
    parts.engine.load(version, &adapter).await
}

/// Puts a candidate whose rollout was cut short through the gate again.
pub(crate) async fn restart(parts: &Arc<Parts>, candidate: VersionNumber) -> Result<()> {
    // Only the latest start matters: one that was decided since needs nothing.
    let rollouts = parts.store.rollouts().await?;
    let decided = rollouts.iter().any(|rollout| {
        rollout.candidate == candidate && matches!(rollout.state, RolloutState::Decided { .. })
    });
    if decided {
        return Ok(());
    }
    ensure(parts, candidate).await?;
    match crate::consolidate::prove(parts, candidate, candidate.0).await {
        Err(error) if error.kind == ErrorKind::Conflict => {
            tracing::info!(%error, %candidate, "another rollout goes first");
            Ok(())
        }
        other => other.map(drop),
    }?;
    parts.residents.follow(parts).await
}
