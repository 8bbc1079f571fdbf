//! Reading a table from another thread than its writer's: without waiting, without trying again, and without writing to anything
//! but the reader's own seat.

use std::sync::Arc;

use super::super::atomics::Ordering;
use super::entry::{Parts, Words};
use super::view::{Hit, View};
use super::{Shared, Table};

/// A way to the table for other threads. Reading begins with [`Reader::pin`].
#[derive(Debug)]
pub struct Reader<K, V, const KEY: usize, const REST: usize> {
    shared: Arc<Shared<K, V, KEY, REST>>,
}

impl<K, V, const KEY: usize, const REST: usize> Clone for Reader<K, V, KEY, REST> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

/// What is cached for a key, as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached<K, V> {
    /// The key.
    pub key: K,
    /// The value.
    pub value: V,
    /// When it was last used, in ticks.
    pub seen: u32,
}

/// A reader at work. While it is there the writer keeps what it retires.
#[derive(Debug)]
pub struct Pinned<'a, K, V, const KEY: usize, const REST: usize> {
    shared: &'a Shared<K, V, KEY, REST>,
    seat: usize,
}

impl<K: Words<KEY>, V: Parts<REST>, const KEY: usize, const REST: usize> Table<K, V, KEY, REST> {
    /// A reader for another thread.
    #[must_use]
    pub fn reader(&self) -> Reader<K, V, KEY, REST> {
        Reader { shared: self.shared.clone() }
    }
}

impl<K: Words<KEY>, V: Parts<REST>, const KEY: usize, const REST: usize> Reader<K, V, KEY, REST> {
    /// Begins to read. None if as many read already as the table has seats for.
    #[must_use]
    pub fn pin(&self) -> Option<Pinned<'_, K, V, KEY, REST>> {
        let shared = &*self.shared;
        shared.seats.take().map(|seat| Pinned { shared, seat })
    }

    /// Calls `each` with everything that is cached, in no order. What is inserted or deleted meanwhile may be left out; what is
    /// inserted anew, come twice. False if there was no seat.
    pub fn for_each(&self, mut each: impl FnMut(Cached<K, V>)) -> bool {
        let Some(mut pinned) = self.pin() else { return false };
        for bucket in 0..self.shared.buckets.len() {
            pinned.bucket(bucket, &mut each);
            pinned.pass();
        }
        true
    }

    /// Keys that are cached.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.shared.counters.live.load(Ordering::Relaxed)
    }

    /// Keys that there is room for.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.shared.capacity as u64
    }

    /// Keys that were given up for others.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.shared.counters.evicted.load(Ordering::Relaxed)
    }

    /// Keys that were not cached, because readers held all entries that were to spare.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.shared.counters.refused.load(Ordering::Relaxed)
    }

    /// Whether all of it is in huge pages.
    #[must_use]
    pub fn in_huge_pages(&self) -> bool {
        self.shared.buckets.is_huge() && self.shared.entries.is_huge() && self.shared.rests.is_huge()
    }
}

impl<K: Words<KEY>, V: Parts<REST>, const KEY: usize, const REST: usize> Pinned<'_, K, V, KEY, REST> {
    /// Says that nothing is held at this moment; to be called between bursts by who stays.
    #[inline(always)]
    pub fn pass(&mut self) {
        self.shared.seats.pass(self.seat);
    }

    /// Looks up at most [`super::BATCH`] keys: calls `found` with the number of each key that is there, and its entry, which
    /// is this key's until [`Pinned::pass`]. Which these were, a bit each.
    #[inline(always)]
    pub fn look_up<'a>(&'a self, keys: &[K], found: impl FnMut(usize, Hit<'a, KEY>)) -> u32 {
        self.view().look_up(keys, found)
    }

    /// What an entry holds.
    #[inline(always)]
    #[must_use]
    pub fn value(&self, hit: Hit<'_, KEY>) -> V {
        self.view().value(hit)
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: K) -> Option<V> {
        let view = self.view();
        view.find(view.candidates(view.hash(key)), key).map(|hit| view.value(hit))
    }

    fn view(&self) -> View<'_, K, V, KEY, REST> {
        self.shared.view()
    }

    fn bucket(&self, number: usize, each: &mut impl FnMut(Cached<K, V>)) {
        let bucket = &self.shared.buckets[number];
        let mut ways = bucket.taken();
        while ways != 0 {
            let number = bucket.entry(ways.trailing_zeros() as usize);
            ways &= ways - 1;
            let entry = &self.shared.entries[number as usize];
            let value = V::from_parts(entry.first_word(), self.shared.rests[number as usize].read());
            let key = K::from_words(entry.key());
            each(Cached { key, value, seen: entry.stamp().time() });
        }
    }
}

impl<K, V, const KEY: usize, const REST: usize> Drop for Pinned<'_, K, V, KEY, REST> {
    fn drop(&mut self) {
        self.shared.seats.leave(self.seat);
    }
}
