//! The middle of the walk: a verdict for each frame, from the flow table, or decided anew by what was learnt.

use super::counters::WorkerCounters;
use super::heads::{Heads, Scratch, VISIT_BYTES_MAX, first};
use super::topology::Topology;
use crate::account::{DropCounters, DropReason};
use crate::flow::{Action, FlowKey, FlowTable, MacRef, MacTable, Stamp, Verdict};
use crate::guest::set_bits;

/// What is decided of a frame.
enum Decision {
    Do(Action),
    Drop(DropReason),
}

impl Scratch {
    /// Finds each frame's verdict, or decides anew. Which frames are to be forwarded (to `outputs`) and which flooded.
    /// Where there is much to flood, fewer frames are taken.
    #[inline(always)]
    pub(super) fn look_up(
        &mut self,
        read: &mut Heads,
        lookup: &Lookup<'_>,
        flows: &mut FlowTable,
        dropped: &DropCounters,
    ) -> (u32, u32) {
        let view = flows.view();
        for index in set_bits(read.good) {
            self.candidates[index] = view.candidates(self.hashes[index]);
        }
        let stamp = lookup.stamp();
        let (mut forward, mut flood, mut missed, mut flooded, mut neighbours) = (0, 0, 0, 0, None);
        for index in set_bits(read.good) {
            let (key, missed_before) = (self.keys[index], missed);
            let view = flows.view();
            let hit = view.find(self.candidates[index], key).and_then(|entry| view.action_at(entry, stamp));
            let action = match hit {
                Some(action) => action,
                None => match lookup.confirm_or_decide(key, self.hashes[index], flows, &mut missed) {
                    Decision::Do(action) => action,
                    Decision::Drop(reason) => {
                        dropped.add(reason, 1);
                        continue;
                    }
                },
            };
            match action {
                Action::Forward(output) => {
                    self.outputs[index] = output;
                    forward |= 1 << index;
                }
                Action::Flood => {
                    flooded += self.cost(read, index) * *neighbours.get_or_insert_with(|| lookup.neighbours());
                    if flooded > VISIT_BYTES_MAX {
                        // This one and the frames after it come with the next visit, unless it is the first: then it is alone.
                        read.taken = index.max(1);
                        read.good &= first(read.taken);
                        if index > 0 {
                            missed = missed_before;
                            break;
                        }
                    }
                    flood |= 1 << index;
                    if read.taken == 1 {
                        break;
                    }
                }
            }
        }
        lookup.counters.flow_hits.add(u64::from(read.good.count_ones()) - missed);
        lookup.counters.flow_misses.add(missed);
        (forward, flood)
    }
}

/// What verdicts rest on.
pub(super) struct Lookup<'a> {
    pub(super) port: u16,
    pub(super) now: u32,
    pub(super) topology: &'a Topology,
    pub(super) topologies: u32,
    pub(super) macs: &'a MacTable,
    pub(super) counters: &'a WorkerCounters,
}

impl Lookup<'_> {
    fn bridge(&self) -> Option<(u16, u32)> {
        let number = self.topology.ports.get(usize::from(self.port))?.bridge;
        Some((number, self.topology.bridges.get(usize::from(number))?.generation))
    }

    /// Ports that a frame is flooded to: the others of its bridge that are up.
    #[cold]
    fn neighbours(&self) -> u64 {
        let bridge = self.bridge().and_then(|(number, _)| self.topology.bridges.get(usize::from(number)));
        let takes = |&&port: &&u16| {
            port != self.port
                && self.topology.ports.get(usize::from(port)).is_some_and(|port| !port.receivers.is_empty())
        };
        bridge.map_or(0, |bridge| bridge.ports.iter().filter(takes).count() as u64)
    }

    /// Moves on with all that a verdict rests on, and with time. Both parts of the epoch only ever grow, so that their
    /// sum does not stand still when one of them moves.
    #[inline(always)]
    fn stamp(&self) -> Stamp {
        Stamp::new(self.macs.epoch().wrapping_add(self.topologies), self.now)
    }

    /// Whether what the verdict was made from is still so.
    fn holds(&self, verdict: &Verdict) -> bool {
        self.macs.is_current(verdict.source)
            && self.macs.is_current(verdict.destination)
            && self.bridge().is_some_and(|(_, generation)| generation == verdict.generation)
    }

    /// The cached verdict if it still holds, and a new one if not. Happens to a flow once a second, and whenever some
    /// station moved.
    #[cold]
    #[inline(never)]
    fn confirm_or_decide(&self, key: FlowKey, hash: u64, flows: &mut FlowTable, missed: &mut u64) -> Decision {
        // Before the verdict is looked at: what changes meanwhile makes the stamp old.
        let stamp = self.stamp();
        let view = flows.view();
        if let Some(entry) = view.find(view.candidates(hash), key) {
            let verdict = view.verdict(entry);
            if self.holds(&verdict) {
                flows.confirm(entry, stamp);
                self.macs.touch(verdict.source, self.now);
                return Decision::Do(verdict.action);
            }
        }
        *missed += 1;
        self.decide(key, hash, flows)
    }

    /// Learns the source and decides by the destination, at bounded cost. A verdict for an unknown destination is not
    /// kept: the first frame from there must end the flooding.
    fn decide(&self, key: FlowKey, hash: u64, flows: &mut FlowTable) -> Decision {
        let Some((bridge, generation)) = self.bridge() else { return Decision::Drop(DropReason::NoDestination) };
        // Before anything is looked at: what another worker changes meanwhile makes the stamp old.
        let stamp = self.stamp();
        let source = self.macs.learn(bridge, key.source(), self.port, self.now);
        let (action, destination) = if key.destination().is_group() {
            (Action::Flood, MacRef::ALWAYS)
        } else {
            match self.macs.find(bridge, key.destination()) {
                Some((output, _)) if output == self.port => return Decision::Drop(DropReason::Hairpin),
                Some((output, entry)) => (Action::Forward(output), entry),
                None => return Decision::Do(Action::Flood),
            }
        };
        if let Some(source) = source {
            flows.insert(key, hash, Verdict { action, generation, source, destination }, stamp);
        }
        Decision::Do(action)
    }
}
