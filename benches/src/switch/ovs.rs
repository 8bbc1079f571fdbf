//! Open vSwitch with DPDK: a bridge without rules, whose packets are looked up in the exact-match cache.

use std::path::PathBuf;

use anyhow::{Context, Result};
use ringway_testbed::{Ovs, Process};

use super::{Counted, MEMORY_MIB, Switch};
use crate::machine::{LOAD_CPU, SWITCH_CPU};

pub(super) fn start(sockets: &[PathBuf; 2]) -> Result<impl Switch + use<>> {
    let ovs = Ovs::builder().poll_cpu(SWITCH_CPU).other_cpu(LOAD_CPU).memory(MEMORY_MIB).start()?;
    ovs.add_bridge("br0")?;
    ovs.add_port("br0", "vm1", &sockets[0])?;
    ovs.add_port("br0", "vm2", &sockets[1])?;
    Ok(ovs)
}

impl Switch for Ovs {
    fn process(&mut self) -> &mut Process {
        Ovs::process(self)
    }

    fn begin(&mut self) -> Result<()> {
        self.clear_poll_stats()
    }

    fn end(&mut self) -> Result<Counted> {
        let cycles = self.cycles_per_packet()?.context("Open vSwitch counted no cycles")?;
        Ok(Counted { cycles, burst: self.packets_per_batch()? })
    }
}
