//! Into a receiveq: the one copy. Reserve buffers, copy, publish; then the guest is told once.
//!
//! The receiver gets a virtio-net header built here, the frame's head from the private copy that was judged, and the rest
//! straight from the sender's buffer. What does not go so (more than one buffer a frame, something left undone that the
//! receiver does not do) is in `finish`.

use super::features::Features;
use super::fill::{Filler, UsedList};
use super::finish::{Finisher, Shortage};
use super::frame::{FrameHead, HEAD_LEN, NET_HEADER_MAX};
use super::memory::{GuestMemory, Segment};
use super::pair::QueuePair;
use super::ring::{BURST, Chain, ChainList, Ring, Used};
use crate::account::DropReason;
use crate::cpu::timestamp;
use crate::packet::{Abilities, ETHERNET_HEADER_LEN, NetHeader, Offload, Way, packet_len};

/// A burst that was received, as its receivers see it.
#[derive(Clone, Copy, Debug)]
pub struct Frames<'a, 'm> {
    /// Private heads.
    pub heads: &'a [FrameHead; BURST],
    /// Bytes of each frame, without the virtio-net header.
    pub lens: &'a [u32; BURST],
    /// No frame that is to be delivered is longer.
    pub longest: u32,
    /// Where the rest of each frame is.
    pub list: &'a ChainList<'m>,
    /// Bytes of the virtio-net header in the sender's buffers.
    pub header_len: usize,
    /// Frames for which their sender asks something, a bit each.
    pub asking: u32,
    /// What it asks for them.
    pub offloads: &'a [Offload; BURST],
    /// By how many bytes each frame, and its head, has grown since it came, if some have: their tags were changed.
    pub growths: Option<&'a [i8; BURST]>,
}

/// What became of the frames that were to be delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Frames.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were written into the receiver's buffers for them, headers of virtio-net not counted.
    pub copied: u64,
    /// Segments beyond the first of frames that were cut here, delivered or not.
    pub generated: u64,
}

/// Indices of the set bits, lowest first.
#[inline(always)]
pub fn set_bits(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let index = mask.trailing_zeros() as usize % BURST;
        mask &= mask - 1;
        Some(index)
    })
}

