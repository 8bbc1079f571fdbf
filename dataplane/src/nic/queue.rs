//! The queues of a NIC: unique values that move into the worker that polls them. Each call of DPDK is for a burst.
#![expect(unsafe_code, reason = "DPDK's burst functions")]

use std::mem::MaybeUninit;
use std::sync::Arc;

use dpdk_sys::{rte_eth_rx_burst, rte_eth_tx_burst, rte_eth_tx_prepare};

use super::BURST;
use super::bonded::Bonded;
use super::double::Wire;
use super::eal::register_thread;
use super::mbuf::{Mbuf, Mbufs};
use super::mempool::Pool;
use super::offload::TxFlags;
use super::port::{Link, QueueCounters};
use crate::account::DropReason;
use crate::cpu::timestamp;
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
    /// What its port is a queue of, if of a bond.
    pub(super) bond: Option<Bonded>,
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
    /// To be done at each visit, before frames are taken.
    #[inline]
    pub fn serve(&self) {
        if let Some(bond) = &self.bond {
            let (frames, bytes) = bond.serve();
            if frames != 0 {
                self.counters.received.add(frames, bytes);
                self.counters.receive_dropped.add(DropReason::BondStandby, frames);
            }
        }
    }

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
    /// Without a word about a checksum, it means that it is left to be done: so virtio says it, and others say it of what has
    /// none.
    pub is_virtio: bool,
    /// Received, and not yet taken.
    pub held: Mbufs<BURST>,
    /// The first held frame was flooded to the ports before this one, as far as one visit may: it goes on here.
    pub flood_begun: Option<u16>,
    /// The slot that the last burst went to, most likely the next one's, too.
    pub last_receiver: u16,
}

impl RxQueue {
    pub(super) fn ethdev(port: u16, queue: u16, is_virtio: bool) -> Self {
        Self::new(Driver::Ethdev(port, queue), is_virtio)
    }

    pub(super) fn double(wire: Arc<Wire>) -> Self {
        Self::new(Driver::Double(wire), true)
    }

    fn new(driver: Driver, is_virtio: bool) -> Self {
        Self { driver, is_virtio, held: Mbufs::new(), flood_begun: None, last_receiver: u16::MAX }
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

/// What is to be known of a driver where frames move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DriverKind {
    /// Of virtio: says and wants some things in its own way.
    Virtio,
    /// Sends by calls of the kernel, which may wait.
    Kernel,
    /// Any other.
    Other,
}

impl DriverKind {
    /// Of a device's driver, or of all members' drivers of a bond: what one of them does, the bond does.
    pub(super) fn of(drivers: &[String]) -> Self {
        let is_kernel = |name: &String| matches!(&**name, "net_af_packet" | "net_af_xdp" | "net_tap");
        if drivers.iter().any(is_kernel) {
            Self::Kernel
        } else if drivers.iter().all(|name| name.starts_with("net_virtio")) {
            Self::Virtio
        } else {
            Self::Other
        }
    }
}

/// With a driver that calls the kernel. It may wait there until the interface has sent something, and its worker, with all other
/// ports, waits with it. So after a call in which it did the driver is left alone for many times as long, and what goes to it is
/// dropped: the others lose one part in [`Patience::REST`] of their time to it. That others had the CPU meanwhile is not its doing.
#[derive(Debug, Default)]
struct Patience {
    /// Not before this, in ticks of the time-stamp counter.
    not_before: u64,
}

/// A moment before or after a call of such a driver.
#[derive(Clone, Copy, Debug)]
struct Moment {
    ticks: u64,
    /// How often the thread has given its CPU away by itself.
    waits: i64,
}

impl Moment {
    fn now() -> Self {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: it writes one `rusage`, of which zeros are one, too.
        let usage = unsafe {
            libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
            usage.assume_init()
        };
        Self { ticks: timestamp(), waits: usage.ru_nvcsw }
    }
}

impl Patience {
    /// Ticks of a call that nobody minds: some 100 µs.
    const FAIR: u64 = 250_000;
    /// Rests for so many times as long.
    const REST: u64 = 20;

    fn may_call(&self, now: u64) -> bool {
        now >= self.not_before
    }

