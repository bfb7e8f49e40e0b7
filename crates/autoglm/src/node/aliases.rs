//! Model names of the API to versions.

use std::sync::Arc;

use autoglm_domain::{Alias, Error, Result, Timestamp, VersionNumber};
use autoglm_gateway::{AliasTable, ModelEntry, ModelKind, Route};

use super::Parts;

/// `champion`, other aliases, `v3`, the beginning of a hash, `base`, and the model's own name.
pub(crate) struct Names(pub(crate) Arc<Parts>);

impl AliasTable for Names {
    fn resolve(&self, model: &str) -> Result<VersionNumber> {
        let parts = &self.0;
        if model == "base" {
            return Ok(VersionNumber::BASE);
        }
        if model == parts.model_name || model == "champion" {
            return Ok(parts.residents.serving(&Alias::champion()));
        }
        if let Some(version) = parts.residents.alias(model) {
            return Ok(version);
        }
        let known = parts.residents.known();
        let by_number = model.parse::<VersionNumber>().ok().filter(|n| known.iter().any(|v| v.number == *n));
        if let Some(number) = by_number {
            return Ok(number);
        }
        let matching: Vec<_> = if model.len() >= 6 {
            known.iter().filter(|version| version.hash.to_string().starts_with(model)).collect()
        } else {
            Vec::new()
        };
        match matching.as_slice() {
            [version] => Ok(version.number),
            [] => Err(Error::not_found(format!("no model `{model}`")).with_hint("GET /v1/models lists them")),
            many => Err(Error::invalid(format!("`{model}` begins the hashes of {} versions", many.len()))),
        }
    }

    fn route(&self, model: &str, conversation: u64) -> Result<Route> {
        let version = self.resolve(model)?;
        // Who names a version or another alias gets it.
        if model == self.0.model_name || model == "champion" {
            return Ok(self.0.traffic.route(version, conversation));
        }
        Ok(Route::to(version))
    }

    fn list(&self) -> Vec<ModelEntry> {
        let parts = &self.0;
        let entry =
            |id: String, kind, version| ModelEntry { id, kind, version, created: Timestamp(0), hash: None };
        let champion = parts.residents.serving(&Alias::champion());
        let mut entries = vec![
            entry("champion".into(), ModelKind::Alias, champion),
            ModelEntry {
                hash: Some(parts.base),
                ..entry("base".into(), ModelKind::Base, VersionNumber::BASE)
            },
        ];
        let aliases = parts.residents.aliases().into_iter().filter(|(alias, _)| *alias != Alias::champion());
        entries.extend(aliases.map(|(alias, version)| entry(alias.0, ModelKind::Alias, version)));
        entries.extend(parts.residents.known().iter().map(|version| ModelEntry {
            id: version.number.to_string(),
            kind: ModelKind::Version,
            version: version.number,
            created: version.at,
            hash: Some(version.hash),
        }));
        entries
    }
}
