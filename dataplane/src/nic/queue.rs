//! The queues of a NIC: unique values that move into the worker that polls them. Each call of DPDK is for a burst.
#![expect(unsafe_code, reason = "DPDK's burst functions")]

use std::sync::Arc;

use dpdk_sys::{rte_eth_rx_burst, rte_eth_tx_burst, rte_eth_tx_prepare};

use super::BURST;
use super::double::Wire;
use super::eal::register_thread;
use super::mbuf::{Mbuf, Mbufs};
use super::mempool::Pool;
use super::offload::TxFlags;
use super::port::{Link, QueueCounters};
use crate::packet::Abilities;
use crate::policy::Limit;

/// Mbufs of one frame: 64 KiB in buffers of 2 KiB, and some.
pub const SEGMENTS_MAX: usize = 40;

/// Empty mbufs that wait to be filled.
const SPARE: usize = 64;

/// Which queue of which port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueId {
    /// Number of the port.
    pub port: u16,
    /// Number of the queue in the port.
    pub index: u16,
}

/// What a worker has of a NIC.
#[derive(Debug)]
pub struct Queue {
    /// Which one.
    pub id: QueueId,
    /// By which frames come, if this worker has one.
    pub rx: Option<RxQueue>,
    /// By which frames go, likewise.
    pub tx: Option<TxQueue>,
    /// What it counts.
    pub counters: Arc<QueueCounters>,
    /// Whether the cable is in.
    pub link: Arc<Link>,
    /// The most bytes that a packet may have, behind Ethernet header and tags.
    pub mtu: u16,
    /// How much may go to it, if not all; the queues of a port share it.
    pub limit_out: Option<Arc<Limit>>,
}

impl Queue {
    /// Makes the calling thread one that may use it, until it ends. Any thread may use a double.
    ///
    /// # Errors
    /// When DPDK has no place for one more thread.
    pub fn register_thread(&self) -> Result<(), String> {
        if self.is_double() { Ok(()) } else { register_thread() }
    }

    /// Whether no DPDK is behind it.
    #[must_use]
    pub fn is_double(&self) -> bool {
        self.rx.as_ref().is_some_and(RxQueue::is_double) || self.tx.as_ref().is_some_and(TxQueue::is_double)
    }
}

/// Who is at the other end.
#[derive(Debug)]
enum Driver {
    /// Port and queue of an ethdev that runs; [`super::device`] stops it only when it has its queues back.
    Ethdev(u16, u16),
    Double(Arc<Wire>),
}

/// An RX queue.
#[derive(Debug)]
pub struct RxQueue {
    driver: Driver,
    /// Received, and not yet taken.
    pub held: Mbufs<BURST>,
    /// The first held frame was flooded to the ports before this one, as far as one visit may: it goes on here.
    pub flood_begun: Option<u16>,
}

impl RxQueue {
    pub(super) fn ethdev(port: u16, queue: u16) -> Self {
        Self { driver: Driver::Ethdev(port, queue), held: Mbufs::new(), flood_begun: None }
    }

    pub(super) fn double(wire: Arc<Wire>) -> Self {
        Self { driver: Driver::Double(wire), held: Mbufs::new(), flood_begun: None }
    }

    fn is_double(&self) -> bool {
        matches!(self.driver, Driver::Double(_))
    }

    /// Receives a burst into `held`, unless something is still held.
    #[inline]
    pub fn receive(&mut self) {
        if !self.held.is_empty() {
            return;
        }
        match &self.driver {
            // SAFETY: the queue is ours and its port runs; as many mbufs as it says are ours then.
            &Driver::Ethdev(port, queue) => unsafe {
                self.held.extend(BURST, |room, want| rte_eth_rx_burst(port, queue, room, want as u16).into());
            },
            Driver::Double(wire) => wire.receive(&mut self.held),
        }
    }
}

/// What became of frames that were to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames for which the NIC had no room.
    pub full: u64,
    /// Frames that its driver refused.
    pub refused: u64,
    /// Bytes of both.
    pub bytes: u64,
}

/// A TX queue.
#[derive(Debug)]
pub struct TxQueue {
    driver: Driver,
    pool: Pool,
    /// What the NIC does by itself.
    pub can: Abilities,
    /// Mbufs that a frame may have.
    pub segments_max: usize,
    /// Bytes that an mbuf holds.
    pub room: u32,
    /// It wants the checksum of IPv4's header in what it cuts.
    is_virtio: bool,
    /// Some frame of `ready` asks for something.
    asks: bool,
    spare: Mbufs<SPARE>,
    ready: Mbufs<BURST>,
    /// What was not sent since it was last asked.
    unsent: Sent,
}

