//! MLflow beside the loop, where it is so set: a move of an alias there is made here. That the journal is pushed there is the
//! [mirrors'](super::mirrors) business.

use std::{sync::Arc, time::Duration};

use autoglm_domain::{Alias, Error, Event, Result};
use autoglm_gateway::{Admin as _, Promotion};
use autoglm_mlflow::{Mlflow, MovedThere};

use super::{Parts, orders::Orders};

/// The mirror's name among the followers of the journal, and who moved an alias there.
const NAME: &str = "mlflow";
/// Events that are looked at for a move of ours.
const PAGE: usize = 500;

/// Looks now and then whether the alias that is followed was moved in MLflow, and moves ours, until the task is dropped.
pub(super) async fn follow(parts: Arc<Parts>, mlflow: Arc<Mlflow>) {
    let config = &parts.settings.mlflow;
    let alias = Alias(config.follow_alias.clone());
    let mut told = None;
    loop {
        tokio::time::sleep(Duration::from_secs(config.poll_s)).await;
        let error = look(&parts, &mlflow, &alias).await.err().map(|error| error.message);
        if let Some(error) = error.as_ref().filter(|_| error != told) {
            tracing::warn!(%error, %alias, "an alias of MLflow cannot be followed");
        }
        told = error;
    }
}

async fn look(parts: &Arc<Parts>, mlflow: &Mlflow, alias: &Alias) -> Result<()> {
    // What of ours is not there yet would look like a move of somebody else's back to where it was.
    let seq = parts.cursors.cursor(NAME).await?.unwrap_or_default().seq;
    let unpushed = parts.store.events_after(seq, PAGE).await?;
    let moves = |event: &Event| matches!(event, Event::AliasMoved(step) if step.alias == *alias);
    if unpushed.len() == PAGE || unpushed.iter().any(|recorded| moves(&recorded.event)) {
        return Ok(());
    }
    let Some(MovedThere { to, number }) = mlflow.moved_there(alias).await? else { return Ok(()) };
    if parts.registry.aliases().current(alias) == to {
        return mlflow.settle(alias).await;
    }
    let findings = parts.registry.scan(to).await.map_err(Error::from)?;
    if !findings.is_empty() {
        return Err(Error::invalid(format!("{to} did not pass the scan: {}", findings.join("; "))));
    }
    let promotion = Promotion {
        version: to.to_string(),
        alias: alias.clone(),
        by: NAME.into(),
        reason: format!("the alias was moved to version {number} in MLflow"),
    };
    Orders(Arc::clone(parts)).promote(promotion).await.map(drop)
}

#[cfg(test)]
mod tests {
    use autoglm_doubles::MlflowServer;
    use serde_json::{Value, json};

    use super::*;
    use crate::{bench::Host, settings::Settings};

    /// MLflow's numbers of our versions, by their tags.
    async fn numbers(url: &str) -> Vec<(String, String)> {
        let url = format!("{url}/api/2.0/mlflow/model-versions/search");
        let Ok(answer) = reqwest::get(url).await else { return Vec::new() };
        let found: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default();
        let tag = |it: &Value| {
            let tags = it["tags"].as_array()?;
            let ours = tags.iter().find(|tag| tag["key"] == "autoglm.version")?;
            Some((ours["value"].as_str()?.to_owned(), it["version"].as_str()?.to_owned()))
        };
        found["model_versions"].as_array().into_iter().flatten().filter_map(tag).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_promotion_in_mlflow_is_made_here_once() {
        let Some(server) = MlflowServer::start() else { return };
        let mut settings = Settings::default();
        settings.mlflow.url = server.url();
        settings.mlflow.follow_alias = "champion".into();
        settings.mlflow.poll_s = 1;
        settings.mlflow.timeout_ms = 60_000;
        let host = Host::start(settings).await.unwrap();
        let parts = Arc::clone(host.parts());
        let first = host.teach("balance", 3).await.unwrap().number;
        host.teach("weather", 4).await.unwrap();
        let there = loop {
            let there = numbers(&server.url()).await;
            if there.len() == 2 {
                break there;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let (_, number) = there.iter().find(|(ours, _)| *ours == first.to_string()).unwrap();
        let body = json!({"name": "autoglm", "alias": "champion", "version": number}).to_string();
        let request = reqwest::Client::new()
            .post(format!("{}/api/2.0/mlflow/registered-models/alias", server.url()))
            .header("content-type", "application/json")
            .body(body);
        assert!(request.send().await.unwrap().status().is_success());
        let champion = Alias::champion();
        while parts.residents.serving(&champion) != first {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // Long enough for the move to come back, if it did.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let moves = parts.store.alias_history(&champion).await.unwrap();
        assert_eq!(moves.len(), 1, "{moves:?}");
        assert_eq!((moves[0].by.as_str(), moves[0].to), ("mlflow", first));
        assert!(moves[0].reason.contains("in MLflow"), "{}", moves[0].reason);
        host.close().await.unwrap();
    }
}
