//! A descriptor chain after its descriptors were read, once: private, bounded, translated.

use std::slice;

use arrayvec::ArrayVec;

use super::super::frame::FrameHead;
use super::super::memory::{GuestMemory, Segment};
use super::{BURST, CHAINS_MAX, Direction, RingFault};

/// The most pieces that the chains of one burst may have in all, beside those of one piece each. A frame of
/// 64 KiB in pages has 17.
pub const SEGMENTS_MAX: usize = 1024;

/// One chain.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'m> {
    /// Its first piece; the only one if `more` is false.
    pub first: Segment<'m>,
    /// Bytes in all pieces.
    pub len: u32,
    /// Buffer id, to be given back.
    pub id: u16,
    /// Ring slots it takes, to be given back.
    pub slots: u16,
    start: u16,
    count: u16,
}

impl<'m> Chain<'m> {
    /// A chain of one piece.
    #[inline]
    #[must_use]
    pub fn single(segment: Segment<'m>, id: u16) -> Self {
        Self { first: segment, len: segment.len() as u32, id, slots: 1, start: 0, count: 0 }
    }

    /// Whether it is one contiguous piece.
    #[inline]
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.count == 0
    }
}

/// The chains of one burst.
#[derive(Debug, Default)]
pub struct ChainList<'m> {
    /// In the order of the ring.
    pub chains: ArrayVec<Chain<'m>, CHAINS_MAX>,
    segments: ArrayVec<Segment<'m>, SEGMENTS_MAX>,
    /// Descriptors walked for chains of several pieces, empty ones too: the bound on work.
    walked: usize,
}

impl<'m> ChainList<'m> {
    /// An empty list.
    #[inline]
    #[must_use]
    pub fn new() -> Self {
        Self { chains: ArrayVec::new_const(), segments: ArrayVec::new_const(), walked: 0 }
    }

    /// The pieces of `chain`, which must be of this list.
    #[must_use]
    pub fn segments<'a>(&'a self, chain: &'a Chain<'m>) -> &'a [Segment<'m>] {
        if chain.is_single() {
            return slice::from_ref(&chain.first);
        }
        let start = usize::from(chain.start);
        self.segments.get(start..start + usize::from(chain.count)).unwrap_or(&[])
    }

    /// Becomes a list of chains that are in no ring, one for each of `frames`, made of its pieces; of as many as there is room
    /// for.
    pub fn fill<P: Iterator<Item = Segment<'m>>>(&mut self, mut frames: impl Iterator<Item = P>) -> Unread<'_, 'm> {
        self.clear();
        let _ = frames.all(|pieces| self.push(pieces));
        Unread(self)
    }

    /// Adds a chain that is in no ring, of `pieces`. `false`, and nothing added, if there is no room for it.
    fn push(&mut self, mut pieces: impl Iterator<Item = Segment<'m>>) -> bool {
        let (start, Some(first)) = (self.segments.len(), pieces.next()) else { return false };
        let mut chain = Chain { slots: 0, ..Chain::single(first, 0) };
        for (piece, is_second) in pieces.zip(std::iter::once(true).chain(std::iter::repeat(false))) {
            if is_second && self.segments.try_push(first).is_err() || self.segments.try_push(piece).is_err() {
                self.segments.truncate(start);
                return false;
            }
            chain.len = chain.len.saturating_add(piece.len() as u32);
        }
        // It fits: the list holds SEGMENTS_MAX.
        (chain.start, chain.count) = (start as u16, (self.segments.len() - start) as u16);
        let is_added = self.chains.try_push(chain).is_ok();
        if !is_added {
            self.segments.truncate(start);
        }
        is_added
    }

    /// Descriptors walked for chains of several pieces.
    #[must_use]
    pub fn walked(&self) -> usize {
        self.walked
    }

    /// Empties it.
    #[inline]
    pub fn clear(&mut self) {
        self.chains.clear();
        self.segments.clear();
        self.walked = 0;
    }

    /// Starts a chain of several pieces.
    pub(super) fn builder<'a>(&'a mut self, memory: &'m GuestMemory, direction: Direction) -> ChainBuilder<'a, 'm> {
        let start = self.segments.len();
        ChainBuilder { list: self, memory, direction, start, len: 0 }
    }
}

/// A burst of frames that nobody has looked at. Looking ends it, so that each byte that is judged is read once: what there is
/// after it, the [`ChainList`], can be copied to others and not be read.
#[derive(Debug)]
pub struct Unread<'a, 'm>(&'a mut ChainList<'m>);

impl<'a, 'm> Unread<'a, 'm> {
    /// Those of `list`, which was just filled.
    #[inline(always)]
    pub(in super::super) fn new(list: &'a mut ChainList<'m>) -> Self {
        Self(list)
    }

    /// Frames.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.chains.len()
    }

    /// Whether there are none.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.chains.is_empty()
    }

    /// Copies the head of each frame, and the virtio-net header of `header_len` bytes before it, into `heads`, and then tells
    /// `judge` of it: its number, its head, the bytes of the chain.
    #[inline(always)]
    pub fn read_heads(
        self,
        header_len: usize,
        heads: &mut [FrameHead; BURST],
        mut judge: impl FnMut(usize, &FrameHead, u32),
    ) -> &'a ChainList<'m> {
        let list: &'a ChainList<'m> = self.0;
        for (index, (chain, head)) in list.chains.iter().zip(heads).enumerate() {
            if chain.is_single() {
                head.read(chain.first, header_len);
            } else {
                head.gather(list.segments(chain), header_len);
            }
            judge(index, head, chain.len);
        }
        list
    }

    /// The chains, of which nothing is read at all.
    #[must_use]
    pub fn unseen(self) -> &'a ChainList<'m> {
        self.0
    }
}

