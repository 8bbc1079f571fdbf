//! The MAC table: which station is behind which port. One table for all workers; nobody waits for anybody.
//!
//! A worker that sees a new station claims a slot with one compare-and-swap, so that the next frame to it, on any
//! worker, finds it: flooded once, not for a millisecond. Removing (ageing, a port that goes) is one control thread's.
//! A verdict in the flow table names a slot and its version; moving or removing an entry changes the version and thereby
//! ends every such verdict, in constant time and without looking for them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use super::HashKey;
use crate::packet::MacAddress;

/// Slots a bucket: one cache line of keys.
const WAYS: usize = 8;

/// In a value: the slot holds a station. The port is in the low 16 bits.
const PRESENT: u64 = 1 << 32;

/// A slot of the table at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacRef {
    slot: u32,
    version: u32,
}

impl MacRef {
    /// Stands for no entry: always current.
    pub const ALWAYS: Self = Self { slot: u32::MAX, version: 0 };

    pub(super) fn word(self) -> u64 {
        u64::from(self.slot) | u64::from(self.version) << 32
    }

    #[inline(always)]
    pub(super) fn from_word(word: u64) -> Self {
        Self { slot: word as u32, version: (word >> 32) as u32 }
    }
}

/// How many stations are remembered.
#[derive(Clone, Copy, Debug)]
pub struct MacLimits {
    /// In all.
    pub total: u32,
    /// Behind one port.
    pub per_port: u32,
    /// Ports that there can be.
    pub ports: u16,
}

impl Default for MacLimits {
    fn default() -> Self {
        Self { total: 32768, per_port: 8192, ports: 4096 }
    }
}

/// What changes while a verdict may look at it.
#[derive(Debug, Default)]
struct Live {
    version: AtomicU32,
    /// When a frame of the station was last seen, in ticks.
    seen: AtomicU32,
}

/// A station, as `show macs` lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacEntry {
    /// The bridge.
    pub bridge: u16,
    /// The station.
    pub mac: MacAddress,
    /// The port behind which it was last seen.
    pub port: u16,
    /// When, in ticks.
    pub seen: u32,
}

/// The table. See the module's text.
#[derive(Debug)]
pub struct MacTable {
    /// Bridge above, address below; 0 is free (no station has address 0).
    keys: Box<[AtomicU64]>,
    values: Box<[AtomicU64]>,
    live: Box<[Live]>,
    per_port: Box<[AtomicU32]>,
    limits: MacLimits,
    hash: HashKey,
    entries: CachePadded<AtomicU32>,
    moves: CachePadded<AtomicU64>,
    epoch: CachePadded<AtomicU32>,
    refused: CachePadded<AtomicU64>,
}

impl MacTable {
    /// An empty table.
    pub fn new(limits: MacLimits) -> std::io::Result<Self> {
        // Half full at most, so that a bucket seldom overflows.
        let slots = (limits.total as usize * 2).next_power_of_two().max(WAYS);
        let zeroed = |len: usize| (0..len).map(|_| AtomicU64::new(0)).collect::<Box<[_]>>();
        Ok(Self {
            keys: zeroed(slots),
            values: zeroed(slots),
            live: (0..slots).map(|_| Live::default()).collect(),
            per_port: (0..limits.ports).map(|_| AtomicU32::new(0)).collect(),
            limits,
            hash: HashKey::random()?,
            entries: CachePadded::default(),
            moves: CachePadded::default(),
            epoch: CachePadded::default(),
            refused: CachePadded::default(),
        })
    }

    fn key(bridge: u16, mac: MacAddress) -> u64 {
        mac.word() | u64::from(bridge) << 48
    }

    fn bucket(&self, key: u64) -> std::ops::Range<usize> {
        let buckets = self.keys.len() / WAYS;
        let start = (self.hash.hash(key, 0) as usize & (buckets - 1)) * WAYS;
        start..start + WAYS
    }

    fn slot_of(&self, key: u64) -> Option<usize> {
        self.bucket(key).find(|&slot| self.keys[slot].load(Ordering::Acquire) == key)
    }

    /// The port behind which `mac` is, and the entry that says so.
    #[must_use]
    pub fn find(&self, bridge: u16, mac: MacAddress) -> Option<(u16, MacRef)> {
        let key = Self::key(bridge, mac);
        let slot = self.slot_of(key)?;
        // Version first: a change after this load makes the reference stale, never the port wrong for long.
        let version = self.live[slot].version.load(Ordering::Acquire);
        let value = self.values[slot].load(Ordering::Acquire);
        let same = self.keys[slot].load(Ordering::Acquire) == key;
        (same && value & PRESENT != 0).then_some((value as u16, MacRef { slot: slot as u32, version }))
    }

