//! What a worker does for a bond whenever it looks at a queue of it, beside receiving and sending.
#![expect(unsafe_code, reason = "DPDK's burst functions")]

use dpdk_sys::{rte_eth_bond_primary_get, rte_eth_rx_burst, rte_eth_tx_burst};
use ringway_config::BondMode;

use super::BURST;
use super::mbuf::Mbufs;

/// A queue of a bond, and of each of its members.
#[derive(Debug)]
pub(super) struct Bonded {
    mode: BondMode,
    bond: u16,
    queue: u16,
    members: Box<[u16]>,
}

impl Bonded {
    pub(super) fn new(mode: BondMode, bond: u16, queue: u16, members: Box<[u16]>) -> Self {
        Self { mode, bond, queue, members }
    }

    /// Frames that came by members that stand by, and their bytes: they are thrown away. The other end floods to all its ports,
    /// our own frames among that. Left in the queue, they would be taken for news when the member takes over.
    ///
    /// With LACP, its frames are sent, which net_bonding only does in a burst of ours, be it empty.
    #[inline]
    pub(super) fn serve(&self) -> (u64, u64) {
        match self.mode {
            BondMode::Lacp => {
                // SAFETY: the queue is ours and its port runs; no mbuf is given.
                unsafe { rte_eth_tx_burst(self.bond, self.queue, [].as_mut_ptr(), 0) };
                (0, 0)
            }
            BondMode::ActiveBackup => self.drain(),
        }
    }

    fn drain(&self) -> (u64, u64) {
        // SAFETY: the bond is there as long as its queues are.
        let active = unsafe { rte_eth_bond_primary_get(self.bond) };
        let (mut frames, mut bytes) = (0, 0);
        for &member in self.members.iter().filter(|&&member| i32::from(member) != active) {
            let mut came = Mbufs::<BURST>::new();
            // SAFETY: a bond's queue is its members' queue of the same number, hence ours; as many mbufs as said are ours then.
            unsafe { came.extend(BURST, |room, want| rte_eth_rx_burst(member, self.queue, room, want as u16).into()) };
            frames += came.len() as u64;
            bytes += came.bytes();
        }
        (frames, bytes)
    }
}
