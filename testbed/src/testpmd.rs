//! `dpdk-testpmd`: guests without a VM (virtio-user ports), or a switch to compare with (vhost ports).
//!
//! In either role a test talks to it through its prompt. Two habits of DPDK 22.11 to know: a virtio-user port that serves
//! its socket blocks until the switch has connected, one port after the other, so the prompt comes last; and while it
//! blocks so, SIGTERM does not end it, which [`Process`]'s SIGKILL does.

mod ports;
mod stats;

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

pub use self::ports::{VhostPort, VirtioUser};
pub use self::stats::{ForwardStats, PortForward, PortStats};
use crate::{Process, Spawn};

const PROMPT: &str = "testpmd> ";
/// Any command answers within this; forwarding cores are told to stop and waited for.
const ANSWER: Duration = Duration::from_secs(20);
/// From start to prompt: memory to map and clear, devices to negotiate.
const READY: Duration = Duration::from_secs(60);

/// What testpmd does with a frame that it receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// Sends it as it is.
    Io,
    /// Sends it with its MAC addresses swapped.
    MacSwap,
    /// Drops it.
    RxOnly,
    /// Sends frames of its own, drops what it receives.
    TxOnly,
    /// Sends it with checksums as the `csum` commands say, and TCP segmentation as `tso` says.
    Csum,
    /// Answers ARP and ICMP echo requests.
    IcmpEcho,
}

impl Forward {
    fn word(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::MacSwap => "macswap",
            Self::RxOnly => "rxonly",
            Self::TxOnly => "txonly",
            Self::Csum => "csum",
            Self::IcmpEcho => "icmpecho",
        }
    }
}

/// To which port testpmd sends what a port received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// Port 0 to port 1 and back, 2 to 3 and back.
    Paired,
    /// Back to the same port.
    Loop,
    /// To the next port, and from the last to the first.
    Chained,
}

/// What testpmd's memory, guest memory that is, lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Ordinary pages, this many MiB: for tests. It needs nothing of the machine.
    Small(u32),
    /// Huge pages, this many MiB: for figures. See [`crate::HugePages`].
    Huge(u32),
}

/// What to start. Made by [`Testpmd::guest`] and [`Testpmd::switch`].
#[derive(Debug, Clone)]
pub struct TestpmdBuilder {
    name: &'static str,
    vdevs: Vec<String>,
    queues: u16,
    cpu: Option<usize>,
    memory: Memory,
    forward: Forward,
    topology: Topology,
    mbufs: u32,
    eal: Vec<String>,
    more: Vec<String>,
}

impl TestpmdBuilder {
    /// Adds a virtio-user port: the NIC of a guest.
    #[must_use]
    pub fn virtio_user(mut self, port: VirtioUser) -> Self {
        let vdev = port.vdev(self.count("net_virtio_user"));
        self.queues = self.queues.max(port.queue_pairs());
        self.vdev(vdev)
    }

    /// Adds a vhost port: the port of a switch.
    #[must_use]
    pub fn vhost(mut self, port: VhostPort) -> Self {
        let vdev = port.vdev(self.count("net_vhost"));
        self.queues = self.queues.max(port.queue_pairs());
        self.vdev(vdev)
    }

    /// Adds a port that receives the frames of file `receive`, once, and appends what it transmits to file `transmit`.
    /// With the paired topology it is the wire of the port before it.
    #[must_use]
    pub fn pcap(mut self, receive: Option<&Path>, transmit: &Path) -> Self {
        let receive = receive.map_or_else(String::new, |path| format!(",rx_pcap={}", path.display()));
        let vdev = format!("net_pcap{}{receive},tx_pcap={}", self.count("net_pcap"), transmit.display());
        // Otherwise the first frames, here all there are, are thrown away when forwarding starts.
        let no_flush = "--no-flush-rx".to_owned();
        if !self.more.contains(&no_flush) {
            self.more.push(no_flush);
        }
        self.vdev(vdev)
    }

