//! The registry: versions go in once and stay; names move.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use autoglm_domain::{
    Adapter, Alias, AliasMove, ArtifactStore, Clock, ContentHash, ErrorKind, Event, HyperParameters,
    ModelVersion, RolloutId, Store, TrainingRunId, VersionNumber,
};
use serde::Serialize;

use crate::{
    Aliases, Config, Error, ROLLBACK, Result, ScanLimits, VersionDiff, alias, diff, read_folder, scan,
    version_hash, write_folder,
};

/// How often a number that another process took meanwhile is replaced by the next one.
const NUMBER_TRIES: usize = 32;

/// Digits that a hash prefix needs; fewer would collide with numbers.
const MIN_PREFIX: usize = 6;

/// A version before it has a number and a hash.
#[derive(Debug, Clone, PartialEq)]
pub struct NewVersion {
    /// The adapter.
    pub adapter: Adapter,
    /// The version it was trained from.
    pub parent: VersionNumber,
    /// The run that made it; `None` for an imported one.
    pub run: Option<TrainingRunId>,
    /// The base model's hash.
    pub base: ContentHash,
    /// The data-set snapshot, where it was trained here.
    pub snapshot: Option<ContentHash>,
    /// Hyper-parameters, where it was trained here.
    pub hyper: Option<HyperParameters>,
    /// Loss and the like; finite numbers.
    pub metrics: BTreeMap<String, f64>,
    /// A remark.
    pub note: Option<String>,
}

impl NewVersion {
    /// A child of the base model of which nothing else is known.
    pub(crate) fn imported(adapter: Adapter, base: ContentHash, note: Option<String>) -> Self {
        Self {
            adapter,
            parent: VersionNumber::BASE,
            run: None,
            base,
            snapshot: None,
            hyper: None,
            metrics: BTreeMap::new(),
            note,
        }
    }
}

/// A version with the names that point at it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VersionView {
    /// The version.
    #[serde(flatten)]
    pub version: ModelVersion,
    /// The aliases that point at it, sorted.
    pub aliases: Vec<Alias>,
}

/// Versions, artifacts and aliases of one store.
pub struct Registry {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) artifacts: Arc<dyn ArtifactStore>,
    clock: Arc<dyn Clock>,
    pub(crate) limits: ScanLimits,
    aliases: Arc<Aliases>,
    /// Held over each write, so that writes of this process never collide and the alias table follows
    /// moves in their order.
    writing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("aliases", &self.aliases).finish_non_exhaustive()
    }
}

impl Registry {
    /// A registry over `store`, with the alias table as it is there now.
    pub async fn open(
        store: Arc<dyn Store>,
        artifacts: Arc<dyn ArtifactStore>,
        clock: Arc<dyn Clock>,
        config: &Config,
    ) -> Result<Self> {
        let registry = Self {
            store,
            artifacts,
            clock,
            limits: config.scan.clone(),
            aliases: Arc::default(),
            writing: tokio::sync::Mutex::default(),
        };
        registry.refresh().await?;
        Ok(registry)
    }

