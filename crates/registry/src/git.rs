//! The programs `git` and `git-lfs`, run as child processes in a clone that goes away with its owner.
//!
//! Nothing is asked of a person: where a remote wants a password that no helper knows, the program fails and says so.
//! Large files are fetched when they are asked for and not before.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Error, Result};

/// Most characters of what a program says that are passed on.
const MAX_MESSAGE: usize = 400;

/// A clone of a remote repository, without its large files.
#[derive(Debug)]
pub(crate) struct Clone {
    folder: tempfile::TempDir,
    programs: Programs,
}

/// Where the programs are looked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Programs {
    /// In place of the variable `PATH`.
    pub(crate) path: Option<OsString>,
}

impl Programs {
    /// That both are there. `Unavailable` when one is not.
    fn check(&self) -> Result<()> {
        let found = |args: &[&str]| {
            let run = self.command(Path::new("."), args).output();
            run.is_ok_and(|output| output.status.success())
        };
        if !found(&["--version"]) {
            return Err(Error::NoProgram { name: "git", package: "git" });
        }
        if !found(&["lfs", "version"]) {
            return Err(Error::NoProgram { name: "git-lfs", package: "git-lfs" });
        }
        Ok(())
    }

    fn command(&self, folder: &Path, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        command
            .current_dir(folder)
            .args(["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60"])
            .args(args)
            .stdin(Stdio::null())
            .env("GIT_TERMINAL_PROMPT", "0")
            // A remote such as `ext::` would run any program.
            .env("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh")
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            .env("LC_ALL", "C")
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .env_remove("GIT_INDEX_FILE");
        if std::env::var_os("GIT_SSH_COMMAND").is_none() {
            command.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes");
        }
        command
    }
}

impl Clone {
    /// An empty clone of `remote`; nothing is fetched yet. `Unavailable` when a program is missing, `Invalid` when the
    /// remote is none.
    pub(crate) fn of(remote: &str, programs: Programs) -> Result<Self> {
        programs.check()?;
        if remote.is_empty() || remote.starts_with('-') || remote.contains("::") {
            return Err(Error::Remote(remote.to_owned()));
        }
        let folder = tempfile::tempdir().map_err(Error::file(&std::env::temp_dir()))?;
        let this = Self { folder, programs };
        this.git(&["init", "--quiet", "--initial-branch=unborn"])?;
        // git-lfs knows local repositories by their address, not by their path.
        let address = match Path::new(remote).canonicalize() {
            Ok(path) if path.is_dir() => format!("file://{}", path.display()),
            _ => remote.to_owned(),
        };
        this.git(&["remote", "add", "origin", &address])?;
        this.git(&["lfs", "install", "--local", "--skip-smudge"])?;
        Ok(this)
    }

    /// The working tree.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where `name` lies in the working tree.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Fetches `branch` with its whole history, which is small: large files are pointers in it. Whether there is one.
    pub(crate) fn fetch_branch(&self, branch: &str) -> Result<bool> {
        let name = format!("refs/heads/{branch}");
        if self.git(&["ls-remote", "origin", &name])?.is_empty() {
            return Ok(false);
        }
        self.git(&[
            "fetch",
            "--quiet",
            "--no-tags",
            "origin",
            &format!("+{name}:refs/remotes/origin/{branch}"),
        ])?;
        Ok(true)
    }

    /// Runs git and gives what it wrote, without white space at its ends.
    pub(crate) fn git(&self, args: &[&str]) -> Result<String> {
        self.git_with(args, &[])
    }

    /// [`Clone::git`] with variables.
    pub(crate) fn git_with(&self, args: &[&str], variables: &[(&str, String)]) -> Result<String> {
        let mut command = self.programs.command(self.folder(), args);
        command.envs(variables.iter().map(|(name, value)| (*name, value)));
        let output = command.output().map_err(|_| Error::NoProgram { name: "git", package: "git" })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let message: String = match said.char_indices().nth_back(MAX_MESSAGE - 1) {
            Some((at, _)) => format!("…{}", &said[at..]),
            None => said,
        };
        let command = args.iter().take(2).copied().collect::<Vec<_>>().join(" ");
        Err(Error::Git { command, message })
    }
}
