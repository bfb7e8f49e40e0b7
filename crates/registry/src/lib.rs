//! Model versions: what was trained, from what, and which of it answers.
//!
//! In come adapters with what made them ([`NewVersion`]) and moves of names; out go immutable
//! [`ModelVersion`](autoglm_domain::ModelVersion)s with their lineage, adapters verified on every read,
//! and, for each request, the version that an alias points at ([`Aliases::current`]). Nothing here knows
//! how an adapter is applied or judged: [`scan()`] looks at a file's form alone.

mod alias;
mod artifacts;
#[cfg(feature = "cloud")]
mod cloud;
mod config;
mod diff;
mod error;
mod folder;
mod git;
mod git_export;
mod git_import;
mod git_versions;
mod hash;
mod history;
mod peft;
mod registry;
mod scan;
mod tensors;

pub use alias::{Aliases, ROLLBACK};
pub use artifacts::ObjectArtifacts;
pub use config::{Config, ScanLimits};
pub use diff::{AnswersChange, Change, ChangedAnswer, Example, SnapshotChange, VersionDiff};
pub use error::{Error, Result};
pub use folder::{read_folder, write_folder};
pub use git_export::{GitExport, GitTarget};
pub use git_import::{GitImport, GitPick, GitSource};
pub use hash::version_hash;
pub use history::{Accuracy, MeasuredOn, Return, VersionHistory};
pub use registry::{NewVersion, Registry, VersionView};
pub use scan::scan;