    /// A frame from `mac` came in by `port`: remembers or moves the station. `None` when a limit or a full bucket
    /// forbids it; the frame is none the worse.
    pub fn learn(&self, bridge: u16, mac: MacAddress, port: u16, now: u32) -> Option<MacRef> {
        let key = Self::key(bridge, mac);
        let learnt = match self.slot_of(key) {
            Some(slot) => self.refresh(slot, key, port, now),
            None => self.insert(key, port, now),
        };
        if learnt.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        learnt
    }

    fn refresh(&self, slot: usize, key: u64, port: u16, now: u32) -> Option<MacRef> {
        let live = &self.live[slot];
        let version = live.version.load(Ordering::Acquire);
        let value = self.values[slot].load(Ordering::Acquire);
        let wanted = PRESENT | u64::from(port);
        if value == wanted {
            live.seen.store(now, Ordering::Relaxed);
            // The slot may have become another station's since it was found.
            let same = self.keys[slot].load(Ordering::Acquire) == key;
            return same.then_some(MacRef { slot: slot as u32, version });
        }
        if value & PRESENT == 0 || !self.count_in(port) {
            return None; // being removed or still being claimed: the next frame will do
        }
        if self.values[slot].compare_exchange(value, wanted, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            self.count_out(port);
            return None;
        }
        self.count_out(value as u16);
        self.moves.fetch_add(1, Ordering::Relaxed);
        live.seen.store(now, Ordering::Relaxed);
        let version = live.version.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        self.epoch.fetch_add(1, Ordering::AcqRel);
        (self.keys[slot].load(Ordering::Acquire) == key).then_some(MacRef { slot: slot as u32, version })
    }

