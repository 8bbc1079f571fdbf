//! Where guests and NICs meet: a burst of mbufs walks like one of a guest's buffers, and frames go out into mbufs, with one copy,
//! or, from NIC to NIC, in the mbuf that they came in.

use arrayvec::ArrayVec;

use super::exit::Exit;
use super::heads::{Front, Scratch};
use super::judge::{Judged, Source};
use super::lookup::Lookup;
use super::poll::SLOTS;
use super::turns::Visit;
use super::walk::Walker;
use crate::account::DropReason;
use crate::cpu::timestamp;
use crate::guest::memory::Segment;
use crate::guest::ring::{BURST, ChainList};
use crate::guest::{Delivered, Finisher, FrameHead, Frames, Room, Short, Shortage, Sink, set_bits};
use crate::nic::{Mbufs, Queue, Received, SEGMENTS_MAX, TxFlags, TxQueue};
use crate::packet::{Abilities, ETHERNET_HEADER_LEN, NetHeader, Way, net_flag};

/// NIC queues that one worker can own: one of each ethdev that DPDK holds, where no port is given several queues a worker.
pub(super) const NIC_SLOTS: usize = 32;

/// Bytes of the shortest frame of Ethernet, without its check sequence (IEEE 802.3, section 4.2.3.3).
const FRAME_LEN_MIN: u32 = 60;

/// NIC queues of a worker, in the slots behind those of pairs.
pub(super) type Nics = Vec<Option<Box<Queue>>>;

/// The NIC queue in a slot.
#[inline]
pub(super) fn nic_at(nics: &mut Nics, slot: usize) -> Option<&mut Queue> {
    nics.get_mut(slot.checked_sub(SLOTS)?)?.as_deref_mut()
}

/// Frames of a burst that leave in the mbufs that they came in.
pub(super) struct Moves<'a> {
    pub(super) mbufs: &'a Mbufs<BURST>,
    /// By slot of the NIC queue that they go to.
    pub(super) staged: ArrayVec<(u16, u32), BURST>,
}

/// What a NIC said of frames stands beside them.
struct InMbufs<'a> {
    mbufs: &'a Mbufs<BURST>,
    is_virtio: bool,
}

impl Front for InMbufs<'_> {
    fn len(&self) -> usize {
        0
    }

    #[inline]
    fn asked(&self, index: usize, head: &FrameHead, len: usize) -> Option<NetHeader> {
        let flags = |flags| NetHeader { flags, ..NetHeader::default() };
        match self.mbufs.received(index, self.is_virtio) {
            Received::Unchecked => None,
            Received::Good => Some(flags(net_flag::DATA_VALID)),
            // What has no such checksum cannot lack it: the header asks for what cannot be, and the frame is dropped for that.
            Received::Missing(size) => {
                Some(NetHeader::of_transport(head.frame(len), len, size).unwrap_or(flags(net_flag::NEEDS_CSUM)))
            }
        }
    }
}

