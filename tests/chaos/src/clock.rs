//! Clocks that jump: libfaketime between a process and its wall clock.
//!
//! An offset enters; a running process sees the time that far off from then on. What measures how long something takes,
//! the monotonic clock, goes on as it does on a machine whose time is set; the times of files stay right.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Where Debian has its libraries, a folder an architecture.
const LIBRARIES: &str = "/usr/lib";

/// What makes clocks jump, ready to be loaded before a process.
pub struct Libraries(OsString);

impl Libraries {
    /// Finds libfaketime, and compiles what it lacks into `folder`; `root` is that of the project.
    ///
    /// # Errors
    /// libfaketime or the C compiler is not installed.
    pub fn prepare(root: &Path, folder: &Path) -> Result<Self> {
        let faketime = std::fs::read_dir(LIBRARIES)?
            .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")))
            .find(|file| file.exists())
            .with_context(|| {
                format!(
                    "no libfaketime below {LIBRARIES}, which makes clocks jump: install the Debian package libfaketime"
                )
            })?;
        let ours = folder.join("clock.so");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&ours)
            .arg(root.join("tests/chaos/clock.c"))
            .status()
            .context("no C compiler: install the Debian package build-essential")?;
        ensure!(compiled.success(), "tests/chaos/clock.c could not be compiled; cc says why above");
        Ok(Self(format!("{}:{}", ours.display(), faketime.display()).into()))
    }
}

/// The wall clock of one process.
pub struct Clock(PathBuf);

impl Clock {
    /// A clock that is right, and is told otherwise by a file in `folder`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new(folder: &Path, name: &str) -> Result<Self> {
        let clock = Self(folder.join(format!("{name}.clock")));
        clock.set(0)?;
        Ok(clock)
    }

    /// The clock is off by so many seconds from now on.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&self, offset_s: i64) -> Result<()> {
        let fresh = self.0.with_extension("new");
        std::fs::write(&fresh, format!("{offset_s:+}\n"))?;
        Ok(std::fs::rename(fresh, &self.0)?)
    }

    /// What puts a process on this clock.
    pub fn environment(&self, libraries: &Libraries) -> [(&'static str, OsString); 5] {
        [
            ("LD_PRELOAD", libraries.0.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.0.clone().into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("NO_FAKE_STAT", "1".into()),
        ]
    }
}

/// Removes what libfaketime leaves of a process that was killed: another one with its number would not start.
pub fn forget(pid: u32) {
    for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
        let _ = std::fs::remove_file(Path::new("/dev/shm").join(name));
    }
}
