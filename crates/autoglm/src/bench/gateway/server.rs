//! The server under measurement: a process of its own, whose candidate answers beside the champion from its start.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use autoglm_domain::{Adapter, Alias, Clock as _, Error, Result, SystemClock, VersionNumber};
use autoglm_registry::NewVersion;
use autoglm_rollout::{MetricConfig, MetricRole, RolloutPolicy, Scanned};

use super::{client::Target, upstream::MODEL};
use crate::{bench::resident::rss_mb, node::Node, settings::Settings};

/// Longest wait for it to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// More pairs than there will be, and more seconds.
const ENDLESS: u64 = 1_000_000_000;

/// A running server.
pub(super) struct Server {
    /// Where its API is.
    pub(super) base_url: String,
    process: Child,
}

impl Server {
    /// Starts one in `folder` with the upstream at `upstream`. A share `shadow` of the conversations is answered by a
    /// candidate too, 0 for none.
    pub(super) async fn start(
        mut settings: Settings,
        folder: &Path,
        upstream: SocketAddr,
        shadow: f64,
    ) -> Result<Self> {
        settings.store.data_dir = folder.join("data");
        settings.store.url = Default::default();
        settings.upstream.base_url = format!("http://{upstream}/v1");
        settings.upstream.model = MODEL.into();
        // Without a model of its own, as the others.
        settings.model.path.clear();
        settings.upstream.embedding_model = MODEL.into();
        settings.upstream.adapter_dir = folder.join("adapters");
        settings.train.triggers.enabled = false;
        settings.server.listen = free_address()?;
        if shadow > 0.0 {
            settings.rollout = endless(settings.rollout, shadow);
            begin(&settings).await?;
        }
        let unwritable = |error: std::io::Error| {
            Error::unavailable(format!("`{}` cannot be written: {error}", folder.display()))
        };
        let file = folder.join("autoglm.toml");
        let text = toml::to_string(&settings)
            .map_err(|error| Error::internal(format!("the settings are not written: {error}")))?;
        std::fs::write(&file, text).map_err(unwritable)?;
        let log = File::create(folder.join("server.log")).map_err(unwritable)?;
        let program = std::env::current_exe()
            .map_err(|error| Error::internal(format!("this program is not found: {error}")))?;
        let process = Command::new(program)
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| Error::unavailable(format!("the server did not start: {error}")))?;
        let server = Self { base_url: format!("http://{}/v1", settings.server.listen), process };
        server.answers(folder).await?;
        Ok(server)
    }

    /// Waits until it does.
    async fn answers(&self, folder: &Path) -> Result<()> {
        let target = self.target()?;
        let begin = Instant::now();
        while !tokio::task::block_in_place(|| target.answers()) {
            if begin.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(folder.join("server.log")).unwrap_or_default();
                let error =
                    log.lines().rfind(|line| line.contains("error")).unwrap_or("it says nothing of it");
                return Err(Error::unavailable(format!("the server does not answer: {error}")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub(super) fn target(&self) -> Result<Target> {
        Target::new(&self.base_url, "champion")
    }

    /// Its memory now, MB; `None` where the system does not say.
    pub(super) fn rss_mb(&self) -> Option<f64> {
        rss_mb(self.process.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its folder goes with it: there is nothing that it could still write in order.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An address that nobody listens on now.
fn free_address() -> Result<String> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.map(|address| address.to_string())
        .map_err(|error| Error::unavailable(format!("no port is free: {error}")))
}

/// A shadow that ends with nothing, so that it lasts as long as the measurement: errors are counted, and nothing has to
/// be shown.
fn endless(policy: RolloutPolicy, share: f64) -> RolloutPolicy {
    let mut policy = RolloutPolicy { live: true, slice_tolerance: 1.0, ..policy };
    for metric in policy.metrics.values_mut() {
        metric.role = MetricRole::Off;
    }
    policy.metrics.insert("error_rate".into(), MetricConfig::guard_difference(0.9));
    policy.shadow.share = share;
    (policy.shadow.min_pairs, policy.shadow.max_pairs, policy.shadow.max_s) = (ENDLESS, ENDLESS, ENDLESS);
    policy
}

/// Puts a champion, a candidate and its rollout into the store, where the server finds them.
async fn begin(settings: &Settings) -> Result<()> {
    let node = Node::open(settings).await?;
    let parts = node.parts();
    let mut versions = Vec::new();
    for word in ["champion", "candidate"] {
        let new = NewVersion {
            adapter: Adapter { config: b"{}".to_vec(), weights: word.as_bytes().to_vec() },
            parent: VersionNumber::BASE,
            run: None,
            base: parts.base,
            snapshot: None,
            hyper: None,
            metrics: Default::default(),
            note: Some("made by `autoglm bench`".into()),
        };
        versions.push(parts.registry.register(new).await?.number);
    }
    let [champion, candidate] = versions[..] else { return Err(Error::internal("two versions are two")) };
    parts.registry.point(Alias::champion(), None, champion, "bench", "the first", None).await?;
    let stage = parts.rollouts.begin(candidate, champion).await?;
    let Scanned::Clean(stage) = stage.scanned(None).await? else {
        return Err(Error::internal("the scan refused nothing and yet refused"));
    };
    stage.shadow(SystemClock.now()).await?;
    node.close().await;
    Ok(())
}
