//! Which of a guest's queue pairs each of its flows belongs to: an array of words that any worker reads and writes without a lock.
//!
//! A flow is the hash of its addresses and ports, the same in both directions. Its entry says in which queue the guest is given
//! it, when that was last, and by which queue the guest itself sends it. What the guest chose comes before what a hash would, but
//! no frame may pass an earlier one of its flow: the flow goes over to another queue only when the guest has
//! taken all that is in the old one, or after [`QUIET`] without a frame. The kernel's tun driver has such a table, too, and lets
//! frames pass each other.
//!
//! An entry is free for another flow once it owes no order any more. One table belongs to one guest, so a guest that sprays
//! flows spoils the spreading of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Flows that a guest may have going at a time, in both directions; those beyond go where the hash says. As many as tun has.
const FLOWS: usize = 4096;

/// Flows that share a cache line, and compete for it.
const WAYS: usize = 8;

const SETS: usize = FLOWS / WAYS;

/// Between two beats. They are a thread's, which counts them one by one: while everything stands still, as in a machine that is
/// suspended, no time goes by.
pub const BEAT: Duration = Duration::from_millis(100);

/// Beats without a frame after which a flow may go over to another queue: what the guest was given before, it has taken long ago.
/// That cannot be known, and a guest may be kept from running for a while: so it is as long as tun's.
const QUIET_BEATS: u16 = 30;

/// After so long that is so.
pub const QUIET: Duration = Duration::from_millis(100 * (QUIET_BEATS as u64 + 2));

/// Of a stamp, how many bits are of a finer clock, which only tells a moment from others.
const FINE_BITS: u32 = 6;

/// Time-stamp ticks to the finer clock: some of a millisecond each.
const SHIFT: u32 = 21;

/// Tries to change an entry that others change, too. After that it stays as they left it.
const TRIES: usize = 4;

/// The flows of one guest.
#[derive(Debug)]
pub struct Affinity {
    sets: Box<[Set]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

/// An entry: a word, of which 0 is none. Bits 0 to 15 the stamp of the last frame that the guest was given; 16 to 22 the queue
/// that it went to, 23 set; 24 to 30 the queue by which the guest sends, 31 whether it does; 32 to 63 the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry(u64);

const IN_USE: u64 = 1 << 23;
const SENDS: u64 = 1 << 31;

impl Entry {
    fn new(flow: u32, queue: u8, sends_by: Option<u8>, stamp: u16) -> Self {
        let sends = sends_by.map_or(0, |queue| SENDS | u64::from(queue & 0x7f) << 24);
        Self(u64::from(flow) << 32 | sends | IN_USE | u64::from(queue & 0x7f) << 16 | u64::from(stamp))
    }

    #[inline(always)]
    fn is(self, flow: u32) -> bool {
        self.0 & IN_USE != 0 && (self.0 >> 32) as u32 == flow
    }

    #[inline(always)]
    fn flow(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    fn queue(self) -> u8 {
        (self.0 >> 16) as u8 & 0x7f
    }

    #[inline(always)]
    fn sends_by(self) -> Option<u8> {
        (self.0 & SENDS != 0).then_some((self.0 >> 24) as u8 & 0x7f)
    }

    #[inline(always)]
    fn stamp(self) -> u16 {
        self.0 as u16
    }

    /// Beats since the last frame, as far as they can be told apart: up to half a lap, some 50 s. A worker may be late, so that the
    /// frame seems to come from the future.
    #[inline(always)]
    fn age(self, now: u16) -> u16 {
        const LAP: u16 = u16::MAX >> FINE_BITS;
        let age = (now >> FINE_BITS).wrapping_sub(self.stamp() >> FINE_BITS) & LAP;
        if age > LAP / 2 { 0 } else { age }
    }

    /// Whether no frame of it can be under way any more.
    #[inline(always)]
    fn is_quiet(self, now: u16) -> bool {
        self.age(now) > QUIET_BEATS
    }
}

/// What is to be known of a guest's queues to choose among them.
pub trait Queues {
    /// Whether the guest can be given frames by this one.
    fn is_enabled(&self, queue: u8) -> bool;
    /// Whether the guest is known to have taken all that it was given by this one.
    fn is_drained(&self, queue: u8) -> bool;
    /// Where a flow goes that the guest itself has not sent. Unless `is_settled`, nothing is known of where its last frames went,
    /// and they may be under way.
    fn choose(&self, flow: u32, is_settled: bool) -> u8;
}

impl Default for Affinity {
    fn default() -> Self {
        Self::new()
    }
}

impl Affinity {
    /// A table without flows.
    #[must_use]
    pub fn new() -> Self {
        Self { sets: (0..SETS).map(|_| Set::default()).collect() }
    }

