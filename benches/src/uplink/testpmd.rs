//! `dpdk-testpmd` between a NIC and a guest: `io`, which looks nothing up, or its engine for checksums and segments.

use anyhow::{Context, Result};
use ringway_testbed::{Forward, Memory, Process, Testpmd, VhostPort};

use super::{Plugs, Totals, Uplinked};
use crate::machine::SWITCH_CPU;
use crate::switch::MEMORY_MIB;
use crate::uplink::frames::SEGMENT_LEN;

const NIC: usize = 0;
const GUEST: usize = 1;

struct Measured(Testpmd, bool);

pub(super) fn start(plugs: Plugs<'_>) -> Result<impl Uplinked + use<>> {
    // Debian's DPDK 22.11 offers guests TCP in segments if it is told to.
    let port = VhostPort::new(plugs.socket).serves(false);
    let port = if plugs.offloads { port.parameter("tso=1") } else { port };
    let testpmd = Testpmd::switch()
        .vdev(plugs.device.to_owned())
        .vhost(port)
        .arg("--no-flush-rx")
        .forward(if plugs.offloads { Forward::Csum } else { Forward::Io })
        .memory(Memory::Huge(MEMORY_MIB))
        .cpu(SWITCH_CPU)
        .start()?;
    testpmd.wait_ready()?;
    Ok(Measured(testpmd, plugs.offloads))
}

impl Measured {
    /// The engine makes checksums in software unless told otherwise. The driver would do so before it, unless it is told that
    /// somebody does.
    fn finish_in_software(&self) -> Result<()> {
        self.0.command(&format!("port stop {GUEST}"))?;
        for checksum in ["tcp_cksum", "udp_cksum"] {
            self.0.command(&format!("port config {GUEST} rx_offload {checksum} on"))?;
        }
        self.0.command(&format!("port start {GUEST}"))?;
        self.0.command(&format!("set port {NIC} gso on"))?;
        self.0.command(&format!("set gso segsz {SEGMENT_LEN}")).map(drop)
    }
}

impl Uplinked for Measured {
    fn guest_is_ready(&mut self) -> Result<()> {
        if self.1 {
            self.finish_in_software()?;
        }
        self.0.forward()
    }

    fn process(&mut self) -> &mut Process {
        self.0.process()
    }

    fn begin(&mut self) -> Result<()> {
        self.0.clear_forward_stats()
    }

    fn end(&mut self) -> Result<Totals> {
        let stats = self.0.forward_stats()?;
        let of = |port: usize| stats.ports.get(port).copied().context("testpmd has fewer ports");
        let (nic, guest) = (of(NIC)?, of(GUEST)?);
        Ok(Totals {
            busy_cycles: stats.busy_cycles.context("testpmd counted no cycles")?,
            from_nic: nic.rx_packets as f64,
            to_nic: nic.tx_packets as f64,
            sent_by_guest: guest.rx_packets as f64,
        })
    }
}
