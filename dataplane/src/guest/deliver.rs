//! Into a receiveq: the one copy. Reserve buffers, copy, publish; then the guest is told once.
//!
//! The receiver gets a virtio-net header built here, the frame's head from the private copy that was judged, and the rest
//! straight from the sender's buffer.

use arrayvec::ArrayVec;

use super::frame::{FrameHead, HEAD_LEN, NET_HEADER_MAX};
use super::memory::{GuestMemory, Segment};
use super::pair::QueuePair;
use super::ring::{BURST, CHAINS_MAX, Chain, ChainList, Used};
use crate::account::DropReason;

/// A burst that was received, as its receivers see it.
#[derive(Clone, Copy, Debug)]
pub struct Frames<'a, 'm> {
    /// Private heads.
    pub heads: &'a [FrameHead; BURST],
    /// Bytes of each frame, without the virtio-net header.
    pub lens: &'a [u32; BURST],
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
        let index = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        Some(index)
    })
}

impl QueuePair {
    /// Delivers the frames of `mask`, in order, to this pair's guest, as far as it has buffers; counts what was
    /// delivered and what was dropped.
    #[inline]
    pub fn deliver(&mut self, memory: &GuestMemory, frames: Frames<'_, '_>, mask: u32) -> Delivered {
        let wanted = u64::from(mask.count_ones());
        let header_len = self.header_len();
        let mergeable = self.features.contains(super::Features::MRG_RXBUF);
        let Some(ring) = self.receiveq.as_mut().filter(|ring| ring.fault().is_none()) else {
            self.counters.transmit_dropped.add(DropReason::ReceiverStopped, wanted);
            return Delivered::default();
        };
        let mut room = ChainList::new();
        ring.take(memory, mask.count_ones() as usize, &mut room);
        let mut used: ArrayVec<Used, CHAINS_MAX> = ArrayVec::new_const();
        let mut delivered = Delivered::default();
        let (mut full, mut too_small, mut published) = (0, 0, false);
        for index in set_bits(mask) {
            let len = frames.lens[index];
            let need = len + header_len as u32;
            if let Some(chain) = room.chains.get(used.len())
                && chain.len >= need
                && chain.is_single()
            {
                delivered.copied += copy_plain(chain.first, header_len, frames, index) as u64;
                used.push(Used { len: need, id: chain.id, slots: chain.slots });
            } else {
                // Several buffers, or a buffer of several pieces: as many chains as it takes.
                let mut reserved = reserve(ring, memory, &mut room, used.len(), need, mergeable);
                if let (Err(Short::Empty), false) = (&reserved, used.is_empty()) {
                    // Perhaps only our lists are full: empty them and look again.
                    ring.publish(&used);
                    ring.rewind();
                    published = true;
                    used.clear();
                    room.clear();
                    reserved = reserve(ring, memory, &mut room, 0, need, mergeable);
                }
                let count = match reserved {
                    Ok(count) => count,
                    Err(Short::Empty) => {
                        full += 1;
                        continue;
                    }
                    Err(Short::TooSmall) => {
                        too_small += 1;
                        continue;
                    }
                };
                let chains = room.chains.get(used.len()..used.len() + count).unwrap_or(&[]);
                delivered.copied += copy_scattered(&room, chains, header_len, frames, index) as u64;
                let mut left = need;
                for chain in chains {
                    let len = left.min(chain.len);
                    left -= len;
                    used.push(Used { len, id: chain.id, slots: chain.slots });
                }
            }
            delivered.packets += 1;
            delivered.bytes += u64::from(len);
        }
        if published || !used.is_empty() {
            ring.publish(&used);
            self.counters.count_interrupt(ring.interrupt());
        }
        ring.rewind();
        self.counters.transmitted.add(delivered.packets, delivered.bytes);
        if full + too_small != 0 {
            self.counters.transmit_dropped.add(DropReason::GuestRingFull, full);
            self.counters.transmit_dropped.add(DropReason::BufferTooSmall, too_small);
        }
        if let Some(fault) = self.receiveq.as_ref().and_then(super::ring::Ring::fault) {
            self.break_pair(fault);
        }
        delivered
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
    ring: &mut super::ring::Ring,
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
        to.write_array(built_header(1));
    } else {
        to.write_array([0; 10]); // no num_buffers
    }
    frames.copy_to(index, to.from_offset(header_len))
}

impl Frames<'_, '_> {
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
