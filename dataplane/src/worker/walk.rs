//! The walk of a burst, stage by stage, each stage over the whole burst: take, read heads, look up, decide what was not
//! found, deliver by output, give back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use arrayvec::ArrayVec;

use super::counters::WorkerCounters;
use super::exit::{Exit, group};
use super::hand_off::HEADER_LEN;
use super::heads::{Scratch, VirtioNet, first};
use super::judge::{Judged, Source};
use super::links::Links;
use super::lookup::Lookup;
use super::poll::SLOTS;
use super::steering::note_sent;
use super::topology::Topology;
use super::turns::Visit;
use super::uplink::{Nics, deliver_to_nic, nic_at};
use crate::account::Service;
use crate::flow::{FlowTable, MacTable};
use crate::guest::memory::GuestMemory;
use crate::guest::ring::{BURST, ChainList};
use crate::guest::{Frames, QueuePair};

/// A slot of a worker: the pair that it owns and the memory that the pair's buffers are in.
pub(super) type Pairs = Vec<Option<Box<QueuePair>>>;
/// See [`Pairs`]; apart from them, since a burst borrows its sender's memory while its receivers change.
pub(super) type Memories = Vec<Option<Arc<GuestMemory>>>;

/// What a worker walks with.
pub(super) struct Walker {
    pub(super) number: u16,
    pub(super) pairs: Pairs,
    pub(super) memories: Memories,
    pub(super) nics: Nics,
    pub(super) scratch: Box<Scratch>,
    pub(super) flows: FlowTable,
    pub(super) macs: Arc<MacTable>,
    pub(super) topology: Arc<Topology>,
    /// Topologies that there have been.
    pub(super) topologies: u32,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) links: Links,
    /// Slots whose guests are owed an interrupt.
    pub(super) owed: ArrayVec<u16, OWED_MAX>,
    /// Coarse time, in ticks of a second; for ages.
    pub(super) now: u32,
    /// Beats of control's clock.
    pub(super) beats: Arc<AtomicU32>,
    /// The slot whose pair or NIC queue is under way to this worker.
    pub(super) expected: Option<u16>,
    /// By slot of a pair, when its guest was last found to have sent something.
    pub(super) worked: Box<[u64; SLOTS]>,
    /// When this iteration of the loop began.
    pub(super) moment: u64,
}

/// Guests that may be owed an interrupt before somebody must see to it.
pub(super) const OWED_MAX: usize = 64;

/// Notes that the guest of `slot` is owed an interrupt.
#[inline(always)]
pub(super) fn owe(owed: &mut ArrayVec<u16, OWED_MAX>, pairs: &mut Pairs, slot: usize) {
    if owed.is_full() {
        pay(owed, pairs);
    }
    owed.push(slot as u16);
}

/// Interrupts the guests that are owed it: one fence for all. How many ticks it took to ring.
///
/// It is put off until the next burst's descriptors were read, when the stores of the last one have reached the guest's
/// core by themselves; right after them, the fence would wait for each.
#[inline(always)]
fn pay(owed: &mut ArrayVec<u16, OWED_MAX>, pairs: &mut Pairs) -> u64 {
    fence(Ordering::SeqCst);
    let mut ticks = 0;
    for slot in owed.drain(..) {
        if let Some(Some(pair)) = pairs.get_mut(usize::from(slot)) {
            ticks += pair.interrupt();
        }
    }
    ticks
}

/// As [`pay`], if any are.
#[inline(always)]
pub(super) fn pay_if_owed(owed: &mut ArrayVec<u16, OWED_MAX>, pairs: &mut Pairs) -> u64 {
    if owed.is_empty() { 0 } else { pay(owed, pairs) }
}

impl Walker {
    /// Takes a burst from the guest of `slot` and sends every frame on its way.
    pub(super) fn walk(&mut self, slot: usize) -> Visit {
        let Self {
            pairs,
            memories,
            nics,
            scratch,
            flows,
            macs,
            topology,
            topologies,
            counters,
            links,
            owed,
            now,
            number,
            expected,
            beats,
            ..
        } = self;
        let (Some(Some(pair)), Some(Some(memory))) = (pairs.get_mut(slot), memories.get(slot)) else {
            return Visit::default();
        };
        let mut list = ChainList::new();
        // Of a frame that is being flooded, each visit takes a part.
        let begun = pair.flood_begun;
        let unread = pair.receive(memory, if begun.is_some() { 1 } else { BURST }, &mut list);
        if unread.is_empty() {
            return Visit::default();
        }
        let (port, queue, header_len, mtu) = (pair.id.port, pair.id.index, pair.header_len(), pair.mtu);
        // Most bursts go where the last one went: have its buffers on their way to this core while the frames are judged.
        let likely = usize::from(pair.last_receiver);
        let mut room = ChainList::new();
        if let (Some(Some(pair)), Some(Some(memory))) = (pairs.get_mut(likely), memories.get(likely)) {
            pair.reserve(memory, unread.len(), &mut room);
        }
        let overdue = pay_if_owed(owed, pairs);
        let Some(Some(pair)) = pairs.get_mut(slot) else { return Visit::default() };
        let source = Source {
            front: VirtioNet(header_len),
            limits: (pair.features.may_ask(), mtu),
            begun,
            received: &pair.counters.received,
            dropped: &pair.counters.receive_dropped,
            service: &pair.counters.service,
        };
        let lookup = Lookup { port, now: *now, topology, topologies: *topologies, macs, counters };
        let Judged { list, read, forward, flood, has_vlans } = scratch.decide(unread, &source, &lookup, flows);
        let taken = read.taken;

        let Scratch { heads, lens, outputs, offloads, vlans, retagged, spread, .. } = &mut **scratch;
        spread.begin();
        let input = topology.ports.get(usize::from(port));
        if let Some(steering) = input.and_then(|input| input.steering.as_ref()) {
            note_sent(steering, queue, (*number, pairs, beats), spread, (heads, lens), forward);
        }
        let (asking, longest) = (read.asking, read.longest);
        let frames = Frames { heads, lens, longest, list, header_len, asking, offloads, growths: None };
        let mut exit = Exit {
            worker: *number,
            expected: *expected,
            beats,
            slot,
            port,
            pairs,
            memories,
            nics,
            topology,
            counters,
            links,
            owed,
            frames,
            vlans: has_vlans.then_some(&*vlans),
            retagged: Some(retagged),
            likely,
            room: &mut room,
            last: likely,
            path: &counters.guest_to_guest,
            moves: None,
            flooded: flood,
            spread,
        };
        let mut goes_on = None;
        if flood == 0 {
            exit.forward(forward, outputs);
        } else {
            goes_on = exit.flood(forward, flood, outputs, begun);
        }

        let last = exit.last as u16;
        if let Some(Some(pair)) = pairs.get_mut(likely) {
            pair.unreserve();
        }

        // Only now: the receivers' copies came straight from these buffers.
        if let Some(Some(pair)) = pairs.get_mut(slot) {
            pair.complete(list, if goes_on.is_some() { 0 } else { taken });
            pair.flood_begun = goes_on;
            pair.last_receiver = last;
        }
        owe(owed, pairs, slot);
        let more = taken < list.chains.len() || taken == BURST || begun.is_some() || goes_on.is_some();
        Visit { frames: taken, more, overdue }
    }

