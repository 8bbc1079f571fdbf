//! A queue pair, the port of the data path: one transmitq and one receiveq, owned by one worker at a time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::features::Features;
use super::memory::GuestMemory;
use super::notifier::Eventfd;
use super::ring::{BURST, ChainList, Direction, Ring, RingFault, Unread, Used};
use crate::account::{Counter, DropCounters, DropReason, Service, Traffic};
use crate::policy::Limit;

/// What a pair counts. Outlives the pair: counts go on over a reconnect. Written by the pair's worker only.
#[derive(Debug, Default)]
pub struct PairCounters {
    /// Frames that the guest sent.
    pub received: Traffic,
    /// Frames that the guest was given.
    pub transmitted: Traffic,
    /// Frames that the guest sent and nobody got.
    pub receive_dropped: DropCounters,
    /// Frames for the guest that it did not get.
    pub transmit_dropped: DropCounters,
    /// What the guest's frames cost.
    pub service: Service,
    /// Times that the guest was interrupted.
    pub interrupts: Counter,
    /// Times that a burst was published and the guest was not interrupted: it wanted none, or has not listened to as many as its
    /// eventfd counts.
    pub interrupts_suppressed: Counter,
    /// By [`RingFault`], times that the guest broke that rule.
    faults: [Counter; RingFault::ALL.len()],
    fault: AtomicU8,
}

impl PairCounters {
    /// The rule that the guest broke, after which the pair stands still.
    #[must_use]
    pub fn fault(&self) -> Option<RingFault> {
        RingFault::from_code(self.fault.load(Ordering::Relaxed))
    }

    /// Times that the guest broke this rule.
    #[must_use]
    pub fn faults(&self, fault: RingFault) -> u64 {
        self.faults[fault as usize - 1].get()
    }

    pub(super) fn set_fault(&self, fault: Option<RingFault>) {
        self.fault.store(fault.map_or(0, |fault| fault as u8), Ordering::Relaxed);
    }
}

/// What an eventfd of a ring is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notifier {
    /// Interrupts the guest.
    Call,
    /// Tells the front end that the ring is broken.
    Error,
}

/// Which pair of which port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PairId {
    /// Number of the port.
    pub port: u16,
    /// Number of the pair in the port: its rings are `2 * index` and `2 * index + 1`.
    pub index: u16,
}

/// A queue pair in use.
#[derive(Debug)]
pub struct QueuePair {
    /// Who it is.
    pub id: PairId,
    /// The ring by which the guest sends, if it runs.
    pub transmitq: Option<Ring>,
    /// The ring by which the guest receives, if it runs.
    pub receiveq: Option<Ring>,
    /// What it counts.
    pub counters: Arc<PairCounters>,
    /// The memory that its rings and buffers are in.
    pub memory: Arc<GuestMemory>,
    /// What was negotiated.
    pub features: Features,
    /// The most bytes that a packet may have, behind Ethernet header and tags.
    pub mtu: u16,
    /// How much may go to it, if not all; the pairs of a port share it.
    pub limit_out: Option<Arc<Limit>>,
    /// The transmitq is disabled: what comes by it is thrown away.
    pub discards: bool,
    /// The eventfd by which the guest says that it made chains available on the transmitq.
    pub kick: Option<Arc<OwnedFd>>,
    /// The first frame on the transmitq was flooded to the ports before this one, as far as one visit may: it goes on here.
    pub flood_begun: Option<u16>,
    /// The worker's slot to which its last burst went; a guess at where the next one goes.
    pub last_receiver: u16,
    /// The guest is asked to kick, and its worker does not look at the transmitq until it does.
    pub is_armed: bool,
    /// Rings that published since their guest was last interrupted.
    pub owed: Owed,
}

/// By ring, whether an interrupt is owed.
#[derive(Debug, Default)]
pub struct Owed {
    /// Chains of the transmitq were given back.
    pub transmitq: bool,
    /// Chains of the receiveq were filled.
    pub receiveq: bool,
}