impl QueuePair {
    /// Takes up to `want` buffers into `room`, early, so that they are at hand when a burst is delivered. What is not
    /// used then goes back with [`QueuePair::unreserve`]. A fault that is found here takes effect there, or after the
    /// delivery: the buffers before it are good.
    #[inline]
    pub fn reserve<'m>(&mut self, memory: &'m GuestMemory, want: usize, room: &mut ChainList<'m>) {
        if let Some(ring) = &mut self.receiveq {
            ring.take(memory, want, room);
        }
    }

    /// Gives back what was reserved and not used.
    #[inline]
    pub fn unreserve(&mut self) {
        if let Some(ring) = &mut self.receiveq {
            ring.rewind();
            if let Some(fault) = ring.fault() {
                self.break_pair(fault);
            }
        }
    }

    /// Delivers the frames of `mask`, in order, to this pair's guest, as far as it has buffers; counts what was
    /// delivered and what was dropped. `room` is empty, or holds what was reserved; it is of no use afterwards.
    #[inline]
    pub fn deliver<'m>(
        &mut self,
        memory: &'m GuestMemory,
        frames: Frames<'_, '_>,
        mask: u32,
        room: &mut ChainList<'m>,
    ) -> Delivered {
        let header_len = self.header_len();
        let mergeable = self.features.contains(Features::MRG_RXBUF);
        // What was reserved before a fault was found is still good.
        let usable = |ring: &&mut Ring| ring.fault().is_none() || !room.chains.is_empty();
        let Some(ring) = self.receiveq.as_mut().filter(usable) else {
            self.counters.transmit_dropped.add(DropReason::ReceiverStopped, u64::from(mask.count_ones()));
            return Delivered::default();
        };
        let mut mask = mask;
        if frames.longest > ETHERNET_HEADER_LEN as u32 + u32::from(self.mtu) {
            let long = frames.longer_than(self.mtu, mask);
            self.counters.transmit_dropped.add(DropReason::MtuExceeded, u64::from(long.count_ones()));
            mask &= !long;
        }
        if let Some(limit) = &self.limit_out {
            let pass = limit.take_each(timestamp(), mask, |index| (frames.lens[index], frames.segments(index)));
            self.counters.transmit_dropped.add(DropReason::RateLimitOut, u64::from((mask & !pass).count_ones()));
            mask = pass;
        }
        if room.chains.is_empty() {
            ring.take(memory, mask.count_ones() as usize, room);
        }
        let mut used = UsedList::new_const();
        let (mut done, rest) = if frames.asking & mask == 0 && frames.growths.is_none() {
            deliver_plain::<false>(room, &mut used, header_len, frames, mask, 0)
        } else {
            deliver_asking(room, &mut used, header_len, frames, mask, self.features.can_take())
        };
        let (mut short, mut published) = (Shortage::default(), false);
        // Nothing is left to take, so nobody need try it frame by frame: a flood that a NIC sends to a slow guest ends here.
        let is_full = || used.len() == room.chains.len() && ring.fault().is_none() && !ring.has_available();
        if rest != 0 && is_full() {
            short.empty = u64::from(rest.count_ones());
        } else if rest != 0 {
            let can = self.features.can_take();
            let sink = Filler::new(ring, memory, room, &mut used, (header_len, mergeable));
            (done, short, published) = deliver_rest(Finisher { sink, frames, can, done, short }, rest);
        }
        if published || !used.is_empty() {
            ring.publish(used.iter().copied());
            self.owed.receiveq = true;
        }
        ring.rewind();
        self.counters.transmitted.add(done.packets, done.bytes);
        if rest != 0 {
            let stopped = self.receiveq.as_ref().is_some_and(|ring| ring.fault().is_some());
            let reason = if stopped { DropReason::ReceiverStopped } else { DropReason::GuestRingFull };
            self.counters.transmit_dropped.add(reason, short.empty);
            self.counters.transmit_dropped.add(DropReason::BufferTooSmall, short.too_small);
        }
        if let Some(fault) = self.receiveq.as_ref().and_then(Ring::fault) {
            self.break_pair(fault);
        }
        done
    }
}

/// Delivers the first frames of `mask` as long as each finds the next buffer large enough and in one piece, as nearly
/// all do. The frames that are left. With `ODD`, some frames are passed on behind a header that asks for something, or have
/// grown, and those of `undone` are not to be passed on as they are.
#[inline(always)]
fn deliver_plain<const ODD: bool>(
    room: &ChainList<'_>,
    used: &mut UsedList,
    header_len: usize,
    frames: Frames<'_, '_>,
    mask: u32,
    undone: u32,
) -> (Delivered, u32) {
    let mut done = Delivered::default();
    let mut rest = mask;
    for chain in &room.chains {
        if rest == 0 {
            break;
        }
        let index = rest.trailing_zeros() as usize % BURST;
        let len = frames.lens[index];
        let need = len + header_len as u32;
        if chain.len < need || !chain.is_single() || ODD && undone >> index & 1 != 0 {
            break;
        }
        let asked = if ODD { frames.header(index) } else { NetHeader::default() };
        done.copied += copy_plain::<ODD>(chain.first, header_len, asked, frames, index) as u64;
        used.push(Used { len: need, id: chain.id, slots: chain.slots });
        done.bytes += u64::from(len);
        rest &= rest - 1;
    }
    done.packets = used.len() as u64;
    (done, rest)
}

/// As `deliver_plain`, for a burst in which something is asked for or tags have changed.
#[inline(never)]
fn deliver_asking(
    room: &ChainList<'_>,
    used: &mut UsedList,
    header_len: usize,
    frames: Frames<'_, '_>,
    mask: u32,
    can: Abilities,
) -> (Delivered, u32) {
    let undone = set_bits(frames.asking & mask)
        .filter(|&index| !matches!(frames.offloads[index].way(can), Way::Pass(_)))
        .fold(0, |undone, index| undone | 1 << index);
    // Who does no checksums is not told of any either, good ones included.
    let asking = if can.contains(Abilities::CHECKSUM) { frames.asking } else { 0 };
    let frames = Frames { asking, ..frames };
    deliver_plain::<true>(room, used, header_len, frames, mask, undone)
}

