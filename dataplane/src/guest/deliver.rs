//! Into a receiveq: the one copy. Reserve buffers, copy, publish; then the guest is told once.
//!
//! The receiver gets a virtio-net header built here, the frame's head from the private copy that was judged, and the rest
//! straight from the sender's buffer.

use arrayvec::ArrayVec;

use super::features::Features;
use super::frame::{FrameHead, HEAD_LEN, NET_HEADER_MAX};
use super::memory::{GuestMemory, Segment};
use super::pair::QueuePair;
use super::ring::{BURST, CHAINS_MAX, Chain, ChainList, Ring, SEGMENTS_MAX, Used};
use crate::account::DropReason;
use crate::packet::{ETHERNET_HEADER_LEN, packet_len};

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
    /// used then goes back with [`QueuePair::unreserve`].
    #[inline]
    pub fn reserve<'m>(&mut self, memory: &'m GuestMemory, want: usize, room: &mut ChainList<'m>) {
        if let Some(ring) = &mut self.receiveq {
            ring.take(memory, want, room);
            if let Some(fault) = ring.fault() {
                self.break_pair(fault);
            }
        }
    }

    /// Gives back what was reserved and not used.
    #[inline]
    pub fn unreserve(&mut self) {
        if let Some(ring) = &mut self.receiveq {
            ring.rewind();
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
        let Some(ring) = self.receiveq.as_mut().filter(|ring| ring.fault().is_none()) else {
            self.counters.transmit_dropped.add(DropReason::ReceiverStopped, u64::from(mask.count_ones()));
            return Delivered::default();
        };
        let mut mask = mask;
        if frames.longest > ETHERNET_HEADER_LEN as u32 + u32::from(self.mtu) {
            let long = frames.longer_than(self.mtu, mask);
            self.counters.transmit_dropped.add(DropReason::MtuExceeded, u64::from(long.count_ones()));
            mask &= !long;
        }
        if room.chains.is_empty() {
            ring.take(memory, mask.count_ones() as usize, room);
        }
        let mut used: ArrayVec<Used, CHAINS_MAX> = ArrayVec::new_const();
        let (mut done, rest) = deliver_plain(room, &mut used, header_len, frames, mask);
        let mut short = Shortage::default();
        if rest != 0 {
            let receiver = Receiver { ring, memory, header_len, mergeable };
            short = receiver.deliver_rest(room, &mut used, frames, rest, &mut done);
        }
        if short.published || !used.is_empty() {
            ring.publish(used.iter().copied());
            self.owed.receiveq = true;
        }
        ring.rewind();
        self.counters.transmitted.add(done.packets, done.bytes);
        if rest != 0 {
            self.counters.transmit_dropped.add(DropReason::GuestRingFull, short.ring_full);
            self.counters.transmit_dropped.add(DropReason::BufferTooSmall, short.too_small);
        }
        if let Some(fault) = self.receiveq.as_ref().and_then(Ring::fault) {
            self.break_pair(fault);
        }
        done
    }
}

/// Delivers the first frames of `mask` as long as each finds the next buffer large enough and in one piece, as nearly
/// all do. The frames that are left.
#[inline(always)]
fn deliver_plain(
    room: &ChainList<'_>,
    used: &mut ArrayVec<Used, CHAINS_MAX>,
    header_len: usize,
    frames: Frames<'_, '_>,
    mask: u32,
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
        if chain.len < need || !chain.is_single() {
            break;
        }
        done.copied += copy_plain(chain.first, header_len, frames, index) as u64;
        used.push(Used { len: need, id: chain.id, slots: chain.slots });
        done.bytes += u64::from(len);
        rest &= rest - 1;
    }
    done.packets = used.len() as u64;
    (done, rest)
}

/// What a burst lacked.
#[derive(Default)]
struct Shortage {
    ring_full: u64,
    too_small: u64,
    /// Some buffers were published under way.
    published: bool,
}

/// A receiveq and how its guest wants frames.
struct Receiver<'a, 'm> {
    ring: &'a mut Ring,
    memory: &'m GuestMemory,
    header_len: usize,
    mergeable: bool,
}

impl<'m> Receiver<'_, 'm> {
    /// Delivers the frames of `mask` into whatever buffers there are: several a frame, or of several pieces.
    #[cold]
    #[inline(never)]
    fn deliver_rest(
        self,
        room: &mut ChainList<'m>,
        used: &mut ArrayVec<Used, CHAINS_MAX>,
        frames: Frames<'_, '_>,
        mask: u32,
        done: &mut Delivered,
    ) -> Shortage {
        let Self { ring, memory, header_len, mergeable } = self;
        let mut short = Shortage::default();
        let mut walked = 0;
        for index in set_bits(mask) {
            let len = frames.lens[index];
            let need = len + header_len as u32;
            let mut reserved = reserve(ring, memory, room, used.len(), need, mergeable);
            if let (Err(Short::Empty), false, true) =
                (&reserved, used.is_empty(), walked + room.walked() < SEGMENTS_MAX)
            {
                // Perhaps only our lists are full: empty them and look again, as long as one burst may work.
                walked += room.walked();
                ring.publish(used.iter().copied());
                ring.rewind();
                short.published = true;
                used.clear();
                room.clear();
                reserved = reserve(ring, memory, room, 0, need, mergeable);
            }
            let count = match reserved {
                Ok(count) => count,
                Err(Short::Empty) => {
                    short.ring_full += 1;
                    continue;
                }
                Err(Short::TooSmall) => {
                    short.too_small += 1;
                    continue;
                }
            };
            let chains = room.chains.get(used.len()..used.len() + count).unwrap_or(&[]);
            done.copied += copy_scattered(room, chains, header_len, frames, index) as u64;
            let mut left = need;
            for chain in chains {
                let len = left.min(chain.len);
                left -= len;
                used.push(Used { len, id: chain.id, slots: chain.slots });
            }
            done.packets += 1;
            done.bytes += u64::from(len);
        }
        short
    }
}

