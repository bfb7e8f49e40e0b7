//! What can go wrong with versions, aliases and artifacts.

use std::path::{Path, PathBuf};

use autoglm_domain::{ContentHash, ErrorKind, VersionNumber};

/// Why the registry could not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The setting `artifacts` names something that this build cannot use.
    #[error("the setting `registry.artifacts` is `{0}`, which is neither a folder nor a `file://` address")]
    ArtifactsAddress(String),
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
            Self::ArtifactsAddress(_) | Self::NotPeft { .. } | Self::Refused(_) | Self::OtherBase { .. } => {
                ErrorKind::Invalid
            }
            Self::Metric(_) | Self::Ambiguous { .. } => ErrorKind::Invalid,
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
            Self::ArtifactsAddress(_) => "name a folder; object storage is not part of this build",
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
            Self::OtherBase { .. } => "train or import it on top of the base model that is served",
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => "check the path",
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