    fn called(&mut self, begun: Moment, ended: Moment) {
        let spent = ended.ticks.saturating_sub(begun.ticks);
        if spent > Self::FAIR && ended.waits != begun.waits {
            self.not_before = ended.ticks.saturating_add(spent.saturating_mul(Self::REST));
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
    /// Of a driver that calls the kernel.
    patience: Option<Patience>,
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
        kind: DriverKind,
    ) -> Self {
        let patience = (kind == DriverKind::Kernel).then(Patience::default);
        let is_virtio = kind == DriverKind::Virtio;
        Self { is_virtio, patience, ..Self::new(Driver::Ethdev(port, queue), pool, can, segments_max) }
    }

    pub(super) fn double(wire: Arc<Wire>, can: Abilities) -> Self {
        Self::new(Driver::Double(wire.clone()), Pool::Double(wire), can, SEGMENTS_MAX)
    }

    fn new(driver: Driver, pool: Pool, can: Abilities, segments_max: usize) -> Self {
        let (room, segments_max) = (pool.room(), segments_max.min(SEGMENTS_MAX));
        let (spare, ready) = (Mbufs::new(), Mbufs::new());
        let (is_virtio, patience, asks, unsent) = (false, None, false, Sent::default());
        Self { driver, pool, can, segments_max, room, is_virtio, patience, asks, spare, ready, unsent }
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

    /// The last spare mbuf was filled with a frame of `len` bytes that asks for nothing: it is to be sent.
    #[inline]
    pub fn fill_plain(&mut self, len: u32) {
        if self.ready.is_full() {
            self.flush();
        }
        self.spare.move_last(len, &mut self.ready);
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
        // Taken out because nothing was sent while it was the first.
        let mut suspect = Mbufs::<1>::new();
        while !self.ready.is_empty() {
            let count = match &self.driver {
                &Driver::Ethdev(port, queue) => self.send_to_ethdev(port, queue, asks),
                Driver::Double(wire) => wire.send(&mut self.ready),
            };
            if count > 0 {
                if !suspect.is_empty() {
                    self.unsent.refused += 1;
                    self.unsent.bytes += suspect.bytes();
                    suspect.free_first(1);
                }
                continue;
            }
            // Some drivers say of a frame that they cannot take what others say of a full queue. Then the one behind it is taken.
            if asks && suspect.is_empty() && self.ready.len() > 1 {
                self.ready.take(0).into_iter().for_each(|mbuf| suspect.push(mbuf));
                self.ready.forget_first(1);
                continue;
            }
            self.unsent.full += (self.ready.len() + suspect.len()) as u64;
            self.unsent.bytes += self.ready.bytes() + suspect.bytes();
            self.ready.free_first(BURST);
            suspect.free_first(1);
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
        let begun = self.patience.as_ref().map(|_| Moment::now());
        if let (Some(patience), Some(begun)) = (&self.patience, begun)
            && !patience.may_call(begun.ticks)
        {
            return 0;
        }
        // SAFETY: as above; the driver owns from then on as many as it says.
        let sent = unsafe { rte_eth_tx_burst(port, queue, mbufs.as_mut_ptr(), count) };
        self.ready.forget_first(sent.into());
        if let (Some(patience), Some(begun)) = (&mut self.patience, begun) {
            patience.called(begun, Moment::now());
        }
        sent.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_waits_is_left_alone() {
        let mut patience = Patience::default();
        let at = |ticks, waits| Moment { ticks, waits };
        assert!(patience.may_call(0));
        patience.called(at(1000, 5), at(1000 + Patience::FAIR, 6));
        assert!(patience.may_call(1000 + Patience::FAIR));
        patience.called(at(1_000_000, 6), at(3_000_000, 6));
        assert!(patience.may_call(3_000_000), "others had the CPU");
        patience.called(at(1_000_000, 6), at(3_000_000, 7));
        assert!(!patience.may_call(42_999_999));
        assert!(patience.may_call(43_000_000));
        // Another core's counter may be a little behind.
        patience.called(at(50_000_000, 7), at(49_999_999, 8));
        assert!(patience.may_call(50_000_000));
    }

    #[test]
    fn waiting_shows() {
        let before = Moment::now();
        std::thread::sleep(std::time::Duration::from_millis(1));
        let after = Moment::now();
        assert!(after.waits > before.waits && after.ticks > before.ticks);
    }
}
