//! What the planner has done, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::placement::MoveReason;

/// Written by the thread that keeps house.
#[derive(Debug, Default)]
pub struct Counts {
    moves: [AtomicU64; MoveReason::ALL.len()],
    dry_runs: AtomicU64,
}

impl Counts {
    pub(super) fn moved(&self, reason: MoveReason) {
        self.moves[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn dry_run(&self) {
        self.dry_runs.fetch_add(1, Ordering::Relaxed);
    }

    /// Queue pairs that the planner has moved for this reason.
    #[must_use]
    pub fn moves(&self, reason: MoveReason) -> u64 {
        self.moves[reason as usize].load(Ordering::Relaxed)
    }

    /// Looks that found moves worth it, and waited whether the next one would.
    #[must_use]
    pub fn dry_runs(&self) -> u64 {
        self.dry_runs.load(Ordering::Relaxed)
    }
}
