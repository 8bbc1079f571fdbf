//! Bytes of a guest, and the only ways to touch them.
//!
//! A guest may change any byte at any time, so no reference into its memory ever exists: a [`Segment`]
//! is a raw pointer inside a checked range, and what it offers is copying, once, between the guest and
//! private memory or between two guests. What was read is a private copy that the compiler cannot take from the
//! guest again (`read_for_good`); what goes from guest to guest is looked at by nobody.
#![expect(unsafe_code, reason = "copies from and to memory shared with a guest through raw pointers")]

use std::marker::PhantomData;
use std::ptr::NonNull;

use super::frame::NET_HEADER_MAX;
use super::memory::GuestMemory;
use crate::cpu::{prefetch, prefetch_write};
use crate::packet::{BLOCK, InternetSum, sum_block};

/// A contiguous piece of guest memory, checked when it was made and mapped as long as its table lives.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'m> {
    ptr: NonNull<u8>,
    len: u32,
    memory: PhantomData<&'m GuestMemory>,
}

impl<'m> Segment<'m> {
    /// The `len` bytes at `ptr`: a guest's, or memory of our own, such as an mbuf's, to be copied from and to like a guest's.
    ///
    /// # Safety
    /// They are in one mapping that lives as long as `'m`, and no reference to them exists meanwhile.
    #[inline]
    #[must_use]
    pub unsafe fn new(ptr: NonNull<u8>, len: u32) -> Self {
        Self { ptr, len, memory: PhantomData }
    }

