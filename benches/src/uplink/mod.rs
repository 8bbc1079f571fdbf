//! A switch between a NIC and a guest: what the benches `nic` and `offload` measure.
//!
//! The NIC is DPDK's `net_pcap` in the process of the switch: the same driver in each of them, which copies frames of a file that it
//! has read before into fresh mbufs, and frees what it is given to send. What it costs is in the figure of each.

pub(crate) mod frames;
mod ovs;
mod ringway;
mod testpmd;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use ringway_testbed::{Process, Testpmd, wait_for};

use crate::switch::Backend;

/// What a switch is to be plugged into.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plugs<'a> {
    /// The NIC, as DPDK names it.
    pub(crate) device: &'a str,
    /// Where the guest listens.
    pub(crate) socket: &'a Path,
    /// Guests may leave checksums and segments to the switch, whose NIC does neither.
    pub(crate) offloads: bool,
    /// The rate of the time stamp counter.
    pub(crate) tsc_hz: f64,
}

/// What a switch counted while it was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Totals {
    /// Cycles of what found something to do.
    pub(crate) busy_cycles: f64,
    /// Frames that the NIC gave it.
    pub(crate) from_nic: f64,
    /// Frames that it gave the NIC.
    pub(crate) to_nic: f64,
    /// Frames that the guest gave it.
    pub(crate) sent_by_guest: f64,
}

/// A running switch with a NIC and a guest. It ends when it is dropped.
pub(crate) trait Uplinked {
    /// The guest is connected: whatever is left to do before frames flow.
    fn guest_is_ready(&mut self) -> Result<()> {
        Ok(())
    }
    /// The process that polls, to see how much of its CPU it had.
    fn process(&mut self) -> &mut Process;
    /// The measurement begins.
    fn begin(&mut self) -> Result<()>;
    /// The measurement ends.
    fn end(&mut self) -> Result<Totals>;
}

/// Huge pages beside those that switch and load ask for, in MiB: DPDK takes a few more.
pub(crate) const SPARE_MIB: u32 = 64;

/// From the start of a guest until it listens at its socket.
const LISTENING: Duration = Duration::from_secs(30);

/// Waits until a guest listens at its socket. By then it has its memory: two at a time would look at the same free pages.
pub(crate) fn wait_listens(guest: &mut Testpmd, socket: &Path) -> Result<()> {
    let listens = || socket.exists().then_some(());
    wait_for("a socket", LISTENING, listens).map_err(|_| guest.process().failure("does not listen"))
}

/// Those that can be plugged into a NIC.
pub(crate) const BACKENDS: [Backend; 3] = [Backend::Testpmd, Backend::Ovs, Backend::Ringway];

/// Starts one of [`BACKENDS`], whose guest listens already.
pub(crate) fn start(backend: Backend, plugs: Plugs<'_>) -> Result<Box<dyn Uplinked>> {
    Ok(match backend {
        Backend::Testpmd => Box::new(testpmd::start(plugs)?),
        Backend::Ovs => Box::new(ovs::start(plugs)?),
        Backend::Ringway => Box::new(ringway::start(plugs)?),
        Backend::Lawful | Backend::OtherFloor => anyhow::bail!("{} has no NIC", backend.name()),
    })
}

impl Totals {
    /// Since `begun`.
    fn since(self, begun: Self) -> Self {
        Self {
            busy_cycles: self.busy_cycles - begun.busy_cycles,
            from_nic: self.from_nic - begun.from_nic,
            to_nic: self.to_nic - begun.to_nic,
            sent_by_guest: self.sent_by_guest - begun.sent_by_guest,
        }
    }
}
