//! The Quad process: started, watched, started again when it was killed, and ended gracefully.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

use super::work::Work;

/// A running `quad up`.
pub struct Quad<'a> {
    work: &'a Work,
    child: Child,
    restarts: u32,
}

/// How often it is started again before the demo gives up.
const RESTARTS_MAX: u32 = 5;
/// How long it may take to finish what it has begun.
const STOP_MAX: Duration = Duration::from_secs(30);

impl<'a> Quad<'a> {
    /// Starts it with the work folder's settings; what it says goes to `quad.log` there.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(work: &'a Work) -> Result<Quad<'a>> {
        Ok(Quad { work, child: spawn(work)?, restarts: 0 })
    }

    /// Starts it again if it was killed.
    ///
    /// # Errors
    /// It ended by itself, or was killed too often.
    pub fn watch(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let log = self.work.folder.join("quad.log");
        if status.code().is_some() || self.restarts == RESTARTS_MAX {
            bail!("quad has ended ({status}); the end of {}:\n{}", log.display(), tail(&log));
        }
        self.restarts += 1;
        println!("Quad was killed ({status}); starting it again on the same folder.");
        self.child = spawn(self.work)?;
        Ok(())
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    /// It cannot be told.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(id) = self.child.id() {
            tell_to_stop(id).await?;
            if tokio::time::timeout(STOP_MAX, self.child.wait()).await.is_err() {
                println!(
                    "Quad did not stop within {} s and is killed; nothing acknowledged is lost.",
                    STOP_MAX.as_secs()
                );
                self.child.kill().await?;
            }
        }
        let _ = std::fs::remove_file(self.work.pid_file());
        Ok(())
    }
}

fn spawn(work: &Work) -> Result<Child> {
    let log = File::options().create(true).append(true).open(work.folder.join("quad.log"))?;
    let child = Command::new(&work.quad)
        .arg("--config")
        .arg(work.settings_file())
        .arg("up")
        .envs(work.environment())
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C in the terminal is for the demo, which then stops Quad in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("could not start {}; build it with `cargo build -p quad`", work.quad.display()))?;
    if let Some(id) = child.id() {
        std::fs::write(work.pid_file(), id.to_string())?;
    }
    Ok(child)
}

async fn tell_to_stop(id: u32) -> Result<()> {
    // The shell's own `kill`: small systems have no other.
    let status = Command::new("sh").arg("-c").arg(format!("kill -TERM {id}")).status().await?;
    if !status.success() {
        bail!("could not tell quad (process {id}) to stop");
    }
    Ok(())
}

/// The last lines of a log.
pub fn tail(file: &std::path::Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
