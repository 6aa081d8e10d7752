//! Small disks that fill up.
//!
//! A folder enters and becomes a disk of its own, where one may be mounted; it is filled, and given room again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;

/// A mounted disk, until it is dropped.
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// A disk of `bytes` on the folder, which exists; `None` where it may not be mounted: only root may.
    pub fn mount(folder: &Path, bytes: u64) -> Option<Self> {
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(folder)
            .stderr(Stdio::null())
            .status();
        mount.is_ok_and(|status| status.success()).then(|| Self { folder: folder.to_path_buf() })
    }

    /// Takes all that is left of it.
    ///
    /// # Errors
    /// Not that it is full: that is what it is for.
    pub fn fill(&self) -> Result<()> {
        let mut ballast = std::fs::File::create(self.ballast())?;
        let _ = std::io::copy(&mut std::io::repeat(0), &mut ballast);
        Ok(())
    }

    /// Gives it room again.
    ///
    /// # Errors
    /// It was not filled.
    pub fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}
