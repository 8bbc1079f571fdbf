//! The walk of a burst, stage by stage, each stage over the whole burst: take, read heads, look up, decide what was not
//! found, deliver by output, give back.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use arrayvec::ArrayVec;

use super::command::Mailbox;
use super::counters::WorkerCounters;
use super::hand_off::{HEADER_LEN, HandOffReceiver, HandOffSender};
use super::topology::{Location, Topology};
use crate::account::{DropCounters, DropReason};
use crate::flow::{Action, Candidates, FlowKey, FlowTable, FlowView, MacRef, MacTable, Stamp, Verdict};
use crate::guest::memory::GuestMemory;
use crate::guest::ring::{BURST, ChainList};
use crate::guest::{FRAME_LEN_MAX, FrameHead, Frames, QueuePair, set_bits};
use crate::packet::{Abilities, ETHERNET_HEADER_LEN, EthernetHeader, Offload, packet_len, spread_hash};

/// Bytes that the frames of one visit may have, counted once for each receiver; a single frame may always pass. What is
/// over stays with its sender until the next visit. A burst of 32 frames of 64 KiB would keep the worker from everybody
/// else for a quarter of a millisecond, and flooded to a hundred ports for a hundred times as long.
const VISIT_BYTES_MAX: u64 = 256 * 1024;

/// What a segment costs beside its payload, in bytes that could be copied instead.
const SEGMENT_COST: u64 = 256;

/// A slot of a worker: the pair that it owns and the memory that the pair's buffers are in.
pub(super) type Pairs = Vec<Option<Box<QueuePair>>>;
/// See [`Pairs`]; apart from them, since a burst borrows its sender's memory while its receivers change.
pub(super) type Memories = Vec<Option<Arc<GuestMemory>>>;

/// What the walk leaves between its stages; reused, so that nothing is allocated.
pub(super) struct Scratch {
    heads: [FrameHead; BURST],
    lens: [u32; BURST],
    keys: [FlowKey; BURST],
    hashes: [u64; BURST],
    candidates: [Candidates; BURST],
    /// Number of the output port of a frame that is forwarded.
    outputs: [u16; BURST],
    /// What is asked for a frame.
    offloads: [Offload; BURST],
    /// Why a frame goes nowhere.
    reasons: [DropReason; BURST],
}

impl Scratch {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            heads: [FrameHead::EMPTY; BURST],
            lens: [0; BURST],
            keys: [FlowKey::default(); BURST],
            hashes: [0; BURST],
            candidates: [Candidates::default(); BURST],
            outputs: [0; BURST],
            offloads: [Offload::NONE; BURST],
            reasons: [DropReason::Runt; BURST],
        })
    }
}

/// What a worker walks with.
pub(super) struct Walker {
    pub(super) number: u16,
    pub(super) pairs: Pairs,
    pub(super) memories: Memories,
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
}

/// The ways to and from other workers.
#[derive(Default)]
pub(super) struct Links {
    /// By number of the worker; none to oneself.
    pub(super) to: Vec<Option<(HandOffSender, Arc<Mailbox>)>>,
    /// From each other worker.
    pub(super) from: Vec<HandOffReceiver>,
}

/// Guests that may be owed an interrupt before somebody must see to it.
pub(super) const OWED_MAX: usize = 64;

/// Notes that the guest of `slot` is owed an interrupt.
#[inline(always)]
fn owe(owed: &mut ArrayVec<u16, OWED_MAX>, pairs: &mut Pairs, slot: usize) {
    if owed.is_full() {
        pay(owed, pairs);
    }
    owed.push(slot as u16);
}

/// Interrupts the guests that are owed it: one fence for all.
///
/// It is put off until the next burst's descriptors were read, when the stores of the last one have reached the guest's
/// core by themselves; right after them, the fence would wait for each.
#[inline(always)]
fn pay(owed: &mut ArrayVec<u16, OWED_MAX>, pairs: &mut Pairs) {
    fence(Ordering::SeqCst);
    for slot in owed.drain(..) {
        if let Some(Some(pair)) = pairs.get_mut(usize::from(slot)) {
            pair.interrupt();
        }
    }
}

/// What is decided of a frame.
enum Decision {
    Do(Action),
    Drop(DropReason),
}

