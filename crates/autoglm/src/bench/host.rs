//! A whole server for one measurement: free port, empty data directory, gone afterwards.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use autoglm_domain::{
    AdapterHost as _, ChatMessage, Control, Error, HyperParameters, ModelVersion, Result, TrainExample,
    TrainJob, VersionNumber,
};
use autoglm_registry::NewVersion;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    demo::{Client, Stream},
    node::{Node, Parts},
    settings::Settings,
};

/// A running server.
pub(crate) struct Host {
    /// Where its API is.
    pub(crate) base_url: String,
    /// The bundled stream, for prompts.
    pub(crate) stream: Stream,
    node: Arc<Node>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<()>>,
    _folder: Folder,
}

impl Host {
    /// Starts a server with `settings`, but on a free port, with an empty data directory, and without runs that
    /// start by themselves.
    pub(crate) async fn start(mut settings: Settings) -> Result<Self> {
        let folder = Folder::new()?;
        settings.store.data_dir = folder.0.clone();
        settings.store.url = Default::default();
        settings.server.listen = "127.0.0.1:0".into();
        settings.train.triggers.enabled = false;
        let stream = crate::demo::bundled_stream(None)?;
        let listener = autoglm_gateway::bind(&settings.server.listen).await.map_err(Error::from)?;
        let address =
            listener.local_addr().map_err(|error| Error::internal(format!("no local address: {error}")))?;
        let node = Node::open(&settings).await?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn({
            let node = Arc::clone(&node);
            async move { node.serve(listener, async { drop(stopped.await) }).await }
        });
        let base_url = format!("http://{address}");
        Ok(Self { base_url, stream, node, stop, serving, _folder: folder })
    }

    /// A client of it, with connections of its own.
    pub(crate) fn client(&self) -> Result<Client> {
        Client::new(&self.base_url)
    }

    /// What it works with.
    pub(crate) fn parts(&self) -> &Arc<Parts> {
        self.node.parts()
    }

    /// Examples of the stream's traffic to train on.
    pub(crate) fn examples(&self, most: usize) -> Vec<TrainExample> {
        let traffic = self.stream.tasks.iter().flat_map(|task| &task.traffic);
        traffic
            .take(most)
            .map(|utterance| TrainExample {
                prompt: vec![ChatMessage::user(&utterance.prompt)],
                target: utterance.reference.clone(),
                weight: 1.0,
                frequency: 1.0,
                objective: Default::default(),
            })
            .collect()
    }

    /// Registers a version that was trained for `steps` steps to answer everything with `word`, and makes it
    /// resident.
    pub(crate) async fn teach(&self, word: &str, steps: u32) -> Result<ModelVersion> {
        let parts = Arc::clone(self.parts());
        let hyper = HyperParameters { steps, max_seconds: 0.0, ..parts.settings.train.hyper.clone() };
        let mut examples = self.examples(64);
        examples.iter_mut().for_each(|example| word.clone_into(&mut example.target));
        let job = TrainJob::new(examples, hyper.clone(), 7);
        let trainer = Arc::clone(&parts.trainer);
        let trained = tokio::task::spawn_blocking(move || trainer.train(&job, &mut |_| Control::Continue));
        let trained =
            trained.await.map_err(|error| Error::internal(format!("training was lost: {error}")))??;
        let new = NewVersion {
            adapter: trained.adapter.clone(),
            parent: VersionNumber::BASE,
            run: None,
            base: parts.base,
            snapshot: None,
            hyper: Some(hyper),
            metrics: trained.metrics,
            note: Some("made by `autoglm bench`".into()),
        };
        let version = parts.registry.register(new).await?;
        parts.engine.load(version.number, &trained.adapter).await?;
        Ok(version)
    }

    /// Stops it; answers on their way are finished.
    pub(crate) async fn close(self) -> Result<()> {
        drop(self.stop);
        let served =
            self.serving.await.map_err(|error| Error::internal(format!("the server was lost: {error}")))?;
        self.node.close().await;
        served
    }
}

/// A folder that goes away with its owner.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("autoglm-bench-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder)
            .map_err(|error| Error::unavailable(format!("`{}` cannot be made: {error}", folder.display())))?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, folder = %self.0.display(), "a temporary folder stays behind");
        }
    }
}
