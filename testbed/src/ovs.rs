//! Open vSwitch with DPDK, beside whatever Open vSwitch the machine runs: own database, own sockets, no service.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process::run;
use crate::{Process, Spawn, wait_for};

const VSWITCHD: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// DPDK's start included.
const READY: Duration = Duration::from_secs(40);

/// What to start. Made by [`Ovs::builder`].
#[derive(Debug, Clone)]
pub struct OvsBuilder {
    poll_cpu: usize,
    other_cpu: usize,
    memory_mib: u32,
}

impl OvsBuilder {
    /// The CPU of its one poll-mode thread, 0 unless told.
    #[must_use]
    pub fn poll_cpu(mut self, cpu: usize) -> Self {
        self.poll_cpu = cpu;
        self
    }

    /// The CPU of its other threads, 0 unless told.
    #[must_use]
    pub fn other_cpu(mut self, cpu: usize) -> Self {
        self.other_cpu = cpu;
        self
    }

    /// Huge-page memory in MiB, 512 unless told. See [`crate::HugePages`].
    #[must_use]
    pub fn memory(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Starts database and switch, and waits until both answer.
    ///
    /// # Errors
    /// When either does not; the end of its log is in the message.
    pub fn start(self) -> Result<Ovs> {
        let dir = crate::scratch_dir()?;
        let at = |name: &str| dir.path().join(name);
        let database = at("conf.db");
        run("ovsdb-tool", &[OsStr::new("create"), database.as_os_str(), OsStr::new(SCHEMA)])?;

        let remote = format!("unix:{}", at("db.sock").display());
        let env = |spawn: Spawn| spawn.env("OVS_RUNDIR", dir.path()).env("OVS_LOGDIR", dir.path());
        let control = |name: &str| format!("--unixctl={}", at(name).display());
        let server = env(Spawn::new("ovsdb-server").arg(&database).arg(format!("--remote=p{remote}")))
            .arg(control("db.ctl"))
            .start()?;
        wait_for("ovsdb-server's socket", READY, || at("db.sock").exists().then_some(()))
            .map_err(|_| server.failure("does not listen"))?;

        let vsctl = |words: &[&str]| vsctl(&remote, words);
        vsctl(&["--no-wait", "init"])?;
        vsctl(&[
            "--no-wait",
            "set",
            "Open_vSwitch",
            ".",
            "other_config:dpdk-init=true",
            &format!("other_config:pmd-cpu-mask={:#x}", 1_u64 << self.poll_cpu),
            &format!("other_config:dpdk-lcore-mask={:#x}", 1_u64 << self.other_cpu),
            &format!("other_config:dpdk-socket-mem={}", self.memory_mib),
            // In memory: neither a mounted hugetlbfs nor files that another DPDK process might clash with.
            "other_config:dpdk-extra=--no-pci --in-memory --no-telemetry",
        ])?;
        // Of each bridge it makes a TAP that outlives it: here they go with their namespace. `unshare` becomes the switch.
        let switch = Spawn::new("unshare").name("ovs-vswitchd").args(["--net", VSWITCHD]).arg(&remote);
        let switch = env(switch).arg(control("switch.ctl")).start()?;
        let ovs = Ovs { switch, server, remote, dir };
        ovs.wait_ready()?;
        Ok(ovs)
    }
}

/// A running Open vSwitch.
#[derive(Debug)]
pub struct Ovs {
    // Dropped first, while its database is still there.
    switch: Process,
    server: Process,
    remote: String,
    dir: TempDir,
}

impl Ovs {
    /// A switch to build, on CPU 0.
    pub fn builder() -> OvsBuilder {
        OvsBuilder { poll_cpu: 0, other_cpu: 0, memory_mib: 512 }
    }

    /// Adds a bridge that does what a switch without rules does (action NORMAL).
    ///
    /// # Errors
    /// When the switch refuses.
    pub fn add_bridge(&self, bridge: &str) -> Result<()> {
        self.vsctl(&["add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=netdev"]).map(drop)
    }

    /// Adds a port that connects to a guest which listens at `socket`.
    ///
    /// # Errors
    /// When the switch refuses.
    pub fn add_port(&self, bridge: &str, port: &str, socket: &Path) -> Result<()> {
        let path = format!("options:vhost-server-path={}", socket.display());
        let set = ["--", "set", "Interface", port, "type=dpdkvhostuserclient", &path];
        self.vsctl(&[&["add-port", bridge, port][..], &set].concat()).map(drop)
    }

    /// Adds a port of a device that DPDK has a driver for, such as `net_pcap0,rx_pcap=FILE`.
    ///
    /// # Errors
    /// When the switch refuses, or cannot open it.
    pub fn add_nic(&self, bridge: &str, port: &str, device: &str) -> Result<()> {
        let device = format!("options:dpdk-devargs=\"{device}\"");
        self.vsctl(&["add-port", bridge, port, "--", "set", "Interface", port, "type=dpdk", &device])?;
        let error = self.vsctl(&["get", "Interface", port, "error"])?;
        anyhow::ensure!(error.trim() == "[]", "Open vSwitch cannot open {device}: {error}");
        Ok(())
    }

    /// `ovs-vsctl`.
    ///
    /// # Errors
    /// When it fails.
    pub fn vsctl(&self, words: &[&str]) -> Result<String> {
        vsctl(&self.remote, words)
    }

    /// `ovs-appctl` to the switch.
    ///
    /// # Errors
    /// When it fails.
    pub fn appctl(&self, words: &[&str]) -> Result<String> {
        let target = self.dir.path().join("switch.ctl");
        let mut all = vec![OsStr::new("--timeout=20"), OsStr::new("--target"), target.as_os_str()];
        all.extend(words.iter().map(OsStr::new));
        run("ovs-appctl", &all)
    }