impl Walker {
    /// Takes a burst from the NIC queue in `slot` and sends every frame on its way.
    pub(super) fn walk_nic(&mut self, slot: usize) -> Visit {
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
        let Some(queue) = nic_at(nics, slot) else { return Visit::default() };
        queue.serve();
        let Some(rx) = &mut queue.rx else { return Visit::default() };
        rx.receive();
        if rx.held.is_empty() {
            return Visit::default();
        }
        let (begun, likely) = (rx.flood_begun, usize::from(rx.last_receiver));
        let (is_virtio, mut burst) = (rx.is_virtio, std::mem::take(&mut rx.held));
        burst.prefetch();
        let mut list = ChainList::new();
        // Those for whose pieces there is no room come with the next visit.
        let count = if begun.is_some() { 1 } else { burst.len() };
        let unread = list.fill((0..count).map(|index| burst.pieces(index)));
        let (port, mtu, queue_counters) = (queue.id.port, queue.mtu, queue.counters.clone());
        // As of a guest's burst: where the last one went.
        let mut room = ChainList::new();
        if let (Some(Some(pair)), Some(Some(memory))) = (pairs.get_mut(likely), memories.get(likely)) {
            pair.reserve(memory, unread.len(), &mut room);
        }
        let overdue = super::walk::pay_if_owed(owed, pairs);

        let source = Source {
            front: InMbufs { mbufs: &burst, is_virtio },
            limits: (Abilities::all(), mtu),
            begun,
            received: &queue_counters.received,
            dropped: &queue_counters.receive_dropped,
            service: &queue_counters.service,
        };
        let lookup = Lookup { port, now: *now, topology, topologies: *topologies, macs, counters };
        let Judged { list: frames_list, read, forward, flood, has_vlans } =
            scratch.decide(unread, &source, &lookup, flows);
        let taken = read.taken;

        let Scratch { heads, lens, outputs, offloads, vlans, retagged, spread, .. } = &mut **scratch;
        spread.begin();
        let (longest, asking) = (read.longest, read.asking);
        let frames = Frames { heads, lens, longest, list: frames_list, header_len: 0, asking, offloads, growths: None };
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
            path: &counters.nic_to_guest,
            moves: Some(Moves { mbufs: &burst, staged: ArrayVec::new() }),
            flooded: flood,
            spread,
        };
        let mut goes_on = None;
        if flood == 0 {
            exit.forward(forward, outputs);
        } else {
            goes_on = exit.flood(forward, flood, outputs, begun);
        }
        let (last, staged) = (exit.last as u16, exit.moves.map(|moves| moves.staged).unwrap_or_default());
        drop((list, room));
        if let Some(Some(pair)) = pairs.get_mut(likely) {
            pair.unreserve();
        }
        for (to, group) in staged {
            // Nothing of the burst's memory is looked at any more but by who gets it.
            let asked = |index: usize| {
                let len = lens[index] as usize;
                let asks = asking >> index & 1 != 0;
                if asks { TxFlags::of(offloads[index].header(), heads[index].frame(len), len) } else { TxFlags::NONE }
            };
            if let Some(queue) = nic_at(nics, to.into()) {
                let bytes = set_bits(group).map(|index| u64::from(lens[index])).sum();
                let sent = forward_mbufs(queue, &mut burst, group, bytes, asked);
                counters.nic_to_nic.forwarded_bytes.add(sent);
            }
        }
        let more = taken < burst.len() || taken == BURST || goes_on.is_some();
        burst.free_first(if goes_on.is_some() { 0 } else { taken });
        if let Some(rx) = nic_at(nics, slot).and_then(|queue| queue.rx.as_mut()) {
            rx.held = burst;
            rx.flood_begun = goes_on;
            rx.last_receiver = last;
        }
        Visit { frames: taken, more, overdue }
    }
}

impl<'m> Exit<'_, 'm> {
    /// To a NIC queue of this worker.
    #[inline(never)]
    pub(super) fn send_to_nic(&mut self, slot: usize, group: u32, frames: Frames<'_, 'm>) {
        let Some(queue) = nic_at(self.nics, slot) else { return self.drop(DropReason::ReceiverStopped, group) };
        let group = admit(queue, frames, group);
        if group == 0 {
            return;
        }
        if let Some(moves) = &mut self.moves
            && group & self.flooded == 0
            && can_move(queue, moves.mbufs, frames, group)
            && moves.staged.try_push((slot as u16, group)).is_ok()
        {
            return;
        }
        let delivered = copy_to_nic(queue, frames, group);
        let path = if self.moves.is_some() { &self.counters.nic_to_nic } else { &self.counters.guest_to_nic };
        path.forwarded_bytes.add(delivered.bytes);
        path.copied_bytes.add(delivered.copied);
        self.counters.generated.add(delivered.generated);
    }
}

/// Delivers the frames of `mask` to a NIC queue, by copying; counts what was sent and what was dropped.
pub(super) fn deliver_to_nic(queue: &mut Queue, frames: Frames<'_, '_>, mask: u32) -> Delivered {
    let mask = admit(queue, frames, mask);
    if mask == 0 { Delivered::default() } else { copy_to_nic(queue, frames, mask) }
}

/// Those of `mask` that the NIC can be given as things are; the others are counted as dropped.
fn admit(queue: &Queue, frames: Frames<'_, '_>, mut mask: u32) -> u32 {
    let drop = |reason, mask: u32| queue.counters.transmit_dropped.add(reason, u64::from(mask.count_ones()));
    if queue.tx.is_none() {
        drop(DropReason::ReceiverStopped, mask);
        return 0;
    }
    if !queue.link.is_up() {
        drop(DropReason::LinkDown, mask);
        return 0;
    }
    if frames.longest > ETHERNET_HEADER_LEN as u32 + u32::from(queue.mtu) {
        let long = frames.longer_than(queue.mtu, mask);
        drop(DropReason::MtuExceeded, long);
        mask &= !long;
    }
    if let Some(limit) = &queue.limit_out {
        let pass = limit.take_each(timestamp(), mask, |index| (frames.lens[index], frames.segments(index)));
        drop(DropReason::RateLimitOut, mask & !pass);
        mask = pass;
    }
    mask
}

/// Whether all frames of `group` can go in their own mbufs: either all do, or none, so that they stay in order. None does where
/// tags have changed.
fn can_move(queue: &Queue, mbufs: &Mbufs<BURST>, frames: Frames<'_, '_>, group: u32) -> bool {
    let Some(tx) = queue.tx.as_ref().filter(|_| frames.growths.is_none()) else { return false };
    set_bits(group).all(|index| {
        let asks = frames.asking >> index & 1 != 0;
        frames.lens[index] >= FRAME_LEN_MIN
            && mbufs.segments(index) <= tx.segments_max
            && (!asks || matches!(frames.offloads[index].way(tx.can), Way::Pass(_)))
    })
}

