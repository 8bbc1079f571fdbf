//! The load: a pair of guests that sends every frame back, so that a fixed number of frames goes round for ever.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ringway_testbed::{Memory, Process, Testpmd, VirtioUser};

use crate::machine::LOAD_CPU;

/// Huge pages of the load, in MiB: what it needs to keep guests' buffers out of each other's cache sets.
pub(crate) const MEMORY_MIB: u32 = 512;

/// What the guests' NICs are like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nics {
    pub(crate) packed: bool,
    /// Whether they listen at their sockets, or the switch does.
    pub(crate) serve: bool,
}

impl Nics {
    pub(crate) fn nic(self, socket: &Path) -> VirtioUser {
        VirtioUser::new(socket).packed(self.packed).serves(self.serve)
    }
}

/// Two guests on one CPU.
pub(crate) struct Load {
    testpmd: Testpmd,
}

impl Load {
    /// Starts it. It may have to wait for the switch: see [`Load::run`].
    pub(crate) fn start(sockets: &[PathBuf; 2], nics: Nics) -> Result<Self> {
        let testpmd = Testpmd::guest()
            .virtio_user(nics.nic(&sockets[0]))
            .virtio_user(nics.nic(&sockets[1]))
            .eth_peer(0, &VirtioUser::default_mac(1))
            .eth_peer(1, &VirtioUser::default_mac(0))
            .memory(Memory::Huge(MEMORY_MIB))
            .cpu(LOAD_CPU)
            .start()?;
        Ok(Self { testpmd })
    }

    /// Waits until both NICs are connected.
    pub(crate) fn wait_ready(&self) -> Result<()> {
        self.testpmd.wait_ready()
    }

    /// Sets 256 frames going, 128 each way: enough for full bursts of 32, few enough for rings of 256.
    pub(crate) fn run(&self, frame_len: u16) -> Result<()> {
        self.testpmd.command(&format!("set txpkts {frame_len}"))?;
        self.testpmd.command("start tx_first 4")?;
        Ok(())
    }

    /// Frames a second that came back since this was last asked, both guests together.
    pub(crate) fn frames_per_second(&self) -> Result<f64> {
        let ports = self.testpmd.port_stats()?;
        ensure!(ports.len() == 2, "the load has {} ports", ports.len());
        Ok(ports.iter().map(|port| port.rx_pps as f64).sum())
    }

    /// Its process, to see how much of its CPU it had.
    pub(crate) fn process(&mut self) -> &mut Process {
        self.testpmd.process()
    }

    /// Ends it: how many frames it could not send since it ran.
    pub(crate) fn stop(self) -> Result<u64> {
        let dropped = self.testpmd.forward_stats().context("the load's counters")?.tx_dropped;
        self.testpmd.command("stop")?;
        self.testpmd.quit()?;
        Ok(dropped)
    }
}
