//! The flow table: the cache of verdicts that every frame consults. One writer, its worker; readers anywhere.
//!
//! Fixed capacity, set-associative: a bucket has eight ways, each a 16-bit tag and an entry of one cache line at a
//! fixed place, so an entry never moves. A lookup compares the eight tags at once and then one key. It is done for a
//! whole burst in stages, each of which asks for what the next one needs.
//!
//! A full bucket gives up its entry that was used longest ago: this is a cache, what it loses is decided again.
//! Nothing is swept when the configuration or a station changes: the verdict itself tells whether it still holds.
//!
//! Readers elsewhere (`show flows`) never wait, retry or write: they take an entry's sequence before and after
//! reading it and skip the entry if the writer was there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::{Action, FlowKey, HashKey, Verdict};
use crate::cpu::{equal_lanes, prefetch};

const WAYS: usize = 8;

/// When an entry was last used and found to hold: the time in ticks, and the epoch of what verdicts rest on. While
/// neither has moved on, a hit needs to look at nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(u64);

impl Stamp {
    /// The stamp of an epoch and a time.
    #[must_use]
    pub fn new(epoch: u32, now: u32) -> Self {
        Self(u64::from(epoch) << 32 | u64::from(now))
    }

    fn time(self) -> u32 {
        self.0 as u32
    }
}

/// One cache line: the key, the verdict, and when it was last used.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Entry {
    key: [AtomicU64; 2],
    verdict: [AtomicU64; 3],
    stamp: AtomicU64,
    /// Odd while the writer is at it.
    sequence: AtomicU32,
}

/// Eight tags in two words. A tag of 0 is a free way.
#[derive(Debug, Default)]
#[repr(align(16))]
struct Bucket {
    tags: [AtomicU64; 2],
}

#[derive(Debug)]
struct Shared {
    buckets: Box<[Bucket]>,
    entries: Box<[Entry]>,
    count: AtomicU64,
}

/// The writer's side, and the data path's.
#[derive(Debug)]
pub struct FlowTable {
    shared: Arc<Shared>,
    hash: HashKey,
}

/// A reader's side.
#[derive(Clone, Debug)]
pub struct FlowReader {
    shared: Arc<Shared>,
}

/// A cached flow, as `show flows` lists it.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Its key.
    pub key: FlowKey,
    /// What was decided.
    pub verdict: Verdict,
    /// When it was last used, in ticks.
    pub seen: u32,
}

