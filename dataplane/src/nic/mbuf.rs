//! Mbufs: a frame in DPDK's memory as a value that moves, and bursts of them that are allocated and freed together.
//!
//! Who holds an [`Mbuf`] or a [`Mbufs`] owns it alone (its reference count is 1, in memory that nobody else writes), until it
//! goes to a driver or back to its pool. Fields are read and written here only. One without a pool is the double's, from the
//! heap.
#![expect(unsafe_code, reason = "mbufs are raw memory that C code hands back and forth")]

use std::ptr::{NonNull, null_mut};

use arrayvec::ArrayVec;
use dpdk_sys::{
    RTE_MBUF_F_EXTERNAL, RTE_MBUF_F_INDIRECT, RTE_MBUF_F_RX_L4_CKSUM_GOOD, RTE_MBUF_F_RX_L4_CKSUM_MASK,
    RTE_MBUF_F_RX_L4_CKSUM_NONE, RTE_MBUF_F_RX_LRO, rte_mbuf, rte_pktmbuf_free_bulk,
};

use super::double;
use super::offload::TxFlags;
use crate::cpu::prefetch;
use crate::guest::memory::Segment;

/// Which mbufs DPDK says are in a tunnel (`RTE_PTYPE_TUNNEL_MASK`): of their two checksums it is not known which was checked.
const TUNNEL_MASK: u32 = 0x0000_f000;

/// Where `tso_segsz` stands in `tx_offload`.
const SEGMENT_SIZE_SHIFT: u32 = 24;

/// One frame, in one mbuf or a chain of them. Freed when dropped.
#[derive(Debug)]
pub struct Mbuf(NonNull<rte_mbuf>);

// SAFETY: an mbuf belongs to whoever holds it, not to a thread; pools serve all threads.
unsafe impl Send for Mbuf {}

/// What a NIC says of the checksum of a frame that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Nothing, or that it is wrong: for the receiver to find out.
    Unchecked,
    /// It is right.
    Good,
    /// It is not in the frame, which never was on a wire: it is to be filled in, and the frame may be cut into segments of so
    /// many bytes of payload.
    Missing(Option<u16>),
}

/// Mbufs, each the first of a frame or one to be filled; what was taken out leaves its place empty.
#[derive(Debug)]
pub struct Mbufs<const N: usize>(ArrayVec<*mut rte_mbuf, N>);

// SAFETY: as for Mbuf.
unsafe impl<const N: usize> Send for Mbufs<N> {}

