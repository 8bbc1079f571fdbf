//! Looking up: three stages, each done for a whole burst before the next, each of which asks for what the next one needs.

use super::Shared;
use super::bucket::Bucket;
use super::entry::{Entry, Parts, Stamp, Words};
use crate::cpu::{prefetch, prefetch_far};

/// Buckets among which a key may be: its own, and for a stray those that share 256 bytes with it.
pub(super) const NEIGHBOURS: usize = 4;

/// Keys that are looked up at a time at most.
pub const BATCH: usize = 32;

/// The table as a burst looks at it: the writer's, between its changes, or a reader's, as long as it keeps its seat.
#[derive(Debug)]
pub struct View<'a, K, V, const KEY: usize, const REST: usize> {
    shared: &'a Shared<K, V, KEY, REST>,
    // Of the same: read once for a burst.
    buckets: &'a [Bucket],
    entries: &'a [Entry<KEY>],
    is_large: bool,
}

impl<K, V, const KEY: usize, const REST: usize> Clone for View<'_, K, V, KEY, REST> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V, const KEY: usize, const REST: usize> Copy for View<'_, K, V, KEY, REST> {}

/// Where a key may be: the entry of the first way that fits, or `NONE`, or `ELSEWHERE`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidates(u32);

/// An entry with the key that was looked for.
#[derive(Clone, Copy, Debug)]
pub struct Hit<'a, const KEY: usize> {
    number: u32,
    entry: &'a Entry<KEY>,
}

impl<const KEY: usize> Hit<'_, KEY> {
    /// The first word of the value, which is beside the key.
    #[inline(always)]
    #[must_use]
    pub fn first_word(self) -> u64 {
        self.entry.first_word()
    }

    #[inline(always)]
    pub(super) fn confirm(self, stamp: Stamp) {
        self.entry.set_stamp(stamp);
    }

    /// Whether the entry was used and found to hold at this very stamp.
    #[inline(always)]
    #[must_use]
    pub fn is_at(self, stamp: Stamp) -> bool {
        self.entry.stamp() == stamp
    }
}

/// Nowhere.
pub(super) const NONE: u32 = u32::MAX;
/// In no way of its bucket, which has strays.
const ELSEWHERE: u32 = u32::MAX - 1;
/// Entries have smaller numbers.
pub(super) const ENTRIES_MAX: usize = ELSEWHERE as usize;

/// From so many entries on most lines come from memory, and the second-level cache fetches them.
const LARGE: usize = 1 << 22;

/// The half of a hash that chooses the bucket.
const LOW: u64 = 0xffff_ffff;

/// The way of the candidate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Way {
    pub(super) way: u32,
    /// As [`Candidates`] has it.
    pub(super) number: u32,
}

/// A place in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) bucket: usize,
    pub(super) way: usize,
    pub(super) entry: u32,
}

impl<'a, K: Words<KEY>, V: Parts<REST>, const KEY: usize, const REST: usize> View<'a, K, V, KEY, REST> {
    #[inline(always)]
    pub(super) fn new(shared: &'a Shared<K, V, KEY, REST>) -> Self {
        let (buckets, entries) = (&*shared.buckets, &*shared.entries);
        Self { shared, buckets, entries, is_large: entries.len() >= LARGE }
    }

    #[inline(always)]
    fn fetch(self, at: *const u8) {
        if self.is_large { prefetch_far(at) } else { prefetch(at) }
    }

    /// Stage one: hashes the key and asks for its bucket. What it gives stands for the key in this table: the bucket's number in
    /// its lower half, the tag at its top.
    #[inline(always)]
    #[must_use]
    pub fn hash(self, key: K) -> u64 {
        let hash = self.shared.secret.hash_words(key.words());
        // The lower half, as a fraction of all buckets.
        let bucket = ((hash & LOW) * self.buckets.len() as u64) >> 32;
        self.fetch((&raw const self.buckets[bucket as usize]).cast());
        hash & !LOW | bucket
    }

    /// Stage two: the ways of the bucket whose tag fits; asks for the first one's entry.
    #[inline(always)]
    #[must_use]
    pub fn candidates(self, hash: u64) -> Candidates {
        Candidates(self.way(hash).number)
    }

