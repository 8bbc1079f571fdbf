//! A switch that is attacked: on CPU 0, with as many guests as it takes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use ringway_testbed::{Metrics, Ovs, Ringway};

use crate::interrupt;
use crate::machine::{LOAD_CPU, SWITCH_CPU};
use crate::switch::{Backend, MEMORY_MIB};

/// Debian's DPDK holds 32 ethdevs.
const OVS_GUESTS: usize = 31;
/// From the last guest's being connected until Open vSwitch polls it.
const SETTLED: Duration = Duration::from_secs(1);

pub(super) enum Subject {
    Ringway(Ringway),
    Ovs(Ovs),
}

impl Subject {
    /// How many guests this one can have, of so many.
    pub(super) fn guests(backend: Backend, wanted: usize) -> usize {
        if backend == Backend::Ovs { wanted.min(OVS_GUESTS) } else { wanted }
    }

    /// Starts it; guests listen at the sockets.
    pub(super) fn start(backend: Backend, sockets: &[PathBuf]) -> Result<Self> {
        if backend == Backend::Ovs {
            let ovs = Ovs::builder().poll_cpu(SWITCH_CPU).other_cpu(LOAD_CPU).memory(MEMORY_MIB).start()?;
            ovs.add_bridge("br0")?;
            for (number, socket) in sockets.iter().enumerate() {
                ovs.add_port("br0", &port(number), socket)?;
            }
            return Ok(Self::Ovs(ovs));
        }
        let builder = Ringway::builder().cpu(SWITCH_CPU).bridge("br0");
        let add = |builder: ringway_testbed::RingwayBuilder, (number, socket): (usize, &PathBuf)| {
            builder.port(&port(number), "br0", socket)
        };
        Ok(Self::Ringway(sockets.iter().enumerate().fold(builder, add).start()?))
    }

    /// All guests are connected.
    pub(super) fn wait_ready(&self, guests: usize) -> Result<()> {
        match self {
            Self::Ringway(ringway) => {
                let names: Vec<_> = (0..guests).map(port).collect();
                ringway.wait_state(&names.iter().map(String::as_str).collect::<Vec<_>>(), "running")
            }
            Self::Ovs(_) => interrupt::sleep(SETTLED),
        }
    }

    /// Bytes of memory that it has now.
    pub(super) fn memory(&mut self) -> Result<f64> {
        let process = match self {
            Self::Ringway(ringway) => ringway.process(),
            Self::Ovs(ovs) => ovs.process(),
        };
        resident(&fs::read_to_string(format!("/proc/{}/status", process.pid()))?)
    }

    /// Time that it and this thread, which is its guests, have had their CPUs so far.
    pub(super) fn cpu_times(&mut self) -> Result<[f64; 2]> {
        let process = match self {
            Self::Ringway(ringway) => ringway.process(),
            Self::Ovs(ovs) => ovs.process(),
        };
        let own = fs::read_to_string("/proc/thread-self/schedstat")?;
        let own: f64 = own.split(' ').next().context("no schedstat")?.parse()?;
        Ok([process.cpu_time()?.as_secs_f64(), own / 1e9])
    }

    /// Its metrics page, of Ringway.
    pub(super) fn metrics(&self) -> Result<Option<Metrics>> {
        match self {
            Self::Ringway(ringway) => ringway.metrics().map(Some),
            Self::Ovs(_) => Ok(None),
        }
    }
}

/// What a switch calls the port of guest `number`.
pub(super) fn port(number: usize) -> String {
    format!("guest{number}")
}

fn resident(status: &str) -> Result<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("no number")?;
    Ok(kib * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_resident_is_read() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n").unwrap(), 2048.0 * 1024.0);
        resident("Name:\tx\n").unwrap_err();
        assert!(resident(&fs::read_to_string("/proc/self/status").unwrap()).unwrap() > 0.0);
    }
}
