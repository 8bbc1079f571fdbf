//! When a plan is carried out: after it was found worth it twice, and not soon after the last.

use std::collections::HashMap;

use super::balance::{Move, Plan};
use super::choose::Planner;
use super::scene::{Scene, UnitId};

/// Seconds from one look to the next. What is measured is measured over this time.
pub const LOOK_SECONDS: u64 = 5;

/// Seconds after a move until the next for a gain: what was measured before says nothing any more.
const HOLD_SECONDS: u64 = 15;

/// Seconds that a unit stays where it was moved to, whatever would be gained.
const SETTLE_SECONDS: u64 = 60;

/// What a look came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Look {
    /// All is well, or nothing is worth moving.
    Nothing,
    /// This would be worth it; if it still is with the next look, it is done.
    DryRun(Plan),
    /// This is to be done now.
    Carry(Plan),
}

/// The memory between looks.
#[derive(Clone, Debug, Default)]
pub struct Rebalancer {
    /// The last look was a dry run that was worth it.
    is_pending: bool,
    moved: Option<u64>,
    settles: HashMap<UnitId, u64>,
}

impl Rebalancer {
    /// Looks at the scene at `now`, in seconds of any clock that does not go back.
    pub fn look(&mut self, planner: &mut Planner, scene: &Scene, now: u64) -> Look {
        self.settles.retain(|_, until| *until > now);
        let plan = planner.plan(scene, |unit| self.settles.contains_key(&unit));
        let holds = self.moved.is_some_and(|moved| now < moved + HOLD_SECONDS);
        let is_urgent = plan.is_urgent();
        if plan.moves.is_empty() || (holds && !is_urgent) {
            self.is_pending = false;
            return Look::Nothing;
        }
        if !is_urgent && !std::mem::replace(&mut self.is_pending, true) {
            return Look::DryRun(plan);
        }
        self.is_pending = false;
        Look::Carry(plan)
    }

    /// Notes that these moves were made at `now`.
    pub fn carried(&mut self, moves: &[Move], now: u64) {
        if !moves.is_empty() {
            self.moved = Some(now);
            self.settles.extend(moves.iter().map(|one| (one.unit, now + SETTLE_SECONDS)));
        }
    }
}
