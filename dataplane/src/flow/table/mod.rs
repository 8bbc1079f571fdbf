//! The flow table: the cache of verdicts that every frame consults. One writer, its worker; readers anywhere.
//!
//! | module | what lives there |
//! |---|---|
//! | `bucket` | a cache line of ten tags and the numbers of their entries |
//! | `entry` | key and beginning of the value in a second array, the rest of the value in a third |
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
use crate::cpu::prefetch_write;
pub(crate) use bucket::Bucket;
use bucket::WAYS;
pub(crate) use entry::Entry;
use entry::Rest;
pub use entry::{Parts, Stamp, Words};
use grace::{Seats, Spare};
pub use reader::{Cached, Pinned, Reader};
pub use view::{BATCH, Candidates, Hit, View};
use view::{ENTRIES_MAX, NEIGHBOURS, NONE, Place, Way, home, tag};

/// Readers at a time. Those who come later are turned away.
const SEATS: usize = 64;

/// Keys a bucket has when the table is full, on average.
const KEYS_A_BUCKET: usize = WAYS / 2;

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
struct Shared<K, V, const KEY: usize, const REST: usize> {
    buckets: Lines<Bucket>,
    entries: Lines<Entry<KEY>>,
    rests: Lines<Rest<REST>>,
    seats: Seats,
    secret: HashKey,
    capacity: usize,
    counters: Counters,
    kinds: PhantomData<fn() -> (K, V)>,
}

/// What the writer tells of itself: apart from what every lookup reads, two lines because they are fetched in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counters {
    live: AtomicU64,
    evicted: AtomicU64,
    refused: AtomicU64,
}

impl<K: Words<KEY>, V: Parts<REST>, const KEY: usize, const REST: usize> Shared<K, V, KEY, REST> {
    #[inline(always)]
    fn view(&self) -> View<'_, K, V, KEY, REST> {
        View::new(self)
    }

    /// Publishes an entry.
    #[inline(always)]
    fn put(&self, bucket: usize, way: usize, tag: u16, entry: u32) {
        self.buckets[bucket].set_entry(way, entry);
        self.buckets[bucket].set_tag(way, tag);
    }
}

/// The writer's side, and the data path's: a table from `KEY` words to one word and `REST` more.
#[derive(Debug)]
pub struct Table<K, V, const KEY: usize, const REST: usize> {
    shared: Arc<Shared<K, V, KEY, REST>>,
    spare: Spare,
    live: usize,
    /// Where to look next for something to give up.
    hand: usize,
}

impl<K: Words<KEY>, V: Parts<REST>, const KEY: usize, const REST: usize> Table<K, V, KEY, REST> {
    /// An empty table, in memory of the NUMA node of the thread that calls this: all of it is written here.
    pub fn new(size: Size) -> std::io::Result<Self> {
        let buckets = size.capacity.div_ceil(KEYS_A_BUCKET).next_multiple_of(NEIGHBOURS);
        let entries = size.capacity + size.spare;
        // The hash is mapped to a bucket by 32 bits of it, and an entry has a number of 32 bits.
        if size.capacity == 0 || u32::try_from(buckets).is_err() || entries > ENTRIES_MAX {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let shared = Shared {
            buckets: Lines::new(buckets, Bucket::default)?,
            entries: Lines::new(entries, Entry::new)?,
            rests: Lines::new(entries, Rest::new)?,
            seats: Seats::new(size.seats),
            secret: HashKey::random()?,
            capacity: size.capacity,
            counters: Counters::default(),
            kinds: PhantomData,
        };
        Ok(Self { shared: Arc::new(shared), spare: Spare::new(entries), live: 0, hand: 0 })
    }

    /// The table for a burst.
    #[inline(always)]
    #[must_use]
    pub fn view(&self) -> View<'_, K, V, KEY, REST> {
        self.shared.view()
    }

    /// Notes that the entry was used and found to hold.
    pub fn confirm(&self, hit: Hit<'_, KEY>, stamp: Stamp) {
        hit.confirm(stamp);
    }

    /// Caches a value, in the place of an older one for the same key; `hash` is what [`View::hash`] gave for it. False if it is not
    /// cached: while readers hold every entry that there is to spare.
    #[inline]
    pub fn insert(&mut self, key: K, hash: u64, value: V, stamp: Stamp) -> bool {
        let (home, tag, words) = (home(hash), tag(hash), key.words());
        let Some(entry) = self.spare.take(&self.shared.seats) else {
            add(&self.shared.counters.refused, 1);
            return false;
        };
        let shared = &*self.shared;
        // What is written is wanted here, with nothing of it to be read first.
        if let Some(soon) = self.spare.soon()
            && let (Some(entry), Some(rest)) = (shared.entries.get(soon as usize), shared.rests.get(soon as usize))
        {
            prefetch_write((&raw const *entry).cast());
            prefetch_write((&raw const *rest).cast());
        }
        let old = shared.place(home, tag, &words);
        let (first, rest) = value.parts();
        shared.entries[entry as usize].write(words, first, stamp);
        shared.rests[entry as usize].write(rest);
        if let Some(old) = old {
            shared.buckets[old.bucket].set_entry(old.way, entry);
            shared.entries[old.entry as usize].retire();
            self.spare.retire(old.entry);
            return true;
        }
        let free = shared.buckets[home].ways(0);
        if free == 0 || self.live >= shared.capacity {
            self.put_with_effort(home, tag, entry, stamp.time());
        } else {
            shared.put(home, free.trailing_zeros() as usize, tag, entry);
        }
        self.live += 1;
        self.tell_live();
        true
    }