impl QueuePair {
    /// Bytes of the virtio-net header before each frame.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.features.header_len()
    }

    /// Asks not to be kicked: to be called when a worker takes it over.
    pub fn begin(&mut self) {
        for ring in [&mut self.transmitq, &mut self.receiveq].into_iter().flatten() {
            ring.set_kicks(false);
        }
    }

    /// Uses another eventfd for one of its rings from now on; the one before.
    pub fn set_notifier(&mut self, ring: Direction, notifier: Notifier, fd: Option<Eventfd>) -> Option<Eventfd> {
        let ring = match ring {
            Direction::Readable => &mut self.transmitq,
            Direction::Writable => &mut self.receiveq,
        };
        let Some(ring) = ring else { return fd };
        let before = match notifier {
            Notifier::Call => ring.set_call(fd),
            Notifier::Error => ring.set_error(fd),
        };
        if notifier == Notifier::Error && ring.fault().is_some() {
            ring.tell_error();
        }
        self.greet();
        before
    }

    /// Rings new eventfds for interrupts once, see [`Ring::greet`]. On the worker's thread.
    pub fn greet(&mut self) {
        [&mut self.transmitq, &mut self.receiveq].into_iter().flatten().for_each(Ring::greet);
        self.break_if_interrupt_blocks();
    }

    fn break_if_interrupt_blocks(&mut self) {
        let blocks = |ring: &Option<Ring>| ring.as_ref().and_then(Ring::fault) == Some(RingFault::InterruptBlocks);
        if blocks(&self.transmitq) || blocks(&self.receiveq) {
            self.break_pair(RingFault::InterruptBlocks);
        }
    }

    /// Takes what the guest has sent, up to a burst.
    #[inline]
    pub fn receive<'a, 'm>(
        &mut self,
        memory: &'m GuestMemory,
        want: usize,
        list: &'a mut ChainList<'m>,
    ) -> Unread<'a, 'm> {
        if let Some(ring) = &mut self.transmitq {
            ring.take(memory, want, list);
            if let Some(fault) = ring.fault() {
                self.break_pair(fault);
            }
        }
        Unread::new(list)
    }

    /// Takes a burst of what the guest has sent by a disabled transmitq, and throws it away. How many frames that were.
    #[cold]
    pub fn discard(&mut self, memory: &GuestMemory) -> usize {
        let mut list = ChainList::new();
        let list = self.receive(memory, BURST, &mut list).unseen();
        if list.chains.is_empty() {
            return 0;
        }
        let header_len = self.header_len() as u32;
        let bytes = list.chains.iter().map(|chain| u64::from(chain.len.saturating_sub(header_len))).sum();
        self.counters.received.add(list.chains.len() as u64, bytes);
        self.counters.receive_dropped.add(DropReason::QueueDisabled, list.chains.len() as u64);
        self.complete(list, list.chains.len());
        list.chains.len()
    }

    /// Gives back the first `taken` chains of the burst that [`QueuePair::receive`] took, and leaves the others in the ring,
    /// to be taken again.
    #[inline]
    pub fn complete(&mut self, list: &ChainList<'_>, taken: usize) {
        if let Some(ring) = &mut self.transmitq {
            if taken > 0 {
                let chains = list.chains.iter().take(taken);
                ring.publish(chains.map(|chain| Used { len: 0, id: chain.id, slots: chain.slots }));
                self.owed.transmitq = true;
            }
            if taken < list.chains.len() {
                ring.rewind();
            }
        }
    }

    /// Interrupts the guest for what was published since the last time, ring by ring, where it wants that. A full
    /// fence must lie in between; see [`Ring::interrupt`]. How many ticks it took to ring.
    #[inline]
    pub fn interrupt(&mut self) -> u64 {
        let owed = std::mem::take(&mut self.owed);
        let (mut fault, mut ticks) = (None, 0);
        for (ring, owed) in [(&mut self.transmitq, owed.transmitq), (&mut self.receiveq, owed.receiveq)] {
            if let (Some(ring), true) = (ring, owed) {
                let counters = &self.counters;
                if ring.interrupt(&mut ticks) { &counters.interrupts } else { &counters.interrupts_suppressed }.add(1);
                fault = fault.or(ring.fault());
            }
        }
        if let Some(fault) = fault {
            self.break_pair(fault);
        }
        ticks
    }

    /// A rule was broken in one of the rings: neither is used any more, and the front end is told.
    #[cold]
    pub fn break_pair(&mut self, fault: RingFault) {
        if self.is_broken() {
            return;
        }
        self.counters.set_fault(Some(fault));
        self.counters.faults[fault as usize - 1].add(1);
        for ring in [&mut self.transmitq, &mut self.receiveq].into_iter().flatten() {
            if ring.fault().is_some() {
                ring.tell_error();
            }
            ring.set_fault(RingFault::PairBroken);
        }
    }

    /// Whether it stands still because of a fault.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.counters.fault().is_some()
    }

    /// Whether the guest has sent what was not taken yet.
    #[inline]
    #[must_use]
    pub fn has_available(&self) -> bool {
        self.transmitq.as_ref().is_some_and(Ring::has_available)
    }

    /// Whether frames may come from it.
    #[must_use]
    pub fn can_receive(&self) -> bool {
        self.transmitq.is_some() && !self.is_broken()
    }

    /// Asks to be kicked; `true` if there is something to take already, so that nobody may sleep.
    pub fn arm(&mut self) -> bool {
        let Some(ring) = self.transmitq.as_mut().filter(|ring| ring.fault().is_none()) else { return false };
        ring.set_kicks(true);
        ring.has_available()
    }

    /// Asks not to be kicked.
    pub fn disarm(&mut self) {
        if let Some(ring) = &mut self.transmitq {
            ring.set_kicks(false);
        }
    }

    /// The eventfd to sleep on.
    #[must_use]
    pub fn kick(&self) -> Option<BorrowedFd<'_>> {
        self.kick.as_ref().map(AsFd::as_fd)
    }
}
