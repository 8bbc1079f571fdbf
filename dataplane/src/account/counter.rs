//! A counter with one writer and any readers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts up. Only its owner may add (a second writer would lose counts, nothing worse); anybody may read.
///
/// An add is a load, an add and a store: no locked instruction on the data path.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`; the owner only.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a queue by which frames come has made its worker do, and how that was shared out.
#[derive(Debug, Default)]
pub struct Service {
    /// Frames for which no cached verdict held, so that they were decided anew.
    pub flow_misses: Counter,
    /// Visits that ended early, with frames left in the queue, for want of more misses.
    pub miss_budget: Counter,
    /// Visits that were put off, since the port had used its share of a saturated worker.
    pub put_off: Counter,
    /// Time-stamp ticks that a saturated worker has spent on it.
    pub ticks: Counter,
}

/// Frames and their bytes, without virtio-net headers.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Frames.
    pub packets: Counter,
    /// Bytes.
    pub bytes: Counter,
}

impl Traffic {
    /// Counts a burst; the owner only.
    #[inline]
    pub fn add(&self, packets: u64, bytes: u64) {
        self.packets.add(packets);
        self.bytes.add(bytes);
    }
}