    /// Bytes.
    #[inline]
    #[must_use]
    pub fn len(self) -> usize {
        self.len as usize
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Asks the CPU to fetch the first two cache lines, to be read.
    #[inline(always)]
    pub fn prefetch(self) {
        prefetch(self.ptr.as_ptr());
        prefetch(self.ptr.as_ptr().wrapping_add(64));
    }

    /// Asks the CPU to fetch what a frame behind a virtio-net header touches first: the header's line, which is seldom
    /// written (see [`Segment::write_unless_equal`]), to be read; the frame's first line to be written.
    #[inline(always)]
    pub fn prefetch_room(self) {
        prefetch(self.ptr.as_ptr());
        prefetch_write(self.ptr.as_ptr().wrapping_add(NET_HEADER_MAX));
    }

    /// What lies from `offset` on; empty if nothing does.
    #[inline]
    #[must_use]
    pub fn from_offset(self, offset: usize) -> Self {
        let offset = offset.min(self.len());
        // SAFETY: offset <= len.
        Self { ptr: unsafe { self.ptr.add(offset) }, len: self.len - offset as u32, memory: PhantomData }
    }

    /// The first `len` bytes, or all if there are fewer.
    #[inline]
    #[must_use]
    pub fn until(self, len: usize) -> Self {
        Self { len: self.len.min(u32::try_from(len).unwrap_or(u32::MAX)), ..self }
    }

    /// Copies the first bytes into private memory, as many as both hold; returns how many. What is read here can be judged, so
    /// it is for the few places that read once: descriptors, and the heads of frames ([`super::ring::Unread`]).
    #[inline]
    pub(super) fn read(self, into: &mut [u8]) -> usize {
        let len = into.len().min(self.len());
        // SAFETY: `len` is within both; a private slice and mapped guest memory do not overlap.
        unsafe { copy(self.ptr.as_ptr(), into.as_mut_ptr(), len) };
        read_for_good(into.as_mut_ptr());
        len
    }

    /// Copies private memory to the first bytes, as many as both hold; returns how many.
    #[inline]
    pub fn write(self, from: &[u8]) -> usize {
        let len = from.len().min(self.len());
        // SAFETY: as in `read`.
        unsafe { copy(from.as_ptr(), self.ptr.as_ptr(), len) };
        len
    }

    /// Makes the start hold exactly `bytes`, if there is room. Nothing is decided by what was there, but whether to store: a guest
    /// that changes it meanwhile keeps what it wrote. A store is only made where something differs: the line of
    /// a header that hardly ever changes then stays in both cores' caches, instead of moving twice for each frame.
    #[inline(always)]
    pub fn write_unless_equal<const N: usize>(self, bytes: [u8; N]) {
        if self.len() >= N {
            let at = self.ptr.as_ptr().cast::<[u8; N]>();
            // SAFETY: N bytes are within the segment.
            unsafe {
                if at.read_unaligned() != bytes {
                    at.write_unaligned(bytes);
                }
            }
        }
    }

    /// Copies the first bytes to another guest, as many as both hold; returns how many. The one copy.
    #[inline]
    pub fn copy_to(self, to: Segment<'_>) -> usize {
        let len = self.len().min(to.len());
        // SAFETY: `len` is within both. The two may be the same physical page (a guest's choice), or
        // the same mapping, hence memmove: what it then reads is the guest's own doing.
        unsafe { std::ptr::copy(self.ptr.as_ptr(), to.ptr.as_ptr(), len) };
        len
    }

    /// As [`Segment::copy_to`], and goes on with `sum` over the bytes that were copied. Each is read once and goes through
    /// private memory: what was summed is what was written, whatever either guest does meanwhile.
    pub fn copy_summed(self, to: Segment<'_>, sum: &mut InternetSum) -> usize {
        let len = self.len().min(to.len());
        let (mut words, blocks_len) = (0, len - len % BLOCK);
        for at in (0..blocks_len).step_by(BLOCK) {
            // SAFETY: `at + BLOCK` is at most `len`, which is within both.
            unsafe {
                let block = self.ptr.add(at).cast::<[u8; BLOCK]>().read_unaligned();
                words += sum_block(&block);
                to.ptr.add(at).cast::<[u8; BLOCK]>().write_unaligned(block);
            }
        }
        sum.append(words, blocks_len);
        let mut tail = [0; BLOCK];
        let tail_len = self.until(len).from_offset(blocks_len).read(&mut tail);
        let tail = tail.get(..tail_len).unwrap_or(&[]);
        sum.add(tail);
        to.from_offset(blocks_len).write(tail);
        len
    }
}

/// What was copied from a guest to `private` is from now on what it is.
///
/// To the compiler the copy is of ordinary memory, which nobody else changes: it could save the copy, or load from the guest
/// again where the copy is used, and what was judged would not be what is used. This is no instruction, but as far as the compiler
/// knows it reads and writes all memory that it can reach: `private`, which therefore is complete before, and is loaded from
/// after, and the guest's, which therefore is not known to hold the same after. Every read of a guest's bytes ends with this; its
/// words are read by atomic loads ([`super::ring`]).
#[inline(always)]
fn read_for_good(private: *mut u8) {
    // SAFETY: an empty line of assembly.
    unsafe { std::arch::asm!("/* {0} */", in(reg) private, options(nostack, preserves_flags)) };
}

/// memcpy that stays inline for the lengths that frame heads have: two overlapping moves of a fixed
/// size each, instead of a call.
///
/// # Safety
/// `from` and `to` are valid for `len` bytes and do not overlap.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    /// # Safety
    /// N <= len, and as for `copy`.
    #[inline(always)]
    unsafe fn ends<const HEAD: usize, const TAIL: usize>(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: HEAD and TAIL are at most `len`, so both moves lie inside.
        unsafe {
            let head = from.cast::<[u8; HEAD]>().read_unaligned();
            let tail = from.add(len - TAIL).cast::<[u8; TAIL]>().read_unaligned();
            to.cast::<[u8; HEAD]>().write_unaligned(head);
            to.add(len - TAIL).cast::<[u8; TAIL]>().write_unaligned(tail);
        }
    }
    // SAFETY: each arm's sizes are at most its lower bound on `len`.
    unsafe {
        match len {
            64..=80 => ends::<64, 16>(from, to, len),
            81..=128 => ends::<64, 64>(from, to, len),
            129..=144 => ends::<128, 16>(from, to, len),
            33..=63 => ends::<32, 32>(from, to, len),
            16..=32 => ends::<16, 16>(from, to, len),
            8..=15 => ends::<8, 8>(from, to, len),
            _ => std::ptr::copy_nonoverlapping(from, to, len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::tests::memory;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn copies_are_exact_and_touch_nothing_else(len in 0usize..400, offset in 0u64..64) {
            let memory = memory(&[(0, 0x1000)]);
            let mut hint = 0;
            let source: Vec<u8> = (0..len).map(|i| i as u8 ^ 0x5a).collect();
            let all = memory.segment(&mut hint, 0, 0x1000).unwrap();
            all.write(&[0xee; 0x1000]);
            let segment = memory.segment(&mut hint, offset, len as u32).unwrap();
            prop_assert_eq!(segment.write(&source), len);
            let mut back = vec![0; len];
            prop_assert_eq!(segment.read(&mut back), len);
            prop_assert_eq!(&back, &source);
            let mut whole = vec![0; 0x1000];
            all.read(&mut whole);
            let offset = offset as usize;
            prop_assert!(whole[..offset].iter().chain(&whole[offset + len..]).all(|&byte| byte == 0xee));
            let target = memory.segment(&mut hint, 0x800, len as u32).unwrap();
            prop_assert_eq!(segment.copy_to(target), len);
            target.read(&mut back);
            prop_assert_eq!(&back, &source);
        }

        #[test]
        fn a_summed_copy_is_a_copy_and_its_sum(source in proptest::collection::vec(any::<u8>(), 0..400), at in 0u64..64, room in 0u32..400) {
            let memory = memory(&[(0, 0x1000)]);
            let mut hint = 0;
            let from = memory.segment(&mut hint, at, source.len() as u32).unwrap();
            from.write(&source);
            let all = memory.segment(&mut hint, 0x800, 0x400).unwrap();
            all.write(&[0xee; 0x400]);
            let target = memory.segment(&mut hint, 0x800 + at, room).unwrap();
            let len = source.len().min(room as usize);
            let (mut ours, mut right) = (InternetSum::default(), InternetSum::default());
            prop_assert_eq!(from.copy_summed(target, &mut ours), len);
            right.add(&source[..len]);
            prop_assert_eq!(ours.sum(), right.sum());
            let mut whole = [0; 0x400];
            all.read(&mut whole);
            let at = at as usize;
            prop_assert_eq!(&whole[at..at + len], &source[..len]);
            prop_assert!(whole[..at].iter().chain(&whole[at + len..]).all(|&byte| byte == 0xee));
        }
    }
}