impl<const N: usize> Mbufs<N> {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self(ArrayVec::new_const())
    }

    /// How many, empty places included.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is no place left.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.is_full()
    }

    /// Adds one; it is freed if there is no place.
    #[inline]
    pub fn push(&mut self, mbuf: Mbuf) {
        if self.0.try_push(mbuf.0.as_ptr()).is_ok() {
            std::mem::forget(mbuf);
        }
    }

    /// Takes the one at `index` out.
    #[inline]
    pub fn take(&mut self, index: usize) -> Option<Mbuf> {
        NonNull::new(std::mem::replace(self.0.get_mut(index)?, null_mut())).map(Mbuf)
    }

    /// Frees the first `count`, together; those behind them move to the front.
    #[inline]
    pub fn free_first(&mut self, count: usize) {
        let count = count.min(self.0.len());
        // SAFETY: the pointers are ours, and gone from the list before anybody can see them again.
        unsafe { free(self.0.get_mut(..count).unwrap_or(&mut [])) };
        self.0.drain(..count);
    }

    /// Forgets the first `count`, which a driver has taken.
    #[inline]
    pub(super) fn forget_first(&mut self, count: usize) {
        self.0.drain(..count.min(self.0.len()));
    }

    /// For a driver: the pointers, none of them null.
    #[inline]
    pub(super) fn pointers(&mut self) -> &mut [*mut rte_mbuf] {
        &mut self.0
    }

    /// Has `fill` write up to `want` pointers to mbufs of ours behind the others; it says how many it wrote.
    ///
    /// # Safety
    /// `fill` writes as many pointers as it says, each to a valid mbuf that nobody else holds.
    #[inline]
    pub(super) unsafe fn extend(
        &mut self,
        want: usize,
        fill: impl FnOnce(*mut *mut rte_mbuf, usize) -> usize,
    ) -> usize {
        let (len, room) = (self.0.len(), self.0.remaining_capacity().min(want));
        // SAFETY: there is room for as many behind the first `len`; the caller answers for what is written there.
        unsafe {
            let count = fill(self.0.as_mut_ptr().add(len), room).min(room);
            self.0.set_len(len + count);
            count
        }
    }

    fn get(&self, index: usize) -> Option<&rte_mbuf> {
        // SAFETY: what is not null is a valid mbuf of ours.
        self.0.get(index).and_then(|&mbuf| unsafe { mbuf.as_ref() })
    }

    /// Asks the CPU to fetch the mbufs, and then the beginning of each frame.
    #[inline]
    pub fn prefetch(&self) {
        for &mbuf in &self.0 {
            prefetch(mbuf.cast());
        }
        for index in 0..self.0.len() {
            if let Some(mbuf) = self.get(index) {
                let data = mbuf.buf_addr.cast::<u8>().cast_const().wrapping_add(mbuf.data_off.into());
                prefetch(data);
                prefetch(data.wrapping_add(64));
            }
        }
    }

    /// The pieces of frame `index`, in order.
    #[inline]
    pub fn pieces(&self, index: usize) -> impl Iterator<Item = Segment<'_>> {
        let (mut next, mut left) = (self.get(index), self.segments(index));
        std::iter::from_fn(move || {
            let mbuf = next?;
            left = left.checked_sub(1)?;
            // SAFETY: the links of a chain of ours are ours.
            next = unsafe { mbuf.next.as_ref() };
            Some(data(mbuf, mbuf.data_len.into()))
        })
    }

    /// Mbufs of frame `index`.
    #[inline]
    #[must_use]
    pub fn segments(&self, index: usize) -> usize {
        self.get(index).map_or(0, |mbuf| mbuf.nb_segs.into())
    }

    /// Bytes of all frames.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (0..self.0.len()).filter_map(|index| self.get(index)).map(|mbuf| u64::from(mbuf.pkt_len)).sum()
    }

    /// What the NIC said of frame `index`. Only one of virtio (`is_virtio`) means by a checksum of which it knows nothing that it
    /// is left to be done.
    #[inline]
    #[must_use]
    pub fn received(&self, index: usize, is_virtio: bool) -> Received {
        let Some(mbuf) = self.get(index) else { return Received::Unchecked };
        let flags = mbuf.ol_flags & (RTE_MBUF_F_RX_L4_CKSUM_MASK | RTE_MBUF_F_RX_LRO);
        if flags == 0 {
            return Received::Unchecked;
        }
        // SAFETY: both unions are plain numbers.
        let (packet_type, offload) = unsafe { (mbuf.__bindgen_anon_1.packet_type, mbuf.__bindgen_anon_3.tx_offload) };
        if flags & RTE_MBUF_F_RX_LRO != 0 {
            return Received::Missing(Some((offload >> SEGMENT_SIZE_SHIFT) as u16));
        }
        match flags {
            RTE_MBUF_F_RX_L4_CKSUM_NONE if is_virtio => Received::Missing(None),
            RTE_MBUF_F_RX_L4_CKSUM_GOOD if packet_type & TUNNEL_MASK == 0 => Received::Good,
            _ => Received::Unchecked,
        }
    }

    /// The room of the empty mbuf at `index`.
    #[inline]
    #[must_use]
    pub fn room(&self, index: usize) -> Option<Segment<'_>> {
        let mbuf = self.get(index)?;
        Some(data(mbuf, u32::from(mbuf.buf_len.saturating_sub(mbuf.data_off))))
    }

    /// Moves the last mbuf, which is as it came from its pool but for a frame of `len` bytes that was written into it, behind
    /// those of `to`, if there is a place.
    #[inline]
    pub fn move_last<const M: usize>(&mut self, len: u32, to: &mut Mbufs<M>) {
        if to.0.is_full() {
            return;
        }
        let Some(at) = self.0.pop() else { return };
        // SAFETY: an mbuf of ours, of which nobody else has a reference.
        if let Some(mbuf) = unsafe { at.as_mut() } {
            mbuf.data_len = len as u16;
            mbuf.pkt_len = len;
            to.0.push(at);
        }
    }

    /// Takes the last `count` mbufs out, as one frame of `len` bytes, with which they were filled in their order here.
    #[inline]
    pub fn chain_last(&mut self, count: usize, len: u32, flags: TxFlags) -> Option<Mbuf> {
        let start = self.0.len().checked_sub(count)?;
        let mut first = None;
        for index in (start..self.0.len()).rev() {
            let at = *self.0.get(index)?;
            // SAFETY: an mbuf of ours, of which nobody else has a reference.
            let mbuf = unsafe { at.as_mut() }?;
            let room = u32::from(mbuf.buf_len.saturating_sub(mbuf.data_off));
            let before = room.saturating_mul((index - start) as u32);
            mbuf.data_len = len.saturating_sub(before).min(room) as u16;
            mbuf.next = first.map_or(null_mut(), NonNull::as_ptr);
            mbuf.nb_segs = 1;
            first = NonNull::new(at);
        }
        self.0.truncate(start);
        let mut frame = Mbuf(first?);
        frame.set(|mbuf| {
            mbuf.nb_segs = count as u16;
            mbuf.pkt_len = len;
        });
        frame.set_flags(flags);
        Some(frame)
    }
}

