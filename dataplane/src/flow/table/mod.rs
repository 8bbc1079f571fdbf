//! The flow table: the cache of verdicts that every frame consults. One writer, its worker; readers anywhere.
//!
//! | module | what lives there |
//! |---|---|
//! | `bucket` | a cache line of eight tags and the numbers of their entries |
//! | `entry` | key and beginning of the value in a second array, the whole value in a third |
//! | `view` | looking up, for a burst at a time |
//! | `grace` | when an entry that was taken out may be written again |
//! | `reader` | reading from other threads |
//! | here | the writer: inserting, deleting, making room |
//!
//! Its capacity is fixed. There are twice as many ways as keys, so a bucket is half full, and a key that finds it full goes to
//! one of the three buckets beside it. Nothing is moved afterwards. An entry is written before its number is published, and
//! not again before every reader has let go of it: so a reader never sees half of one, nor one that became another's.
//!
//! A full table gives up, of some keys in the way, that which was used longest ago: this is a cache, what it loses is decided
//! again. Nothing is swept when the configuration or a station changes: the value itself tells whether it still holds.

mod bucket;
mod entry;
mod grace;
mod reader;
mod view;

use std::marker::PhantomData;
use std::sync::Arc;

use super::HashKey;
use super::atomics::{AtomicU64, Ordering};
use super::memory::Lines;
pub(crate) use bucket::Bucket;
use bucket::WAYS;
pub(crate) use entry::Entry;
use entry::Value;
pub use entry::{Stamp, Words};
use grace::{Seats, Spare};
pub use reader::{Cached, Pinned, Reader};
pub use view::{BATCH, Candidates, View};
use view::{NEIGHBOURS, Place, tag};

/// Readers at a time. Those who come later are turned away.
const SEATS: usize = 64;

/// Keys looked at, at least, to find one that makes room.
const SAMPLE: usize = 8;

/// Neighbourhoods that are passed over at most because they are empty.
const SEARCH: usize = 64;

/// How large a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Keys that it holds.
    pub capacity: usize,
    /// Entries beside that, which wait for readers.
    pub spare: usize,
    /// Readers at a time.
    pub seats: usize,
}

impl Size {
    /// For so many keys.
    #[must_use]
    pub fn of(capacity: usize) -> Self {
        Self { capacity, spare: capacity / 32 + 64, seats: SEATS }
    }
}

/// What writer and readers share.
#[derive(Debug)]
struct Shared<K, V, const KEY: usize, const VALUE: usize> {
    buckets: Lines<Bucket>,
    entries: Lines<Entry<KEY>>,
    values: Lines<Value<VALUE>>,
    seats: Seats,
    hash: HashKey,
    capacity: usize,
    live: AtomicU64,
    evicted: AtomicU64,
    refused: AtomicU64,
    kinds: PhantomData<fn() -> (K, V)>,
}

impl<K, V, const KEY: usize, const VALUE: usize> Shared<K, V, KEY, VALUE> {
    #[inline(always)]
    fn view(&self) -> View<'_, K, V, KEY, VALUE> {
        View(self)
    }
}

/// The writer's side, and the data path's: a table from `KEY` words to `VALUE` words.
#[derive(Debug)]
pub struct Table<K, V, const KEY: usize, const VALUE: usize> {
    shared: Arc<Shared<K, V, KEY, VALUE>>,
    spare: Spare,
    /// Where to look next for something to give up.
    hand: usize,
}

impl<K: Words<KEY>, V: Words<VALUE>, const KEY: usize, const VALUE: usize> Table<K, V, KEY, VALUE> {
    /// An empty table, in memory of the NUMA node of the thread that calls this: all of it is written here.
    pub fn new(size: Size) -> std::io::Result<Self> {
        let buckets = (size.capacity * 2).div_ceil(WAYS).next_multiple_of(NEIGHBOURS);
        let entries = size.capacity + size.spare;
        // The hash is mapped to a bucket by 32 bits of it, and an entry has a number of 32 bits.
        if size.capacity == 0 || u32::try_from(buckets).is_err() || u32::try_from(entries).is_err() {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let shared = Shared {
            buckets: Lines::new(buckets, Bucket::default)?,
            entries: Lines::new(entries, Entry::new)?,
            values: Lines::new(entries, Value::new)?,
            seats: Seats::new(size.seats),
            hash: HashKey::random()?,
            capacity: size.capacity,
            live: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            kinds: PhantomData,
        };
        Ok(Self { shared: Arc::new(shared), spare: Spare::new(entries), hand: 0 })
    }

    /// The table for a burst.
    #[inline(always)]
    #[must_use]
    pub fn view(&self) -> View<'_, K, V, KEY, VALUE> {
        self.shared.view()
    }

    /// Notes that the entry was used and found to hold.
    pub fn confirm(&self, entry: u32, stamp: Stamp) {
        self.shared.entries[entry as usize].set_stamp(stamp);
    }

