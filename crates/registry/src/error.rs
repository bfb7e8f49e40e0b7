//! What can go wrong with versions, aliases and artifacts.

use std::path::{Path, PathBuf};

use autoglm_domain::{ContentHash, ErrorKind, VersionNumber};

/// Why the registry could not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The setting `artifacts` names something that this build cannot use.
    #[error("the setting `registry.artifacts` is `{0}`, which is neither a folder nor a `file://` address")]
    ArtifactsAddress(String),
    /// The setting `artifacts` names a bucket that cannot be used.
    #[error("the setting `registry.artifacts` is `{address}`: {reason}")]
    CloudAddress {
        /// What was set.
        address: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// Nothing under that hash.
    #[error("no artifact `{}`", .0.short())]
    NoArtifact(ContentHash),
    /// What is stored does not hash to its name.
    #[error("the artifact `{}` is damaged: its {bytes} bytes hash to `{}`", .hash.short(), .found.short())]
    Damaged {
        /// Its name.
        hash: ContentHash,
        /// What its bytes hash to.
        found: ContentHash,
        /// How many bytes there are.
        bytes: usize,
    },
    /// The disk is full.
    #[error("the disk of the artifacts is full: {0}")]
    DiskFull(String),
    /// Any other failure of the artifacts' storage.
    #[error("the artifacts cannot be reached: {0}")]
    Storage(String),
    /// A file of a PEFT folder cannot be read or written.
    #[error("`{}`: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder to export to holds something already.
    #[error("`{}` is there already", .0.display())]
    FolderTaken(PathBuf),
    /// A folder that should hold an adapter does not.
    #[error("`{}` holds no `{missing}`", .folder.display())]
    NotPeft {
        /// The folder.
        folder: PathBuf,
        /// The file that is missing.
        missing: &'static str,
        /// A pickled adapter lies there instead.
        pickled: bool,
    },
    /// The scan found something.
    #[error("the adapter was refused: {}", .0.join("; "))]
    Refused(Vec<String>),
    /// A version with this parent cannot be.
    #[error("the parent {parent} was trained on the base `{}`, not on `{}`", .theirs.short(), .ours.short())]
    OtherBase {
        /// The parent.
        parent: VersionNumber,
        /// The base of the parent.
        theirs: ContentHash,
        /// The base of the new version.
        ours: ContentHash,
    },
    /// A version from elsewhere that belongs to another base model.
    #[error("{number} there was trained on the base `{}`, not on `{}`", .theirs.short(), .ours.short())]
    ForeignBase {
        /// Its number there.
        number: VersionNumber,
        /// Its base.
        theirs: ContentHash,
        /// The base that is served here.
        ours: ContentHash,
    },
    /// A number that JSON cannot hold.
    #[error("the metric `{0}` is not a finite number")]
    Metric(String),
    /// No version, alias or hash of this name.
    #[error("no version `{0}`")]
    NoVersion(String),
    /// More than one version's hash begins so.
    #[error("`{prefix}` begins the hashes of {count} versions")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// How many fit.
        count: usize,
    },
    /// The alias points there already.
    #[error("{version} is `{alias}` already")]
    AlreadyThere {
        /// The alias.
        alias: String,
        /// The version.
        version: VersionNumber,
    },
    /// The alias was moved by somebody else meanwhile.
    #[error("`{alias}` points at {found}, not at {expected}")]
    Moved {
        /// The alias.
        alias: String,
        /// Where the caller took it to point.
        expected: VersionNumber,
        /// Where it points.
        found: VersionNumber,
    },
    /// There is nothing to roll back to.
    #[error("there is no earlier champion than {0}")]
    NoEarlier(VersionNumber),
    /// A version names a parent that cannot be.
    #[error("{version} names {parent} as its parent")]
    BrokenLineage {
        /// The version.
        version: VersionNumber,
        /// Its supposed parent.
        parent: VersionNumber,
    },
    /// A program that is needed is not on this machine.
    #[error("the program `{name}` is not there, or does not run")]
    NoProgram {
        /// Its name.
        name: &'static str,
        /// Debian's package of it.
        package: &'static str,
    },
    /// No address of a repository.
    #[error("`{0}` is no address of a git repository")]
    Remote(String),
    /// No name of a branch.
    #[error("`{0}` cannot be the name of a branch")]
    Branch(String),
    /// The setting `registry.git_author` has another form.
    #[error("the setting `registry.git_author` is `{0}`, not `name <address>`")]
    Author(String),
    /// Git knows nobody who commits.
    #[error("git does not know who commits")]
    NoAuthor,
    /// Git did not do it.
    #[error("`git {command}` failed: {message}")]
    Git {
        /// What it was to do.
        command: String,
        /// What it said.
        message: String,
    },
    /// The repository lacks what was asked for.
    #[error("there is no {what} in `{remote}`")]
    NotInGit {
        /// What.
        what: String,
        /// Where.
        remote: String,
    },
    /// The weights themselves are not to be had.
    #[error("the repository holds a pointer to the weights, and git-lfs did not bring them")]
    OnlyPointer,
    /// The record of a version cannot be read.
    #[error("`version.json` of the repository is none of ours: {0}")]
    Record(String),
    /// The adapter is not the one of its record.
    #[error(
        "the adapter hashes to `{}`, and {number} has `{}`: it was changed since", .found.short(), .expected.short()
    )]
    OtherAdapter {
        /// The version of the record.
        number: VersionNumber,
        /// The hash of its adapter.
        expected: ContentHash,
        /// What is there.
        found: ContentHash,
    },
    /// The store or another port failed.
    #[error(transparent)]
    Port(#[from] autoglm_domain::Error),
}

