//! How many workers there are, where that is left to us: one more where they are congested, one less where they have long
//! had little to do.

use std::collections::HashMap;

use super::scene::Scene;
use super::topology::{CpuSet, NodeId};
use super::workers::Usable;

/// A worker that is busy for more than this part of its time is congested.
const CONGESTED: f64 = 0.9;

/// Seconds for which a worker has to be congested until it is given company.
const CONGESTED_SECONDS: u64 = 2;

/// Where those that are left would have less to do than this, in shares of a CPU each, there is one too many.
const IDLE: f64 = 0.4;

/// Seconds for which there has to be one too many until it goes.
const IDLE_SECONDS: u64 = 30;

/// Seconds after a change on a node until the next: what is there is to be spread first.
const HOLD_SECONDS: u64 = 20;

/// What a worker did lately.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activity {
    /// Share of the last second for which it was busy.
    pub busy: f64,
    /// Units that it has.
    pub units: usize,
}

/// A change in the number of workers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Resize {
    /// A worker on this CPU is to be started, or opened again.
    Grow {
        /// Where.
        cpu: usize,
        /// The worker that is congested,
        congested: u16,
        /// and for which part of its time it is busy.
        busy: f64,
    },
    /// This worker is to give its queues to others and rest.
    Shrink {
        /// Which.
        worker: u16,
        /// What the workers of its node do in all, in shares of a CPU.
        load: f64,
    },
}

/// The memory between looks, of which there is one a second.
#[derive(Clone, Debug)]
pub struct Scaler {
    max: usize,
    congested: HashMap<usize, u64>,
    idle: HashMap<NodeId, u64>,
    changed: HashMap<NodeId, u64>,
}

impl Scaler {
    /// A scaler that leaves at least one worker on each node, and lets there be `max` in all.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, congested: HashMap::new(), idle: HashMap::new(), changed: HashMap::new() }
    }

    /// Looks at what workers did, by number, at `now` in seconds of a clock that does not go back. At most one change.
    pub fn look(&mut self, scene: &Scene, usable: &Usable<'_>, activity: &[Activity], now: u64) -> Option<Resize> {
        let open: Vec<usize> = (0..scene.workers.len()).filter(|&worker| scene.is_open(worker)).collect();
        let of = |worker: usize| activity.get(worker).copied().unwrap_or(Activity { busy: 0.0, units: 0 });
        self.congested.retain(|worker, _| open.contains(worker) && of(*worker).busy >= CONGESTED);
        for &worker in open.iter().filter(|&&worker| of(worker).busy >= CONGESTED) {
            self.congested.entry(worker).or_insert(now);
        }
        let mut nodes: Vec<NodeId> = open.iter().filter_map(|&worker| scene.node_of(worker)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.into_iter().find_map(|node| {
            let here: Vec<usize> = open.iter().copied().filter(|&worker| scene.node_of(worker) == Some(node)).collect();
            let load: f64 = here.iter().map(|&worker| of(worker).busy).sum();
            let is_one_too_many = here.len() > 1 && load < IDLE * (here.len() - 1) as f64;
            let idle_since = if is_one_too_many { *self.idle.entry(node).or_insert(now) } else { now };
            if !is_one_too_many {
                self.idle.remove(&node);
            }
            if self.changed.get(&node).is_some_and(|&changed| now < changed + HOLD_SECONDS) {
                return None;
            }
            let change = if is_one_too_many && now - idle_since >= IDLE_SECONDS {
                let least = here.into_iter().min_by(|&a, &b| of(a).busy.total_cmp(&of(b).busy).then(b.cmp(&a)))?;
                Resize::Shrink { worker: least as u16, load }
            } else {
                self.grow(scene, usable, &open, &here, &of, now)?
            };
            self.changed.insert(node, now);
            self.idle.remove(&node);
            Some(change)
        })
    }

    fn grow(
        &self,
        scene: &Scene,
        usable: &Usable<'_>,
        open: &[usize],
        here: &[usize],
        of: &impl Fn(usize) -> Activity,
        now: u64,
    ) -> Option<Resize> {
        // A single unit cannot be spread, and one worker more would not help it.
        let has_been = |worker: &&usize| {
            of(**worker).units > 1 && self.congested.get(worker).is_some_and(|since| now - since >= CONGESTED_SECONDS)
        };
        let congested = *here.iter().find(has_been)?;
        // As long as a neighbour has room, what there is can be spread over it.
        let has_room = here.iter().any(|&worker| of(worker).busy < CONGESTED / 2.0);
        if has_room || open.len() >= self.max.min(usable.count()) {
            return None;
        }
        let taken: Vec<usize> = open.iter().map(|&worker| scene.workers[worker].cpu).collect();
        let vcpus: CpuSet = scene.ports.iter().flat_map(|port| port.vcpus.iter().copied()).collect();
        let cpu = usable.next(scene.node_of(congested)?, &taken, &vcpus)?;
        Some(Resize::Grow { cpu, congested: congested as u16, busy: of(congested).busy })
    }
}
