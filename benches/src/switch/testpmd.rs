//! `dpdk-testpmd` in io mode: two copies, and no look at what it copies.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use ringway_testbed::{Memory, Process, Testpmd, VhostPort};

use super::{Counted, MEMORY_MIB, Switch};
use crate::machine::SWITCH_CPU;

/// For how long bursts are recorded, after the measurement: recording costs it cycles.
const RECORDED: Duration = Duration::from_millis(500);

pub(super) fn start(sockets: &[PathBuf; 2]) -> Result<impl Switch + use<>> {
    let testpmd = Testpmd::switch()
        .vhost(VhostPort::new(&sockets[0]))
        .vhost(VhostPort::new(&sockets[1]))
        .memory(Memory::Huge(MEMORY_MIB))
        .cpu(SWITCH_CPU)
        .start()?;
    testpmd.wait_ready()?;
    Ok(testpmd)
}

impl Switch for Testpmd {
    fn guests_are_ready(&mut self) -> Result<()> {
        self.forward()
    }

    fn process(&mut self) -> &mut Process {
        Testpmd::process(self)
    }

    fn begin(&mut self) -> Result<()> {
        self.clear_forward_stats()
    }

    fn end(&mut self) -> Result<Counted> {
        let cycles = self.forward_stats()?.cycles_per_packet.context("testpmd counted no cycles")?;
        Ok(Counted { cycles, burst: self.mean_burst(RECORDED)? })
    }
}
