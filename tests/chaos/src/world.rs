//! The processes: a broker, an extract, several landings, and at the end a query.
//!
//! Names enter; processes are started, killed, frozen and thawed. Everything lives in one temporary folder, listens on
//! loopback, and ends with the world.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use campus::database::Databases;
use campus::settings::Settings;
use lake::Lake;
use tokio::runtime::Runtime;

use crate::clock::{self, Clock, Libraries};
use crate::disk::Disk;
use crate::plan::Plan;

pub const TOKEN: &str = "chaos-token";
pub const GATE_TOKEN: &str = "chaos-gate-token";

/// Bytes of the disks that the lake and the state of extract are on, where such can be mounted.
const LAKE_BYTES: u64 = 1 << 30;
const STATE_BYTES: u64 = 256 << 20;

const BUCKET: &str = "lake";

/// All processes and where they live.
pub struct World {
    /// The lake's own small disk, and that of extract's state. Declared before the folder: it is empty when it goes.
    pub lake_disk: Option<Disk>,
    pub state_disk: Option<Disk>,
    pub folder: tempfile::TempDir,
    pub databases: Databases,
    plan: Plan,
    ports: BTreeMap<&'static str, u16>,
    running: BTreeMap<String, Child>,
    /// The wall clocks of extract and the landings, by name.
    clocks: BTreeMap<String, Clock>,
    libraries: Libraries,
    /// The object storage that the lake is on.
    store: Option<s3::Server>,
}

impl World {
    /// Makes the folder and starts the broker; no quad runs yet.
    ///
    /// # Errors
    /// The broker does not start.
    pub fn new(plan: &Plan, runtime: &Runtime) -> Result<Self> {
        let mut folder = tempfile::tempdir()?;
        folder.disable_cleanup(plan.is_kept);
        let sqlite = |name: &str| Databases::sqlite(&folder.path().join(name));
        let databases = Databases {
            student_affairs: sqlite("affairs.db"),
            academic: sqlite("academic.db"),
            logistics: sqlite("logistics.db"),
        };
        let mut ports = BTreeMap::new();
        for name in ["http", "grpc", "pg"] {
            ports.insert(name, TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        }
        ports.insert("kafka", two_free_ports()?);
        let (lake, state) = (folder.path().join("lake"), folder.path().join("extract"));
        std::fs::create_dir(&lake)?;
        std::fs::create_dir(&state)?;
        let lands = (0..plan.lands).map(|number| format!("land-{number}"));
        let names = lands.chain(["extract".to_string()]);
        let clocks = names.map(|name| anyhow::Ok((name.clone(), Clock::new(folder.path(), &name)?)));
        let (clocks, libraries) = (clocks.collect::<Result<_>>()?, Libraries::prepare(&plan.root, folder.path())?);
        let mut store = None;
        if plan.is_on_s3 {
            let server = runtime.block_on(s3::Server::start(&lake, s3::Faults::default()))?;
            server.create_bucket(BUCKET)?;
            store = Some(server);
        }
        let lake_disk = if plan.is_on_s3 { None } else { Disk::mount(&lake, LAKE_BYTES) };
        let state_disk = Disk::mount(&state, STATE_BYTES);
        let (plan, running) = (plan.clone(), BTreeMap::new());
        let world = Self { lake_disk, state_disk, folder, databases, plan, ports, running, clocks, libraries, store };
        world.broker("start")?;
        Ok(world)
    }

    pub fn port(&self, name: &str) -> u16 {
        self.ports[name]
    }

    pub fn kafka(&self) -> String {
        format!("127.0.0.1:{}", self.port("kafka"))
    }

    /// The lake, as the processes see it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn lake(&self) -> Result<Lake> {
        Ok(Lake::open_with(&lake::Settings::at(self.lake_path()), &self.store_environment())?)
    }

    fn lake_path(&self) -> String {
        match &self.store {
            Some(_) => format!("s3://{BUCKET}/quad"),
            None => self.folder.path().join("lake").to_string_lossy().into_owned(),
        }
    }

    fn store_environment(&self) -> Vec<(String, String)> {
        self.store.as_ref().map(s3::Server::environment).unwrap_or_default()
    }

    /// The object storage fails now and then from now on, or does not any more.
    pub fn set_store_fails(&self, fails: bool) {
        let faults = s3::Faults {
            seed: self.plan.seed,
            error_before: 0.03,
            error_after: 0.06,
            cut_after: 0.06,
            torn: 0.06,
            slow: 0.03,
            delay_ms: 300,
            ..s3::Faults::default()
        };
        if let Some(store) = &self.store {
            store.set_faults(if fails { faults } else { s3::Faults::default() });
        }
    }

    pub fn is_on_s3(&self) -> bool {
        self.store.is_some()
    }

    /// What the object storage has done wrong so far.
    pub fn store_faults(&self) -> s3::Counts {
        self.store.as_ref().map(s3::Server::counts).unwrap_or_default()
    }

