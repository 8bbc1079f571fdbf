//! An entry: a key, and apart from it its value, written once, then only read until every reader has let go of it.

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

/// What a hit reads: the key, and the first word of its value. Half a cache line for a key of two words, one for five; the whole
/// value is in an array of its own, so that what is read for every frame is as small as can be.
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

/// The whole value of the entry of the same number.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Value<const VALUE: usize>([AtomicU64; VALUE]);

impl<const VALUE: usize> Value<VALUE> {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// The writer only, and only while no reader can be here.
    pub(super) fn write(&self, value: [u64; VALUE]) {
        for (to, word) in self.0.iter().zip(value) {
            to.store(word, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    pub(super) fn read(&self) -> [u64; VALUE] {
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
    pub(super) fn write(&self, key: [u64; KEY], first: u64, stamp: Stamp) {
        self.set_stamp(stamp);
        for (to, word) in self.key.iter().zip(key) {
            to.store(word, Ordering::Relaxed);
        }
        self.first.store(first, Ordering::Relaxed);
    }

    /// From now on the writer does not take it for what it was, wherever it still has its number. The writer only.
    pub(super) fn retire(&self) {
        self.set_stamp(Stamp::NEVER);
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
