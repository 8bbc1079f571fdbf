//! Ringway itself, with a configuration, a control socket and a metrics port of its own.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::run;
use crate::{Metrics, Process, Spawn, ringway_binary, wait_for};

/// From start to an answer on the control socket.
const READY: Duration = Duration::from_secs(20);
/// Between a change of a guest and its being seen by the switch.
const SETTLED: Duration = Duration::from_secs(20);

/// Whether switches that would have one worker are to have two, on CPUs 0 and 1: if RINGWAY_TWO_WORKERS is set. So every test can
/// be run both ways.
pub fn two_workers() -> bool {
    env::var_os("RINGWAY_TWO_WORKERS").is_some()
}

/// What to start. Made by [`Ringway::builder`].
#[derive(Debug, Clone)]
pub struct RingwayBuilder {
    binary: Option<PathBuf>,
    cpu: Option<usize>,
    address_space: Option<u64>,
    log: &'static str,
    settings: String,
    tables: String,
}

impl RingwayBuilder {
    /// Starts this binary instead of the usual one.
    #[must_use]
    pub fn binary(mut self, binary: impl Into<PathBuf>) -> Self {
        self.binary = Some(binary.into());
        self
    }

    /// Confines the whole process, its one worker above all, to a CPU; unless [`two_workers`] are asked for.
    #[must_use]
    pub fn cpu(mut self, cpu: usize) -> Self {
        if two_workers() {
            return self.toml("[workers]\ncpus = [0, 1]");
        }
        self.cpu = Some(cpu);
        let _ = writeln!(self.tables, "[workers]\ncpus = [{cpu}]");
        self
    }

    /// Bytes of addresses that the process may have.
    #[must_use]
    pub fn address_space(mut self, bytes: u64) -> Self {
        self.address_space = Some(bytes);
        self
    }

    /// Adds a vhost-user port in client mode: the guest listens at `socket`.
    #[must_use]
    pub fn port(self, name: &str, bridge: &str, socket: impl AsRef<Path>) -> Self {
        let socket = socket.as_ref().display();
        let head = format!("[[port]]\nname = \"{name}\"\nkind = \"vhost-user\"\n");
        self.toml(&format!("{head}bridge = \"{bridge}\"\nsocket = \"{socket}\""))
    }

    /// Adds a NIC port of a device that DPDK has a driver for.
    #[must_use]
    pub fn nic(self, name: &str, bridge: &str, device: &str) -> Self {
        let head = format!("[[port]]\nname = \"{name}\"\nkind = \"nic\"\n");
        self.toml(&format!("{head}bridge = \"{bridge}\"\ndevice = \"{device}\""))
    }

    /// Adds a NIC port that is a bond; `mode` is `active-backup` or `lacp`.
    #[must_use]
    pub fn bond(self, name: &str, bridge: &str, mode: &str, members: &[String]) -> Self {
        let head = format!("[[port]]\nname = \"{name}\"\nkind = \"nic\"\nbridge = \"{bridge}\"");
        self.toml(&format!("{head}\nbond = {{ mode = \"{mode}\", members = {members:?} }}"))
    }

    /// A line that belongs to the port added last, such as `mtu = 9000`.
    #[must_use]
    pub fn port_setting(self, line: &str) -> Self {
        self.toml(line)
    }

    /// Adds a bridge.
    #[must_use]
    pub fn bridge(self, name: &str) -> Self {
        self.toml(&format!("[[bridge]]\nname = \"{name}\""))
    }

    /// Adds lines of configuration, whole tables: `[[port]]`, `[workers]` and the like.
    #[must_use]
    pub fn toml(mut self, lines: &str) -> Self {
        let _ = writeln!(self.tables, "{lines}");
        self
    }

    /// Adds a setting that belongs to no table.
    #[must_use]
    pub fn setting(mut self, line: &str) -> Self {
        let _ = writeln!(self.settings, "{line}");
        self
    }

    /// How much it logs: `error`, `warn`, `info` (unless told) or `debug`.
    #[must_use]
    pub fn log(mut self, level: &'static str) -> Self {
        self.log = level;
        self
    }

    /// Starts it and waits until its control socket answers.
    ///
    /// # Errors
    /// When there is no binary, or it does not answer in time; what it said is in the message.
    pub fn start(self) -> Result<Ringway> {
        let binary = self.binary.clone().map_or_else(ringway_binary, Ok)?;
        let dir = crate::scratch_dir()?;
        let control = dir.path().join("control.sock");
        let metrics = free_address()?;
        let config = dir.path().join("ringway.toml");
        let Self { cpu, address_space, log, settings, tables, .. } = self;
        let head = format!("control_socket = \"{}\"\nmetrics = \"{metrics}\"\n", control.display());
        fs::write(&config, format!("{head}{settings}{tables}"))?;

        let mut spawn = Spawn::new(&binary).arg("run").arg("--config").arg(&config).args(["--log", log]);
        if let Some(cpu) = cpu {
            spawn = spawn.cpu(cpu);
        }
        if let Some(bytes) = address_space {
            spawn = spawn.address_space(bytes);
        }
        let process = spawn.clone().start()?;
        let ringway = Ringway { process, spawn, binary, config, control, metrics, _dir: dir };
        ringway.wait_ready()?;
        Ok(ringway)
    }
}

