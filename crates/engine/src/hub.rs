//! Where a model lies: a folder or file as it is, or a hub id, whose files are fetched once and kept in the hub's cache.

use std::path::{Path, PathBuf};

use crate::{EngineError, Result};

/// The path of the model that `name` means: a GGUF file, a local folder with a `config.json`, or a hub id `owner/model` or
/// `owner/model@revision`, which needs the feature `hub`. Blocks while it downloads.
///
/// `NotFound` when there is neither; `Unavailable` when the hub cannot be reached and nothing is cached.
pub fn resolve_model(name: &str) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.is_file() {
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            return Ok(path.to_path_buf());
        }
        return Err(EngineError::ModelNotFound {
            name: name.into(),
            hint: "this is no GGUF file; name one, or the folder that holds `config.json`".into(),
        });
    }
    if path.is_dir() {
        if path.join("config.json").is_file() {
            return Ok(path.to_path_buf());
        }
        return Err(EngineError::ModelNotFound {
            name: name.into(),
            hint: "the folder holds no `config.json`".into(),
        });
    }
    match parse_id(name) {
        Some(id) => fetch(name, &id),
        None => Err(EngineError::ModelNotFound {
            name: name.into(),
            hint: "name a folder, a GGUF file, or a hub id such as `owner/model`".into(),
        }),
    }
}

/// A model on the hub.
#[derive(Debug, PartialEq, Eq)]
struct HubId<'a> {
    owner: &'a str,
    model: &'a str,
    revision: Option<&'a str>,
}

/// `owner/model` or `owner/model@revision`; `None` for anything that looks like a path.
fn parse_id(name: &str) -> Option<HubId<'_>> {
    let (id, revision) = match name.split_once('@') {
        Some((id, revision)) => (id, Some(revision)),
        None => (name, None),
    };
    let (owner, model) = id.split_once('/')?;
    let plain = |part: &str| {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && part.len() <= 96 && !part.starts_with('.') && part.chars().all(fine)
    };
    let revision_is_plain = revision.is_none_or(|revision| revision.split('/').all(plain));
    (plain(owner) && plain(model) && revision_is_plain).then_some(HubId { owner, model, revision })
}

#[cfg(not(feature = "hub"))]
fn fetch(name: &str, id: &HubId<'_>) -> Result<PathBuf> {
    Err(EngineError::ModelNotFound {
        name: name.into(),
        hint: format!(
            "there is no such folder; to fetch `{}/{}` from the model hub{}, build with `--features hub`",
            id.owner,
            id.model,
            id.revision.map(|revision| format!(" at `{revision}`")).unwrap_or_default()
        ),
    })
}

/// The files of the newest or the named revision; what is cached where the hub cannot be reached.
#[cfg(feature = "hub")]
fn fetch(name: &str, id: &HubId<'_>) -> Result<PathBuf> {
    use hf_hub::HFError;

    const WANTED: &[&str] = &[
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "model.safetensors.index.json",
        "*.safetensors",
    ];
    // Copies of the weights in other forms.
    const UNWANTED: &[&str] = &["*/*", "consolidated*"];
    let patterns = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let unreachable = |error: &HFError| EngineError::Hub(format!("cannot fetch `{name}`: {error}"));
    let client = hf_hub::HFClientSync::new().map_err(|error| unreachable(&error))?;
    let model = client.model(id.owner, id.model);
    let snapshot = |only_cached: bool| {
        model
            .snapshot_download()
            .maybe_revision(id.revision.map(str::to_owned))
            .allow_patterns(patterns(WANTED))
            .ignore_patterns(patterns(UNWANTED))
            .local_files_only(only_cached)
            .send()
    };
    match snapshot(false) {
        Ok(folder) => Ok(folder),
        Err(HFError::RepoNotFound { .. } | HFError::RevisionNotFound { .. }) => {
            Err(EngineError::ModelNotFound {
                name: name.into(),
                hint: "neither a folder nor a model on the hub has this name".into(),
            })
        }
        Err(HFError::AuthRequired { .. } | HFError::Forbidden { .. }) => Err(EngineError::ModelNotFound {
            name: name.into(),
            hint: "the hub wants a token for it: accept the model's terms there and set `HF_TOKEN`".into(),
        }),
        Err(error) => {
            tracing::warn!(%error, model = name, "the model hub cannot be reached; looking into its cache");
            snapshot(true).map_err(|_| unreachable(&error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_itself_and_what_is_no_model_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().to_str().unwrap();
        let hint = |name: &str| resolve_model(name).unwrap_err().hint().unwrap();
        assert_eq!(hint(name), "the folder holds no `config.json`");
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        assert_eq!(resolve_model(name), Ok(folder.path().to_path_buf()));
        assert!(hint(&format!("{name}/config.json")).starts_with("this is no GGUF file"));
        assert_eq!(hint("/no/such/folder"), "name a folder, a GGUF file, or a hub id such as `owner/model`");
        let file = folder.path().join("a.gguf");
        std::fs::write(&file, "").unwrap();
        assert_eq!(resolve_model(file.to_str().unwrap()), Ok(file));
    }

    #[cfg(not(feature = "hub"))]
    #[test]
    fn a_hub_id_says_how_to_get_it() {
        let error = resolve_model("Qwen/Qwen2.5-0.5B@main").unwrap_err();
        assert_eq!(error.to_string(), "there is no model `Qwen/Qwen2.5-0.5B@main`");
        let hint = error.hint().unwrap();
        assert!(
            hint.contains("`Qwen/Qwen2.5-0.5B` from the model hub at `main`, build with `--features hub`"),
            "{hint}"
        );
    }

    #[test]
    fn hub_ids_are_told_from_paths() {
        let id = |owner, model, revision| Some(HubId { owner, model, revision });
        assert_eq!(parse_id("Qwen/Qwen3-0.6B"), id("Qwen", "Qwen3-0.6B", None));
        assert_eq!(parse_id("a/b@refs/pr/1"), id("a", "b", Some("refs/pr/1")));
        for path in ["model", "a/b/c", "./a", "../a", "/a/b", "a/", "a/b@", "a/b@../c", "a b/c"] {
            assert_eq!(parse_id(path), None, "{path}");
        }
    }
}