    /// Adds any other virtual device, as DPDK's `--vdev` takes it.
    #[must_use]
    pub fn vdev(mut self, vdev: String) -> Self {
        self.vdevs.push(vdev);
        self
    }

    /// The CPU that forwards, and does everything else; any, if it is not told.
    #[must_use]
    pub fn cpu(mut self, cpu: usize) -> Self {
        self.cpu = Some(cpu);
        self
    }

    /// Where its memory lies; `Small(192)` unless told.
    #[must_use]
    pub fn memory(mut self, memory: Memory) -> Self {
        self.memory = memory;
        self
    }

    /// What it does with frames once it is told to `start`.
    #[must_use]
    pub fn forward(mut self, forward: Forward) -> Self {
        self.forward = forward;
        self
    }

    /// Where frames go.
    #[must_use]
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// Packet buffers in the pool, at 2.3 KiB each. Every receive ring takes as many as it has slots.
    #[must_use]
    pub fn mbufs(mut self, mbufs: u32) -> Self {
        self.mbufs = mbufs;
        self
    }

    /// The Ethernet address that frames from port `port` go to, in forward modes that write one.
    #[must_use]
    pub fn eth_peer(self, port: usize, mac: &str) -> Self {
        self.arg(format!("--eth-peer={port},{mac}"))
    }

    /// Any other of EAL's arguments.
    #[must_use]
    pub fn eal_arg(mut self, arg: impl Into<String>) -> Self {
        self.eal.push(arg.into());
        self
    }

    /// Any other of testpmd's own arguments.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.more.push(arg.into());
        self
    }

    /// Starts it and returns at once. Before commands, start the switch if this is a guest, and [`Testpmd::wait_ready`].
    ///
    /// # Errors
    /// When it cannot be started at all.
    pub fn start(self) -> Result<Testpmd> {
        let mut spawn = Spawn::new("dpdk-testpmd").name(self.name).line_buffered().grace(Duration::from_secs(3));
        if let Some(cpu) = self.cpu {
            spawn = spawn.cpu(cpu).arg("--lcores").arg(format!("0@{cpu},1@{cpu}"));
        } else {
            spawn = spawn.arg("--lcores").arg(any_cpu());
        }
        spawn = spawn.args(["--no-pci", "--no-telemetry"]);
        spawn = match self.memory {
            Memory::Small(mib) => spawn.args(["--no-huge", "--no-shconf", "-m"]).arg(mib.to_string()),
            // virtio-user hands its memory to the switch in eight regions at most.
            Memory::Huge(mib) => spawn.args(["--in-memory", "--single-file-segments", "-m"]).arg(mib.to_string()),
        };
        spawn = spawn.args(self.eal);
        for vdev in &self.vdevs {
            spawn = spawn.arg("--vdev").arg(vdev);
        }
        let topology = match self.topology {
            Topology::Paired => "paired",
            Topology::Loop => "loop",
            Topology::Chained => "chained",
        };
        let process = spawn
            .args(["--", "-i", "--nb-cores=1", "--record-core-cycles"])
            .arg(format!("--rxq={}", self.queues))
            .arg(format!("--txq={}", self.queues))
            .arg(format!("--forward-mode={}", self.forward.word()))
            .arg(format!("--port-topology={topology}"))
            .arg(format!("--total-num-mbufs={}", self.mbufs))
            .args(self.more)
            .start()?;
        Ok(Testpmd { process })
    }

    fn count(&self, driver: &str) -> usize {
        self.vdevs.iter().filter(|vdev| vdev.starts_with(driver)).count()
    }
}

/// Both lcores on every CPU that this process may use.
fn any_cpu() -> String {
    let allowed = rustix::thread::sched_getaffinity(None);
    let cpus: Vec<String> = (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|&cpu| allowed.as_ref().is_ok_and(|set| set.is_set(cpu)))
        .map(|cpu| cpu.to_string())
        .collect();
    let cpus = if cpus.is_empty() { "0".to_owned() } else { cpus.join(",") };
    format!("0@({cpus}),1@({cpus})")
}

/// A running testpmd.
#[derive(Debug)]
pub struct Testpmd {
    process: Process,
}