    /// Throws away a burst that the guest of `slot` sent by a disabled transmitq; how many frames.
    #[inline]
    pub(super) fn discard(&mut self, slot: usize) -> usize {
        let Self { pairs, memories, owed, .. } = self;
        let (Some(Some(pair)), Some(Some(memory))) = (pairs.get_mut(slot), memories.get(slot)) else { return 0 };
        let frames = pair.discard(memory);
        if frames > 0 {
            owe(owed, pairs, slot);
        }
        frames
    }

    /// What the queue in `slot` has cost.
    #[inline]
    pub(super) fn service(&mut self, slot: usize) -> Option<&Service> {
        match self.pairs.get(slot) {
            Some(pair) => pair.as_ref().map(|pair| &pair.counters.service),
            None => nic_at(&mut self.nics, slot).map(|queue| &queue.counters.service),
        }
    }

    /// Interrupts the guests that are still owed it.
    #[inline]
    pub(super) fn pay_all(&mut self) {
        pay_if_owed(&mut self.owed, &mut self.pairs);
    }

    /// Whether a burst, wherever it goes, finds room on the way to a worker.
    pub(super) fn has_room_to(&self, worker: u16) -> bool {
        let link = self.links.to.get(usize::from(worker)).and_then(Option::as_ref);
        link.is_some_and(|(link, _)| link.room() >= BURST)
    }

    /// Whether frames of other workers wait.
    pub(super) fn has_handed(&self) -> bool {
        self.links.from.iter().any(|(_, from)| !from.is_empty())
    }

    /// Delivers a burst of what each other worker has handed over; how many frames there were.
    #[inline]
    pub(super) fn take_handed(&mut self) -> usize {
        let Self { pairs, memories, nics, scratch, counters, links, owed, expected, .. } = self;
        let mut taken = 0;
        for (_, from) in links.from.iter().filter(|(_, from)| !from.is_empty()) {
            let mut list = ChainList::new();
            let unread = from.take(from.memory(), &mut list, &mut scratch.outputs);
            pay_if_owed(owed, pairs); // no burst of our own guests may come to do it
            let (asking, longest, mut count, list) = scratch.read_handed(unread);
            if let Some(slot) = *expected {
                count = before(slot, count, &scratch.outputs);
            }
            let Scratch { heads, lens, outputs, offloads, .. } = &**scratch;
            let frames = Frames { heads, lens, longest, list, header_len: HEADER_LEN, asking, offloads, growths: None };
            let mut pending = first(count);
            while pending != 0 {
                let slot = outputs[pending.trailing_zeros() as usize % BURST];
                let group = group(pending, outputs, slot);
                pending &= !group;
                // A pair leaves its slot only after what was handed over for it was delivered, and so does a NIC queue.
                let slot = usize::from(slot);
                let delivered = match (pairs.get_mut(slot), memories.get(slot)) {
                    (Some(Some(pair)), Some(Some(memory))) => {
                        let delivered = pair.deliver(memory, frames, group, &mut ChainList::new());
                        owe(owed, pairs, slot);
                        Some(delivered)
                    }
                    _ => nic_at(nics, slot).map(|queue| deliver_to_nic(queue, frames, group)),
                };
                if let Some(delivered) = delivered {
                    counters.hand_off.forwarded_bytes.add(delivered.bytes);
                    counters.hand_off.copied_bytes.add(delivered.copied);
                    if delivered.generated != 0 {
                        counters.generated.add(delivered.generated);
                    }
                }
            }
            from.release(count);
            taken += count;
        }
        taken
    }
}

/// Of `count` frames that are handed over, those before the first for `slot`, whose pair is under way.
#[cold]
fn before(slot: u16, count: usize, slots: &[u16; BURST]) -> usize {
    slots.iter().take(count).position(|&of| of == slot).unwrap_or(count)
}