    /// Sets the counters of its poll-mode threads to zero.
    ///
    /// # Errors
    /// When the switch does not answer.
    pub fn clear_poll_stats(&self) -> Result<()> {
        self.appctl(&["dpif-netdev/pmd-stats-clear"]).map(drop)
    }

    /// Busy cycles a packet of its first poll-mode thread since they were cleared; None before the first packet.
    ///
    /// # Errors
    /// When the switch does not answer.
    pub fn cycles_per_packet(&self) -> Result<Option<f64>> {
        Ok(processing_cycles(&self.appctl(&["dpif-netdev/pmd-stats-show"])?))
    }

    /// Cycles that its first poll-mode thread spent on packets since they were cleared.
    ///
    /// # Errors
    /// When the switch does not answer.
    pub fn busy_cycles(&self) -> Result<Option<f64>> {
        Ok(number_after(&self.appctl(&["dpif-netdev/pmd-stats-show"])?, "  processing cycles:"))
    }

    /// Packets that each port received and transmitted since it is there, by name.
    ///
    /// # Errors
    /// When the switch does not answer.
    pub fn port_packets(&self) -> Result<BTreeMap<String, (u64, u64)>> {
        Ok(port_packets(&self.appctl(&["dpctl/show", "-s"])?))
    }

    /// Packets that it gave to a port at a time since they were cleared; None before the first packet.
    ///
    /// # Errors
    /// When the switch does not answer.
    pub fn packets_per_batch(&self) -> Result<Option<f64>> {
        Ok(output_batch(&self.appctl(&["dpif-netdev/pmd-stats-show"])?))
    }

    /// The switch's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.switch
    }

    /// It answers before DPDK has started, which takes a while.
    fn wait_ready(&self) -> Result<()> {
        let has_dpdk = || {
            let value = self.vsctl(&["get", "Open_vSwitch", ".", "dpdk_initialized"]);
            let ready = value.is_ok_and(|value| value.trim() == "true") && self.appctl(&["version"]).is_ok();
            if ready { Some(true) } else { (!self.switch.is_running()).then_some(false) }
        };
        match wait_for("ovs-vswitchd", READY, has_dpdk) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.switch.failure("ended")),
            Err(_) => Err(self.switch.failure("could not start DPDK")),
        }
    }
}

impl Drop for Ovs {
    fn drop(&mut self) {
        // Said twice in a panic, once for each process, unless they are ended here in this order.
        let _ = self.switch.stop();
        let _ = self.server.stop();
    }
}

fn vsctl(remote: &str, words: &[&str]) -> Result<String> {
    let database = format!("--db={remote}");
    let mut all = vec![OsStr::new("--timeout=20"), OsStr::new(&database)];
    all.extend(words.iter().map(OsStr::new));
    run("ovs-vsctl", &all).context("Open vSwitch refuses")
}

fn processing_cycles(stats: &str) -> Option<f64> {
    number_after(stats, "avg processing cycles per packet:")
}

fn output_batch(stats: &str) -> Option<f64> {
    number_after(stats, "avg. packets per output batch:").filter(|&packets| packets > 0.0)
}

/// Of `dpctl/show -s`: a line for each port, and below it one for each direction.
fn port_packets(shown: &str) -> BTreeMap<String, (u64, u64)> {
    let ports = shown.split("\n  port ").skip(1).filter_map(|port| {
        let (_, rest) = port.split_once(": ")?;
        let name = rest.split_whitespace().next()?;
        let packets = |key| port.split_once(key)?.1.split_whitespace().next()?.parse().ok();
        Some((name.to_owned(), (packets("RX packets:")?, packets("TX packets:")?)))
    });
    ports.collect()
}

/// The number that follows the first `key`: the first thread's.
fn number_after(stats: &str, key: &str) -> Option<f64> {
    let (_, rest) = stats.split_once(key)?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_of_the_first_thread_are_read() {
        let stats = "pmd thread numa_id 0 core_id 0:\n  packets received: 10\n  processing cycles: 3392 (9.10%)\n  \
            avg. packets per output batch: 31.50\n  avg cycles per packet: 700.5 (7005/10)\n  avg processing cycles per packet: 339.25 (3392/10)\n";
        assert_eq!(processing_cycles(stats), Some(339.25));
        assert_eq!(number_after(stats, "  processing cycles:"), Some(3392.0));
        assert_eq!(output_batch(stats), Some(31.5));
        assert_eq!(output_batch("avg. packets per output batch: 0.00\n"), None);
        assert_eq!(processing_cycles("main thread:\n  packets received: 0\n"), None);
    }

    #[test]
    fn packets_of_each_port_are_read() {
        let shown = "netdev@ovs-netdev:\n  lookups: hit:5 missed:1 lost:0\n  flows: 1\n  port 0: ovs-netdev (tap)\n    \
            RX packets:0 errors:0 dropped:0 overruns:0 frame:0\n    TX packets:1 errors:0 dropped:0 aborted:0 carrier:0\n    \
            collisions:0\n    RX bytes:0  TX bytes:0\n  port 2: vm1 (dpdkvhostuserclient: configured_rx_queues=1)\n    \
            RX packets:12 errors:? dropped:0 overruns:? frame:?\n    TX packets:34 errors:? dropped:0 aborted:? carrier:?\n";
        let expected = [("ovs-netdev".to_owned(), (0, 1)), ("vm1".to_owned(), (12, 34))];
        assert_eq!(port_packets(shown), expected.into());
    }
}