    /// Takes a key out; `hash` is what [`View::hash`] gave for it. Whether it was there.
    #[inline]
    pub fn delete(&mut self, key: K, hash: u64) -> bool {
        let Self { shared, spare, live, .. } = self;
        let bucket = &shared.buckets[home(hash)];
        let (ways, strays) = bucket.look(tag(hash));
        if ways != 0 {
            let way = ways.trailing_zeros() as usize;
            let number = bucket.entry(way);
            let entry = &shared.entries[number as usize];
            if entry.is(&key.words()) {
                bucket.set_tag(way, 0);
                entry.retire();
                spare.retire(number);
                *live -= 1;
                self.tell_live();
                return true;
            }
        } else if !strays.any() {
            return false;
        }
        self.delete_anywhere(&key, hash)
    }

    /// Takes at most [`BATCH`] keys out, in three stages as [`View::look_up`] does. Which of them were there, a bit each.
    #[inline]
    pub fn delete_batch(&mut self, keys: &[K]) -> u32 {
        let keys = &keys[..keys.len().min(BATCH)];
        let (mut hashes, mut ways) = ([0; BATCH], [Way::default(); BATCH]);
        let view = self.view();
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = view.hash(*key);
        }
        for (way, hash) in ways.iter_mut().zip(&hashes[..keys.len()]) {
            *way = view.way(*hash);
        }
        let (mut there, mut retired, mut count) = (0, [0; BATCH], 0);
        for (index, key) in keys.iter().enumerate() {
            let (Way { way, number }, hash) = (ways[index], hashes[index]);
            match self.shared.entries.get(number as usize) {
                // Nothing moves, but the same key may have come before.
                Some(entry) if entry.is(&key.words()) && !entry.is_retired() => {
                    self.shared.buckets[home(hash)].set_tag(way as usize, 0);
                    entry.retire();
                    retired[count] = number;
                    count += 1;
                    there |= 1 << index;
                }
                None if number == NONE => (),
                _ => there |= u32::from(self.delete_anywhere(key, hash)) << index,
            }
        }
        self.spare.retire_all(&retired[..count]);
        self.live -= count;
        self.tell_live();
        there
    }

    #[cold]
    #[inline(never)]
    fn delete_anywhere(&mut self, key: &K, hash: u64) -> bool {
        let home = home(hash);
        let Some(place) = self.shared.place(home, tag(hash), &key.words()) else { return false };
        self.take_out(place, home);
        true
    }

    /// Publishes an entry in a full table, or one whose bucket is full: it goes into one beside it, or where something older was.
    #[cold]
    #[inline(never)]
    fn put_with_effort(&mut self, home: usize, tag: u16, entry: u32, now: u32) {
        if self.live >= self.shared.capacity {
            self.make_room(home, now);
        }
        let (bucket, way) = self.free_way(home).unwrap_or_else(|| {
            let oldest = self.oldest((0..NEIGHBOURS).map(|step| home ^ step), now, usize::MAX);
            // Every way of the neighbourhood is taken.
            let place = oldest.unwrap_or(Place { bucket: home, way: 0, entry: 0 });
            self.evict(place);
            (place.bucket, place.way)
        });
        self.shared.put(bucket, way, tag, entry);
        if bucket != home {
            self.shared.buckets[home].add_stray(tag);
        }
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
        let home = home(self.view().hash(K::from_words(key)));
        self.take_out(place, home);
        add(&self.shared.counters.evicted, 1);
    }

    fn take_out(&mut self, place: Place, home: usize) {
        let shared = &self.shared;
        shared.buckets[place.bucket].set_tag(place.way, 0);
        if place.bucket != home {
            shared.buckets[home].remove_stray();
        }
        shared.entries[place.entry as usize].retire();
        self.spare.retire(place.entry);
        self.live -= 1;
        self.tell_live();
    }

    #[inline(always)]
    fn tell_live(&self) {
        self.shared.counters.live.store(self.live as u64, Ordering::Relaxed);
    }

    /// Bytes of all of it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let Shared { buckets, entries, rests, .. } = &*self.shared;
        size_of_val(&**buckets) + size_of_val(&**entries) + size_of_val(&**rests) + self.spare.bytes()
    }
}

/// A counter with one writer.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
