//! When an entry may be written again: once every reader that could have its number has let go of it (quiescent-state
//! reclamation, in which the writer frees).
//!
//! A reader takes a seat for as long as it reads. In it stands the epoch in which it last held nothing. The writer retires
//! entries, moves the epoch on, and takes the entries back when every seat that is taken shows that epoch. Nobody waits: a
//! reader that stays away keeps entries from coming back, and the writer goes on with those that it has.

use super::super::atomics::{AtomicU64, Ordering, fence};

/// Seats of a table, and the epoch.
#[derive(Debug)]
pub(super) struct Seats {
    /// Moved on by the writer, after it retired entries.
    epoch: Line,
    /// 0 is free; else the epoch that its reader has seen while it held nothing.
    seats: Box<[Line]>,
}

/// A word with a cache line for itself.
#[derive(Debug)]
#[repr(align(64))]
struct Line(AtomicU64);

impl Seats {
    pub(super) fn new(count: usize) -> Self {
        Self { epoch: Line(AtomicU64::new(1)), seats: (0..count).map(|_| Line(AtomicU64::new(0))).collect() }
    }

    /// Takes a free seat.
    pub(super) fn take(&self) -> Option<usize> {
        let epoch = self.epoch.0.load(Ordering::Acquire);
        let free = |seat: &Line| seat.0.compare_exchange(0, epoch, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        let seat = self.seats.iter().position(free)?;
        // Against the one in `advance`: either the writer sees the seat taken, or whoever took it sees what was retired.
        fence(Ordering::SeqCst);
        Some(seat)
    }

    /// Its reader holds nothing at this moment.
    #[inline(always)]
    pub(super) fn pass(&self, seat: usize) {
        let epoch = self.epoch.0.load(Ordering::Acquire);
        if let Some(Line(seat)) = self.seats.get(seat)
            && seat.load(Ordering::Relaxed) != epoch
        {
            // What it read before is read before the writer sees this; what was retired before that epoch, it will not find.
            seat.store(epoch, Ordering::Release);
        }
    }

    /// Gives a seat up.
    pub(super) fn leave(&self, seat: usize) {
        if let Some(Line(seat)) = self.seats.get(seat) {
            seat.store(0, Ordering::Release);
        }
    }

    /// The epoch after what was retired until now. The writer only.
    fn advance(&self) -> u64 {
        let epoch = self.epoch.0.load(Ordering::Relaxed).wrapping_add(1);
        self.epoch.0.store(epoch, Ordering::Release);
        fence(Ordering::SeqCst);
        epoch
    }

    /// Whether nobody holds anything from before that epoch.
    fn all_passed(&self, epoch: u64) -> bool {
        self.seats.iter().all(|Line(seat)| {
            let seen = seat.load(Ordering::Acquire);
            seen == 0 || seen >= epoch
        })
    }
}

/// The entries that are in no bucket; the writer's own.
///
/// One ring of numbers: from its head those that are free, then those that wait for an epoch to pass, then those that were
/// retired since. Behind them all are those that were never used.
#[derive(Debug)]
pub(super) struct Spare {
    ring: Box<[u32]>,
    head: usize,
    tail: usize,
    free: usize,
    waiting: usize,
    retired: usize,
    /// What those that wait for must have passed.
    epoch: u64,
    unused: u32,
}

/// Entries that are retired before it is worth asking whether they are free.
const WORTH: usize = 64;

/// Entries that are taken while one is fetched.
const SOON: usize = 8;

impl Spare {
    /// All of `count` entries.
    pub(super) fn new(count: usize) -> Self {
        Self { ring: vec![0; count].into(), head: 0, tail: 0, free: 0, waiting: 0, retired: 0, epoch: 0, unused: 0 }
    }

