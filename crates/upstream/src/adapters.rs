//! Versions on the upstream: which are loaded there under which names, and how they get there and away.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use autoglm_domain::{Adapter, VersionNumber};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc};

use crate::{Config, Dialect, Result, UpstreamError, adapter_files, dialect::Target, transport::Transport};

/// How adapters get to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdapterProtocol {
    /// Whichever of the two it has.
    Auto,
    /// vLLM's `/v1/load_lora_adapter`.
    Vllm,
    /// SGLang's `/load_lora_adapter`.
    Sglang,
    /// None: only the base model answers.
    Off,
}

/// The adapters of one upstream.
pub(crate) struct Adapters {
    transport: Arc<Transport>,
    dir: PathBuf,
    remote: PathBuf,
    limit: Duration,
    resident: RwLock<BTreeMap<VersionNumber, Arc<Resident>>>,
    /// One load or unload at a time: the two of one name must not cross.
    exchange: Mutex<()>,
    farewell: mpsc::UnboundedSender<Gone>,
}

/// A version that is loaded. Answers hold it; it is unloaded when the last of them has ended.
pub(crate) struct Resident {
    name: String,
    dialect: Dialect,
    farewell: mpsc::UnboundedSender<Gone>,
}

/// A name that no answer needs any more.
struct Gone {
    name: String,
    dialect: Dialect,
}

impl Drop for Resident {
    fn drop(&mut self) {
        // At the end of the process nobody listens, and the upstream keeps what it has.
        let _ = self.farewell.send(Gone { name: std::mem::take(&mut self.name), dialect: self.dialect });
    }
}

impl Resident {
    /// What a request of this version asks for.
    pub(crate) fn target(&self, model: &str) -> Target {
        self.dialect.target(model, &self.name)
    }
}

impl Adapters {
    /// Needs a tokio runtime: a task of it unloads what is no longer needed.
    pub(crate) fn new(transport: Arc<Transport>, config: &Config) -> Arc<Self> {
        let dir = config.adapter_dir.clone();
        let remote = match config.adapter_dir_remote.as_os_str().is_empty() {
            true => absolute(&dir),
            false => config.adapter_dir_remote.clone(),
        };
        let (farewell, gone) = mpsc::unbounded_channel();
        let adapters = Arc::new(Self {
            transport,
            remote,
            dir,
            limit: Duration::from_secs(config.adapter_timeout_s),
            resident: RwLock::default(),
            exchange: Mutex::default(),
            farewell,
        });
        tokio::spawn(unload(Arc::downgrade(&adapters), gone));
        adapters
    }

    pub(crate) fn resident(&self) -> Vec<VersionNumber> {
        std::iter::once(VersionNumber::BASE).chain(self.resident.read().keys().copied()).collect()
    }

    /// The version's adapter; `None` for the base model, which has none.
    pub(crate) fn get(&self, version: VersionNumber) -> Result<Option<Arc<Resident>>> {
        if version == VersionNumber::BASE {
            return Ok(None);
        }
        let resident = self.resident.read().get(&version).cloned();
        resident.map(Some).ok_or(UpstreamError::NotResident(version))
    }

    /// Writes the files and has the upstream load them.
    pub(crate) async fn load(
        &self,
        version: VersionNumber,
        adapter: &Adapter,
        dialect: Dialect,
    ) -> Result<()> {
        let name = adapter_files::name(adapter);
        let _exchange = self.exchange.lock().await;
        let (dir, own, copy) = (self.dir.clone(), name.clone(), adapter.clone());
        let written = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&dir)?;
            adapter_files::write(&dir, &own, &copy)
        });
        let failed =
            |reason: String| UpstreamError::AdapterFiles { path: self.dir.display().to_string(), reason };
        written
            .await
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(error.to_string()))?;
        self.order_load(&name, dialect).await.map_err(|error| match error {
            UpstreamError::Refused { message, .. } | UpstreamError::NotThere { message } => {
                UpstreamError::Adapter { version, reason: message }
            }
            other => other,
        })?;
        let resident = Arc::new(Resident { name, dialect, farewell: self.farewell.clone() });
        self.resident.write().insert(version, resident);
        Ok(())
    }

    /// Has the upstream load a version again that it has forgotten, as it does when it is restarted.
    pub(crate) async fn load_again(&self, resident: &Resident) -> Result<()> {
        let _exchange = self.exchange.lock().await;
        tracing::info!(
            adapter = resident.name,
            "the upstream has forgotten an adapter, which is loaded again"
        );
        self.order_load(&resident.name, resident.dialect).await
    }

    pub(crate) fn unload(&self, version: VersionNumber) {
        // Its last answer, or this, sends the name to the task that unloads.
        self.resident.write().remove(&version);
    }

    async fn order_load(&self, name: &str, dialect: Dialect) -> Result<()> {
        let url = format!("{}{}", self.transport.root(), dialect.load_path());
        let path = self.remote.join(name);
        let body = dialect.load_body(name, &path.display().to_string());
        match self.transport.post(&url, &body, self.limit).await {
            Ok(_) => Ok(()),
            // Loaded before, by us or by a process before us: the name is the content's, so it is the same.
            Err(UpstreamError::Refused { message, .. }) if message.contains("already") => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn order_unload(&self, gone: &Gone) {
        let _exchange = self.exchange.lock().await;
        // Loaded again meanwhile, or another version has the same content.
        if self.resident.read().values().any(|resident| resident.name == gone.name) {
            return;
        }
        let url = format!("{}{}", self.transport.root(), gone.dialect.unload_path());
        match self.transport.post(&url, &gone.dialect.unload_body(&gone.name), self.limit).await {
            Ok(_) | Err(UpstreamError::NotThere { .. }) => {}
            Err(error) => {
                tracing::warn!(%error, adapter = gone.name, "an adapter stays loaded on the upstream")
            }
        }
        let folder = self.dir.join(&gone.name);
        match tokio::task::spawn_blocking(move || adapter_files::remove(&folder)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, adapter = gone.name, "an adapter's files stay behind"),
            Err(error) => tracing::warn!(%error, adapter = gone.name, "an adapter's files stay behind"),
        }
    }
}

/// Unloads what is no longer needed, until nobody is left who could load anything.
async fn unload(adapters: Weak<Adapters>, mut gone: mpsc::UnboundedReceiver<Gone>) {
    while let Some(gone) = gone.recv().await {
        let Some(adapters) = adapters.upgrade() else { return };
        adapters.order_unload(&gone).await;
    }
}

/// The path as another process finds it.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
