//! The running server, as the demo sees it.

use std::{sync::Arc, time::Duration};

use autoglm_domain::{Generator, Result, Store, VersionNumber};

/// A server that is up, with the ports that measuring needs.
#[derive(Clone)]
pub(crate) struct DemoServer {
    /// Where its API is, e.g. `http://127.0.0.1:40123`.
    pub(crate) base_url: String,
    /// Its store, read only.
    pub(crate) store: Arc<dyn Store>,
    /// Its engine, for measuring what the weights alone know.
    pub(crate) generator: Arc<dyn Generator>,
    /// Its learning loop.
    pub(crate) control: Arc<dyn DemoControl>,
}

/// Port: what the demo asks of the learning loop.
#[async_trait::async_trait]
pub(crate) trait DemoControl: Send + Sync {
    /// Waits until nothing is pending: no assessment, no training run, no rollout. `false` when `timeout` was not
    /// enough.
    async fn wait_consolidated(&self, timeout: Duration) -> bool;

    /// Asks for a training run on what is there, unless one is pending anyway. Returns at once.
    async fn consolidate(&self);

    /// Trains for a while on everything that was learned, without anything new, and puts the result through the
    /// gate; returns once the verdict is stored.
    async fn merge(&self) -> Result<VersionNumber>;

    /// Trains a candidate on shuffled targets and puts it through the gate; returns once the verdict is stored.
    async fn submit_spoiled(&self) -> Result<VersionNumber>;

    /// Trains a version on everything at once with the budget of all runs so far. It is resident afterwards and
    /// never promoted.
    async fn train_upper_bound(&self) -> Result<VersionNumber>;
}
