//! A bucket: one cache line of tags and places. What a lookup reads first, and for a miss the only thing.

use super::super::atomics::{AtomicU32, AtomicU64, Ordering};
use crate::cpu::equal_lanes;

/// Entries that a bucket names.
pub(super) const WAYS: usize = 8;

/// Eight ways, each a tag and the number of an entry. A tag of 0 is a free way. A way that is taken keeps its key until that is
/// deleted: nothing is ever moved, so a reader cannot look where a key is not yet, or not any more.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Bucket {
    /// Four tags in a word.
    tags: [AtomicU64; 2],
    entries: [AtomicU32; WAYS],
    /// Keys of this bucket that found it full, and are in another one of its neighbourhood.
    strays: AtomicU32,
}

impl Bucket {
    /// The ways with this tag, a bit each.
    #[inline(always)]
    pub(super) fn ways(&self, tag: u16) -> u32 {
        // What is published with a tag is seen by who sees the tag.
        equal_lanes(self.tags.each_ref().map(|word| word.load(Ordering::Acquire)), tag)
    }

    /// The ways that are taken, a bit each.
    pub(super) fn taken(&self) -> u32 {
        !self.ways(0) & ((1 << WAYS) - 1)
    }

    /// The number of the entry in a way.
    #[inline(always)]
    pub(super) fn entry(&self, way: usize) -> u32 {
        // A key's entry is exchanged under its tag: what the new one holds is seen by who sees its number.
        self.entries[way % WAYS].load(Ordering::Acquire)
    }

    /// Whether keys of this bucket are elsewhere.
    #[inline(always)]
    pub(super) fn strays(&self) -> u32 {
        self.strays.load(Ordering::Acquire)
    }

    /// Puts another entry, already written, into a way. The writer only.
    pub(super) fn set_entry(&self, way: usize, entry: u32) {
        self.entries[way % WAYS].store(entry, Ordering::Release);
    }

    /// Takes a way, after its entry was set, or with 0 gives it up. The writer only.
    pub(super) fn set_tag(&self, way: usize, tag: u16) {
        let word = &self.tags[way % WAYS / 4];
        let shift = way % 4 * 16;
        let others = word.load(Ordering::Relaxed) & !(0xffff << shift);
        word.store(others | u64::from(tag) << shift, Ordering::Release);
    }

    /// Counts a key that is elsewhere. The writer only.
    pub(super) fn add_stray(&self) {
        self.strays.store(self.strays.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// Counts one less. The writer only.
    pub(super) fn remove_stray(&self) {
        self.strays.store(self.strays.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Release);
    }
}
