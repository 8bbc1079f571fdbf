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
    ticks: [Counter; 3],
    iterations: [Counter; 3],
    /// When it fell asleep; 0 while awake.
    asleep_since: AtomicU64,
    /// Lookups that found a verdict that holds.
    pub flow_hits: Counter,
    /// Lookups after which the frame was decided anew.
    pub flow_misses: Counter,
    /// Copies beyond the first of frames that were flooded.
    pub extra_copies: Counter,
    /// By path.
    pub guest_to_guest: PathCounters,
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

    pub(super) fn falls_asleep(&self, now: u64) {
        self.asleep_since.store(now, Ordering::Relaxed);
    }

    pub(super) fn wakes(&self, slept: u64) {
        self.asleep_since.store(0, Ordering::Relaxed);
        self.spent(Mode::Sleep, slept);
    }

    /// Time-stamp ticks spent in `mode`, the sleep that still goes on included.
    #[must_use]
    pub fn ticks(&self, mode: Mode) -> u64 {
        let ticks = self.ticks[mode as usize].get();
        let since = self.asleep_since.load(Ordering::Relaxed);
        if mode == Mode::Sleep && since != 0 { ticks + timestamp().saturating_sub(since) } else { ticks }
    }

    /// Iterations spent in `mode`.
    #[must_use]
    pub fn iterations(&self, mode: Mode) -> u64 {
        self.iterations[mode as usize].get()
    }
}