/// Delivers the frames of `mask` one by one, whatever they and the buffers are like.
#[inline(never)]
fn deliver_rest(mut finisher: Finisher<'_, '_, Filler<'_, '_>>, mask: u32) -> (Delivered, Shortage, bool) {
    finisher.deliver(mask);
    (finisher.done, finisher.short, finisher.sink.published)
}

/// A whole frame and its header into one buffer. Bytes of the frame written.
#[inline(always)]
fn copy_plain<const ODD: bool>(
    to: Segment<'_>,
    header_len: usize,
    header: NetHeader,
    frames: Frames<'_, '_>,
    index: usize,
) -> usize {
    let bytes = header.to_bytes(1);
    if header_len == NET_HEADER_MAX {
        to.write_unless_equal(bytes);
    } else if let Some(legacy) = bytes.first_chunk::<10>() {
        to.write_unless_equal(*legacy); // no num_buffers
    }
    frames.copy_to::<ODD>(index, to.from_offset(header_len))
}

impl<'a> Frames<'a, '_> {
    /// The head of a frame: all of it, or as much as is private.
    #[inline(always)]
    #[must_use]
    pub fn head(self, index: usize) -> &'a [u8] {
        let len = self.lens[index] as usize;
        match self.growths {
            None => self.heads[index].frame(len),
            Some(growths) => self.heads[index].grown(len, growths[index]),
        }
    }

    /// Into how many frames one may have to be cut; 0 if it need not be.
    #[must_use]
    pub fn segments(self, index: usize) -> usize {
        if self.asking >> index & 1 != 0 { self.offloads[index].segments(self.lens[index] as usize) } else { 0 }
    }

    /// The virtio-net header that says what is asked for a frame.
    #[inline(always)]
    #[must_use]
    pub fn header(self, index: usize) -> NetHeader {
        if self.asking >> index & 1 != 0 { self.offloads[index].header() } else { NetHeader::default() }
    }

    /// Those of `mask` whose packet has more than `mtu` bytes. One that is to be segmented is judged by its longest segment.
    #[cold]
    #[must_use]
    pub fn longer_than(self, mtu: u16, mask: u32) -> u32 {
        let is_longer = |&index: &usize| {
            let len = self.lens[index];
            let asks = self.asking >> index & 1 != 0;
            let longest = if asks { self.offloads[index].longest(len) } else { len };
            packet_len(self.head(index), longest as usize) > usize::from(mtu)
        };
        set_bits(mask).filter(is_longer).fold(0, |longer, index| longer | 1 << index)
    }

    /// Copies a frame, its head from the private copy and the rest from the sender's buffers, as far as `to` holds it.
    /// Bytes copied. Without `ODD`, no frame of the burst has grown.
    #[inline(always)]
    pub fn copy_to<const ODD: bool>(self, index: usize, to: Segment<'_>) -> usize {
        let len = self.lens[index] as usize;
        let head = if ODD { self.head(index) } else { self.heads[index].frame(len) };
        let head_len = if ODD { head.len() } else { HEAD_LEN };
        let mut copied = to.write(head);
        if len > head_len {
            let to = to.from_offset(head_len);
            match self.list.chains.get(index) {
                Some(chain) if chain.is_single() => {
                    copied += chain.first.from_offset(self.header_len + HEAD_LEN).copy_to(to);
                }
                Some(chain) => copied += copy_pieces(self, chain, to),
                None => {}
            }
        }
        copied
    }
}

fn copy_pieces(frames: Frames<'_, '_>, chain: &Chain<'_>, mut to: Segment<'_>) -> usize {
    let mut copied = 0;
    for piece in payload(frames, chain) {
        let count = piece.copy_to(to);
        to = to.from_offset(count);
        copied += count;
    }
    copied
}

/// The pieces of a sender's chain behind the virtio-net header and the head.
fn payload<'a, 'm>(frames: Frames<'a, 'm>, chain: &'a Chain<'m>) -> impl Iterator<Item = Segment<'m>> + use<'a, 'm> {
    let mut skip = frames.header_len + HEAD_LEN;
    frames.list.segments(chain).iter().filter_map(move |piece| {
        let rest = piece.from_offset(skip);
        skip -= skip.min(piece.len());
        (!rest.is_empty()).then_some(rest)
    })
}