    /// An entry that nobody can be at. None while readers hold all that there are.
    #[inline(always)]
    pub(super) fn take(&mut self, seats: &Seats) -> Option<u32> {
        if self.free == 0 {
            let unused = (self.unused as usize) < self.ring.len();
            if !unused || self.waiting + self.retired >= WORTH {
                self.reclaim(seats);
            }
            if self.free == 0 {
                self.unused += u32::from(unused);
                return unused.then(|| self.unused - 1);
            }
        }
        let entry = self.ring[self.head];
        self.head = self.wrap(self.head + 1);
        self.free -= 1;
        Some(entry)
    }

    /// The entry that is likely to be taken after some others: time enough to fetch it.
    #[inline(always)]
    pub(super) fn soon(&self) -> Option<u32> {
        self.ring.get(self.wrap(self.head + SOON)).copied()
    }

    /// Gives back an entry that is in no bucket any more.
    #[inline(always)]
    pub(super) fn retire(&mut self, entry: u32) {
        // There are no more numbers than places.
        self.ring[self.tail] = entry;
        self.tail = self.wrap(self.tail + 1);
        self.retired += 1;
    }

    /// Gives back some.
    #[inline(always)]
    pub(super) fn retire_all(&mut self, entries: &[u32]) {
        if let Some(places) = self.ring.get_mut(self.tail..self.tail + entries.len()) {
            places.copy_from_slice(entries);
            self.tail = self.wrap(self.tail + entries.len());
            self.retired += entries.len();
        } else {
            entries.iter().for_each(|entry| self.retire(*entry));
        }
    }

    #[inline(never)]
    fn reclaim(&mut self, seats: &Seats) {
        // Once for those that wait already, once for those retired since.
        for _ in 0..2 {
            if self.waiting > 0 {
                if !seats.all_passed(self.epoch) {
                    return;
                }
                self.free += std::mem::take(&mut self.waiting);
            }
            if self.retired == 0 {
                return;
            }
            self.waiting = std::mem::take(&mut self.retired);
            self.epoch = seats.advance();
        }
    }

    #[inline(always)]
    fn wrap(&self, place: usize) -> usize {
        if place >= self.ring.len() { place - self.ring.len() } else { place }
    }

    /// Bytes of it.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.ring)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all, gives all back; how many there were.
    fn all(spare: &mut Spare, seats: &Seats) -> Vec<u32> {
        std::iter::from_fn(|| spare.take(seats)).collect()
    }

    #[test]
    fn what_is_retired_comes_back_when_nobody_reads() {
        let (seats, mut spare) = (Seats::new(2), Spare::new(3));
        assert_eq!(all(&mut spare, &seats), [0, 1, 2]);
        spare.retire(1);
        spare.retire(0);
        assert_eq!(all(&mut spare, &seats), [1, 0]);
    }

    #[test]
    fn a_reader_keeps_what_was_retired_while_it_reads() {
        let (seats, mut spare) = (Seats::new(2), Spare::new(2));
        assert_eq!(all(&mut spare, &seats).len(), 2);
        let reader = seats.take().unwrap();
        spare.retire(0);
        assert_eq!(spare.take(&seats), None);
        spare.retire(1);
        let late = seats.take().unwrap();
        assert_eq!(seats.take(), None, "no third seat");
        seats.pass(reader);
        // The other came when 0 was already gone; 1 is waited for from now on.
        assert_eq!(spare.take(&seats), Some(0));
        assert_eq!(spare.take(&seats), None);
        seats.leave(reader);
        assert_eq!(spare.take(&seats), None);
        seats.pass(late);
        assert_eq!(spare.take(&seats), Some(1));
    }

    #[test]
    fn the_ring_goes_round() {
        let (seats, mut spare) = (Seats::new(1), Spare::new(5));
        let mut held: std::collections::VecDeque<u32> = all(&mut spare, &seats).into();
        for step in 0..1000 {
            for _ in 0..step % 5 + 1 {
                spare.retire(held.pop_front().unwrap());
            }
            held.extend(all(&mut spare, &seats));
            let mut sorted: Vec<_> = held.iter().copied().collect();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
    }
}