impl Testpmd {
    /// A guest to build: ports to be added, MAC-swapping on the port that a frame came from.
    pub fn guest() -> TestpmdBuilder {
        TestpmdBuilder {
            name: "testpmd guest",
            vdevs: Vec::new(),
            queues: 1,
            cpu: None,
            memory: Memory::Small(192),
            forward: Forward::MacSwap,
            topology: Topology::Loop,
            mbufs: 16_384,
            eal: Vec::new(),
            more: Vec::new(),
        }
    }

    /// A switch of the simplest kind to build: what comes in at one of two ports leaves by the other.
    pub fn switch() -> TestpmdBuilder {
        let guest = Self::guest();
        TestpmdBuilder { name: "testpmd switch", forward: Forward::Io, topology: Topology::Paired, ..guest }
    }

    /// Waits for its first prompt: all of its ports are there and, if they are virtio-user ones, connected.
    ///
    /// # Errors
    /// When it ends, or a minute passes.
    pub fn wait_ready(&self) -> Result<()> {
        self.process.wait_for_line(PROMPT, READY).map(drop)
    }

    /// What it has printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log_after(0)
    }

    /// Types a command at the prompt and returns what is printed up to the next prompt.
    ///
    /// # Errors
    /// When it has ended, or does not answer.
    pub fn command(&self, command: &str) -> Result<String> {
        let start = self.process.log_len();
        self.process.send_line(command)?;
        // The first prompt after the echoed command is the one it returns to.
        let answered = || {
            let said = self.process.log_after(start);
            let (_, answer) = said.split_once('\n')?;
            answer.contains(PROMPT).then(|| answer.replace(PROMPT, ""))
        };
        crate::wait_for(command, ANSWER, || if self.process.is_running() { answered().map(Some) } else { Some(None) })
            .ok()
            .flatten()
            .with_context(|| self.process.failure(&format!("does not answer \"{command}\"")).to_string())
    }

    /// Starts forwarding.
    ///
    /// # Errors
    /// As [`Testpmd::command`].
    pub fn forward(&self) -> Result<()> {
        self.command("start").map(drop)
    }

    /// Counters of every port, and its rates since the last time that they were asked for.
    ///
    /// # Errors
    /// As [`Testpmd::command`], or when the answer is not understood.
    pub fn port_stats(&self) -> Result<Vec<PortStats>> {
        let answer = self.command("show port stats all")?;
        PortStats::parse(&answer).with_context(|| format!("not understood: {answer}"))
    }

    /// Counters of the forwarding cores since `start`, or since [`Testpmd::clear_forward_stats`].
    ///
    /// # Errors
    /// As [`Testpmd::command`], or when the answer is not understood.
    pub fn forward_stats(&self) -> Result<ForwardStats> {
        let answer = self.command("show fwd stats all")?;
        ForwardStats::parse(&answer).with_context(|| format!("not understood: {answer}"))
    }

    /// How many frames a receive burst brought that was not empty: of the bursts of `duration`, recorded only that long. None
    /// when there were none, or almost all were empty. Sets the forwarding counters to zero.
    ///
    /// # Errors
    /// As [`Testpmd::command`].
    pub fn mean_burst(&self, duration: Duration) -> Result<Option<f64>> {
        self.command("set record-burst-stats on")?;
        self.clear_forward_stats()?;
        sleep(duration);
        let answer = self.command("show fwd stats all")?;
        self.command("set record-burst-stats off")?;
        Ok(stats::mean_burst(&answer))
    }

    /// Sets the forwarding counters to zero.
    ///
    /// # Errors
    /// As [`Testpmd::command`].
    pub fn clear_forward_stats(&self) -> Result<()> {
        self.command("clear fwd stats all").map(drop)
    }

    /// Leaves in good order, which SIGTERM does not: devices are stopped and closed.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn quit(mut self) -> Result<()> {
        self.process.send_line("quit")?;
        self.process.wait(ANSWER).map(drop)
    }

    /// The process, for its log, its pid, or to kill it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