/// What became of a chain of several pieces.
pub(super) enum Built {
    /// It is in the list.
    Taken,
    /// The list has no room left: take it with the next burst.
    NoRoom,
}

/// A chain cannot go on: the ring is broken, or the list is full.
pub(super) enum Stop {
    Fault(RingFault),
    NoRoom,
}

impl From<RingFault> for Stop {
    fn from(fault: RingFault) -> Self {
        Self::Fault(fault)
    }
}

/// A descriptor after it was read. The layouts share the first 12 bytes; `tail` is flags and next on a
/// split ring, buffer id and flags on a packed one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) len: u32,
    pub(super) tail: [u16; 2],
}

impl Descriptor {
    pub(super) const LEN: u32 = 16;

    #[inline]
    pub(super) fn from_words(address: u64, rest: u64) -> Self {
        let (address, rest) = (u64::from_le(address), u64::from_le(rest));
        Self { address, len: rest as u32, tail: [(rest >> 32) as u16, (rest >> 48) as u16] }
    }
}

/// Descriptor flags that both layouts share (virtio 1.2, sections 2.7.5 and 2.8.13).
pub(super) mod flag {
    pub(in super::super) const NEXT: u16 = 1;
    pub(in super::super) const WRITE: u16 = 2;
    pub(in super::super) const INDIRECT: u16 = 4;
}

/// Gathers the pieces of one chain, checking each.
pub(super) struct ChainBuilder<'a, 'm> {
    list: &'a mut ChainList<'m>,
    memory: &'m GuestMemory,
    direction: Direction,
    start: usize,
    len: u32,
}

impl ChainBuilder<'_, '_> {
    /// Adds the buffer of one descriptor, cut where a memory region ends.
    pub(super) fn push(&mut self, mut address: u64, mut len: u32, writable: bool) -> Result<(), Stop> {
        if self.list.walked == SEGMENTS_MAX {
            return Err(Stop::NoRoom);
        }
        self.list.walked += 1;
        if writable != (self.direction == Direction::Writable) {
            return Err(RingFault::BadDirection.into());
        }
        self.len = self.len.checked_add(len).ok_or(RingFault::ChainTooLong)?;
        while len > 0 {
            let segment = self.memory.leading_segment(address, len).ok_or(RingFault::BadAddress)?;
            self.list.segments.try_push(segment).map_err(|_| Stop::NoRoom)?;
            address += segment.len() as u64;
            len -= segment.len() as u32;
        }
        Ok(())
    }

    /// Adds the buffers of an indirect table (virtio 1.2, sections 2.7.5.3 and 2.8.7) of `len` bytes.
    /// `read` says of a descriptor its flags and the index of the one after it, if any.
    pub(super) fn push_indirect(
        &mut self,
        address: u64,
        len: u32,
        descriptors_max: u16,
        read: impl Fn(u16, Descriptor) -> (u16, Option<u16>),
    ) -> Result<(), Stop> {
        let count = len / Descriptor::LEN;
        if len == 0 || !len.is_multiple_of(Descriptor::LEN) || count > u32::from(descriptors_max) {
            return Err(RingFault::BadIndirect.into());
        }
        let mut at = Some(0u16);
        for _ in 0..count {
            let Some(index) = at else { return Ok(()) };
            if u32::from(index) >= count {
                return Err(RingFault::BadIndirect.into());
            }
            let offset = u64::from(index) * u64::from(Descriptor::LEN);
            let descriptor = self.read_descriptor(address.checked_add(offset).ok_or(RingFault::BadAddress)?)?;
            let (flags, next) = read(index, descriptor);
            if flags & flag::INDIRECT != 0 {
                return Err(RingFault::BadIndirect.into());
            }
            self.push(descriptor.address, descriptor.len, flags & flag::WRITE != 0)?;
            at = next;
        }
        // More links than entries: a loop.
        if at.is_some() { Err(RingFault::BadIndirect.into()) } else { Ok(()) }
    }

    /// One descriptor of an indirect table, read once. The table may cross regions.
    fn read_descriptor(&self, address: u64) -> Result<Descriptor, RingFault> {
        let mut bytes = [0; Descriptor::LEN as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            let left = (bytes.len() - filled) as u32;
            let at = address.checked_add(filled as u64).ok_or(RingFault::BadAddress)?;
            let segment = self.memory.leading_segment(at, left).ok_or(RingFault::BadAddress)?;
            filled += segment.read(&mut bytes[filled..]);
        }
        let [address, rest] = [0, 8].map(|at| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_ne_bytes(word)
        });
        Ok(Descriptor::from_words(address, rest))
    }

    /// Closes the chain. One without a byte has an empty first piece.
    pub(super) fn finish(self, id: u16, slots: u16) -> Result<Built, RingFault> {
        let count = self.list.segments.len() - self.start;
        let first = match self.list.segments.get(self.start) {
            Some(first) => *first,
            None => self.memory.empty_segment().ok_or(RingFault::BadAddress)?,
        };
        // Both fit: the list holds SEGMENTS_MAX.
        let (start, count) = (self.start as u16, if count <= 1 { 0 } else { count as u16 });
        let chain = Chain { first, len: self.len, id, slots, start, count };
        Ok(if self.list.chains.try_push(chain).is_ok() { Built::Taken } else { Built::NoRoom })
    }

    /// Takes back what was gathered. A chain that does not fit a list of its own is too long for ever.
    pub(super) fn give_up(self, stop: Stop) -> Result<Built, RingFault> {
        self.list.segments.truncate(self.start);
        match stop {
            Stop::Fault(fault) => Err(fault),
            Stop::NoRoom if self.list.chains.is_empty() => Err(RingFault::ChainTooLong),
            Stop::NoRoom => Ok(Built::NoRoom),
        }
    }
}
