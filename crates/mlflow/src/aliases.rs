//! Aliases, on both ways.
//!
//! Where our alias points is written to MLflow's alias of the same name, and then to a tag of the registered model. So
//! an alias that is not where its tag says was moved by somebody else, and one that is was moved by us: that is what
//! keeps a move from echoing.

use autoglm_domain::{Alias, ErrorKind, VersionNumber};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{Mlflow, Result, client::text, runs::tag_of};

/// A move that somebody made in MLflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedThere {
    /// The version of ours that the alias points at there.
    pub to: VersionNumber,
    /// MLflow's number of it.
    pub number: String,
}

impl Mlflow {
    /// Lets MLflow's alias point where ours does now; a name that MLflow does not allow is passed over.
    pub(crate) async fn push_alias(&self, alias: &Alias) -> Result<()> {
        let aliases = self.store.aliases().await?;
        let ours = aliases.iter().find(|(name, _)| name == alias).map_or(VersionNumber::BASE, |(_, to)| *to);
        self.make_model().await?;
        let model = &self.config.model;
        if ours == VersionNumber::BASE {
            let gone = json!({"name": model, "alias": alias});
            match self.client.send(Method::DELETE, "registered-models/alias", gone).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                deleted => drop(deleted?),
            }
        } else {
            let version = self.store.version(ours).await?;
            self.push_version(&version).await?;
            let Some(number) = self.number_there(&version).await? else { return Ok(()) };
            let set = json!({"name": model, "alias": alias, "version": number});
            self.client.post("registered-models/alias", set).await?;
        }
        let tag = json!({"name": model, "key": tag_name(alias), "value": ours.to_string()});
        self.client.post("registered-models/set-tag", tag).await.map(drop)
    }

    /// Writes once more where `alias` points, so that MLflow's is no move of somebody else's any longer.
    pub async fn settle(&self, alias: &Alias) -> autoglm_domain::Result<()> {
        Ok(self.push_alias(alias).await?)
    }

    /// Whether `alias` was moved in MLflow since we wrote it last, and to which version of ours. To be asked when every
    /// move of ours was pushed. `Invalid` when it points at a version there that is none of ours.
    pub async fn moved_there(&self, alias: &Alias) -> autoglm_domain::Result<Option<MovedThere>> {
        Ok(self.moved(alias).await?)
    }

    async fn moved(&self, alias: &Alias) -> Result<Option<MovedThere>> {
        const GET: &str = "registered-models/get";
        let found = match self.client.get(GET, &[("name", &self.config.model)]).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        let model = found.get("registered_model").unwrap_or(&Value::Null);
        let there = model.get("aliases").and_then(Value::as_array).into_iter().flatten();
        let Some(there) =
            there.into_iter().find(|it| it.get("alias").and_then(Value::as_str) == Some(&alias.0))
        else {
            return Ok(None); // Taken away there, which says of no version that it should answer.
        };
        let number = text(GET, there, "/version")?;
        let written = tag_of(model, &tag_name(alias)).and_then(|text| text.parse::<VersionNumber>().ok());
        let Some(to) = self.version_of(&number).await? else {
            let message =
                format!("`{alias}` points at version {number} in MLflow, which is no version of autoglm");
            return Err(autoglm_domain::Error::invalid(message)
                .with_hint("versions of autoglm carry the tag `autoglm.version`; `autoglm versions import` makes one")
                .into());
        };
        Ok((Some(to) != written).then_some(MovedThere { to, number }))
    }
}

fn tag_name(alias: &Alias) -> String {
    format!("autoglm.alias.{alias}")
}