/// Result of the registry's functions.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What sort of failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::ArtifactsAddress(_)
            | Self::CloudAddress { .. }
            | Self::NotPeft { .. }
            | Self::Refused(_)
            | Self::OtherBase { .. } => ErrorKind::Invalid,
            Self::Metric(_) | Self::Ambiguous { .. } => ErrorKind::Invalid,
            Self::Remote(_) | Self::Branch(_) | Self::Author(_) | Self::NoAuthor | Self::Record(_) => {
                ErrorKind::Invalid
            }
            Self::OtherAdapter { .. } | Self::ForeignBase { .. } => ErrorKind::Invalid,
            Self::NoProgram { .. } | Self::Git { .. } | Self::OnlyPointer => ErrorKind::Unavailable,
            Self::NotInGit { .. } => ErrorKind::NotFound,
            Self::NoArtifact(_) | Self::NoVersion(_) => ErrorKind::NotFound,
            Self::FolderTaken(_) | Self::AlreadyThere { .. } | Self::Moved { .. } | Self::NoEarlier(_) => {
                ErrorKind::Conflict
            }
            Self::DiskFull(_) | Self::Storage(_) => ErrorKind::Unavailable,
            Self::Damaged { .. } | Self::BrokenLineage { .. } => ErrorKind::Internal,
            Self::File { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                std::io::ErrorKind::StorageFull => ErrorKind::Unavailable,
                _ => ErrorKind::Internal,
            },
            Self::Port(error) => error.kind,
        }
    }

    /// What the person can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::ArtifactsAddress(_) => "name a folder, or build with `--features cloud` for buckets",
            Self::CloudAddress { .. } => {
                "`s3://bucket/prefix`, `gs://…` or `az://…`; credentials and endpoints come from the environment"
            }
            Self::Damaged { .. } => {
                "restore it from a backup, or register the version again: storing the same bytes repairs it"
            }
            Self::DiskFull(_) => "free some space; nothing was half written",
            Self::FolderTaken(_) => "name a folder that does not exist or is empty",
            Self::NotPeft { pickled: true, .. } => {
                "only safetensors are read, because a pickled file can run code; save with `safe_serialization=True`"
            }
            Self::NotPeft { .. } => "a PEFT adapter is `adapter_config.json` and `adapter_model.safetensors`",
            Self::NoVersion(_) => {
                "name an alias, `v3`, or the first digits of a hash; `autoglm versions list`"
            }
            Self::Ambiguous { .. } => "write more digits of the hash",
            Self::Moved { .. } => "look at what changed, then try again",
            Self::NoEarlier(_) => "nothing was promoted before it",
            Self::Refused(_) => {
                "nothing was registered; save the adapter again from the training that made it"
            }
            Self::ForeignBase { .. } => "serve the model it was trained on, or name it with `--model`",
            Self::OtherBase { .. } => "train or import it on top of the base model that is served",
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => "check the path",
            Self::NoProgram { package, .. } => {
                return Some(format!("install it (Debian: `apt-get install {package}`)"));
            }
            Self::Remote(_) => "an address such as `https://host/models.git`, or the path of a repository",
            Self::Author(_) => "such as `autoglm <models@example.org>`",
            Self::NoAuthor => {
                "`git config --global user.name` and `user.email`, or the setting `registry.git_author`"
            }
            Self::NotInGit { .. } => "`git log` there lists versions in the trailers `Autoglm-Version`",
            Self::OnlyPointer => {
                "was it pushed without its large files? `git lfs push --all` where it came from"
            }
            Self::OtherAdapter { .. } => {
                "take another commit, or remove `version.json` to import it as it is"
            }
            Self::Port(error) => return error.hint.clone(),
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// A failure at a file.
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(inner) = cause {
            if let Some(io) = inner.downcast_ref::<std::io::Error>()
                && matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
            {
                return Self::DiskFull(io.to_string());
            }
            cause = inner.source();
        }
        Self::Storage(error.to_string())
    }
}

impl From<Error> for autoglm_domain::Error {
    fn from(error: Error) -> Self {
        if let Error::Port(error) = error {
            return error;
        }
        Self { kind: error.kind(), message: error.to_string(), hint: error.hint(), later: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let full = object_store::Error::Generic {
            store: "LocalFileSystem",
            source: Box::new(std::io::Error::from(std::io::ErrorKind::StorageFull)),
        };
        let error = Error::from(full);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().starts_with("the disk of the artifacts is full"), "{error}");
        let other = object_store::Error::Generic { store: "x", source: "no route".into() };
        assert!(Error::from(other).to_string().starts_with("the artifacts cannot be reached"));
    }
}
