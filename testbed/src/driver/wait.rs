//! Waiting for something that another thread or process does, with an end.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before a test fails: long enough for a loaded machine of one CPU.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks `is_so` again and again; whether it became so within [`PATIENCE`].
pub fn eventually(is_so: impl FnMut() -> bool) -> bool {
    within(PATIENCE, is_so)
}

/// As [`eventually`], within `limit`.
pub fn within(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_micros(200));
    }
}