    #[inline(always)]
    pub(super) fn way(self, hash: u64) -> Way {
        let bucket = &self.buckets[home(hash)];
        let (ways, strays) = bucket.look(tag(hash));
        if ways == 0 {
            if !strays.may_have(tag(hash)) {
                return Way { way: 0, number: NONE };
            }
            (1..NEIGHBOURS).for_each(|step| self.fetch((&raw const self.buckets[home(hash) ^ step]).cast()));
            return Way { way: 0, number: ELSEWHERE };
        }
        let way = ways.trailing_zeros();
        let number = bucket.entry(way as usize);
        if let Some(entry) = self.entries.get(number as usize) {
            self.fetch((&raw const *entry).cast());
        }
        Way { way, number }
    }

    /// Stage three: the entry with this very key.
    #[inline(always)]
    #[must_use]
    pub fn find(self, candidates: Candidates, key: K) -> Option<Hit<'a, KEY>> {
        let Candidates(number) = candidates;
        match self.entries.get(number as usize) {
            Some(entry) if entry.is(&key.words()) => Some(Hit { number, entry }),
            None if number == NONE => None,
            // Another key has the same tag, and this one may be in a way after it; or it may be a stray.
            _ => self.shared.search(&key),
        }
    }

    /// All three stages for at most [`BATCH`] keys: calls `found` with the number of each key that is there, and its entry. Which
    /// these were, a bit each.
    #[inline(always)]
    pub fn look_up(self, keys: &[K], mut found: impl FnMut(usize, Hit<'a, KEY>)) -> u32 {
        let keys = &keys[..keys.len().min(BATCH)];
        // First the hashes; then, of keys that may be there, the candidates below their numbers.
        let (mut words, mut left) = ([0; BATCH], 0);
        for (word, key) in words.iter_mut().zip(keys) {
            *word = self.hash(*key);
        }
        for index in 0..keys.len() {
            let Candidates(number) = self.candidates(words[index]);
            if number != NONE {
                words[left] = (index as u64) << 32 | u64::from(number);
                left += 1;
            }
        }
        let mut hits = 0;
        for word in &words[..left] {
            let index = (word >> 32) as usize;
            if let Some(hit) = self.find(Candidates(*word as u32), keys[index]) {
                hits |= 1 << index;
                found(index, hit);
            }
        }
        hits
    }

    /// What an entry holds.
    #[inline(always)]
    #[must_use]
    pub fn value(self, hit: Hit<'_, KEY>) -> V {
        V::from_parts(hit.first_word(), self.shared.rests[hit.number as usize].read())
    }
}

impl<K: Words<KEY>, V: Parts<REST>, const KEY: usize, const REST: usize> Shared<K, V, KEY, REST> {
    /// All three stages again, looking at all that could be it.
    #[cold]
    #[inline(never)]
    fn search(&self, key: &K) -> Option<Hit<'_, KEY>> {
        let hash = self.view().hash(*key);
        let place = self.place_anywhere(home(hash), tag(hash), &key.words())?;
        Some(Hit { number: place.entry, entry: &self.entries[place.entry as usize] })
    }

    /// Where the key is.
    #[inline(always)]
    pub(super) fn place(&self, home: usize, tag: u16, key: &[u64; KEY]) -> Option<Place> {
        let bucket = &self.buckets[home];
        let (ways, strays) = bucket.look(tag);
        if ways != 0 {
            let way = ways.trailing_zeros() as usize;
            let entry = bucket.entry(way);
            if self.entries[entry as usize].is(key) {
                return Some(Place { bucket: home, way, entry });
            }
        } else if !strays.any() {
            return None;
        }
        self.place_anywhere(home, tag, key)
    }

    #[cold]
    #[inline(never)]
    fn place_anywhere(&self, home: usize, tag: u16, key: &[u64; KEY]) -> Option<Place> {
        self.place_in(home, tag, key).or_else(|| {
            if !self.buckets[home].strays().may_have(tag) {
                return None;
            }
            (1..NEIGHBOURS).find_map(|step| self.place_in(home ^ step, tag, key))
        })
    }

    fn place_in(&self, number: usize, tag: u16, key: &[u64; KEY]) -> Option<Place> {
        let bucket = &self.buckets[number];
        let mut ways = bucket.ways(tag);
        while ways != 0 {
            let way = ways.trailing_zeros() as usize;
            let entry = bucket.entry(way);
            if self.entries[entry as usize].is(key) {
                return Some(Place { bucket: number, way, entry });
            }
            ways &= ways - 1;
        }
        None
    }
}

/// The bucket of what [`View::hash`] gave.
#[inline(always)]
pub(super) fn home(hash: u64) -> usize {
    (hash & LOW) as usize
}

/// High bits of the hash, which do not choose the bucket; odd, since 0 is a free way.
#[inline(always)]
pub(super) fn tag(hash: u64) -> u16 {
    (hash >> 48) as u16 | 1
}
