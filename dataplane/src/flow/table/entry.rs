//! An entry: a key and the beginning of its value, and apart from it the rest, written once, then only read until every reader has let go of it.

use super::super::atomics::{AtomicU64, Ordering};

/// What can be kept in `N` words.
pub trait Words<const N: usize>: Copy {
    /// As words.
    fn words(self) -> [u64; N];
    /// From what [`Words::words`] gave.
    fn from_words(words: [u64; N]) -> Self;
}

impl<const N: usize> Words<N> for [u64; N] {
    #[inline(always)]
    fn words(self) -> [u64; N] {
        self
    }

    #[inline(always)]
    fn from_words(words: [u64; N]) -> Self {
        words
    }
}

/// What can be kept as one word beside its key, and `REST` words apart from it.
pub trait Parts<const REST: usize>: Copy {
    /// The word that a hit is to find, and the others.
    fn parts(self) -> (u64, [u64; REST]);
    /// From what [`Parts::parts`] gave.
    fn from_parts(first: u64, rest: [u64; REST]) -> Self;
}

impl Parts<1> for [u64; 2] {
    fn parts(self) -> (u64, [u64; 1]) {
        (self[0], [self[1]])
    }

    fn from_parts(first: u64, [second]: [u64; 1]) -> Self {
        [first, second]
    }
}

impl Parts<2> for [u64; 3] {
    #[inline(always)]
    fn parts(self) -> (u64, [u64; 2]) {
        (self[0], [self[1], self[2]])
    }

    #[inline(always)]
    fn from_parts(first: u64, [second, third]: [u64; 2]) -> Self {
        [first, second, third]
    }
}

/// When an entry was last used and found to hold: the time in ticks, and the epoch of what values rest on. While neither has
/// moved on, a hit needs to look at nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(u64);

impl Stamp {
    /// No entry that can be found has it.
    const NEVER: Self = Self(u64::MAX);

    /// The stamp of an epoch and a time. The last epoch and the last tick together are none.
    #[inline(always)]
    #[must_use]
    pub fn new(epoch: u32, now: u32) -> Self {
        Self(u64::from(epoch) << 32 | u64::from(now))
    }

    pub(super) fn time(self) -> u32 {
        self.0 as u32
    }
}

/// What a hit reads: the key, and the first word of its value. Half a cache line for a key of two words, one for five; the rest
/// of the value is in an array of its own, so that what is read for every frame is as small as can be.
///
/// All of it is atomic because the language asks for it: a writer may be at the entry while a reader, by mistake, is too. That
/// there is no such reader is `grace`'s doing.
#[derive(Debug)]
#[repr(C, align(32))]
pub(crate) struct Entry<const KEY: usize> {
    /// The only thing that changes while the entry can be found; for the writer.
    stamp: AtomicU64,
    key: [AtomicU64; KEY],
    first: AtomicU64,
}

/// The rest of the value of the entry of the same number.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Rest<const REST: usize>([AtomicU64; REST]);

impl<const REST: usize> Rest<REST> {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// The writer only, and only while no reader can be here.
    #[inline(always)]
    pub(super) fn write(&self, rest: [u64; REST]) {
        for (to, word) in self.0.iter().zip(rest) {
            to.store(word, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    pub(super) fn read(&self) -> [u64; REST] {
        self.0.each_ref().map(|word| word.load(Ordering::Relaxed))
    }
}

impl<const KEY: usize> Entry<KEY> {
    pub(super) fn new() -> Self {
        Self {
            stamp: AtomicU64::new(Stamp::NEVER.0),
            key: std::array::from_fn(|_| AtomicU64::new(0)),
            first: AtomicU64::new(0),
        }
    }

    /// The writer only, and only while no reader can be here.
    #[inline(always)]
    pub(super) fn write(&self, key: [u64; KEY], first: u64, stamp: Stamp) {
        self.set_stamp(stamp);
        for (to, word) in self.key.iter().zip(key) {
            to.store(word, Ordering::Relaxed);
        }
        self.first.store(first, Ordering::Relaxed);
    }

    /// From now on the writer does not take it for what it was, wherever it still has its number. The writer only.
    #[inline(always)]
    pub(super) fn retire(&self) {
        self.set_stamp(Stamp::NEVER);
    }

    /// Whether the writer has taken it out of the table. The writer only.
    #[inline(always)]
    pub(super) fn is_retired(&self) -> bool {
        self.stamp() == Stamp::NEVER
    }

    #[inline(always)]
    pub(super) fn set_stamp(&self, stamp: Stamp) {
        self.stamp.store(stamp.0, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn stamp(&self) -> Stamp {
        Stamp(self.stamp.load(Ordering::Relaxed))
    }

    #[inline(always)]
    pub(super) fn key(&self) -> [u64; KEY] {
        self.key.each_ref().map(|word| word.load(Ordering::Relaxed))
    }

    /// Whether it is this key's: without branches between the words.
    #[inline(always)]
    pub(super) fn is(&self, key: &[u64; KEY]) -> bool {
        self.key.iter().zip(key).fold(0, |differ, (word, wanted)| differ | (word.load(Ordering::Relaxed) ^ wanted)) == 0
    }

    #[inline(always)]
    pub(super) fn first_word(&self) -> u64 {
        self.first.load(Ordering::Relaxed)
    }
}