impl FlowTable {
    /// An empty table for `capacity` flows, rounded up to a power of two.
    pub fn new(capacity: usize) -> std::io::Result<Self> {
        let entries = capacity.next_power_of_two().max(WAYS);
        let shared = Shared {
            buckets: (0..entries / WAYS).map(|_| Bucket::default()).collect(),
            entries: (0..entries).map(|_| Entry::default()).collect(),
            count: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared), hash: HashKey::random()? })
    }

    /// A reader for another thread.
    #[must_use]
    pub fn reader(&self) -> FlowReader {
        FlowReader { shared: self.shared.clone() }
    }

    /// The table for a burst.
    #[inline(always)]
    #[must_use]
    pub fn view(&self) -> FlowView<'_> {
        FlowView { buckets: &self.shared.buckets, entries: &self.shared.entries, hash: self.hash }
    }

    /// Caches a verdict in the place of an older one for the same key, in a free way, or in that of the entry of the
    /// bucket that was used longest ago.
    pub fn insert(&mut self, key: FlowKey, hash: u64, verdict: Verdict, stamp: Stamp) {
        let view = self.view();
        let bucket = view.bucket(hash);
        let way = match view.find(view.candidates(hash), key) {
            Some(entry) => entry as usize % WAYS,
            None => self.victim(bucket, stamp.time()),
        };
        let entry = &self.shared.entries[bucket * WAYS + way];
        let sequence = entry.sequence.load(Ordering::Relaxed);
        entry.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release); // a reader that sees what follows sees the odd sequence
        for (word, value) in entry.key.iter().zip([key.low, key.high]) {
            word.store(value, Ordering::Relaxed);
        }
        for (word, value) in entry.verdict.iter().zip(verdict.words()) {
            word.store(value, Ordering::Relaxed);
        }
        entry.stamp.store(stamp.0, Ordering::Relaxed);
        entry.sequence.store(sequence.wrapping_add(2), Ordering::Release);
        self.set_tag(bucket, way, tag(hash));
    }

    fn victim(&self, bucket: usize, now: u32) -> usize {
        let age = |way: usize| match self.shared.buckets[bucket].tag(way) {
            0 => u32::MAX,
            _ => now.wrapping_sub(self.shared.entries[bucket * WAYS + way].stamp().time()),
        };
        (0..WAYS).max_by_key(|&way| age(way)).unwrap_or(0)
    }

    /// Publishes a way, after its entry was written.
    fn set_tag(&self, bucket: usize, way: usize, tag: u16) {
        if self.shared.buckets[bucket].tag(way) == 0 {
            self.shared.count.store(self.shared.count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        let word = &self.shared.buckets[bucket].tags[way / 4];
        let shift = way % 4 * 16;
        let others = word.load(Ordering::Relaxed) & !(0xffff << shift);
        word.store(others | u64::from(tag) << shift, Ordering::Release);
    }
}

impl Bucket {
    fn tag(&self, way: usize) -> u16 {
        (self.tags[way / 4].load(Ordering::Acquire) >> (way % 4 * 16)) as u16
    }
}

impl Entry {
    #[inline(always)]
    fn key(&self) -> FlowKey {
        let [low, high] = &self.key;
        FlowKey { low: low.load(Ordering::Relaxed), high: high.load(Ordering::Relaxed) }
    }

    #[inline(always)]
    fn stamp(&self) -> Stamp {
        Stamp(self.stamp.load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn verdict(&self) -> Verdict {
        Verdict::from_words(self.verdict.each_ref().map(|word| word.load(Ordering::Relaxed)))
    }
}

/// The table as a burst looks at it.
#[derive(Clone, Copy, Debug)]
pub struct FlowView<'a> {
    buckets: &'a [Bucket],
    entries: &'a [Entry],
    hash: HashKey,
}

impl FlowView<'_> {
    /// Stage one: hashes the key and asks for its bucket.
    #[inline(always)]
    #[must_use]
    pub fn hash(self, key: FlowKey) -> u64 {
        let hash = self.hash.hash(key.low, key.high);
        prefetch((&raw const self.buckets[self.bucket(hash)]).cast());
        hash
    }

    #[inline(always)]
    fn bucket(self, hash: u64) -> usize {
        // There is at least one bucket, and their number is a power of two.
        hash as usize & (self.buckets.len() - 1)
    }

    /// Stage two: the ways of the bucket whose tag fits; asks for the first one's entry.
    #[inline(always)]
    #[must_use]
    pub fn candidates(self, hash: u64) -> Candidates {
        let bucket = self.bucket(hash);
        let tags = self.buckets[bucket].tags.each_ref().map(|word| word.load(Ordering::Acquire));
        let candidates = Candidates { first: (bucket * WAYS) as u32, ways: equal_lanes(tags, tag(hash)) };
        if candidates.ways != 0 {
            prefetch((&raw const self.entries[candidates.way()]).cast());
        }
        candidates
    }

    /// Stage three: the entry with this very key.
    #[inline(always)]
    #[must_use]
    pub fn find(self, mut candidates: Candidates, key: FlowKey) -> Option<u32> {
        while candidates.ways != 0 {
            let way = candidates.way();
            if self.entries[way].key() == key {
                return Some(way as u32);
            }
            candidates.ways &= candidates.ways - 1;
        }
        None
    }

    /// What to do, if the entry was used and found to hold at this very stamp.
    #[inline(always)]
    #[must_use]
    pub fn action_at(self, entry: u32, stamp: Stamp) -> Option<Action> {
        let entry = &self.entries[entry as usize];
        (entry.stamp() == stamp).then(|| entry.verdict().action)
    }

    /// The whole verdict of an entry.
    #[must_use]
    pub fn verdict(self, entry: u32) -> Verdict {
        self.entries[entry as usize].verdict()
    }

    /// Notes that the entry was used and found to hold; the writer only.
    pub fn confirm(self, entry: u32, stamp: Stamp) {
        self.entries[entry as usize].stamp.store(stamp.0, Ordering::Relaxed);
    }
}

/// Where a key may be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidates {
    first: u32,
    /// Bit per way.
    ways: u32,
}

impl Candidates {
    #[inline(always)]
    fn way(self) -> usize {
        // `first` is a multiple of eight below the number of entries.
        (self.first | self.ways.trailing_zeros() & 7) as usize
    }
}

