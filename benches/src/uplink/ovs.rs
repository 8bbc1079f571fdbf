//! Open vSwitch with DPDK: a bridge without rules, a NIC and a guest.

use anyhow::{Context, Result};
use ringway_testbed::{Ovs, Process};

use super::{Plugs, Totals, Uplinked};
use crate::machine::{LOAD_CPU, SWITCH_CPU};
use crate::switch::MEMORY_MIB;

const GUEST: &str = "vm1";
const NIC: &str = "uplink";

struct Measured {
    ovs: Ovs,
    begun: Totals,
}

pub(super) fn start(plugs: Plugs<'_>) -> Result<impl Uplinked + use<>> {
    let ovs = Ovs::builder().poll_cpu(SWITCH_CPU).other_cpu(LOAD_CPU).memory(MEMORY_MIB).start()?;
    ovs.add_bridge("br0")?;
    ovs.add_nic("br0", NIC, plugs.device)?;
    ovs.add_port("br0", GUEST, plugs.socket)?;
    Ok(Measured { ovs, begun: Totals::default() })
}

impl Measured {
    fn totals(&self) -> Result<Totals> {
        let ports = self.ovs.port_packets()?;
        let of =
            |port: &str| ports.get(port).copied().with_context(|| format!("Open vSwitch counts nothing of {port}"));
        let ((from_nic, to_nic), (sent_by_guest, _)) = (of(NIC)?, of(GUEST)?);
        Ok(Totals {
            busy_cycles: 0.0,
            from_nic: from_nic as f64,
            to_nic: to_nic as f64,
            sent_by_guest: sent_by_guest as f64,
        })
    }
}

impl Uplinked for Measured {
    fn process(&mut self) -> &mut Process {
        self.ovs.process()
    }

    /// Frames first, here and at the end: both clocks run as long.
    fn begin(&mut self) -> Result<()> {
        self.begun = self.totals()?;
        self.ovs.clear_poll_stats()
    }

    fn end(&mut self) -> Result<Totals> {
        let frames = self.totals()?.since(self.begun);
        let busy_cycles = self.ovs.busy_cycles()?.context("Open vSwitch counted no cycles")?;
        Ok(Totals { busy_cycles, ..frames })
    }
}