    /// The same registry, that writes to `store`: another door to the same records.
    #[must_use]
    pub fn writing_to(&self, store: Arc<dyn Store>) -> Self {
        Self {
            store,
            artifacts: Arc::clone(&self.artifacts),
            clock: Arc::clone(&self.clock),
            limits: self.limits.clone(),
            aliases: Arc::clone(&self.aliases),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// The alias table, to be read for each request.
    pub fn aliases(&self) -> Arc<Aliases> {
        Arc::clone(&self.aliases)
    }

    /// Reads the alias table from the store again, for moves that another process made.
    pub async fn refresh(&self) -> Result<()> {
        let _writing = self.writing.lock().await;
        self.reload().await
    }

    /// Caller holds `writing`.
    async fn reload(&self) -> Result<()> {
        self.aliases.replace(self.store.aliases().await?);
        Ok(())
    }

    /// Stores the adapter and registers it under the next number. What made it decides its hash: the same
    /// content registered again is the version that is there already.
    ///
    /// The adapter is not scanned: what an adapter must look like to answer is the gate's to decide.
    pub async fn register(&self, new: NewVersion) -> Result<ModelVersion> {
        self.register_with(new, |_| Vec::new()).await
    }

    /// [`Registry::register`], with events that are written together with the version or not at all, such
    /// as the end of the run that made it.
    pub async fn register_with(
        &self,
        new: NewVersion,
        also: impl Fn(&ModelVersion) -> Vec<Event> + Send,
    ) -> Result<ModelVersion> {
        if let Some((name, _)) = new.metrics.iter().find(|(_, value)| !value.is_finite()) {
            return Err(Error::Metric(name.clone()));
        }
        let adapter = self.artifacts.put(new.adapter.pack()).await?;
        let _writing = self.writing.lock().await;
        let mut version = self.unnumbered(new, adapter).await?;
        for _ in 0..NUMBER_TRIES {
            let versions = self.store.versions().await?;
            let last = versions.iter().map(|version| version.number.0).max().unwrap_or(0);
            if let Some(there) = versions.into_iter().find(|there| there.hash == version.hash) {
                let events = also(&there);
                if !events.is_empty() {
                    self.store.append(events).await?;
                }
                return Ok(there);
            }
            version.number = VersionNumber(last + 1);
            let mut events = vec![Event::Version(Box::new(version.clone()))];
            events.extend(also(&version));
            match self.store.append(events).await {
                Ok(()) => {
                    tracing::info!(version = %version.number, hash = %version.hash.short(), "version registered");
                    return Ok(version);
                }
                // Another process took the number; any other conflict is the caller's.
                Err(error) if error.kind == ErrorKind::Conflict && self.is_taken(version.number).await? => {}
                Err(error) => return Err(error.into()),
            }
        }
        let message = format!("{NUMBER_TRIES} version numbers in a row were taken by other processes");
        Err(autoglm_domain::Error::unavailable(message).into())
    }

    async fn is_taken(&self, number: VersionNumber) -> Result<bool> {
        Ok(self.store.versions().await?.iter().any(|version| version.number == number))
    }

    /// The version with everything but its number.
    async fn unnumbered(&self, new: NewVersion, adapter: ContentHash) -> Result<ModelVersion> {
        let parent = if new.parent == VersionNumber::BASE {
            new.base
        } else {
            let parent = self.get(new.parent).await?;
            if parent.base != new.base {
                return Err(Error::OtherBase { parent: new.parent, theirs: parent.base, ours: new.base });
            }
            parent.hash
        };
        Ok(ModelVersion {
            number: VersionNumber::BASE,
            hash: version_hash(adapter, new.snapshot, new.hyper.as_ref(), parent, new.base)?,
            at: self.clock.now(),
            parent: new.parent,
            run: new.run,
            base: new.base,
            adapter,
            snapshot: new.snapshot,
            hyper: new.hyper,
            metrics: new.metrics,
            code_version: env!("CARGO_PKG_VERSION").to_owned(),
            note: new.note,
        })
    }

    /// One version; `NotFound` for the base model, which is none.
    pub async fn get(&self, number: VersionNumber) -> Result<ModelVersion> {
        Ok(self.store.version(number).await?)
    }

    /// One version with its aliases.
    pub async fn show(&self, number: VersionNumber) -> Result<VersionView> {
        let version = self.get(number).await?;
        Ok(view(version, &self.store.aliases().await?))
    }

    /// Every version with its aliases, oldest first.
    pub async fn list(&self) -> Result<Vec<VersionView>> {
        let aliases = self.store.aliases().await?;
        let versions = self.store.versions().await?;
        Ok(versions.into_iter().map(|version| view(version, &aliases)).collect())
    }

    /// The version and all that it was trained from, newest first; empty for the base model.
    pub async fn lineage(&self, number: VersionNumber) -> Result<Vec<ModelVersion>> {
        let mut line = Vec::new();
        let mut next = number;
        while next != VersionNumber::BASE {
            let version = self.get(next).await?;
            if version.parent >= version.number {
                return Err(Error::BrokenLineage { version: next, parent: version.parent });
            }
            next = version.parent;
            line.push(version);
        }
        Ok(line)
    }

    /// The adapter of a version, verified; `None` for the base model.
    pub async fn adapter(&self, number: VersionNumber) -> Result<Option<Adapter>> {
        if number == VersionNumber::BASE {
            return Ok(None);
        }
        let version = self.get(number).await?;
        let bytes = self.artifacts.get(version.adapter).await?;
        Ok(Some(Adapter::unpack(&bytes)?))
    }

    /// What differs between two versions.
    pub async fn diff(&self, a: VersionNumber, b: VersionNumber) -> Result<VersionDiff> {
        let (from, to) = (self.get_unless_base(a).await?, self.get_unless_base(b).await?);
        let (from, to) = (from.as_ref(), to.as_ref());
        let data = [self.experiences(from).await?, self.experiences(to).await?];
        Ok(VersionDiff {
            a,
            b,
            same_adapter: from.map(|version| version.adapter) == to.map(|version| version.adapter),
            metrics: diff::changes(&diff::metrics(from), &diff::metrics(to)),
            hyper: diff::changes(&diff::hyper(from)?, &diff::hyper(to)?),
            snapshot: diff::snapshot_change(&data[0], &data[1]),
            answers: diff::answers_change(&*self.store, a, b).await?,
        })
    }

    async fn get_unless_base(&self, number: VersionNumber) -> Result<Option<ModelVersion>> {
        if number == VersionNumber::BASE { Ok(None) } else { self.get(number).await.map(Some) }
    }

    async fn experiences(&self, version: Option<&ModelVersion>) -> Result<BTreeMap<String, diff::Example>> {
        match version.and_then(|version| version.snapshot) {
            Some(hash) => diff::experiences(hash, &self.artifacts.get(hash).await?),
            None => Ok(BTreeMap::new()),
        }
    }

    /// The version that `name` means: an alias, `base`, `v3` or `3`, or the first digits of a hash (at
    /// least six).
    pub async fn resolve(&self, name: &str) -> Result<VersionNumber> {
        if let Some(version) = self.aliases.get(&Alias(name.to_owned())) {
            return Ok(version);
        }
        if name == "base" {
            return Ok(VersionNumber::BASE);
        }
        let versions = self.store.versions().await?;
        if name.len() < MIN_PREFIX || name.starts_with('v') {
            let number = name.parse::<VersionNumber>().map_err(|_| Error::NoVersion(name.to_owned()))?;
            let there =
                number == VersionNumber::BASE || versions.iter().any(|version| version.number == number);
            return if there { Ok(number) } else { Err(Error::NoVersion(name.to_owned())) };
        }
        let prefix = name.to_ascii_lowercase();
        let fitting: Vec<_> =
            versions.iter().filter(|version| version.hash.to_string().starts_with(&prefix)).collect();
        match fitting.as_slice() {
            [one] => Ok(one.number),
            [] => Err(Error::NoVersion(name.to_owned())),
            many => Err(Error::Ambiguous { prefix: name.to_owned(), count: many.len() }),
        }
    }

    /// Makes `version` the champion, whatever it was before.
    pub async fn promote(
        &self,
        version: VersionNumber,
        by: &str,
        reason: &str,
        rollout: Option<RolloutId>,
    ) -> Result<AliasMove> {
        self.point(Alias::champion(), None, version, by, reason, rollout).await
    }

    /// Makes `version` the champion if `champion` still is: for a verdict, which compared the two.
    pub async fn promote_over(
        &self,
        champion: VersionNumber,
        version: VersionNumber,
        by: &str,
        reason: &str,
        rollout: Option<RolloutId>,
    ) -> Result<AliasMove> {
        self.point(Alias::champion(), Some(champion), version, by, reason, rollout).await
    }

    /// Moves any alias; `Conflict` when it does not point at `expected` (where given) or points at `to`
    /// already. The next request that reads the table sees the move.
    pub async fn point(
        &self,
        alias: Alias,
        expected: Option<VersionNumber>,
        to: VersionNumber,
        by: &str,
        reason: &str,
        rollout: Option<RolloutId>,
    ) -> Result<AliasMove> {
        self.get_unless_base(to).await?;
        let _writing = self.writing.lock().await;
        self.reload().await?;
        let from = self.aliases.current(&alias);
        if let Some(expected) = expected.filter(|expected| *expected != from) {
            return Err(Error::Moved { alias: alias.0, expected, found: from });
        }
        if from == to {
            return Err(Error::AlreadyThere { alias: alias.0, version: to });
        }
        let (by, reason) = (by.to_owned(), reason.to_owned());
        self.append_move(AliasMove { alias, from, to, at: self.clock.now(), by, reason, rollout }).await
    }

    /// Makes the champion before this one the champion again; `Conflict` when there was none. Repeated, it
    /// goes further back.
    pub async fn rollback(&self, by: &str, reason: &str) -> Result<AliasMove> {
        let _writing = self.writing.lock().await;
        self.reload().await?;
        let alias = Alias::champion();
        let from = self.aliases.current(&alias);
        let history = self.store.alias_history(&alias).await?;
        let to = alias::before(&history).ok_or(Error::NoEarlier(from))?;
        let (by, reason) = (by.to_owned(), format!("{ROLLBACK}{reason}"));
        self.append_move(AliasMove { alias, from, to, at: self.clock.now(), by, reason, rollout: None }).await
    }

    /// Caller holds `writing` and has read the table just before.
    async fn append_move(&self, step: AliasMove) -> Result<AliasMove> {
        match self.store.append(vec![Event::AliasMoved(step.clone())]).await {
            Ok(()) => {
                self.aliases.set(step.alias.clone(), step.to);
                tracing::info!(alias = %step.alias, from = %step.from, to = %step.to, by = step.by, "alias moved");
                Ok(step)
            }
            Err(error) if error.kind == ErrorKind::Conflict => {
                self.reload().await?;
                let found = self.aliases.current(&step.alias);
                Err(Error::Moved { alias: step.alias.0, expected: step.from, found })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What the scan finds in a version's adapter; nothing for the base model.
    pub async fn scan(&self, number: VersionNumber) -> Result<Vec<String>> {
        let adapter = self.adapter(number).await?;
        Ok(adapter.map(|adapter| scan(&adapter, &self.limits)).unwrap_or_default())
    }

    /// Writes a version to `folder` in PEFT's format, with a model card.
    pub async fn export(&self, number: VersionNumber, folder: &Path) -> Result<()> {
        let version = self.get(number).await?;
        match self.adapter(number).await? {
            Some(adapter) => write_folder(folder, &adapter, &version).await,
            None => Err(Error::NoVersion(number.to_string())),
        }
    }

    /// Registers the adapter in a PEFT folder, after a scan, as a child of the base model.
    pub async fn import(
        &self,
        folder: &Path,
        base: ContentHash,
        note: Option<String>,
    ) -> Result<ModelVersion> {
        let adapter = read_folder(folder, &self.limits).await?;
        self.register(NewVersion::imported(adapter, base, note)).await
    }
}

fn view(version: ModelVersion, aliases: &[(Alias, VersionNumber)]) -> VersionView {
    let mut names: Vec<Alias> =
        aliases.iter().filter(|(_, at)| *at == version.number).map(|(alias, _)| alias.clone()).collect();
    names.sort();
    VersionView { version, aliases: names }
}
