//! Events of the journal to MLflow.

use std::{sync::Arc, time::Duration};

use autoglm_domain::{ArtifactStore, ErrorKind, Event, Mirror, RolloutState, Span, Store};
use tokio::sync::OnceCell;

use crate::{Config, Result, client::Client};

/// Time between two looks at a journal that has nothing new.
const PACE: Duration = Duration::from_secs(1);
/// Most events of a batch.
const BATCH: i64 = 500;

/// One MLflow server as a mirror.
pub struct Mlflow {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) artifacts: Arc<dyn ArtifactStore>,
    /// The experiment's id, once it is known.
    pub(crate) experiment: OnceCell<String>,
}

impl Mlflow {
    /// The server of `config`; nothing is asked of it yet. `Invalid` when a setting cannot work.
    pub fn new(config: Config, store: Arc<dyn Store>, artifacts: Arc<dyn ArtifactStore>) -> Result<Self> {
        let client = Client::new(&config)?;
        Ok(Self { config, client, store, artifacts, experiment: OnceCell::new() })
    }

    /// Brings MLflow up to date with an event; most change nothing there. What was pushed before and is pushed again
    /// changes nothing either. What MLflow refuses for its form is passed over with a warning, for it would be refused
    /// for ever.
    ///
    /// # Errors
    /// `Unavailable` while the server does not answer, `Denied` while it does not let us in.
    pub async fn push(&self, event: &Event) -> autoglm_domain::Result<()> {
        let pushed = match event {
            Event::Run(run) => self.push_run(run).await,
            Event::Version(version) => self.push_version(version).await,
            Event::Rollout(rollout) => match &rollout.state {
                RolloutState::Decided { verdict } => self.push_outcome(rollout.candidate, verdict).await,
                _ => Ok(()),
            },
            Event::AliasMoved(step) => self.push_alias(&step.alias).await,
            _ => Ok(()),
        };
        match pushed {
            Err(error) if error.kind() == ErrorKind::Invalid => {
                tracing::warn!(%error, event = event.name(), "MLflow does not take this");
                Ok(())
            }
            pushed => Ok(pushed?),
        }
    }
}

#[async_trait::async_trait]
impl Mirror for Mlflow {
    fn name(&self) -> &'static str {
        "mlflow"
    }

    fn pace(&self) -> Duration {
        PACE
    }

    fn batch_end(&self, after: i64, last: i64) -> i64 {
        last.min(after.saturating_add(BATCH))
    }

    async fn deliver(&self, span: Span) -> autoglm_domain::Result<()> {
        let mut pages = span.pages(&*self.store, BATCH as usize);
        while let Some(page) = pages.next().await? {
            for recorded in &page {
                self.push(&recorded.event).await?;
            }
        }
        Ok(())
    }
}
