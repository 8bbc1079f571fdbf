//! A bucket: one cache line of tags and places. What a lookup reads first, and for a miss the only thing.

use super::super::atomics::{AtomicU32, AtomicU64, Ordering};
use crate::cpu::equal_lanes;

/// Entries that a bucket names.
pub(super) const WAYS: usize = 10;

const ALL: u32 = (1 << WAYS) - 1;

/// Ten ways, each a tag and the number of an entry. A tag of 0 is a free way. A way that is taken keeps its key until that is
/// deleted: nothing is ever moved, so a reader cannot look where a key is not yet, or not any more.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Bucket {
    /// Four tags in a word; in the last one two, and above them the strays: keys of this bucket that found it full, and are in
    /// another one of its neighbourhood.
    tags: [AtomicU64; 3],
    entries: [AtomicU32; WAYS],
}

/// Keys of a bucket that are elsewhere: how many, in the low byte, and above it a bit for each, chosen by its tag. A bit stays until
/// the last of them is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strays(u32);

impl Strays {
    /// Whether there are any.
    #[inline(always)]
    pub(super) fn any(self) -> bool {
        self.0 != 0
    }

    /// Whether a key with this tag may be one of them.
    #[inline(always)]
    pub(super) fn may_have(self, tag: u16) -> bool {
        self.any() && self.0 & Self::bit(tag) != 0
    }

    /// How many.
    #[cfg(test)]
    pub(super) fn count(self) -> u32 {
        self.0 & 0xff
    }

    #[inline(always)]
    fn bit(tag: u16) -> u32 {
        1 << (8 + ((u32::from(tag) * 24) >> 16))
    }
}

impl Bucket {
    /// The ways with this tag, a bit each, and what is elsewhere.
    #[inline(always)]
    pub(super) fn look(&self, tag: u16) -> (u32, Strays) {
        // What is published with a tag is seen by who sees the tag.
        let words = self.tags.each_ref().map(|word| word.load(Ordering::Acquire));
        (equal_lanes(words, tag) & ALL, Strays((words[2] >> 32) as u32))
    }

    /// The ways with this tag, a bit each.
    #[inline(always)]
    pub(super) fn ways(&self, tag: u16) -> u32 {
        self.look(tag).0
    }

    /// The ways that are taken, a bit each.
    pub(super) fn taken(&self) -> u32 {
        !self.ways(0) & ALL
    }

    /// The number of the entry in a way.
    #[inline(always)]
    pub(super) fn entry(&self, way: usize) -> u32 {
        // A key's entry is exchanged under its tag: what the new one holds is seen by who sees its number.
        self.entries[way.min(WAYS - 1)].load(Ordering::Acquire)
    }

    /// Puts another entry, already written, into a way. The writer only.
    #[inline(always)]
    pub(super) fn set_entry(&self, way: usize, entry: u32) {
        self.entries[way.min(WAYS - 1)].store(entry, Ordering::Release);
    }

    /// Takes a way, after its entry was set, or with 0 gives it up. The writer only.
    #[inline(always)]
    pub(super) fn set_tag(&self, way: usize, tag: u16) {
        let (word, shift) = (&self.tags[way.min(WAYS - 1) / 4], way % 4 * 16);
        let others = word.load(Ordering::Relaxed) & !(0xffff << shift);
        word.store(others | u64::from(tag) << shift, Ordering::Release);
    }

    /// Counts a key that is elsewhere. The writer only.
    pub(super) fn add_stray(&self, tag: u16) {
        let Strays(word) = self.strays();
        self.set_strays(word.wrapping_add(1) | Strays::bit(tag));
    }

    /// Counts one less. The writer only.
    pub(super) fn remove_stray(&self) {
        let Strays(word) = self.strays();
        self.set_strays(if word & 0xff == 1 { 0 } else { word.wrapping_sub(1) });
    }

    pub(super) fn strays(&self) -> Strays {
        Strays((self.tags[2].load(Ordering::Acquire) >> 32) as u32)
    }

    fn set_strays(&self, strays: u32) {
        let tags = self.tags[2].load(Ordering::Relaxed) & 0xffff_ffff;
        self.tags[2].store(tags | u64::from(strays) << 32, Ordering::Release);
    }
}
