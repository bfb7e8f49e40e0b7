//! Adapters as artifacts of their runs.

use autoglm_domain::{Adapter, ModelVersion};

use crate::{Mlflow, Result, runs::ThereRun};

/// What a server that serves artifacts calls their root.
const SERVED: &str = "mlflow-artifacts:/";
/// The folder of a run's adapter.
pub(crate) const FOLDER: &str = "adapter";

impl Mlflow {
    /// Writes the adapter's files below the run's artifacts; the same files again are the same. Where the server leaves
    /// artifacts to its clients, nothing is written.
    pub(crate) async fn upload(&self, there: &ThereRun, version: &ModelVersion) -> Result<()> {
        if !self.config.upload {
            return Ok(());
        }
        let Some(root) = there.artifacts.strip_prefix(SERVED) else {
            tracing::debug!(version = %version.number, at = there.artifacts, "MLflow does not serve artifacts");
            return Ok(());
        };
        let bytes = self.artifacts.get(version.adapter).await?;
        let Adapter { config, weights } = Adapter::unpack(&bytes)?;
        // After a server's name there may be one more slash.
        let root = root.trim_start_matches('/');
        for (name, bytes) in [("adapter_config.json", config), ("adapter_model.safetensors", weights)] {
            self.client.upload(&format!("{root}/{FOLDER}/{name}"), bytes).await?;
        }
        Ok(())
    }
}