impl TxQueue {
    pub(super) fn ethdev(
        port: u16,
        queue: u16,
        pool: Pool,
        can: Abilities,
        segments_max: usize,
        is_virtio: bool,
    ) -> Self {
        Self { is_virtio, ..Self::new(Driver::Ethdev(port, queue), pool, can, segments_max) }
    }

    pub(super) fn double(wire: Arc<Wire>, can: Abilities) -> Self {
        Self::new(Driver::Double(wire.clone()), Pool::Double(wire), can, SEGMENTS_MAX)
    }

    fn new(driver: Driver, pool: Pool, can: Abilities, segments_max: usize) -> Self {
        let (room, segments_max) = (pool.room(), segments_max.min(SEGMENTS_MAX));
        let (spare, ready) = (Mbufs::new(), Mbufs::new());
        let (is_virtio, asks, unsent) = (false, false, Sent::default());
        Self { driver, pool, can, segments_max, room, is_virtio, asks, spare, ready, unsent }
    }

    fn is_double(&self) -> bool {
        matches!(self.driver, Driver::Double(_))
    }

    /// Has `count` empty mbufs at hand, the last ones of what it gives; `None` if the pool has none left.
    #[inline]
    pub fn spare(&mut self, count: usize) -> Option<&Mbufs<SPARE>> {
        if let Some(missing) = count.checked_sub(self.spare.len()).filter(|&missing| missing > 0)
            && !self.pool.alloc(missing, &mut self.spare)
        {
            return None;
        }
        Some(&self.spare)
    }

    /// The last `count` spare mbufs were filled with a frame of `len` bytes: it is to be sent.
    #[inline]
    pub fn fill(&mut self, count: usize, len: u32, flags: TxFlags) {
        let flags = self.askable(flags);
        if let Some(frame) = self.spare.chain_last(count, len, flags) {
            self.push(frame, flags);
        }
    }

    /// A frame that is to be sent as it is, asking for `flags`.
    #[inline]
    pub fn forward(&mut self, mut frame: Mbuf, flags: TxFlags) {
        let flags = self.askable(flags);
        frame.set_flags(flags);
        self.push(frame, flags);
    }

    #[inline]
    fn askable(&self, flags: TxFlags) -> TxFlags {
        if self.is_virtio { flags.without_header_checksum() } else { flags }
    }

    #[inline]
    fn push(&mut self, frame: Mbuf, flags: TxFlags) {
        if self.ready.is_full() {
            self.flush();
        }
        self.asks |= flags != TxFlags::NONE;
        self.ready.push(frame);
    }

    /// Sends what is to be sent; what became of all since the last time.
    #[inline]
    pub fn send(&mut self) -> Sent {
        self.flush();
        std::mem::take(&mut self.unsent)
    }

    fn flush(&mut self) {
        let asks = std::mem::take(&mut self.asks);
        while !self.ready.is_empty() {
            let count = match &self.driver {
                &Driver::Ethdev(port, queue) => self.send_to_ethdev(port, queue, asks),
                Driver::Double(wire) => wire.send(&mut self.ready),
            };
            if count == 0 && !self.ready.is_empty() {
                self.unsent.full += self.ready.len() as u64;
                self.unsent.bytes += self.ready.bytes();
                self.ready.free_first(BURST);
            }
        }
    }

    /// How many were sent, or refused for what they ask.
    fn send_to_ethdev(&mut self, port: u16, queue: u16, asks: bool) -> usize {
        let mbufs = self.ready.pointers();
        let mut count = mbufs.len() as u16;
        if asks {
            // SAFETY: the queue is ours, its port runs, and so many mbufs are ours.
            let prepared = unsafe { rte_eth_tx_prepare(port, queue, mbufs.as_mut_ptr(), count) };
            if prepared == 0 {
                let mut refused = Mbufs::<1>::new();
                self.ready.take(0).into_iter().for_each(|mbuf| refused.push(mbuf));
                self.unsent.refused += 1;
                self.unsent.bytes += refused.bytes();
                self.ready.forget_first(1);
                return 1;
            }
            count = prepared;
        }
        // SAFETY: as above; the driver owns from then on as many as it says.
        let sent = unsafe { rte_eth_tx_burst(port, queue, mbufs.as_mut_ptr(), count) };
        self.ready.forget_first(sent.into());
        sent.into()
    }
}
