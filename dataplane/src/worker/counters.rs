//! What a worker counts of itself.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::account::Counter;
use crate::cpu::timestamp;

/// What a worker did in an iteration of its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Mode {
    /// Received at least one frame.
    Busy,
    /// Polled in vain.
    Idle,
    /// Slept until kicked.
    Sleep,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Busy, Self::Idle, Self::Sleep];

    /// Its name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Idle => "idle",
            Self::Sleep => "sleep",
        }
    }
}

/// Written by the worker only.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Awake.
    ticks: [Counter; 2],
    iterations: [Counter; 3],
    /// Ticks asleep, shifted left by one; while it sleeps, less the time when that began, and the lowest bit is set. One
    /// word, so that a reader never sees a sleep twice or not at all. Arithmetic is modulo 2⁶³.
    slept: AtomicU64,
    /// Rings that are armed above, rings that are looked at below.
    rings: AtomicU64,
    /// Lookups that found a verdict that holds.
    pub flow_hits: Counter,
    /// Lookups after which the frame was decided anew.
    pub flow_misses: Counter,
    /// Copies beyond the first of frames that were flooded.
    pub extra_copies: Counter,
    /// Segments beyond the first of frames that were cut for their receivers.
    pub generated: Counter,
    /// By path.
    pub guest_to_guest: PathCounters,
    /// By path.
    pub guest_to_nic: PathCounters,
    /// By path.
    pub nic_to_guest: PathCounters,
    /// By path.
    pub nic_to_nic: PathCounters,
    /// By path.
    pub hand_off: PathCounters,
}

/// What a path carried and what it cost.
#[derive(Debug, Default)]
pub struct PathCounters {
    /// Bytes of frames delivered.
    pub forwarded_bytes: Counter,
    /// Bytes written for them, wherever to.
    pub copied_bytes: Counter,
}

impl WorkerCounters {
    /// Accounts an iteration.
    #[inline]
    pub(super) fn spent(&self, mode: Mode, ticks: u64) {
        self.ticks[mode as usize].add(ticks);
        self.iterations[mode as usize].add(1);
    }

    /// So many rings are armed, and so many looked at.
    pub(super) fn note_rings(&self, armed: usize, polled: usize) {
        self.rings.store((armed as u64) << 32 | polled as u64, Ordering::Relaxed);
    }

    /// Transmitqs whose guests are to kick, and those that the worker looks at.
    #[must_use]
    pub fn rings(&self) -> (u32, u32) {
        let rings = self.rings.load(Ordering::Relaxed);
        ((rings >> 32) as u32, rings as u32)
    }

    /// A sleep begins at `now`.
    pub(super) fn falls_asleep(&self, now: u64) {
        let slept = self.slept.load(Ordering::Relaxed) >> 1;
        self.slept.store(slept.wrapping_sub(now) << 1 | 1, Ordering::Relaxed);
    }

    /// It ends at `now`.
    pub(super) fn wakes(&self, now: u64) {
        let begun = self.slept.load(Ordering::Relaxed) >> 1;
        self.slept.store(begun.wrapping_add(now) << 1, Ordering::Relaxed);
        self.iterations[Mode::Sleep as usize].add(1);
    }

    /// Time-stamp ticks spent in `mode`, the sleep that still goes on included.
    #[must_use]
    pub fn ticks(&self, mode: Mode) -> u64 {
        if mode != Mode::Sleep {
            return self.ticks[mode as usize].get();
        }
        let slept = self.slept.load(Ordering::Relaxed);
        let until = if slept & 1 == 0 { 0 } else { timestamp() };
        (slept >> 1).wrapping_add(until) << 1 >> 1
    }

    /// Iterations spent in `mode`.
    #[must_use]
    pub fn iterations(&self, mode: Mode) -> u64 {
        self.iterations[mode as usize].get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_counts_while_it_goes_on_and_after() {
        let counters = WorkerCounters::default();
        let begun = timestamp();
        counters.falls_asleep(begun);
        let during = counters.ticks(Mode::Sleep);
        assert!(during <= timestamp() - begun);
        let end = timestamp();
        counters.wakes(end);
        assert_eq!(counters.ticks(Mode::Sleep), end - begun);
        assert!(during <= end - begun);
        counters.falls_asleep(end + 5);
        counters.wakes(end + 12);
        assert_eq!(counters.ticks(Mode::Sleep), end - begun + 7);
        assert_eq!(counters.iterations(Mode::Sleep), 2);
    }
}