/// Sends the frames of `group` in the mbufs that they are in; how many of their `bytes` were sent.
fn forward_mbufs(
    queue: &mut Queue,
    burst: &mut Mbufs<BURST>,
    group: u32,
    bytes: u64,
    asked: impl Fn(usize) -> TxFlags,
) -> u64 {
    let Some(tx) = &mut queue.tx else { return 0 };
    let mut packets = 0;
    for index in set_bits(group) {
        if let Some(mbuf) = burst.take(index) {
            tx.forward(mbuf, asked(index));
            packets += 1;
        }
    }
    account(queue, packets, bytes)
}

/// Sends what was given to the queue, `packets` frames of `bytes` bytes, and counts; how many of the bytes were sent.
fn account(queue: &mut Queue, packets: u64, bytes: u64) -> u64 {
    let Some(tx) = &mut queue.tx else { return 0 };
    let unsent = tx.send();
    let counters = &queue.counters;
    let sent = bytes.saturating_sub(unsent.bytes);
    counters.transmitted.add(packets.saturating_sub(unsent.full + unsent.refused), sent);
    if unsent.full + unsent.refused != 0 {
        counters.transmit_dropped.add(DropReason::NicQueueFull, unsent.full);
        counters.transmit_dropped.add(DropReason::NicRefused, unsent.refused);
    }
    sent
}

/// Copies the frames of `mask` into mbufs, and sends them.
fn copy_to_nic(queue: &mut Queue, frames: Frames<'_, '_>, mask: u32) -> Delivered {
    let Some(tx) = &mut queue.tx else { return Delivered::default() };
    let (mut done, mut short) = (Delivered::default(), Shortage::default());
    let _ = tx.spare(mask.count_ones() as usize); // together, if they can be had
    let has_grown = frames.growths.is_some();
    if frames.asking & mask == 0 && frames.longest <= tx.room {
        for index in set_bits(mask) {
            let len = frames.lens[index];
            let Some(room) = tx.spare(1).and_then(|spare| spare.room(spare.len() - 1)) else {
                short.empty += 1;
                continue;
            };
            let copied =
                if has_grown { frames.copy_to::<true>(index, room) } else { frames.copy_to::<false>(index, room) };
            done.copied += copied as u64;
            done.packets += 1;
            done.bytes += u64::from(len);
            let len = pad(room, len);
            tx.fill_plain(len);
        }
    } else {
        let can = tx.can;
        let mut finisher = Finisher { sink: IntoMbufs(tx), frames, can, done, short };
        finisher.deliver(mask);
        (done, short) = (finisher.done, finisher.short);
    }
    let (packets, bytes) = (done.packets, done.bytes);
    if short.empty + short.too_small != 0 {
        queue.counters.transmit_dropped.add(DropReason::MempoolEmpty, short.empty);
        queue.counters.transmit_dropped.add(DropReason::BufferTooSmall, short.too_small);
    }
    done.bytes = account(queue, packets, bytes);
    done
}

/// Makes a frame of `len` bytes in `room` as long as one has to be: there are NICs whose queue stops at a shorter one, and what others
/// put behind it is anybody's. How long it is.
#[inline]
fn pad(room: Segment<'_>, len: u32) -> u32 {
    if len >= FRAME_LEN_MIN {
        return len;
    }
    room.from_offset(len as usize).write([0; FRAME_LEN_MIN as usize].get(len as usize..).unwrap_or(&[]));
    FRAME_LEN_MIN
}

/// Mbufs as what frames are put into.
#[derive(Debug)]
struct IntoMbufs<'a>(&'a mut TxQueue);

impl Sink for IntoMbufs<'_> {
    fn fill(
        &mut self,
        len: u32,
        header: NetHeader,
        head: &[u8],
        write: impl FnOnce(Room<'_, '_>) -> usize,
    ) -> Result<usize, Short> {
        let Self(tx) = self;
        let count = len.div_ceil(tx.room.max(1)).max(1) as usize;
        if count > tx.segments_max {
            return Err(Short::TooSmall);
        }
        let spare = tx.spare(count).ok_or(Short::Empty)?;
        let rooms = (spare.len() - count..spare.len()).filter_map(|index| spare.room(index));
        let pieces: ArrayVec<Segment<'_>, SEGMENTS_MAX> = rooms.take(SEGMENTS_MAX).collect();
        let copied = write(Room::of_pieces(&pieces));
        let padded = pieces.first().map_or(len, |&first| pad(first, len));
        drop(pieces);
        tx.fill(count, padded, TxFlags::of(header, head, len as usize));
        Ok(copied)
    }
}