impl Walker {
    /// Takes a burst from the guest of `slot` and sends every frame on its way. How many frames it took.
    pub(super) fn walk(&mut self, slot: usize) -> usize {
        let Self { pairs, memories, scratch, flows, macs, topology, topologies, counters, links, owed, now, number } =
            self;
        let (Some(Some(pair)), Some(Some(memory))) = (pairs.get_mut(slot), memories.get(slot)) else { return 0 };
        let mut list = ChainList::new();
        pair.receive(memory, BURST, &mut list);
        if list.chains.is_empty() {
            return 0;
        }
        let (port, header_len, mtu) = (pair.id.port, pair.header_len(), pair.mtu);
        // Most bursts go where the last one went: have its buffers on their way to this core while the frames are judged.
        let likely = usize::from(pair.last_receiver);
        let mut room = ChainList::new();
        if let (Some(Some(pair)), Some(Some(memory))) = (pairs.get_mut(likely), memories.get(likely)) {
            pair.reserve(memory, list.chains.len(), &mut room);
        }
        if !owed.is_empty() {
            pay(owed, pairs);
        }
        let Some(Some(pair)) = pairs.get_mut(slot) else { return 0 };
        let dropped = &pair.counters.receive_dropped;
        let mut read = scratch.read_heads(&list, header_len, (pair.features.may_ask(), mtu), port, flows.view());
        if read.bytes + read.extra > VISIT_BYTES_MAX {
            scratch.afford(&mut read, list.chains.len());
        }
        let lookup = Lookup { port, now: *now, topology, topologies: *topologies, macs, counters };
        let (forward, flood) = scratch.look_up(&mut read, &lookup, flows, dropped);
        let taken = read.taken;
        if read.good != first(taken) {
            scratch.count_dropped(&read, dropped);
        }
        if taken < list.chains.len() {
            read.bytes = scratch.lens.iter().take(taken).copied().map(u64::from).sum();
        }
        pair.counters.received.add(taken as u64, read.bytes);

        let Scratch { heads, lens, outputs, offloads, .. } = &**scratch;
        let frames =
            Frames { heads, lens, longest: read.longest, list: &list, header_len, asking: read.asking, offloads };
        let mut exit = Exit {
            worker: *number,
            slot,
            port,
            pairs,
            memories,
            topology,
            counters,
            links,
            owed,
            frames,
            likely,
            room: &mut room,
            last: likely,
        };
        if flood == 0 {
            exit.forward(forward, outputs);
        } else {
            exit.flood(forward, flood, outputs);
        }

        let last = exit.last as u16;
        if let Some(Some(pair)) = pairs.get_mut(likely) {
            pair.unreserve();
        }

        // Only now: the receivers' copies came straight from these buffers.
        if let Some(Some(pair)) = pairs.get_mut(slot) {
            pair.complete(&list, taken);
            pair.last_receiver = last;
        }
        owe(owed, pairs, slot);
        taken
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

    /// Interrupts the guests that are still owed it.
    #[inline]
    pub(super) fn pay_all(&mut self) {
        if !self.owed.is_empty() {
            pay(&mut self.owed, &mut self.pairs);
        }
    }

    /// Whether frames of other workers wait.
    pub(super) fn has_handed(&self) -> bool {
        self.links.from.iter().any(|from| !from.is_empty())
    }

    /// Delivers a burst of what each other worker has handed over; how many frames there were.
    #[inline]
    pub(super) fn take_handed(&mut self) -> usize {
        let Self { pairs, memories, scratch, counters, links, owed, .. } = self;
        let mut taken = 0;
        for from in links.from.iter().filter(|from| !from.is_empty()) {
            let mut list = ChainList::new();
            from.take(from.memory(), &mut list, &mut scratch.outputs);
            if !owed.is_empty() {
                pay(owed, pairs); // no burst of our own guests may come to do it
            }
            let (asking, longest, count) = scratch.read_handed(&list);
            let Scratch { heads, lens, outputs, offloads, .. } = &**scratch;
            let frames = Frames { heads, lens, longest, list: &list, header_len: HEADER_LEN, asking, offloads };
            let mut pending = first(count);
            while pending != 0 {
                let slot = outputs[pending.trailing_zeros() as usize % BURST];
                let group = group(pending, outputs, slot);
                pending &= !group;
                // A pair leaves its slot only after what was handed over for it was delivered.
                if let (Some(Some(pair)), Some(Some(memory))) =
                    (pairs.get_mut(usize::from(slot)), memories.get(usize::from(slot)))
                {
                    let delivered = pair.deliver(memory, frames, group, &mut ChainList::new());
                    owe(owed, pairs, usize::from(slot));
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

/// What reading the heads of a burst gave.
struct Heads {
    /// Frames of the burst that this visit takes.
    taken: usize,
    /// Of them, those that may go on.
    good: u32,
    /// Those for which something is asked.
    asking: u32,
    /// Bytes of all frames.
    bytes: u64,
    /// What segments cost beside that.
    extra: u64,
    /// Bytes of the longest frame that may go on; of one that is to be segmented, its longest segment's.
    longest: u32,
}

/// The first `count` frames.
#[inline(always)]
fn first(count: usize) -> u32 {
    if count >= BURST { u32::MAX } else { (1 << count) - 1 }
}

impl Scratch {
    /// Reads each frame's head, once, and makes its key; asks for the flow table's buckets.
    #[inline(always)]
    fn read_heads(
        &mut self,
        list: &ChainList<'_>,
        header_len: usize,
        limits: (Abilities, u16),
        port: u16,
        flows: FlowView<'_>,
    ) -> Heads {
        let Self { heads, lens, keys, hashes, offloads, reasons, .. } = self;
        let (may, mtu) = limits;
        let mut read = Heads { taken: list.chains.len(), good: 0, asking: 0, bytes: 0, extra: 0, longest: 0 };
        let untagged_max = ETHERNET_HEADER_LEN as u32 + u32::from(mtu);
        let frames = heads.iter_mut().zip(lens).zip(keys.iter_mut().zip(hashes)).zip(reasons);
        for (index, (chain, (((head, frame_len), (key, hash)), reason))) in list.chains.iter().zip(frames).enumerate() {
            let len = chain.len.saturating_sub(header_len as u32);
            read.bytes += u64::from(len);
            *frame_len = len;
            if (len as usize) < ETHERNET_HEADER_LEN || len > FRAME_LEN_MAX {
                *reason = if len > FRAME_LEN_MAX { DropReason::Oversized } else { DropReason::Runt };
                continue;
            }
            if chain.is_single() {
                head.read(chain.first, header_len);
            } else {
                head.gather(list.segments(chain), header_len);
            }
            let mut longest = len;
            if head.asks_for_offload(header_len) {
                match asked(head, len as usize, header_len, may) {
                    Ok(None) => {}
                    Ok(Some((offload, cost))) => {
                        longest = offload.longest(len);
                        offloads[index] = offload;
                        read.asking |= 1 << index;
                        read.extra += cost;
                    }
                    Err(why) => {
                        *reason = why;
                        continue;
                    }
                }
            }
            if longest > untagged_max && packet_len(head.frame(len as usize), longest as usize) > usize::from(mtu) {
                *reason = DropReason::MtuExceeded;
                continue;
            }
            let Some(header) = EthernetHeader::parse(head.frame(len as usize)) else { continue };
            if !header.source.is_valid_source() {
                *reason = DropReason::InvalidSource;
                continue;
            }
            *key = FlowKey::new(port, &header);
            *hash = flows.hash(*key);
            read.longest = longest.max(read.longest);
            read.good |= 1 << index;
        }
        read
    }

    /// Reads the heads of frames that another worker handed over. For which something is asked, how long the longest is, and
    /// how many this visit takes.
    fn read_handed(&mut self, list: &ChainList<'_>) -> (u32, u32, usize) {
        let Self { heads, lens, offloads, .. } = self;
        let (mut asking, mut longest, mut spent) = (0, 0, 0);
        for (index, (chain, (head, frame_len))) in list.chains.iter().zip(heads.iter_mut().zip(lens)).enumerate() {
            let len = chain.len.saturating_sub(HEADER_LEN as u32);
            *frame_len = len;
            spent += u64::from(len);
            head.read(chain.first, HEADER_LEN);
            let mut frame_longest = len;
            // What that worker has written here was checked by it: it is all possible.
            if let Ok(Some((offload, cost))) = asked(head, len as usize, HEADER_LEN, Abilities::all()) {
                frame_longest = offload.longest(len);
                offloads[index] = offload;
                asking |= 1 << index;
                spent += cost;
            }
            longest = frame_longest.max(longest);
            if spent > VISIT_BYTES_MAX && index > 0 {
                return (asking, longest, index);
            }
        }
        (asking, longest, list.chains.len())
    }

    /// What bringing a frame to one receiver costs at most, in bytes that could be copied instead.
    fn cost(&self, read: &Heads, index: usize) -> u64 {
        let segments =
            if read.asking >> index & 1 != 0 { extra_cost(&self.offloads[index], self.lens[index]) } else { 0 };
        u64::from(self.lens[index]) + segments
    }

    /// Takes no more of the burst's `count` frames than one visit may.
    #[cold]
    fn afford(&self, read: &mut Heads, count: usize) {
        let mut spent = 0;
        for index in set_bits(read.good & first(count)) {
            spent += self.cost(read, index);
            if spent > VISIT_BYTES_MAX && index > 0 {
                read.taken = index;
                read.good &= first(index);
                return;
            }
        }
    }

    /// Counts the frames of a burst that are no good.
    #[cold]
    fn count_dropped(&self, read: &Heads, dropped: &DropCounters) {
        for index in set_bits(first(read.taken) & !read.good) {
            dropped.add(self.reasons[index], 1);
        }
    }

    /// Finds each frame's verdict, or decides anew. Which frames are to be forwarded (to `outputs`) and which flooded.
    /// Where there is much to flood, fewer frames are taken.
    #[inline(always)]
    fn look_up(
        &mut self,
        read: &mut Heads,
        lookup: &Lookup<'_>,
        flows: &mut FlowTable,
        dropped: &DropCounters,
    ) -> (u32, u32) {
        let view = flows.view();
        for index in set_bits(read.good) {
            self.candidates[index] = view.candidates(self.hashes[index]);
        }
        let stamp = lookup.stamp();
        let (mut forward, mut flood, mut missed, mut flooded) = (0, 0, 0, 0);
        for index in set_bits(read.good) {
            let key = self.keys[index];
            let view = flows.view();
            let hit = view.find(self.candidates[index], key).and_then(|entry| view.action_at(entry, stamp));
            let action = match hit {
                Some(action) => action,
                None => match lookup.confirm_or_decide(key, self.hashes[index], flows, &mut missed) {
                    Decision::Do(action) => action,
                    Decision::Drop(reason) => {
                        dropped.add(reason, 1);
                        continue;
                    }
                },
            };
            match action {
                Action::Forward(output) => {
                    self.outputs[index] = output;
                    forward |= 1 << index;
                }
                Action::Flood => {
                    flood |= 1 << index;
                    flooded += self.cost(read, index) * lookup.neighbours();
                    if flooded > VISIT_BYTES_MAX {
                        // The frames after this one are not looked at: they come with the next visit.
                        read.taken = index + 1;
                        read.good &= first(read.taken);
                        break;
                    }
                }
            }
        }
        lookup.counters.flow_hits.add(u64::from(read.good.count_ones()) - missed);
        lookup.counters.flow_misses.add(missed);
        (forward, flood)
    }
}

/// What is asked for a frame, and what that costs.
fn asked(
    head: &FrameHead,
    len: usize,
    header_len: usize,
    may: Abilities,
) -> Result<Option<(Offload, u64)>, DropReason> {
    let offload = Offload::asked(head.net_header(header_len), head.frame(len), len, may)?;
    Ok(offload.map(|offload| (offload, extra_cost(&offload, len as u32))))
}

/// What the segments of a frame cost, beside its bytes, if it is to be cut.
fn extra_cost(offload: &Offload, len: u32) -> u64 {
    offload.segments(len as usize) as u64 * SEGMENT_COST
}

/// What verdicts rest on.
struct Lookup<'a> {
    port: u16,
    now: u32,
    topology: &'a Topology,
    topologies: u32,
    macs: &'a MacTable,
    counters: &'a WorkerCounters,
}

impl Lookup<'_> {
    fn bridge(&self) -> Option<(u16, u32)> {
        let number = self.topology.ports.get(usize::from(self.port))?.bridge;
        Some((number, self.topology.bridges.get(usize::from(number))?.generation))
    }

    /// Ports that a frame is flooded to at most.
    fn neighbours(&self) -> u64 {
        let bridge = self.bridge().and_then(|(number, _)| self.topology.bridges.get(usize::from(number)));
        bridge.map_or(1, |bridge| bridge.ports.len() as u64)
    }

    /// Moves on with all that a verdict rests on, and with time. Both parts of the epoch only ever grow, so that their
    /// sum does not stand still when one of them moves.
    #[inline(always)]
    fn stamp(&self) -> Stamp {
        Stamp::new(self.macs.epoch().wrapping_add(self.topologies), self.now)
    }

    /// Whether what the verdict was made from is still so.
    fn holds(&self, verdict: &Verdict) -> bool {
        self.macs.is_current(verdict.source)
            && self.macs.is_current(verdict.destination)
            && self.bridge().is_some_and(|(_, generation)| generation == verdict.generation)
    }

    /// The cached verdict if it still holds, and a new one if not. Happens to a flow once a second, and whenever some
    /// station moved.
    #[cold]
    #[inline(never)]
    fn confirm_or_decide(&self, key: FlowKey, hash: u64, flows: &mut FlowTable, missed: &mut u64) -> Decision {
        // Before the verdict is looked at: what changes meanwhile makes the stamp old.
        let stamp = self.stamp();
        let view = flows.view();
        if let Some(entry) = view.find(view.candidates(hash), key) {
            let verdict = view.verdict(entry);
            if self.holds(&verdict) {
                view.confirm(entry, stamp);
                self.macs.touch(verdict.source, self.now);
                return Decision::Do(verdict.action);
            }
        }
        *missed += 1;
        self.decide(key, hash, flows)
    }

    /// Learns the source and decides by the destination, at bounded cost. A verdict for an unknown destination is not
    /// kept: the first frame from there must end the flooding.
    fn decide(&self, key: FlowKey, hash: u64, flows: &mut FlowTable) -> Decision {
        let Some((bridge, generation)) = self.bridge() else { return Decision::Drop(DropReason::NoDestination) };
        // Before anything is looked at: what another worker changes meanwhile makes the stamp old.
        let stamp = self.stamp();
        let source = self.macs.learn(bridge, key.source(), self.port, self.now);
        let (action, destination) = if key.destination().is_group() {
            (Action::Flood, MacRef::ALWAYS)
        } else {
            match self.macs.find(bridge, key.destination()) {
                Some((output, _)) if output == self.port => return Decision::Drop(DropReason::Hairpin),
                Some((output, entry)) => (Action::Forward(output), entry),
                None => return Decision::Do(Action::Flood),
            }
        };
        if let Some(source) = source {
            flows.insert(key, hash, Verdict { action, generation, source, destination }, stamp);
        }
        Decision::Do(action)
    }
}

/// The way out of a burst.
struct Exit<'a, 'm> {
    worker: u16,
    /// Slot and port that the burst came from.
    slot: usize,
    port: u16,
    pairs: &'a mut Pairs,
    memories: &'m Memories,
    topology: &'a Topology,
    counters: &'a WorkerCounters,
    links: &'a mut Links,
    owed: &'a mut ArrayVec<u16, OWED_MAX>,
    frames: Frames<'a, 'm>,
    /// The slot whose buffers were reserved into `room`.
    likely: usize,
    room: &'a mut ChainList<'m>,
    /// The slot that was delivered to last.
    last: usize,
}

impl Exit<'_, '_> {
    /// Sends each frame of `pending` to its port; frames for one port go together, in order.
    #[inline(always)]
    fn forward(&mut self, mut pending: u32, outputs: &[u16; BURST]) {
        while pending != 0 {
            let output = outputs[pending.trailing_zeros() as usize % BURST];
            let group = group(pending, outputs, output);
            pending &= !group;
            if !self.send_to_port(output, group) {
                self.drop(DropReason::ReceiverStopped, group);
            }
        }
    }

    /// Sends the frames of `flood` to every other port of the bridge, and those of `forward` to theirs, so that
    /// each port gets its frames in order.
    #[cold]
    fn flood(&mut self, mut forward: u32, flood: u32, outputs: &[u16; BURST]) {
        let bridge = self.topology.ports.get(usize::from(self.port)).map_or(0, |port| usize::from(port.bridge));
        let topology = self.topology;
        let ports = topology.bridges.get(bridge).map_or(&[][..], |bridge| &bridge.ports);
        let mut copies = 0;
        for &output in ports {
            let up = topology.ports.get(usize::from(output)).is_some_and(|port| !port.receivers.is_empty());
            if output == self.port || !up {
                continue;
            }
            let group = group(forward, outputs, output);
            forward &= !group;
            self.send_to_port(output, group | flood);
            copies += 1;
        }
        let frames = u64::from(flood.count_ones());
        match copies {
            0 => self.drop(DropReason::NoDestination, flood),
            _ => self.counters.extra_copies.add(frames * (copies - 1)),
        }
        self.forward(forward, outputs);
    }

    /// To one of the port's queues, chosen by flow. `false` if it has none running.
    #[inline(always)]
    fn send_to_port(&mut self, output: u16, mut group: u32) -> bool {
        let topology = self.topology;
        let receivers = topology.ports.get(usize::from(output)).map_or(&[][..], |port| &port.receivers);
        match receivers {
            [] => return false,
            [only] => self.send_to_pair(*only, group),
            several => {
                let mut choice = [0u16; BURST];
                for index in set_bits(group) {
                    let head = self.frames.heads[index].frame(self.frames.lens[index] as usize);
                    choice[index] = (spread_hash(head) % several.len() as u32) as u16;
                }
                while group != 0 {
                    let queue = choice[group.trailing_zeros() as usize % BURST];
                    let same = self::group(group, &choice, queue);
                    group &= !same;
                    self.send_to_pair(several[usize::from(queue) % several.len()], same);
                }
            }
        }
        true
    }

    #[inline(always)]
    fn send_to_pair(&mut self, at: Location, group: u32) {
        if at.worker != self.worker {
            return self.send_to_worker(at, group);
        }
        let slot = usize::from(at.slot);
        match (self.pairs.get_mut(slot), self.memories.get(slot)) {
            (Some(Some(pair)), Some(Some(memory))) => {
                let delivered = if slot == self.likely {
                    let delivered = pair.deliver(memory, self.frames, group, self.room);
                    self.room.clear();
                    delivered
                } else {
                    pair.deliver(memory, self.frames, group, &mut ChainList::new())
                };
                self.last = slot;
                owe(self.owed, self.pairs, slot);
                self.counters.guest_to_guest.forwarded_bytes.add(delivered.bytes);
                self.counters.guest_to_guest.copied_bytes.add(delivered.copied);
                if delivered.generated != 0 {
                    self.counters.generated.add(delivered.generated);
                }
            }
            _ => self.drop(DropReason::ReceiverStopped, group),
        }
    }

    /// To a pair of another worker.
    #[cold]
    fn send_to_worker(&mut self, at: Location, group: u32) {
        let Some(Some((link, mailbox))) = self.links.to.get_mut(usize::from(at.worker)) else {
            return self.drop(DropReason::ReceiverStopped, group);
        };
        let mut full = 0;
        for index in set_bits(group) {
            match link.send(self.frames, index, at.slot) {
                Some(copied) => self.counters.hand_off.copied_bytes.add(copied as u64),
                None => full |= 1 << index,
            }
        }
        mailbox.nudge();
        if full != 0 {
            self.drop(DropReason::HandOffFull, full);
        }
    }

    /// Counts frames as dropped, with the pair that they came from.
    #[cold]
    fn drop(&mut self, reason: DropReason, group: u32) {
        if let Some(Some(pair)) = self.pairs.get(self.slot) {
            pair.counters.receive_dropped.add(reason, u64::from(group.count_ones()));
        }
    }
}

/// The frames of `pending` whose number in `of` is `number`.
#[inline(always)]
fn group(pending: u32, of: &[u16; BURST], number: u16) -> u32 {
    let same = of.iter().enumerate().fold(0, |same, (index, &other)| same | u32::from(other == number) << index);
    pending & same
}
