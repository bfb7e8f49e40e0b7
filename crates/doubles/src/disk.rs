//! No double: a file system that is soon full, for one test.

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// A mounted file system of 32 MiB.
#[derive(Debug)]
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts one that belongs to `owner`, else to who runs the test. `None` where this machine does not let us, which is said
    /// on stderr past any capture.
    ///
    /// # Panics
    /// When there is no folder to mount it at.
    pub fn new(owner: Option<(u32, u32)>) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let owner = owner.map_or_else(String::new, |(uid, gid)| format!(",uid={uid},gid={gid}"));
        let options = format!("size=32m,mode=0700{owner}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(folder));
        }
        crate::keeper::left_out("a small file system, which cannot be mounted here");
        None
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes up all room that is left but for `left` bytes.
    ///
    /// # Panics
    /// When it cannot be written to for another reason than that it is full.
    pub fn fill(&self, left: usize) {
        use std::io::Write as _;
        let block = vec![0x5a; left.max(1)];
        let mut filler = std::fs::File::create(self.0.path().join("filler")).expect("a file");
        let mut size = 0;
        while filler.write_all(&block).is_ok() {
            size += block.len() as u64;
        }
        filler.set_len(size.saturating_sub(block.len() as u64)).expect("a shorter file");
    }

    /// Gives it 256 MiB.
    ///
    /// # Panics
    /// When it does not grow.
    pub fn grow(&self) {
        let grown = Command::new("mount").args(["-o", "remount,size=256m"]).arg(self.0.path()).status();
        assert!(grown.is_ok_and(|status| status.success()), "it does not grow");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}
