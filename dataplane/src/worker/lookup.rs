//! The middle of the walk: a verdict for each frame, from the flow table, or decided anew by what was learnt.

use super::counters::WorkerCounters;
use super::heads::{COPY_COST, Heads, Scratch, VISIT_BYTES_MAX, first};
use super::topology::{BridgeView, PortView, Topology};
use crate::account::{DropCounters, DropReason};
use crate::cpu::timestamp;
use crate::flow::{Action, FlowKey, FlowTable, Learnt, MacRef, MacTable, Stamp, Station, Verdict};
use crate::guest::set_bits;
use crate::packet::MacAddress;
use crate::policy::PortRules;

/// Frames of one visit that may be decided anew. What is over stays in its ring, and with it what was sent behind it: who causes
/// misses waits, and nobody else for him. A miss costs several times what a hit does.
const MISSES_MAX: u64 = 8;

/// What is decided of a frame.
enum Decision {
    Do(Action),
    Drop(DropReason),
    /// To be decided with the next visit.
    Later,
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
            let hit = view.find(self.candidates[index], key).and_then(|hit| {
                let action = view.action_at(hit, stamp)?;
                lookup.is_current(&view.value(hit)).then_some(action)
            });
            let action = match hit {
                Some(action) => action,
                None => match lookup.confirm_or_decide(key, self.hashes[index], flows, &mut missed) {
                    Decision::Do(action) => action,
                    Decision::Drop(reason) => {
                        dropped.add(reason, 1);
                        continue;
                    }
                    Decision::Later => {
                        (read.taken, read.misses_left) = (index, true);
                        read.good &= first(index);
                        break;
                    }
                },
            };
            match action {
                Action::Forward(output) => {
                    self.outputs[index] = output;
                    forward |= 1 << index;
                }
                Action::Flood => {
                    if !lookup.may_flood() {
                        dropped.add(DropReason::StormLimit, 1);
                        continue;
                    }
                    let copies = *neighbours.get_or_insert_with(|| lookup.neighbours());
                    flooded += (self.cost(read, index) + COPY_COST) * copies;
                    if flooded > VISIT_BYTES_MAX {
                        // This one and the frames after it come with the next visit, unless it is the first: then it is alone.
                        read.taken = index.max(1);
                        read.good &= first(read.taken);
                        if index > 0 {
                            lookup.unflood();
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
        read.misses = missed;
        (forward, flood)
    }
}

impl Scratch {
    /// Of frames that go on being flooded, those that still may be: their sender can have changed them since.
    #[cold]
    pub(super) fn still_flooded(&self, read: &Heads, lookup: &Lookup<'_>) -> u32 {
        let may = |&index: &usize| lookup.may_come_in(self.keys[index]);
        set_bits(read.good).filter(may).fold(0, |frames, index| frames | 1 << index)
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
    fn input(&self) -> Option<&PortView> {
        self.topology.ports.get(usize::from(self.port))
    }

    fn bridge(&self) -> Option<&BridgeView> {
        self.topology.bridges.get(usize::from(self.input()?.bridge))
    }

    /// The rules of the port that the burst came by.
    #[inline(always)]
    pub(super) fn rules(&self) -> Option<&PortRules> {
        Some(&*self.input()?.rules)
    }

    /// Whether tags change under way.
    pub(super) fn has_vlans(&self) -> bool {
        self.bridge().is_some_and(|bridge| bridge.has_vlans)
    }

    /// Whether the port may have a frame with this key; nothing is learnt of it.
    fn may_come_in(&self, key: FlowKey) -> bool {
        let Some((input, bridge)) = self.input().zip(self.bridge()) else { return false };
        let Ok(vlan) = self.admit(input, bridge, key) else { return false };
        let source = Station { bridge: input.bridge, vlan, mac: key.source() };
        self.macs.find(source).is_none_or(|(port, _)| port == self.port)
    }

    /// Asks the rules that need nothing to be learnt; the frame's VLAN.
    fn admit(&self, input: &PortView, bridge: &BridgeView, key: FlowKey) -> Result<u16, DropReason> {
        let rules = &input.rules;
        if rules.guard.as_ref().is_some_and(|guard| !guard.allows_source(key.source())) {
            return Err(DropReason::GuardMac);
        }
        let vlan = rules.vlan.of_received(key.vlan()).ok_or(DropReason::VlanNotAllowed)?;
        if key.destination().is_link_local() && !bridge.forward_link_local {
            return Err(DropReason::LinkLocal);
        }
        if self.is_held_elsewhere(bridge, vlan, key.source()) {
            return Err(DropReason::MacHeld);
        }
        Ok(vlan)
    }

    /// Ports that a frame is flooded to: the others of its bridge that are up.
    #[cold]
    fn neighbours(&self) -> u64 {
        let takes = |&&port: &&u16| {
            port != self.port
                && self.topology.ports.get(usize::from(port)).is_some_and(|port| !port.receivers.is_empty())
        };
        self.bridge().map_or(0, |bridge| bridge.ports.iter().filter(takes).count() as u64)
    }

    /// Takes one of the frames that may be flooded for the port.
    #[cold]
    fn may_flood(&self) -> bool {
        self.input().is_some_and(|input| input.rules.storm.take(timestamp()))
    }

    /// Gives back what [`Lookup::may_flood`] took for a frame that comes again.
    #[cold]
    fn unflood(&self) {
        if let Some(input) = self.input() {
            input.rules.storm.give_back(1);
        }
    }

    /// Moves on with all that a verdict rests on but stations, and with time.
    #[inline(always)]
    fn stamp(&self) -> Stamp {
        Stamp::new(self.topologies, self.now)
    }

    /// Whether neither station of the verdict has moved or was forgotten.
    #[inline(always)]
    fn is_current(&self, verdict: &Verdict) -> bool {
        self.macs.is_current(verdict.source) && self.macs.is_current(verdict.destination)
    }

    /// Whether what the verdict was made from is still so.
    fn holds(&self, verdict: &Verdict) -> bool {
        self.macs.holds(verdict.source)
            && self.macs.holds(verdict.destination)
            && self.bridge().is_some_and(|bridge| bridge.generation == verdict.generation)
    }

    /// The cached verdict if it still holds, and a new one if not. Happens to a flow once a second, when one of its stations
    /// has moved, and when the configuration has changed.
    #[cold]
    #[inline(never)]
    fn confirm_or_decide(&self, key: FlowKey, hash: u64, flows: &mut FlowTable, missed: &mut u64) -> Decision {
        let view = flows.view();
        if let Some(hit) = view.find(view.candidates(hash), key) {
            let verdict = view.value(hit);
            if self.holds(&verdict) {
                flows.confirm(hit, self.stamp());
                self.macs.touch(verdict.source, self.now);
                return Decision::Do(verdict.action);
            }
        }
        if *missed == MISSES_MAX {
            return Decision::Later;
        }
        *missed += 1;
        match self.decide(key) {
            Ok((action, Some(verdict))) => {
                flows.insert(key, hash, verdict, self.stamp());
                Decision::Do(action)
            }
            Ok((action, None)) => Decision::Do(action),
            Err(reason) => Decision::Drop(reason),
        }
    }

    /// Asks the rules, learns the source and decides by the destination, at bounded cost. With the verdict, if it may be
    /// kept: one for an unknown destination is not, because the first frame from there must end the flooding; and what is dropped
    /// is not, because it would take room from what is not.
    fn decide(&self, key: FlowKey) -> Result<(Action, Option<Verdict>), DropReason> {
        let (input, bridge) = self.input().zip(self.bridge()).ok_or(DropReason::NoDestination)?;
        let vlan = self.admit(input, bridge, key)?;
        let rules = &input.rules;
        let station = |mac| Station { bridge: input.bridge, vlan, mac };
        let may_move = || rules.moves.take(timestamp());
        let source = match self.macs.learn(station(key.source()), self.port, self.now, may_move) {
            Learnt::Here(source) => Some(source),
            Learnt::NoRoom => None,
            // Whoever is out there could fill it and keep everybody else out.
            Learnt::PortLimit if input.is_nic => None,
            Learnt::PortLimit => return Err(DropReason::MacLimit),
            Learnt::MovesTooOften => return Err(DropReason::MacMoveLimit),
            Learnt::Held => return Err(DropReason::MacHeld),
        };
        let (action, destination) = if key.destination().is_group() {
            let is_broadcast = key.destination() == MacAddress::BROADCAST;
            let floods = if is_broadcast { bridge.flood.broadcast } else { bridge.flood.multicast };
            if !floods {
                return Err(DropReason::FloodOff);
            }
            (Action::Flood, MacRef::ALWAYS)
        } else {
            match self.macs.find(station(key.destination())) {
                Some((output, entry)) => (self.forward(input, vlan, output)?, entry),
                None if bridge.flood.unknown_unicast => return Ok((Action::Flood, None)),
                None => return Err(DropReason::FloodOff),
            }
        };
        let verdict = |source| Verdict { action, generation: bridge.generation, source, destination };
        Ok((action, source.map(verdict)))
    }

    /// Whether the frames of a VLAN may go to the port behind which their destination is.
    fn forward(&self, input: &PortView, vlan: u16, output: u16) -> Result<Action, DropReason> {
        if output == self.port {
            return Err(DropReason::Hairpin);
        }
        let Some(to) = self.topology.ports.get(usize::from(output)) else { return Err(DropReason::ReceiverStopped) };
        if input.rules.isolated && to.rules.isolated {
            return Err(DropReason::Isolated);
        }
        if to.rules.vlan.contains(vlan) { Ok(Action::Forward(output)) } else { Err(DropReason::VlanNotAllowed) }
    }

    /// Whether the guard of another port on this VLAN names the station.
    fn is_held_elsewhere(&self, bridge: &BridgeView, vlan: u16, mac: MacAddress) -> bool {
        let from = bridge.held.partition_point(|&(held, _)| held < mac);
        let holders = bridge.held.iter().skip(from).take_while(|(held, _)| *held == mac);
        holders.into_iter().any(|&(_, port)| {
            let holder = self.topology.ports.get(usize::from(port));
            port != self.port && holder.is_some_and(|holder| holder.rules.vlan.contains(vlan))
        })
    }
}