    /// A moment, as the other functions want it: how many beats there were, and the time-stamp counter.
    #[inline(always)]
    #[must_use]
    pub fn stamp(beats: u32, timestamp: u64) -> u16 {
        let fine = (timestamp >> SHIFT) as u16 & ((1 << FINE_BITS) - 1);
        (beats as u16) << FINE_BITS | fine
    }

    #[inline(always)]
    fn set(&self, flow: u32) -> &Set {
        // The low bits choose among queues.
        &self.sets[(flow.wrapping_mul(0x9e37_79b1) >> 16) as usize % SETS]
    }

    /// The queue for the next frame of `flow`, which is on its way there.
    #[inline]
    pub fn queue_of(&self, flow: u32, now: u16, queues: &impl Queues) -> u8 {
        let set = self.set(flow);
        for _ in 0..TRIES {
            let Some((way, entry)) = set.find(flow) else {
                match self.insert(set, flow, now, queues) {
                    Some(queue) => return queue,
                    None => continue,
                }
            };
            let queue = entry.queue();
            // Frames of one burst stay together.
            if entry.stamp() == now && queues.is_enabled(queue) {
                return queue;
            }
            let wanted = entry.sends_by().filter(|&queue| queues.is_enabled(queue));
            let wanted = wanted.unwrap_or_else(|| queues.choose(flow, true));
            let may_go = || !queues.is_enabled(queue) || entry.is_quiet(now) || queues.is_drained(queue);
            let next = if wanted != queue && may_go() { wanted } else { queue };
            if set.exchange(way, entry, Entry::new(flow, next, entry.sends_by(), now)) {
                return next;
            }
        }
        let known = set.find(flow).map(|(_, entry)| entry.queue()).filter(|&queue| queues.is_enabled(queue));
        known.unwrap_or_else(|| queues.choose(flow, true))
    }

    /// A flow of which nothing is known goes where the hash says, and stays there. None if somebody else was quicker.
    #[cold]
    fn insert(&self, set: &Set, flow: u32, now: u16, queues: &impl Queues) -> Option<u8> {
        let queue = queues.choose(flow, false);
        match set.room(|entry| entry.is_quiet(now).then_some(entry.age(now))) {
            Some((way, old)) => set.exchange(way, old, Entry::new(flow, queue, None, now)).then_some(queue),
            None => Some(queue),
        }
    }

    /// The guest has sent a frame of `flow` by `queue`.
    #[inline]
    pub fn sent(&self, flow: u32, queue: u8, now: u16, queues: &impl Queues) {
        let set = self.set(flow);
        match set.find(flow) {
            Some((_, entry)) if entry.sends_by() == Some(queue) => {}
            Some((way, entry)) => {
                // If somebody else was quicker, the guest will send again.
                set.exchange(way, entry, Entry::new(flow, entry.queue(), Some(queue), entry.stamp()));
            }
            None => self.insert_sent(set, flow, queue, now, queues),
        }
    }