    fn insert(&self, key: u64, port: u16, now: u32) -> Option<MacRef> {
        if self.entries.load(Ordering::Relaxed) >= self.limits.total || !self.count_in(port) {
            return None;
        }
        let claimed = self.bucket(key).find(|&slot| {
            self.keys[slot].load(Ordering::Relaxed) == 0
                && self.keys[slot].compare_exchange(0, key, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        });
        let Some(slot) = claimed else {
            self.count_out(port);
            return None;
        };
        // Two workers may have claimed two slots for one station; the lower one stays.
        if self.slot_of(key) != Some(slot) {
            self.keys[slot].store(0, Ordering::Release);
            self.count_out(port);
            return None;
        }
        self.entries.fetch_add(1, Ordering::Relaxed);
        let live = &self.live[slot];
        live.seen.store(now, Ordering::Relaxed);
        let version = live.version.load(Ordering::Acquire);
        self.values[slot].store(PRESENT | u64::from(port), Ordering::Release);
        Some(MacRef { slot: slot as u32, version })
    }

    /// Removes the station in `slot`; one thread only.
    fn remove(&self, slot: usize) {
        let value = self.values[slot].swap(0, Ordering::AcqRel);
        if value & PRESENT == 0 {
            return;
        }
        self.live[slot].version.fetch_add(1, Ordering::AcqRel);
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.keys[slot].store(0, Ordering::Release);
        self.count_out(value as u16);
        self.entries.fetch_sub(1, Ordering::Relaxed);
    }

    fn count_in(&self, port: u16) -> bool {
        let Some(count) = self.per_port.get(usize::from(port)) else { return false };
        let before = count.fetch_add(1, Ordering::Relaxed);
        if before >= self.limits.per_port {
            count.fetch_sub(1, Ordering::Relaxed);
        }
        before < self.limits.per_port
    }

    fn count_out(&self, port: u16) {
        if let Some(count) = self.per_port.get(usize::from(port)) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether what `entry` said is still so.
    #[inline(always)]
    #[must_use]
    pub fn is_current(&self, entry: MacRef) -> bool {
        match self.live.get(entry.slot as usize) {
            Some(live) => live.version.load(Ordering::Acquire) == entry.version,
            None => entry == MacRef::ALWAYS,
        }
    }

    /// Notes that a frame of the station was seen.
    #[inline(always)]
    pub fn touch(&self, entry: MacRef, now: u32) {
        if let Some(live) = self.live.get(entry.slot as usize)
            && live.seen.load(Ordering::Relaxed) != now
        {
            live.seen.store(now, Ordering::Relaxed);
        }
    }

    /// Removes the stations for which `expired` holds; one thread only. How many.
    ///
    /// Also mends what a lost race can leave: two workers that claim a slot each for one station, while a lower slot
    /// comes free between their looks. Only the lower one is ever found.
    pub fn remove_if(&self, expired: impl Fn(&MacEntry) -> bool) -> usize {
        let doubled = |slot: usize, entry: &MacEntry| self.slot_of(Self::key(entry.bridge, entry.mac)) != Some(slot);
        let slots =
            (0..self.keys.len()).filter(|&slot| self.entry(slot).is_some_and(|e| expired(&e) || doubled(slot, &e)));
        slots.map(|slot| self.remove(slot)).count()
    }

    /// The stations, in no order.
    pub fn iter(&self) -> impl Iterator<Item = MacEntry> {
        (0..self.keys.len()).filter_map(|slot| self.entry(slot))
    }

    fn entry(&self, slot: usize) -> Option<MacEntry> {
        let key = self.keys[slot].load(Ordering::Acquire);
        let value = self.values[slot].load(Ordering::Acquire);
        (key != 0 && value & PRESENT != 0).then(|| MacEntry {
            bridge: (key >> 48) as u16,
            mac: MacAddress::from_word(key),
            port: value as u16,
            seen: self.live[slot].seen.load(Ordering::Relaxed),
        })
    }

    /// Moves on with every entry that moves or goes. As long as it stands still, whatever was current is. It is a short
    /// cut and ends no verdict: one that was made in an older epoch is only looked at more closely.
    #[inline(always)]
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Stations that were seen behind another port than before.
    #[must_use]
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    /// Times that a station was not remembered because a limit or a full bucket forbade it.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The limits it was made with.
    #[must_use]
    pub fn limits(&self) -> MacLimits {
        self.limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn mac(number: u64) -> MacAddress {
        MacAddress::from_word(0x0254 | number << 16)
    }

    fn table(total: u32, per_port: u32) -> MacTable {
        MacTable::new(MacLimits { total, per_port, ports: 16 }).unwrap()
    }

    #[test]
    fn a_station_is_found_where_it_was_last_seen() {
        let table = table(100, 100);
        assert!(table.find(0, mac(1)).is_none());
        let first = table.learn(0, mac(1), 3, 7).unwrap();
        assert_eq!(table.find(0, mac(1)), Some((3, first)));
        assert!(table.find(1, mac(1)).is_none(), "another bridge");
        assert_eq!(table.learn(0, mac(1), 3, 8), Some(first));
        assert!(table.is_current(first));
        let moved = table.learn(0, mac(1), 4, 9).unwrap();
        assert!(!table.is_current(first) && table.is_current(moved));
        assert_eq!(table.find(0, mac(1)), Some((4, moved)));
        assert_eq!(table.moves(), 1);
    }

    #[test]
    fn ageing_ends_verdicts_and_frees_room() {
        let table = table(2, 2);
        let old = table.learn(0, mac(1), 0, 10).unwrap();
        table.learn(0, mac(2), 1, 20).unwrap();
        assert!(table.learn(0, mac(3), 1, 20).is_none(), "the limit in all");
        assert_eq!(table.refused(), 1);
        assert_eq!(table.remove_if(|entry| entry.seen < 15), 1);
        assert!(!table.is_current(old));
        assert!(table.find(0, mac(1)).is_none());
        assert!(table.learn(0, mac(3), 1, 20).is_some());
        assert_eq!(table.iter().count(), 2);
    }

    #[test]
    fn one_port_cannot_take_all_room() {
        let table = table(100, 2);
        let learnt = (0..10).filter(|&i| table.learn(0, mac(i), 0, 0).is_some()).count();
        assert_eq!(learnt, 2);
        assert!(table.learn(0, mac(20), 1, 0).is_some());
        // Moving there counts, too.
        assert!(table.learn(0, mac(20), 0, 0).is_none());
        assert_eq!(table.find(0, mac(20)).unwrap().0, 1);
        table.remove_if(|entry| entry.port == 0);
        assert!(table.learn(0, mac(20), 0, 0).is_some());
    }

    #[test]
    fn a_touch_keeps_a_station() {
        let table = table(10, 10);
        let entry = table.learn(0, mac(1), 0, 1).unwrap();
        table.touch(entry, 50);
        assert_eq!(table.remove_if(|entry| entry.seen < 40), 0);
        table.touch(MacRef::ALWAYS, 50);
        assert!(table.is_current(MacRef::ALWAYS));
    }

    /// Four threads learn, move and remove the same few stations; afterwards every count is exact.
    #[test]
    fn counts_hold_under_contention() {
        let table = Arc::new(table(1000, 1000));
        std::thread::scope(|scope| {
            for thread in 0..3u16 {
                let table = table.clone();
                scope.spawn(move || {
                    for round in 0..20_000u64 {
                        table.learn(0, mac(round % 50), thread + (round % 3) as u16, round as u32);
                    }
                });
            }
            for round in 0..200 {
                table.remove_if(|entry| (entry.mac.word() >> 16) % 7 == round % 7);
                std::thread::yield_now();
            }
        });
        table.remove_if(|_| false);
        let entries: Vec<_> = table.iter().collect();
        assert_eq!(entries.len(), table.entries.load(Ordering::Relaxed) as usize);
        for port in 0..16u16 {
            let count = entries.iter().filter(|entry| entry.port == port).count();
            assert_eq!(count, table.per_port[usize::from(port)].load(Ordering::Relaxed) as usize, "port {port}");
        }
        let mut macs: Vec<_> = entries.iter().map(|entry| entry.mac).collect();
        macs.sort();
        macs.dedup();
        assert_eq!(macs.len(), entries.len(), "a station twice");
    }
}
