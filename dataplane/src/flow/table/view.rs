//! Looking up: three stages, each done for a whole burst before the next, each of which asks for what the next one needs.

use super::Shared;
use super::entry::{Stamp, Words};
use crate::cpu::prefetch;

/// Buckets among which a key may be: its own, and for a stray those that share 256 bytes with it.
pub(super) const NEIGHBOURS: usize = 4;

/// Keys that are looked up at a time at most.
pub const BATCH: usize = 32;

/// The table as a burst looks at it: the writer's, between its changes, or a reader's, as long as it keeps its seat.
#[derive(Debug)]
pub struct View<'a, K, V, const KEY: usize, const VALUE: usize>(pub(super) &'a Shared<K, V, KEY, VALUE>);

impl<K, V, const KEY: usize, const VALUE: usize> Clone for View<'_, K, V, KEY, VALUE> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V, const KEY: usize, const VALUE: usize> Copy for View<'_, K, V, KEY, VALUE> {}

/// Where a key may be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidates {
    /// The entry of the first way that fits, or [`NONE`].
    entry: u32,
    /// Not 0 if there may be others: further ways that fit, or strays.
    more: u32,
}

/// No table has so many entries.
const NONE: u32 = u32::MAX;

/// A place in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) bucket: usize,
    pub(super) way: usize,
    pub(super) entry: u32,
}

impl<'a, K: Words<KEY>, V: Words<VALUE>, const KEY: usize, const VALUE: usize> View<'a, K, V, KEY, VALUE> {
    /// Stage one: hashes the key and asks for its bucket.
    #[inline(always)]
    #[must_use]
    pub fn hash(self, key: K) -> u64 {
        let hash = self.0.hash.hash_words(key.words());
        prefetch((&raw const self.0.buckets[self.bucket(hash)]).cast());
        hash
    }

    /// The bucket of a hash: its lower half, as a fraction of all buckets.
    #[inline(always)]
    pub(super) fn bucket(self, hash: u64) -> usize {
        (((hash & 0xffff_ffff) * self.0.buckets.len() as u64) >> 32) as usize
    }

    /// Stage two: the ways of the bucket whose tag fits; asks for the first one's entry.
    #[inline(always)]
    #[must_use]
    pub fn candidates(self, hash: u64) -> Candidates {
        let bucket = &self.0.buckets[self.bucket(hash)];
        let ways = bucket.ways(tag(hash));
        let more = ways & ways.wrapping_sub(1) | bucket.strays();
        if ways == 0 {
            return Candidates { entry: NONE, more };
        }
        let entry = bucket.entry(ways.trailing_zeros() as usize);
        if let Some(entry) = self.0.entries.get(entry as usize) {
            prefetch((&raw const *entry).cast());
        }
        Candidates { entry, more }
    }

    /// Stage three: the entry with this very key.
    #[inline(always)]
    #[must_use]
    pub fn find(self, candidates: Candidates, key: K) -> Option<u32> {
        if let Some(entry) = self.0.entries.get(candidates.entry as usize)
            && entry.is(&key.words())
        {
            return Some(candidates.entry);
        }
        if candidates.more != 0 { self.search(key) } else { None }
    }

    /// All three stages again, looking at all that could be it.
    #[cold]
    #[inline(never)]
    fn search(self, key: K) -> Option<u32> {
        let hash = self.0.hash.hash_words(key.words());
        self.place(self.bucket(hash), tag(hash), key.words()).map(|place| place.entry)
    }

    /// Where the key is.
    pub(super) fn place(self, home: usize, tag: u16, key: [u64; KEY]) -> Option<Place> {
        self.place_in(home, tag, key).or_else(|| {
            if self.0.buckets[home].strays() == 0 {
                return None;
            }
            (1..NEIGHBOURS).find_map(|step| self.place_in(home ^ step, tag, key))
        })
    }

    #[inline(always)]
    fn place_in(self, number: usize, tag: u16, key: [u64; KEY]) -> Option<Place> {
        let bucket = &self.0.buckets[number];
        let mut ways = bucket.ways(tag);
        while ways != 0 {
            let way = ways.trailing_zeros() as usize;
            let entry = bucket.entry(way);
            if self.0.entries[entry as usize].is(&key) {
                return Some(Place { bucket: number, way, entry });
            }
            ways &= ways - 1;
        }
        None
    }

    /// All three stages for at most [`BATCH`] keys: calls `found` with the number of each key that is there, and its entry. Which
    /// these were, a bit each.
    #[inline(always)]
    pub fn look_up(self, keys: &[K], mut found: impl FnMut(usize, u32)) -> u32 {
        let keys = &keys[..keys.len().min(BATCH)];
        let (mut hashes, mut candidates) = ([0; BATCH], [Candidates::default(); BATCH]);
        for index in 0..keys.len() {
            hashes[index] = self.hash(keys[index]);
        }
        for index in 0..keys.len() {
            candidates[index] = self.candidates(hashes[index]);
        }
        let mut hits = 0;
        for index in 0..keys.len() {
            if let Some(entry) = self.find(candidates[index], keys[index]) {
                hits |= 1 << index;
                found(index, entry);
            }
        }
        hits
    }

    /// What an entry holds.
    #[inline(always)]
    #[must_use]
    pub fn value(self, entry: u32) -> V {
        V::from_words(self.0.values[entry as usize].read())
    }

    /// The first word of what an entry holds, which is beside its key.
    #[inline(always)]
    #[must_use]
    pub fn first_word(self, entry: u32) -> u64 {
        self.0.entries[entry as usize].first_word()
    }

    /// Whether the entry was used and found to hold at this very stamp.
    #[inline(always)]
    #[must_use]
    pub fn is_at(self, entry: u32, stamp: Stamp) -> bool {
        self.0.entries[entry as usize].stamp() == stamp
    }
}

/// High bits of the hash, which do not choose the bucket; odd, since 0 is a free way.
#[inline(always)]
pub(super) fn tag(hash: u64) -> u16 {
    (hash >> 48) as u16 | 1
}