impl<const N: usize> Default for Mbufs<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Drop for Mbufs<N> {
    #[inline]
    fn drop(&mut self) {
        self.free_first(N);
    }
}

impl Mbuf {
    /// Takes over what C code gives.
    ///
    /// # Safety
    /// A valid mbuf that nobody else holds.
    pub(super) unsafe fn from_raw(mbuf: NonNull<rte_mbuf>) -> Self {
        Self(mbuf)
    }

    /// Gives it to C code.
    pub(super) fn into_raw(self) -> NonNull<rte_mbuf> {
        let raw = self.0;
        std::mem::forget(self);
        raw
    }

    #[inline]
    fn set(&mut self, set: impl FnOnce(&mut rte_mbuf)) {
        // SAFETY: ours alone.
        set(unsafe { self.0.as_mut() });
    }

    /// Asks the NIC that it goes to for this, and for nothing else: what the one that it came from said is forgotten.
    #[inline]
    pub fn set_flags(&mut self, flags: TxFlags) {
        self.set(|mbuf| {
            mbuf.ol_flags = mbuf.ol_flags & (RTE_MBUF_F_EXTERNAL | RTE_MBUF_F_INDIRECT) | flags.flags;
            mbuf.__bindgen_anon_3.tx_offload = flags.lengths;
        });
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: ours, and gone after this.
        unsafe { free(&mut [self.0.as_ptr()]) };
    }
}

#[inline]
fn data(mbuf: &rte_mbuf, len: u32) -> Segment<'_> {
    let start = mbuf.buf_addr.cast::<u8>().wrapping_add(mbuf.data_off.into());
    // SAFETY: DPDK's buffers hold `data_len` bytes from `data_off` on, and `buf_len` in all; they live as long as the mbuf, and
    // nobody makes references into them.
    unsafe { Segment::new(NonNull::new(start).unwrap_or(NonNull::dangling()), len) }
}

/// Gives mbufs back to where they come from, with what is chained to them; nulls are passed over.
///
/// # Safety
/// They are ours, and not used after this.
#[inline]
unsafe fn free(mbufs: &mut [*mut rte_mbuf]) {
    // SAFETY: what is not null is a valid mbuf of ours.
    let is_double = |&mbuf: &*mut rte_mbuf| unsafe { mbuf.as_ref() }.is_some_and(|mbuf| mbuf.pool.is_null());
    if mbufs.iter().any(is_double) {
        for &mbuf in mbufs.iter() {
            // SAFETY: mbufs without a pool are the double's, and doubles meet no others.
            unsafe { double::free(mbuf) };
        }
    } else if !mbufs.is_empty() {
        // SAFETY: as many pointers as said; DPDK passes over nulls, and its pools are there as long as EAL is.
        unsafe { rte_pktmbuf_free_bulk(mbufs.as_mut_ptr(), mbufs.len() as u32) };
    }
}