/// A running switch.
#[derive(Debug)]
pub struct Ringway {
    process: Process,
    spawn: Spawn,
    binary: PathBuf,
    config: PathBuf,
    control: PathBuf,
    metrics: SocketAddr,
    _dir: TempDir,
}

impl Ringway {
    /// A switch to build: no bridge, no port, workers where the switch puts them.
    pub fn builder() -> RingwayBuilder {
        RingwayBuilder {
            binary: None,
            cpu: None,
            address_space: None,
            log: "info",
            settings: String::new(),
            tables: String::new(),
        }
    }

    /// Starts a switch with one bridge, `br0`, of ports in client mode: names and sockets.
    ///
    /// # Errors
    /// As [`RingwayBuilder::start`].
    pub fn bridging(ports: &[(&str, impl AsRef<Path>)]) -> Result<Self> {
        let with = |builder: RingwayBuilder, (name, socket): &(&str, _)| builder.port(name, "br0", socket);
        ports.iter().fold(Self::builder().bridge("br0"), with).start()
    }

    /// `ringway show {what} --json`; `what` is `ports`, `queues`, `macs`, `flows` or `workers`.
    ///
    /// # Errors
    /// When the switch does not answer.
    pub fn show(&self, what: &str) -> Result<Value> {
        let control = self.control.as_os_str();
        let words = [OsStr::new("show"), OsStr::new(what), OsStr::new("--json"), OsStr::new("--socket"), control];
        let said = run(&self.binary.to_string_lossy(), &words)?;
        serde_json::from_str(&said).with_context(|| format!("show {what} printed no JSON: {said}"))
    }

    /// The entry of `show ports` for one port.
    ///
    /// # Errors
    /// When the switch does not answer, or has no such port.
    pub fn show_port(&self, name: &str) -> Result<Value> {
        let ports = self.show("ports")?;
        let mut ports = ports.as_array().into_iter().flatten();
        let port = ports.find(|port| port["name"] == name);
        port.cloned().with_context(|| format!("no port {name}"))
    }

    /// Waits until ports have a state, which is `running` once their guest's driver is up.
    ///
    /// # Errors
    /// When 20 s pass first.
    pub fn wait_state(&self, ports: &[&str], state: &str) -> Result<()> {
        let is_so = |port: &&str| self.show_port(port).is_ok_and(|port| port["state"] == state);
        wait_for(&format!("{ports:?} {state}"), SETTLED, || ports.iter().all(is_so).then_some(()))
            .map_err(|_| self.process.failure(&format!("has not got {ports:?} {state}: {:?}", self.show("ports"))))
    }

    /// `ringway port {command} {port} --json`; `command` is `start`, `stop`, `remove` or `add`.
    ///
    /// # Errors
    /// When it is not done, or the port does not run after it was started or added; what was said is in the message.
    pub fn port(&self, command: &str, port: &str) -> Result<Value> {
        let control = self.control.as_os_str();
        let words = [
            OsStr::new("port"),
            OsStr::new(command),
            OsStr::new(port),
            OsStr::new("--json"),
            OsStr::new("--socket"),
            control,
        ];
        let said = run(&self.binary.to_string_lossy(), &words)?;
        serde_json::from_str(&said).with_context(|| format!("port {command} printed no JSON: {said}"))
    }

    /// Scrapes its metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(self.metrics)
    }

    /// Where its metrics are served.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// Its control socket.
    pub fn control_socket(&self) -> &Path {
        &self.control
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Starts it again with the same configuration, sockets and metrics port. Kills it first if it still runs, so that this
    /// is a crash; for an orderly restart stop [`Ringway::process`] before.
    ///
    /// # Errors
    /// As [`RingwayBuilder::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process = self.spawn.clone().start()?;
        self.wait_ready()
    }

    /// The process, for its log, its pid, or to stop or kill it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn wait_ready(&self) -> Result<()> {
        let look = || match self.show("ports") {
            Ok(_) => Some(true),
            Err(_) => (!self.process.is_running()).then_some(false),
        };
        match wait_for("the control socket", READY, look) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.process.failure("ended")),
            Err(_) => Err(self.process.failure("does not answer on its control socket")),
        }
    }
}

/// A port of the loopback address that nobody uses: at this moment, which is the best that one can know.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
