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
