//! Two Linux guests in QEMU, TCP from one to the other, and what their NICs can do.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringway_testbed::Guest;

use crate::machine::LOAD_CPU;

/// For every row the same, and of no effect on what the switch does: it spares the guests what only emulation makes dear. QEMU
/// emulates `rep movsb` byte by byte, so the kernel copies by words; it does not clear pages that are about to be overwritten;
/// and each copy from or to a program does not begin and end with an instruction that QEMU must leave its translated code for.
const KERNEL_LINE: &str = "clearcpuid=erms init_on_alloc=0 nosmap";
/// Any short command; an emulated guest takes its time.
const SOON: Duration = Duration::from_secs(30);
/// What iperf3 may take beyond the time that it measures.
const MORE: Duration = Duration::from_secs(60);
const MEMORY_MIB: u32 = 256;
/// Starts iperf3's server and waits until it listens.
const SERVE: &str = "iperf3 -s >/dev/null 2>&1 & \
    for i in $(seq 100); do netstat -ltn | grep -q :5201 && exit 0; usleep 100000; done; exit 1";
const RECEIVER: &str = "10.77.0.1";
const SENDER: &str = "10.77.0.2";

/// A guest that receives and one that sends, both on the load's CPU.
pub(crate) struct Guests {
    receiver: Guest,
    sender: Guest,
}

/// What a transfer came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Transfer {
    /// As the receiver counted.
    pub(crate) gbits: f64,
    /// The part of the CPU of both that they had.
    pub(crate) cpu_share: f64,
}

impl Guests {
    /// Starts QEMU twice. Each listens at its socket, and boots when the switch has connected.
    pub(crate) fn start(sockets: &[PathBuf; 2], packed: bool) -> Result<Self> {
        let guest = |name, socket, ip| {
            let builder = Guest::builder(name, socket).ip(&format!("{ip}/24"));
            builder.packed(packed).memory(MEMORY_MIB).cpu(LOAD_CPU).kernel_line(KERNEL_LINE).start()
        };
        Ok(Self { receiver: guest("vm1", &sockets[0], RECEIVER)?, sender: guest("vm2", &sockets[1], SENDER)? })
    }

    /// Waits until both have booted and one reaches the other.
    pub(crate) fn wait_ready(&self) -> Result<()> {
        self.receiver.wait_booted()?;
        self.sender.wait_booted()?;
        self.sender.run(&format!("ping -c 1 -w 20 {RECEIVER}"), SOON).context("the guests do not reach each other")?;
        Ok(())
    }

    /// Four streams of TCP for so many seconds, after one to warm up.
    pub(crate) fn transfer(&mut self, seconds: u64) -> Result<Transfer> {
        self.receiver.run(SERVE, SOON).context("iperf3 does not listen")?;
        let (begun, before) = (Instant::now(), self.cpu_time()?);
        let command = format!("iperf3 -c {RECEIVER} -P 4 -t {seconds} -O 1 -i 0 -f m");
        let said = self.sender.run(&command, Duration::from_secs(seconds) + MORE)?;
        let cpu_share = (self.cpu_time()? - before).div_duration_f64(begun.elapsed());
        let gbits = gbits(&said).filter(|&gbits| gbits > 0.0).with_context(|| format!("no bytes: {said}"))?;
        Ok(Transfer { gbits, cpu_share })
    }

    /// `ethtool -k`, of the guest that sends; the other one has the same NIC.
    pub(crate) fn offloads(&self) -> Result<String> {
        self.sender.run("ethtool -k eth0", SOON)
    }

    fn cpu_time(&mut self) -> Result<Duration> {
        Ok(self.receiver.process().cpu_time()? + self.sender.process().cpu_time()?)
    }
}

/// The sum over all streams, as the receiver saw it.
fn gbits(said: &str) -> Option<f64> {
    let line = said.lines().find(|line| line.starts_with("[SUM]") && line.trim_end().ends_with("receiver"))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let unit = words.iter().position(|&word| word == "Mbits/sec")?;
    Some(words.get(unit.checked_sub(1)?)?.parse::<f64>().ok()? / 1000.0)
}

/// Names and values of `ethtool -k`, without those that nobody can have.
pub(crate) fn features(said: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = said.lines().filter_map(|line| line.trim().split_once(": "));
    pairs.filter(|&(_, value)| value != "off [fixed]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receivers_sum_is_read() {
        let said = "[  5]   0.00-5.00   sec   300 MBytes   503 Mbits/sec    0             sender\n\
            [  5]   0.00-5.02   sec   299 MBytes   499 Mbits/sec                  receiver\n\
            [SUM]   0.00-5.00   sec  1.17 GBytes  2013 Mbits/sec   12             sender\n\
            [SUM]   0.00-5.02   sec  1.17 GBytes  1998 Mbits/sec                  receiver\n\niperf Done.\n";
        assert_eq!(gbits(said), Some(1.998));
        assert_eq!(gbits("iperf3: error - unable to connect to server: Connection refused\n"), None);
    }

    #[test]
    fn features_that_cannot_be_had_are_left_out() {
        let said = "Features for eth0:\nrx-checksumming: on [fixed]\ntx-checksumming: on\n\
            \ttx-checksum-ipv4: off [fixed]\n\ttx-checksum-ip-generic: on\ntcp-segmentation-offload: off\n";
        let expected = [
            ("rx-checksumming", "on [fixed]"),
            ("tx-checksumming", "on"),
            ("tx-checksum-ip-generic", "on"),
            ("tcp-segmentation-offload", "off"),
        ];
        assert_eq!(features(said).collect::<Vec<_>>(), expected);
    }
}
