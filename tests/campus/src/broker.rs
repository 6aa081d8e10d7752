//! An MQTT broker to test with: a real Mosquitto of one's own, in a folder that is given.
//!
//! It listens on loopback, keeps sessions and queued messages over a restart, and ends with the test.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long starting and stopping may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// A running Mosquitto.
pub struct Broker {
    folder: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Broker {
    /// Whether Mosquitto is installed.
    pub fn is_there() -> bool {
        program().is_some()
    }

    /// Starts one in `folder` that lets everybody in, unless further lines of settings say otherwise.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start(folder: &Path, settings: &str) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let here = folder.display();
        // As root it would become a user who may not write here; to others the line is nothing.
        let text = format!(
            "listener {port} 127.0.0.1\nuser root\npersistence true\npersistence_location {here}/\n\
             log_dest file {here}/log\nmax_queued_messages 100000\n{settings}"
        );
        std::fs::write(folder.join("mosquitto.conf"), text)?;
        let mut broker = Self { folder: folder.to_path_buf(), port, process: None };
        broker.start_again()?;
        Ok(broker)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it has told of itself.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Starts it after [`Broker::stop`], with all that it had.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_again(&mut self) -> Result<()> {
        let program = program().context("mosquitto is not installed; install the Debian package mosquitto")?;
        let mut command = Command::new(program);
        command.arg("-c").arg(self.folder.join("mosquitto.conf"));
        self.process = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        let deadline = Instant::now() + DEADLINE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let is_over = self.process.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|code| code.is_some()));
            if is_over || Instant::now() > deadline {
                bail!("mosquitto did not start: {}", self.log());
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Stops it as a machine that is shut down does: what it has is written first.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.process.take() else { return Ok(()) };
        if !Command::new("kill").arg(child.id().to_string()).status()?.success() {
            bail!("mosquitto cannot be told to stop");
        }
        child.wait()?;
        Ok(())
    }

    /// Publishes `messages` to `topic`, each acknowledged when this returns. `options` are those of mosquitto_pub.
    ///
    /// # Errors
    /// The client fails; it says why.
    pub fn publish(&self, topic: &str, messages: &[String], options: &[&str]) -> Result<()> {
        let port = self.port.to_string();
        let mut command = Command::new("mosquitto_pub");
        command.args(["-V", "5", "-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", topic, "-l"]).args(options);
        let mut client = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let lines: String = messages.iter().map(|message| format!("{message}\n")).collect();
        client.stdin.take().context("it reads lines")?.write_all(lines.as_bytes())?;
        let output = client.wait_with_output()?;
        if !output.status.success() || !output.stderr.is_empty() {
            bail!("mosquitto_pub: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join("mosquitto")).find(|program| program.is_file())
}
