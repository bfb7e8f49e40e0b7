//! A version as one commit of a git repository, its weights in git-lfs.

use std::path::Path;

use autoglm_domain::{Adapter, ModelVersion};

use crate::{
    Error, Result,
    folder::{CONFIG, WEIGHTS, files},
    git::{Clone, Programs},
};

/// The version's record, by which an import is checked.
pub(crate) const RECORD: &str = "version.json";
const METRICS: &str = "metrics.json";
const LINEAGE: &str = "lineage.json";
const ATTRIBUTES: &str = ".gitattributes";
/// What git-lfs keeps.
const LARGE: &str = "*.safetensors filter=lfs diff=lfs merge=lfs -text";
/// Trailers of a commit: the version's number and hash.
pub(crate) const VERSION_TRAILER: &str = "Autoglm-Version";
pub(crate) const HASH_TRAILER: &str = "Autoglm-Hash";
/// How often a branch that somebody else pushed to meanwhile is fetched again.
const TRIES: usize = 3;

/// Where a version goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitTarget {
    /// The repository: an address, or a path of this machine.
    pub remote: String,
    /// The branch; made where it is missing.
    pub branch: String,
    /// `name <address>` of the commit's author; empty is what git's own settings say.
    pub author: String,
}

/// What an export led to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct GitExport {
    /// The commit that holds the version.
    pub commit: String,
    /// Whether it is new; the version may have been there already.
    pub new: bool,
}

/// What goes into a commit beside the adapter.
#[derive(Debug, Clone, Default)]
pub(crate) struct Papers {
    pub(crate) metrics: serde_json::Value,
    pub(crate) lineage: serde_json::Value,
}