    /// What the guest chose may take the place of a flow that is where the hash would put it anyway.
    #[cold]
    fn insert_sent(&self, set: &Set, flow: u32, queue: u8, now: u16, queues: &impl Queues) {
        let worth = |entry: Entry| {
            let is_moot = || entry.sends_by().is_none() && entry.queue() == queues.choose(entry.flow(), false);
            (entry.is_quiet(now) || is_moot()).then_some(entry.age(now))
        };
        if let Some((way, old)) = set.room(worth) {
            set.exchange(way, old, Entry::new(flow, queue, Some(queue), now));
        }
    }
}

impl Set {
    #[inline(always)]
    fn load(&self, way: usize) -> Entry {
        Entry(self.0[way % WAYS].load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn find(&self, flow: u32) -> Option<(usize, Entry)> {
        (0..WAYS).map(|way| (way, self.load(way))).find(|(_, entry)| entry.is(flow))
    }

    /// A way that is empty, or the one worth most to give up, if any may be.
    fn room(&self, worth: impl Fn(Entry) -> Option<u16>) -> Option<(usize, Entry)> {
        let worth = |entry: Entry| if entry.0 == 0 { Some(u16::MAX) } else { worth(entry) };
        let ways = (0..WAYS).map(|way| (way, self.load(way)));
        ways.filter_map(|(way, entry)| Some((worth(entry)?, WAYS - way, way, entry)))
            .max_by_key(|&(worth, first, ..)| (worth, first))
            .map(|(.., way, entry)| (way, entry))
    }

    /// Puts `new` where `old` was; whether it still was.
    #[inline(always)]
    fn exchange(&self, way: usize, old: Entry, new: Entry) -> bool {
        old == new || self.0[way % WAYS].compare_exchange(old.0, new.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicBool;

    const QUIET_STAMPS: u16 = QUIET_BEATS << FINE_BITS;

    /// Queues of which some are enabled and some drained, a bit each.
    #[derive(Clone, Copy, Debug)]
    struct Fake {
        enabled: u8,
        drained: u8,
    }

    const ALL: Fake = Fake { enabled: 0xff, drained: 0 };

    impl Queues for Fake {
        fn is_enabled(&self, queue: u8) -> bool {
            self.enabled >> queue & 1 != 0
        }

        fn is_drained(&self, queue: u8) -> bool {
            self.drained >> queue & 1 != 0
        }

        fn choose(&self, flow: u32, _is_settled: bool) -> u8 {
            let enabled: Vec<u8> = (0..8).filter(|&queue| self.is_enabled(queue)).collect();
            enabled[flow as usize % enabled.len()]
        }
    }

    #[test]
    fn answers_come_where_the_guest_sends() {
        let table = Affinity::new();
        for flow in 0..1000 {
            table.sent(flow, (flow % 5) as u8, 7, &ALL);
            assert_eq!(table.queue_of(flow, 8, &ALL), (flow % 5) as u8, "flow {flow}");
        }
        assert_eq!(table.queue_of(1_000_003, 8, &ALL), 3, "by the hash");
    }

    #[test]
    fn a_flow_goes_over_when_nothing_of_it_is_under_way() {
        let table = Affinity::new();
        assert_eq!(table.queue_of(3, 1, &ALL), 3);
        table.sent(3, 5, 1, &ALL);
        assert_eq!(table.queue_of(3, 2, &ALL), 3, "frames may be under way");
        let drained = Fake { drained: 1 << 3, ..ALL };
        assert_eq!(table.queue_of(3, 2, &drained), 3, "frames of the same burst are");
        assert_eq!(table.queue_of(3, 3, &drained), 5);
        table.sent(3, 6, 4, &ALL);
        assert_eq!(table.queue_of(3, 3 + QUIET_STAMPS, &ALL), 5);
        assert_eq!(table.queue_of(3, 64 + 2 * QUIET_STAMPS, &ALL), 6, "after six beats");
        // There is nobody to wait for in a queue that is gone.
        let without = Fake { enabled: !(1 << 6), ..ALL };
        assert_eq!(table.queue_of(3, 65 + 2 * QUIET_STAMPS, &without), without.choose(3, true));
        // Nobody forgets what the guest wants.
        assert_eq!(table.queue_of(3, 66 + 4 * QUIET_STAMPS, &ALL), 6);
    }

    #[test]
    fn flows_of_others_do_not_keep_the_guests_own_out() {
        let table = Affinity::new();
        for flow in 0..100_000 {
            table.queue_of(flow, 1, &ALL);
        }
        for flow in 200_000..200_200 {
            table.sent(flow, 2, 1, &ALL);
            assert_eq!(table.queue_of(flow, 1, &ALL), 2);
        }
    }

    #[test]
    fn a_full_table_has_room_again_once_flows_are_quiet() {
        let table = Affinity::new();
        let known = |flows: std::ops::Range<u32>| flows.filter(|&flow| table.set(flow).find(flow).is_some()).count();
        (0..100_000).for_each(|flow| table.sent(flow, 1, 1, &ALL));
        let first = known(0..100_000);
        assert!(first > FLOWS * 9 / 10, "{first}");
        (100_000..200_000).for_each(|flow| table.sent(flow, 1, 1, &ALL));
        assert_eq!(known(100_000..200_000), 0);
        (100_000..200_000).for_each(|flow| table.sent(flow, 1, 64 + QUIET_STAMPS, &ALL));
        assert!(known(100_000..200_000) > FLOWS * 9 / 10);
    }

    proptest! {
        /// Whatever happens, a flow changes its queue only when that is gone, drained, or quiet.
        #[test]
        fn no_flow_passes_itself(steps in proptest::collection::vec((0u8..3, any::<u8>(), any::<u8>(), 0u16..3), 1..300)) {
            let table = Affinity::new();
            let (mut now, mut last) = (60_000u16, [None; 4]);
            for (what, value, bits, later) in steps {
                now = now.wrapping_add(later * later * QUIET_STAMPS / 3);
                let (flow, queues) = (value % 4, Fake { enabled: bits | 1, drained: value });
                if what == 0 {
                    table.sent(flow.into(), bits % 8, now, &queues);
                    continue;
                }
                let queue = table.queue_of(flow.into(), now, &queues);
                prop_assert!(queues.is_enabled(queue));
                if let Some((before, at)) = last[usize::from(flow)] && before != queue {
                    let age: u16 = (now >> FINE_BITS).wrapping_sub(at >> FINE_BITS);
                    let drained = now != at && queues.is_drained(before);
                    prop_assert!(!queues.is_enabled(before) || drained || age > QUIET_BEATS, "{before} to {queue}");
                }
                last[usize::from(flow)] = Some((queue, now));
            }
        }
    }

    /// Guests send by changing queues on some threads while each flow's frames come by another: a flow never leaves a queue
    /// that is not drained.
    #[test]
    fn many_workers_at_once() {
        let (table, done) = (Affinity::new(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for sender in 0..2u32 {
                let (table, done) = (&table, &done);
                scope.spawn(move || {
                    let mut turn = sender;
                    while !done.load(Ordering::Relaxed) {
                        turn = turn.wrapping_add(1);
                        table.sent(turn % 16, (turn / 16 % 8) as u8, 1, &ALL);
                    }
                });
            }
            let deliverers: Vec<_> = (0..2u32)
                .map(|deliverer| {
                    let table = &table;
                    scope.spawn(move || {
                        let mut last = [None; 16];
                        for turn in 0..400_000u32 {
                            let (flow, drained) = (turn % 8 * 2 + deliverer, turn / 8 % 7 == 0);
                            let queues = Fake { drained: if drained { 0xff } else { 0 }, ..ALL };
                            let now = (turn / 64 % 1000) as u16;
                            let queue = table.queue_of(flow, now, &queues);
                            let before = last[flow as usize].replace(queue);
                            assert!(before.is_none_or(|before| before == queue || drained), "flow {flow}, turn {turn}");
                        }
                    })
                })
                .collect();
            deliverers.into_iter().for_each(|thread| thread.join().unwrap());
            done.store(true, Ordering::Relaxed);
        });
    }
}
