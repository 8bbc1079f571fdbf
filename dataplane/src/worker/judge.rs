//! The middle of the walk, the same for whatever a burst comes from: heads, the port's rules, a verdict for each frame.

use super::heads::{Front, Heads, Scratch, VISIT_BYTES_MAX, first};
use super::lookup::Lookup;
use crate::account::{DropCounters, Service, Traffic};
use crate::flow::FlowTable;
use crate::guest::ring::{ChainList, Unread};
use crate::packet::Abilities;

/// What a burst comes from, and where it is counted.
pub(super) struct Source<'a, F> {
    pub(super) front: F,
    /// What may be asked for a frame, and the MTU.
    pub(super) limits: (Abilities, u16),
    /// The port at which the first frame, which is then the only one, goes on being flooded.
    pub(super) begun: Option<u16>,
    pub(super) received: &'a Traffic,
    pub(super) dropped: &'a DropCounters,
    pub(super) service: &'a Service,
}

/// What is to become of a burst.
pub(super) struct Judged<'a, 'm> {
    pub(super) list: &'a ChainList<'m>,
    pub(super) read: Heads,
    /// To one port each.
    pub(super) forward: u32,
    /// To several.
    pub(super) flood: u32,
    /// Whether tags change under way.
    pub(super) has_vlans: bool,
}

impl Scratch {
    /// Reads the heads of a burst, asks the rules of its port, and finds a verdict for each frame. Counts what this visit takes as
    /// received, and what goes nowhere as dropped.
    #[inline(always)]
    pub(super) fn decide<'a, 'm, F: Front>(
        &mut self,
        unread: Unread<'a, 'm>,
        source: &Source<'_, F>,
        lookup: &Lookup<'_>,
        flows: &mut FlowTable,
    ) -> Judged<'a, 'm> {
        let count = unread.len();
        let (mut read, list) = self.read_heads(unread, &source.front, source.limits, lookup.port, flows.view());
        if read.bytes + read.extra > VISIT_BYTES_MAX {
            self.afford(&mut read, count);
        }
        let rules = lookup.rules();
        if let Some(rules) = rules.filter(|rules| rules.judges_frames()) {
            self.judge(&mut read, rules, source.begun.is_some());
        }
        let judged = read.good;
        let (forward, flood) = match source.begun {
            None => self.look_up(&mut read, lookup, flows, source.dropped),
            Some(_) => (0, self.still_flooded(&read, lookup)),
        };
        let taken = read.taken;
        if source.begun.is_none() {
            if read.good != first(taken) {
                self.count_dropped(&read, source.dropped);
            }
            if taken < count {
                read.bytes = self.lens.iter().take(taken).copied().map(u64::from).sum();
            }
            source.received.add(taken as u64, read.bytes);
            if read.misses != 0 {
                source.service.flow_misses.add(read.misses);
                source.service.miss_budget.add(u64::from(read.misses_left));
            }
        }
        if let Some(rules) = rules.filter(|_| taken < count) {
            self.unjudge(&read, judged, rules);
        }
        let has_vlans = lookup.has_vlans();
        if let Some(rules) = rules.filter(|_| has_vlans) {
            self.find_vlans(forward | flood, rules);
        }
        Judged { list, read, forward, flood, has_vlans }
    }
}