/// The high bits of the hash, which did not choose the bucket; never 0.
#[inline(always)]
fn tag(hash: u64) -> u16 {
    ((hash >> 48) as u16).max(1)
}

impl FlowReader {
    /// The flows, in no order; one that is being changed is left out.
    pub fn iter(&self) -> impl Iterator<Item = Flow> {
        let ways = (0..self.shared.entries.len()).filter(|&way| self.shared.buckets[way / WAYS].tag(way % WAYS) != 0);
        ways.filter_map(|way| {
            let entry = &self.shared.entries[way];
            let before = entry.sequence.load(Ordering::Acquire);
            let flow = Flow { key: entry.key(), verdict: entry.verdict(), seen: entry.stamp().time() };
            fence(Ordering::Acquire);
            let after = entry.sequence.load(Ordering::Relaxed);
            (before == after && before.is_multiple_of(2)).then_some(flow)
        })
    }

    /// Ways in use.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Ways in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::MacRef;
    use super::*;
    use crate::packet::{EthernetHeader, MacAddress};
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn key(number: u64) -> FlowKey {
        let header = EthernetHeader {
            destination: MacAddress::from_word(number << 8),
            source: MacAddress::from_word(!number << 8),
            vlan: (number & 0xfff) as u16,
            ethertype: 0,
        };
        FlowKey::new(number as u16, &header)
    }

    fn verdict(number: u64) -> Verdict {
        Verdict {
            action: Action::Forward(number as u16 & 0xfff),
            generation: number as u32,
            source: MacRef::from_word(number),
            destination: MacRef::from_word(!number),
        }
    }

    fn find(table: &FlowTable, key: FlowKey) -> Option<Verdict> {
        let view = table.view();
        view.find(view.candidates(view.hash(key)), key).map(|entry| view.verdict(entry))
    }

    proptest! {
        /// Whatever it finds is what was inserted last for that key; what was inserted last is there.
        #[test]
        fn agrees_with_a_hash_map(numbers in proptest::collection::vec(0u64..200, 1..600)) {
            let mut table = FlowTable::new(64).unwrap();
            let mut oracle = HashMap::new();
            for (now, number) in numbers.into_iter().enumerate() {
                let (key, verdict) = (key(number), verdict(number + now as u64));
                table.insert(key, table.view().hash(key), verdict, Stamp::new(0, now as u32));
                oracle.insert(number, verdict);
                prop_assert_eq!(find(&table, key), Some(verdict));
            }
            for number in 0..200 {
                if let Some(found) = find(&table, key(number)) {
                    prop_assert_eq!(Some(&found), oracle.get(&number));
                }
            }
            prop_assert_eq!(table.reader().iter().count() as u64, table.reader().entries());
        }
    }

    #[test]
    fn the_entry_used_longest_ago_makes_room() {
        let mut table = FlowTable::new(8).unwrap();
        for number in 0..8 {
            table.insert(key(number), table.view().hash(key(number)), verdict(number), Stamp::new(0, 10));
        }
        for number in 1..8 {
            let view = table.view();
            let entry = view.find(view.candidates(view.hash(key(number))), key(number)).unwrap();
            assert_eq!(view.action_at(entry, Stamp::new(0, 10)), Some(verdict(number).action));
            assert_eq!(view.action_at(entry, Stamp::new(1, 10)), None, "another epoch");
            view.confirm(entry, Stamp::new(0, 20));
        }
        table.insert(key(100), table.view().hash(key(100)), verdict(100), Stamp::new(0, 20));
        assert!(find(&table, key(0)).is_none());
        assert!((1..8).all(|number| find(&table, key(number)).is_some()));
        assert_eq!(table.reader().entries(), 8);
    }

    /// A reader on another core never sees half of an entry.
    #[test]
    fn readers_see_whole_entries() {
        let mut table = FlowTable::new(64).unwrap();
        let reader = table.reader();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut seen = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    for flow in reader.iter() {
                        let number = u64::from(flow.verdict.generation);
                        assert_eq!(flow.key, key(number));
                        assert_eq!(flow.verdict, verdict(number));
                        seen += 1;
                    }
                }
                assert!(seen > 0);
            });
            for number in 0..300_000 {
                table.insert(
                    key(number),
                    table.view().hash(key(number)),
                    verdict(number),
                    Stamp::new(0, number as u32),
                );
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
