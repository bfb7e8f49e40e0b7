//! A version out of a git repository, bit for bit.

use autoglm_domain::{Adapter, ContentHash, ModelVersion, VersionNumber};

use crate::{
    Error, Result, ScanLimits,
    folder::{WEIGHTS, read},
    git::{Clone, Programs},
    git_export::{VERSION_TRAILER, commit_of, read_record},
};

/// Begins the pointer that git keeps in place of a large file.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Which commit of a repository is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitSource {
    /// The repository: an address, or a path of this machine.
    pub remote: String,
    /// The branch.
    pub branch: String,
    /// What of it.
    pub pick: GitPick,
}

/// Which commit of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GitPick {
    /// The latest.
    Latest,
    /// The latest that says that it is this version.
    Version(VersionNumber),
    /// The one of this name: a commit, or the beginning of one, of the branch.
    Rev(String),
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct GitImport {
    /// The commit; `None` for what no repository held.
    pub commit: Option<String>,
    /// The adapter, scanned, and equal to what its record says.
    pub adapter: Adapter,
    /// The version's record; `None` in a repository that another tool made.
    pub record: Option<ModelVersion>,
}

/// Fetches and checks; blocks.
pub(crate) fn import(source: &GitSource, programs: Programs, limits: &ScanLimits) -> Result<GitImport> {
    let clone = Clone::of(&source.remote, programs)?;
    let nothing = |what: String| Error::NotInGit { what, remote: source.remote.clone() };
    if source.branch.starts_with('-') || !clone.fetch_branch(&source.branch)? {
        return Err(nothing(format!("branch `{}`", source.branch)));
    }
    let tip = format!("refs/remotes/origin/{}", source.branch);
    let commit = match &source.pick {
        GitPick::Latest => clone.git(&["rev-parse", &tip])?,
        GitPick::Version(number) => commit_of(&clone, &tip, VERSION_TRAILER, &number.to_string())?
            .ok_or_else(|| nothing(format!("commit of {number} on `{}`", source.branch)))?,
        GitPick::Rev(rev) => {
            let named = clone.git(&[
                "rev-parse",
                "--verify",
                "--quiet",
                "--end-of-options",
                &format!("{rev}^{{commit}}"),
            ]);
            named.map_err(|_| nothing(format!("commit `{rev}` on `{}`", source.branch)))?
        }
    };
    clone.git(&["checkout", "--quiet", "--detach", &commit])?;
    clone.git(&["lfs", "fetch", "origin", &commit])?;
    clone.git(&["lfs", "checkout"])?;
    let weights = clone.path(WEIGHTS);
    if std::fs::read(&weights).is_ok_and(|bytes| bytes.starts_with(POINTER)) {
        return Err(Error::OnlyPointer);
    }
    let adapter = read(clone.folder(), limits)?;
    let record = read_record(clone.folder())?;
    if let Some(record) = &record {
        let found = ContentHash::of(&adapter.clone().pack());
        if found != record.adapter {
            return Err(Error::OtherAdapter { number: record.number, expected: record.adapter, found });
        }
    }
    Ok(GitImport { commit: Some(commit), adapter, record })
}
