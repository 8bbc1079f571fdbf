//! Words that driver and device share: the only way in which ring memory is touched.
//!
//! Each access is one atomic load or store of a whole word. A word that was loaded is a private copy; the
//! rings load each word of a descriptor once.
#![expect(unsafe_code, reason = "ring memory is shared with a guest and reached by raw pointers")]

use std::ptr::NonNull;

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::cpu::{prefetch, prefetch_write};

/// A word with atomic access.
pub(super) trait Word: Copy {
    type Atomic;
    fn load(at: &Self::Atomic, order: Ordering) -> Self;
    fn store(at: &Self::Atomic, value: Self, order: Ordering);
}

macro_rules! word {
    ($word:ty, $atomic:ty) => {
        impl Word for $word {
            type Atomic = $atomic;
            #[inline(always)]
            fn load(at: &$atomic, order: Ordering) -> $word {
                <$word>::from_le(at.load(order))
            }
            #[inline(always)]
            fn store(at: &$atomic, value: $word, order: Ordering) {
                at.store(value.to_le(), order);
            }
        }
    };
}
word!(u16, AtomicU16);
word!(u32, AtomicU32);
word!(u64, AtomicU64);

/// An array of little-endian words in guest memory.
#[derive(Debug)]
pub(super) struct SharedWords<W: Word> {
    start: NonNull<W::Atomic>,
    len: usize,
}

// SAFETY: the words are atomics, which any thread may access; the pointer is to memory that the owning ring keeps mapped.
unsafe impl<W: Word> Send for SharedWords<W> {}

impl<W: Word> SharedWords<W> {
    /// `len` words at `start`.
    ///
    /// # Safety
    /// `start` is aligned for `W` and valid for `len` words as long as this value lives, and nobody in this process
    /// accesses those bytes other than atomically or by raw copies.
    pub(super) unsafe fn new(start: NonNull<u8>, len: usize) -> Self {
        Self { start: start.cast(), len }
    }

    /// The word at `index`, once. Out of range it is the last word, never something else.
    #[inline(always)]
    pub(super) fn load(&self, index: usize, order: Ordering) -> W {
        W::load(self.at(index), order)
    }

    /// Stores the word at `index`. Out of range it is the last word, never something else.
    #[inline(always)]
    pub(super) fn store(&self, index: usize, value: W, order: Ordering) {
        W::store(self.at(index), value, order);
    }

    /// Asks the CPU for the line of the word at `index`, to be read. The index may be a guest's, and unchecked: nothing is
    /// decided by it, and a prefetch never faults.
    #[inline(always)]
    pub(super) fn prefetch(&self, index: usize) {
        prefetch(self.start.as_ptr().wrapping_add(index).cast());
    }

    /// Asks the CPU for the line of the word at `index`, to be written; see [`SharedWords::prefetch`].
    #[inline(always)]
    pub(super) fn prefetch_write(&self, index: usize) {
        prefetch_write(self.start.as_ptr().wrapping_add(index).cast());
    }

    #[inline(always)]
    fn at(&self, index: usize) -> &W::Atomic {
        debug_assert!(index < self.len);
        // SAFETY: clamped, the index is below `len` (which is not 0), whose words are valid by the contract of `new`.
        unsafe { self.start.add(index.min(self.len - 1)).as_ref() }
    }
}
