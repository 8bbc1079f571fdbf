//! Time-stamp ticks to seconds.

use std::time::Instant;

use crate::cpu::timestamp;

/// Measures how fast the time-stamp counter runs, the better the longer the process lives.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    ticks: u64,
    instant: Instant,
}

impl Clock {
    /// Starts measuring.
    #[must_use]
    pub fn start() -> Self {
        Self { ticks: timestamp(), instant: Instant::now() }
    }

    /// Ticks a second, as measured since the start.
    #[must_use]
    pub fn ticks_per_second(&self) -> f64 {
        let ticks = timestamp().wrapping_sub(self.ticks) as f64;
        ticks / self.instant.elapsed().as_secs_f64().max(1e-9)
    }

    /// Since the start.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.instant.elapsed().as_secs_f64()
    }
}