    /// Caches a value, in the place of an older one for the same key. False if it is not cached: while readers hold every entry
    /// that there is to spare.
    pub fn insert(&mut self, key: K, hash: u64, value: V, stamp: Stamp) -> bool {
        let (home, words, tag) = (self.view().bucket(hash), key.words(), tag(hash));
        let Some(entry) = self.spare.take(&self.shared.seats) else {
            add(&self.shared.refused, 1);
            return false;
        };
        let old = self.view().place(home, tag, words);
        if old.is_none() && self.shared.live.load(Ordering::Relaxed) >= self.shared.capacity as u64 {
            self.make_room(home, stamp.time());
        }
        let value = value.words();
        self.shared.values[entry as usize].write(value);
        self.shared.entries[entry as usize].write(words, value.first().copied().unwrap_or(0), stamp);
        if let Some(old) = old {
            self.shared.buckets[old.bucket].set_entry(old.way, entry);
            self.give_back(old.entry);
            return true;
        }
        let (bucket, way) = self.free_way(home).unwrap_or_else(|| {
            let oldest = self.oldest((0..NEIGHBOURS).map(|step| home ^ step), stamp.time(), usize::MAX);
            // Every way of the neighbourhood is taken.
            let place = oldest.unwrap_or(Place { bucket: home, way: 0, entry: 0 });
            self.evict(place);
            (place.bucket, place.way)
        });
        self.shared.buckets[bucket].set_entry(way, entry);
        self.shared.buckets[bucket].set_tag(way, tag);
        if bucket != home {
            self.shared.buckets[home].add_stray();
        }
        add(&self.shared.live, 1);
        true
    }

    /// Takes a key out. Whether it was there.
    pub fn delete(&mut self, key: K, hash: u64) -> bool {
        let home = self.view().bucket(hash);
        let Some(place) = self.view().place(home, tag(hash), key.words()) else { return false };
        self.take_out(place, home);
        true
    }

    /// A way in the bucket, or if it is full in one beside it.
    fn free_way(&self, home: usize) -> Option<(usize, usize)> {
        (0..NEIGHBOURS).map(|step| home ^ step).find_map(|bucket| {
            let free = self.shared.buckets[bucket].ways(0);
            (free != 0).then(|| (bucket, free.trailing_zeros() as usize))
        })
    }

    /// Gives up a key near `home`, or if there is none elsewhere.
    fn make_room(&mut self, home: usize, now: u32) {
        let near = self.oldest((0..NEIGHBOURS).map(|step| home ^ step), now, SAMPLE);
        let place = near.or_else(|| {
            let buckets = self.shared.buckets.len();
            let first = self.hand;
            self.hand = (first + SEARCH * NEIGHBOURS) % buckets;
            self.oldest((first..first + SEARCH * NEIGHBOURS).map(|bucket| bucket % buckets), now, SAMPLE)
        });
        if let Some(place) = place {
            self.evict(place);
        }
    }

    /// Of the keys in these buckets that which was used longest ago; no further bucket is looked at after so many keys.
    fn oldest(&self, buckets: impl Iterator<Item = usize>, now: u32, enough: usize) -> Option<Place> {
        let (mut oldest, mut seen) = (None, 0);
        for bucket in buckets {
            let mut ways = self.shared.buckets[bucket].taken();
            seen += ways.count_ones() as usize;
            while ways != 0 {
                let way = ways.trailing_zeros() as usize;
                ways &= ways - 1;
                let entry = self.shared.buckets[bucket].entry(way);
                let age = now.wrapping_sub(self.shared.entries[entry as usize].stamp().time());
                if oldest.is_none_or(|(oldest, _)| age > oldest) {
                    oldest = Some((age, Place { bucket, way, entry }));
                }
            }
            if seen >= enough {
                break;
            }
        }
        oldest.map(|(_, place)| place)
    }

    fn evict(&mut self, place: Place) {
        let key = self.shared.entries[place.entry as usize].key();
        let view = self.view();
        let home = view.bucket(view.hash(K::from_words(key)));
        self.take_out(place, home);
        add(&self.shared.evicted, 1);
    }

    fn take_out(&mut self, place: Place, home: usize) {
        self.shared.buckets[place.bucket].set_tag(place.way, 0);
        if place.bucket != home {
            self.shared.buckets[home].remove_stray();
        }
        self.give_back(place.entry);
        self.shared.live.store(self.shared.live.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }

    fn give_back(&mut self, entry: u32) {
        self.shared.entries[entry as usize].retire();
        self.spare.retire(entry);
    }

    /// Bytes of all of it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let Shared { buckets, entries, values, .. } = &*self.shared;
        size_of_val(&**buckets) + size_of_val(&**entries) + size_of_val(&**values) + self.spare.bytes()
    }
}

/// A counter with one writer.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