    /// Runs the broker's script.
    ///
    /// # Errors
    /// It says no.
    pub fn broker(&self, command: &str) -> Result<()> {
        let status = Command::new(self.plan.root.join("tests/kafka/broker"))
            .args([command, "--port", &self.port("kafka").to_string()])
            .env("QUAD_KAFKA_DIR", self.folder.path().join("kafka"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        ensure!(status.success(), "tests/kafka/broker {command} failed");
        Ok(())
    }

    fn broker_pid(&self) -> Result<String> {
        let file = self.folder.path().join(format!("kafka/{}/pid", self.port("kafka")));
        Ok(std::fs::read_to_string(file)?.trim().to_string())
    }

    /// Starts a process by name: `extract`, `query`, or `land-N`. Its log is a file in the folder.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self, name: &str) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log_file(name))?;
        let service = name.split('-').next().unwrap_or(name);
        let child = Command::new(&self.plan.quad)
            .arg(service)
            .env("QUAD_CONFIG", self.write_settings(name)?)
            .env("QUAD_EXTRACT__ID_KEY", "a key of the tests")
            .env("QUAD_QUERY__IDENTITY_KEY", "another key of the tests")
            .envs(self.store_environment())
            .envs(self.clocks.get(name).into_iter().flat_map(|clock| clock.environment(&self.libraries)))
            .env_remove("QUAD_KAFKA")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("could not start {}", self.plan.quad.display()))?;
        self.running.insert(name.to_string(), child);
        Ok(())
    }

    /// Starts it again if it has ended by itself, which only its own failure can cause.
    ///
    /// # Errors
    /// It has.
    pub fn watch(&mut self) -> Result<()> {
        for (name, child) in &mut self.running {
            if let Some(status) = child.try_wait()? {
                bail!(
                    "{name} has ended by itself ({status}):\n{}",
                    tail(&self.folder.path().join(format!("{name}.log")))
                );
            }
        }
        Ok(())
    }

    pub fn names(&self) -> Vec<String> {
        self.running.keys().cloned().collect()
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        if name == "broker" {
            return signal("KILL", &self.broker_pid()?);
        }
        let mut child = self.running.remove(name).with_context(|| format!("{name} does not run"))?;
        child.kill()?;
        child.wait()?;
        clock::forget(child.id());
        Ok(())
    }

    /// The wall clock of extract or a landing is off by so many seconds from now on.
    ///
    /// # Errors
    /// It has none of its own.
    pub fn set_clock(&self, name: &str, offset_s: i64) -> Result<()> {
        self.clocks.get(name).with_context(|| format!("{name} has no clock of its own"))?.set(offset_s)
    }

    /// SIGTERM, and the wait for its end.
    ///
    /// # Errors
    /// It does not end well.
    pub fn stop(&mut self, name: &str) -> Result<()> {
        let mut child = self.running.remove(name).with_context(|| format!("{name} does not run"))?;
        signal("TERM", &child.id().to_string())?;
        let status = child.wait()?;
        clock::forget(child.id());
        // A process that has not come to listening for it yet dies of the signal, which is a blow as any other.
        let is_well = status.success() || status.signal() == Some(15);
        ensure!(is_well, "{name} stopped with {status}:\n{}", tail(&self.log_file(name)));
        Ok(())
    }

    /// SIGSTOP or SIGCONT.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, name: &str, signal_name: &str) -> Result<()> {
        if name == "broker" {
            return signal(signal_name, &self.broker_pid()?);
        }
        let child = self.running.get(name).with_context(|| format!("{name} does not run"))?;
        signal(signal_name, &child.id().to_string())
    }

    pub fn log_file(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    fn write_settings(&self, name: &str) -> Result<PathBuf> {
        // Without a common id there is no fence between two landings.
        let land = match self.plan.is_unfenced {
            true => format!("land.id = \"{name}\""),
            false => "land.assignment = \"group\"".to_string(),
        };
        let more = format!(
            r#"topic.kind = "kafka"
topic.kafka.brokers = "{kafka}"
topic.kafka.append_timeout_ms = 5000
topic.kafka.request_timeout_ms = 5000
topic.kafka.properties = {{ "session.timeout.ms" = "6000", "heartbeat.interval.ms" = "500" }}
{land}
land.batch_age_ms_max = 300
land.retry_ms_max = 2000"#,
            kafka = self.kafka(),
        );
        let settings = Settings {
            root: &self.plan.root,
            state: &self.folder.path().join("extract/state"),
            lake: &self.lake_path(),
            databases: &self.databases,
            http: self.port("http"),
            grpc: self.port("grpc"),
            pg: self.port("pg"),
            gate_token: GATE_TOKEN,
            tokens: &[("chaos", "admin", TOKEN)],
            more: &more,
        };
        let file = self.folder.path().join(format!("{name}.toml"));
        std::fs::write(&file, settings.toml())?;
        Ok(file)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            // A frozen process dies of SIGKILL all the same.
            let _ = child.kill();
            let _ = child.wait();
            clock::forget(child.id());
        }
        let _ = self.signal("broker", "CONT");
        let _ = self.broker("stop");
        if self.plan.is_kept {
            println!("logs, settings and lake stay in {}", self.folder.path().display());
            [self.lake_disk.take(), self.state_disk.take()].into_iter().for_each(std::mem::forget);
        }
    }
}

fn signal(name: &str, pid: &str) -> Result<()> {
    // The shell's own `kill`: small systems have no other.
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "process {pid} does not run");
    Ok(())
}

/// Kafka takes a port and the next.
fn two_free_ports() -> Result<u16> {
    for _ in 0..100 {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        // Below the range that the kernel hands out, nobody comes in between.
        let port = 20_000 + port % 10_000;
        let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free(port) && is_free(port + 1) {
            return Ok(port);
        }
    }
    bail!("no two free ports")
}

/// The last lines of a log.
pub fn tail(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