/// Commits and pushes; blocks.
pub(crate) fn export(
    target: &GitTarget,
    programs: Programs,
    adapter: &Adapter,
    version: &ModelVersion,
    papers: &Papers,
) -> Result<GitExport> {
    let mut tried = 0;
    loop {
        tried += 1;
        let clone = Clone::of(&target.remote, programs.clone())?;
        check_branch(&clone, &target.branch)?;
        if clone.fetch_branch(&target.branch)? {
            let tip = format!("refs/remotes/origin/{}", target.branch);
            if let Some(commit) = commit_of(&clone, &tip, HASH_TRAILER, &version.hash.to_string())? {
                return Ok(GitExport { commit, new: false });
            }
            clone.git(&["reset", "--quiet", "--hard", &tip])?;
        }
        write(&clone, adapter, version, papers)?;
        let commit = commit(&clone, target, version)?;
        match push(&clone, &target.branch) {
            Ok(()) => return Ok(GitExport { commit, new: true }),
            // Somebody else was quicker, or it is refused for good.
            Err(error) if tried < TRIES && is_overtaken(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn check_branch(clone: &Clone, branch: &str) -> Result<()> {
    let named = clone.git(&["check-ref-format", "--branch", branch]);
    named.map(drop).map_err(|_| Error::Branch(branch.to_owned()))
}

/// The latest commit up to `tip` whose trailer `name` is `value`.
pub(crate) fn commit_of(clone: &Clone, tip: &str, name: &str, value: &str) -> Result<Option<String>> {
    let format = format!("--format=%H %(trailers:key={name},valueonly,separator=%x2C)");
    let log = clone.git(&["log", &format, tip])?;
    let found =
        log.lines().filter_map(|line| line.split_once(' ')).find(|(_, values)| values.trim() == value);
    Ok(found.map(|(commit, _)| commit.to_owned()))
}

fn write(clone: &Clone, adapter: &Adapter, version: &ModelVersion, papers: &Papers) -> Result<()> {
    let put = |name: &str, bytes: &[u8]| {
        let path = clone.path(name);
        std::fs::write(&path, bytes).map_err(Error::file(&path))
    };
    for (name, bytes) in files(adapter, version) {
        put(name, &bytes)?;
    }
    put(RECORD, &pretty(version)?)?;
    put(METRICS, &pretty(&papers.metrics)?)?;
    put(LINEAGE, &pretty(&papers.lineage)?)?;
    let attributes = std::fs::read_to_string(clone.path(ATTRIBUTES)).unwrap_or_default();
    if !attributes.lines().any(|line| line.trim() == LARGE) {
        let end = if attributes.is_empty() || attributes.ends_with('\n') { "" } else { "\n" };
        put(ATTRIBUTES, format!("{attributes}{end}{LARGE}\n").as_bytes())?;
    }
    Ok(())
}

fn pretty(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| autoglm_domain::Error::internal(error.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn commit(clone: &Clone, target: &GitTarget, version: &ModelVersion) -> Result<String> {
    clone.git(&["add", "--", ATTRIBUTES, CONFIG, WEIGHTS, "README.md", RECORD, METRICS, LINEAGE])?;
    let mut message = format!("{} ({})\n", version.number, version.hash.short());
    if let Some(note) = &version.note {
        message += &format!("\n{}\n", note.trim());
    }
    message += &format!("\n{VERSION_TRAILER}: {}\n{HASH_TRAILER}: {}\n", version.number, version.hash);
    let mut variables = vec![("GIT_AUTHOR_DATE", format!("@{} +0000", version.at.0.div_euclid(1000)))];
    if !target.author.is_empty() {
        let (name, address) = author(&target.author)?;
        for (key, value) in [
            ("GIT_AUTHOR_NAME", name),
            ("GIT_AUTHOR_EMAIL", address),
            ("GIT_COMMITTER_NAME", name),
            ("GIT_COMMITTER_EMAIL", address),
        ] {
            variables.push((key, value.to_owned()));
        }
    } else if clone.git(&["var", "GIT_AUTHOR_IDENT"]).is_err() {
        return Err(Error::NoAuthor);
    }
    // One version is one commit, also where nothing but the record of it is new.
    let committed = clone.git_with(
        &[
            "commit",
            "--quiet",
            "--allow-empty",
            "--no-verify",
            "--no-gpg-sign",
            "--cleanup=verbatim",
            "-m",
            &message,
        ],
        &variables,
    );
    committed?;
    clone.git(&["rev-parse", "HEAD"])
}

/// `name <address>` in its parts.
fn author(text: &str) -> Result<(&str, &str)> {
    let parts = text.strip_suffix('>').and_then(|text| text.split_once('<'));
    match parts.map(|(name, address)| (name.trim(), address.trim())) {
        Some((name, address)) if !name.is_empty() && !address.is_empty() => Ok((name, address)),
        _ => Err(Error::Author(text.to_owned())),
    }
}

/// The large files first: a commit must never be seen without them.
fn push(clone: &Clone, branch: &str) -> Result<()> {
    clone.git(&["lfs", "push", "origin", "HEAD"])?;
    clone.git(&["push", "--quiet", "--no-verify", "origin", &format!("HEAD:refs/heads/{branch}")]).map(drop)
}

fn is_overtaken(error: &Error) -> bool {
    let Error::Git { message, .. } = error else { return false };
    ["fetch first", "non-fast-forward", "failed to update ref", "cannot lock ref", "incorrect old value"]
        .iter()
        .any(|sign| message.contains(sign))
}

/// The settings' author, where there is one, must have the right form.
pub(crate) fn check_author(text: &str) -> Result<()> {
    if text.is_empty() { Ok(()) } else { author(text).map(drop) }
}

/// A folder's record of its version; `None` where another tool made it.
pub(crate) fn read_record(folder: &Path) -> Result<Option<ModelVersion>> {
    let path = folder.join(RECORD);
    match std::fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::Record(error.to_string()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(&path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_has_a_name_and_an_address() {
        assert_eq!(author("autoglm <loop@host>").unwrap(), ("autoglm", "loop@host"));
        for wrong in ["autoglm", "<loop@host>", "autoglm <>", "autoglm <loop@host> x"] {
            assert!(author(wrong).is_err(), "{wrong}");
        }
        assert!(check_author("").is_ok());
    }
}