/// Why a frame gets no buffers.
enum Short {
    /// The guest has made too few available.
    Empty,
    /// What it makes available cannot hold the frame.
    TooSmall,
}

/// How many chains from `next` on hold `need` bytes; takes more from the ring as needed.
#[cold]
fn reserve<'m>(
    ring: &mut Ring,
    memory: &'m GuestMemory,
    room: &mut ChainList<'m>,
    next: usize,
    need: u32,
    mergeable: bool,
) -> Result<usize, Short> {
    let (mut have, mut count) = (0u32, 0);
    while have < need {
        if next + count >= room.chains.len() {
            if room.chains.is_full() {
                // All that a list holds. With a list of its own, the frame may find enough.
                return Err(if next == 0 { Short::TooSmall } else { Short::Empty });
            }
            ring.take(memory, 1, room);
        }
        let chain = room.chains.get(next + count).ok_or(Short::Empty)?;
        have = u32::saturating_add(have, chain.len);
        count += 1;
        if !mergeable && have < need {
            return Err(Short::TooSmall);
        }
    }
    Ok(count)
}

/// The virtio-net header that a receiver gets: no offloads, and in how many buffers the frame came (section 5.1.6.3.1).
#[inline(always)]
fn built_header(buffers: u16) -> [u8; NET_HEADER_MAX] {
    let [low, high] = buffers.to_le_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, low, high]
}

/// A whole frame and its header into one buffer. Bytes of the frame written.
#[inline(always)]
fn copy_plain(to: Segment<'_>, header_len: usize, frames: Frames<'_, '_>, index: usize) -> usize {
    if header_len == NET_HEADER_MAX {
        to.write_unless_equal(built_header(1));
    } else {
        to.write_unless_equal([0; 10]); // no num_buffers
    }
    frames.copy_to(index, to.from_offset(header_len))
}

impl Frames<'_, '_> {
    /// Those of `mask` whose packet has more than `mtu` bytes. One that is to be segmented will be judged by its segments.
    #[cold]
    fn longer_than(self, mtu: u16, mask: u32) -> u32 {
        let is_longer = |&index: &usize| {
            let len = self.lens[index] as usize;
            packet_len(self.heads[index].frame(len), len) > usize::from(mtu)
        };
        set_bits(mask).filter(is_longer).fold(0, |longer, index| longer | 1 << index)
    }

    /// Copies a frame, its head from the private copy and the rest from the sender's buffers, as far as `to` holds it.
    /// Bytes copied.
    #[inline(always)]
    pub fn copy_to(self, index: usize, to: Segment<'_>) -> usize {
        let len = self.lens[index] as usize;
        let mut copied = to.write(self.heads[index].frame(len));
        if len > HEAD_LEN {
            let to = to.from_offset(HEAD_LEN);
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

/// As `copy_plain`, into any pieces of any number of buffers.
#[cold]
fn copy_scattered<'r>(
    room: &ChainList<'r>,
    chains: &[Chain<'r>],
    header_len: usize,
    frames: Frames<'_, '_>,
    index: usize,
) -> usize {
    let mut pieces = chains.iter().flat_map(|chain| room.segments(chain)).copied();
    let mut to: Option<Segment<'r>> = pieces.next();
    let mut advance =
        |by: usize, at: Segment<'r>| Some(at.from_offset(by)).filter(|rest| !rest.is_empty()).or_else(|| pieces.next());
    let len = frames.lens[index] as usize;
    let header = built_header(chains.len() as u16);
    let header = &header[..header_len.min(NET_HEADER_MAX)];
    let mut copied = 0;
    for (counts, mut bytes) in [(false, header), (true, frames.heads[index].frame(len))] {
        while let Some(at) = to.filter(|_| !bytes.is_empty()) {
            let count = at.write(bytes);
            bytes = bytes.get(count..).unwrap_or(&[]);
            copied += if counts { count } else { 0 };
            to = advance(count, at);
        }
    }
    if let Some(chain) = frames.list.chains.get(index).filter(|_| len > HEAD_LEN) {
        for mut piece in payload(frames, chain) {
            while let Some(at) = to.filter(|_| !piece.is_empty()) {
                let count = piece.copy_to(at);
                piece = piece.from_offset(count);
                copied += count;
                to = advance(count, at);
            }
        }
    }
    copied
}
