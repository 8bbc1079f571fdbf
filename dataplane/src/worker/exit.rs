//! The end of the walk: each frame to its receivers, frames for one port together and in order.

use std::sync::atomic::AtomicU32;

use arrayvec::ArrayVec;

use super::counters::{PathCounters, WorkerCounters};
use super::heads::{COPY_COST, VISIT_BYTES_MAX, cost};
use super::links::Links;
use super::retag::{Retagged, members};
use super::steering::Spread;
use super::topology::{Location, PortView, Topology};
use super::uplink::{Moves, Nics, nic_at};
use super::walk::{Memories, OWED_MAX, Pairs, owe};
use crate::account::DropReason;
use crate::guest::ring::{BURST, ChainList};
use crate::guest::{Frames, set_bits};
use crate::packet::spread_hash;

/// The way out of a burst.
pub(super) struct Exit<'a, 'm> {
    pub(super) worker: u16,
    /// The slot of the worker whose pair or NIC queue is under way.
    pub(super) expected: Option<u16>,
    pub(super) beats: &'a AtomicU32,
    /// Slot and port that the burst came from.
    pub(super) slot: usize,
    pub(super) port: u16,
    pub(super) pairs: &'a mut Pairs,
    pub(super) memories: &'m Memories,
    pub(super) nics: &'a mut Nics,
    pub(super) topology: &'a Topology,
    pub(super) counters: &'a WorkerCounters,
    pub(super) links: &'a mut Links,
    pub(super) owed: &'a mut ArrayVec<u16, OWED_MAX>,
    pub(super) frames: Frames<'a, 'm>,
    /// The VLAN of each frame, on a bridge that has some.
    pub(super) vlans: Option<&'a [u16; BURST]>,
    /// Room for heads with other tags; there except while it is in use.
    pub(super) retagged: Option<&'a mut Retagged>,
    /// The slot whose buffers were reserved into `room`.
    pub(super) likely: usize,
    pub(super) room: &'a mut ChainList<'m>,
    /// The slot that was delivered to last.
    pub(super) last: usize,
    /// What goes to guests counts here.
    pub(super) path: &'a PathCounters,
    /// Of a burst that came from a NIC.
    pub(super) moves: Option<Moves<'a>>,
    /// Frames that go to several ports.
    pub(super) flooded: u32,
    /// The flows of the burst.
    pub(super) spread: &'a mut Spread,
}

impl<'m> Exit<'_, 'm> {
    /// Sends each frame of `pending` to its port; frames for one port go together, in order.
    #[inline(always)]
    pub(super) fn forward(&mut self, mut pending: u32, outputs: &[u16; BURST]) {
        while pending != 0 {
            let output = outputs[pending.trailing_zeros() as usize % BURST];
            let group = group(pending, outputs, output);
            pending &= !group;
            if !self.send_to_port(output, group) {
                self.drop(DropReason::ReceiverStopped, group);
            }
        }
    }

    /// Sends the frames of `flood` to every other port of the bridge that may have them, and those of `forward` to theirs, so
    /// that each port gets its frames in order.
    ///
    /// A frame that is alone may be too much for one visit: then it goes to some ports, and where it is to go on is the answer.
    /// With that as `begun` it does.
    #[cold]
    pub(super) fn flood(
        &mut self,
        mut forward: u32,
        flood: u32,
        outputs: &[u16; BURST],
        begun: Option<u16>,
    ) -> Option<u16> {
        let topology = self.topology;
        let input = topology.ports.get(usize::from(self.port));
        let bridge = input.and_then(|input| topology.bridges.get(usize::from(input.bridge)));
        let is_isolated = input.is_some_and(|input| input.rules.isolated);
        let ports = bridge.map_or(&[][..], |bridge| &bridge.ports);
        let Frames { asking, offloads, lens, .. } = self.frames;
        let price = if flood.is_power_of_two() {
            cost(asking, offloads, lens, flood.trailing_zeros() as usize % BURST) + COPY_COST
        } else {
            0
        };
        let (mut copies, mut heard, mut spent, mut goes_on) = (0, 0, 0, None);
        for &output in ports.iter().filter(|&&port| begun.is_none_or(|begun| port >= begun)) {
            let Some(view) = topology.ports.get(usize::from(output)).filter(|view| !view.receivers.is_empty()) else {
                continue;
            };
            if output == self.port {
                continue;
            }
            let hears = match self.vlans {
                _ if is_isolated && view.rules.isolated => 0,
                None => flood,
                Some(vlans) => members(flood, &view.rules.vlan, vlans),
            };
            if hears != 0 && spent + price > VISIT_BYTES_MAX && copies > 0 {
                goes_on = Some(output);
                break;
            }
            let own = group(forward, outputs, output);
            forward &= !own;
            if own | hears != 0 {
                self.send_to_port(output, own | hears);
            }
            heard |= hears;
            copies += u64::from(hears.count_ones());
            spent += if hears == 0 { 0 } else { price };
        }
        if begun.is_none() {
            if heard != flood {
                self.drop(DropReason::NoDestination, flood & !heard);
            }
            copies -= u64::from(heard.count_ones());
        }
        self.counters.extra_copies.add(copies);
        self.forward(forward, outputs);
        goes_on
    }

    /// To one of the port's queues, chosen by flow. `false` if it has none running.
    #[inline(always)]
    fn send_to_port(&mut self, output: u16, group: u32) -> bool {
        let topology = self.topology;
        let Some(view) = topology.ports.get(usize::from(output)).filter(|view| !view.receivers.is_empty()) else {
            return false;
        };
        match self.vlans {
            None => self.send(view, group, self.frames),
            Some(vlans) => self.send_retagged(view, group, vlans),
        }
        true
    }

    /// Through a port that may show VLANs in its own way.
    #[cold]
    fn send_retagged(&mut self, view: &PortView, group: u32, vlans: &[u16; BURST]) {
        let Some(room) = self.retagged.take() else { return };
        let (frames, refused) = room.make(self.frames, group, &view.rules.vlan, vlans);
        if refused != 0 {
            self.drop(DropReason::VlanNotAllowed, refused);
        }
        if group & !refused != 0 {
            self.send(view, group & !refused, frames);
        }
        self.retagged = Some(room);
    }

    #[inline(always)]
    fn send(&mut self, view: &PortView, mut group: u32, frames: Frames<'_, 'm>) {
        if let Some(steering) = &view.steering {
            return self.send_to_guest(steering, group, frames);
        }
        match &view.receivers[..] {
            [] => {}
            [only] => self.send_to_pair(*only, group, frames),
            _ => {
                let several = view.of_worker(self.worker);
                if let [own] = several {
                    return self.send_to_pair(*own, group, frames);
                }
                let mut choice = [0u16; BURST];
                for index in set_bits(group) {
                    choice[index] = (spread_hash(frames.head(index)) % several.len() as u32) as u16;
                }
                while group != 0 {
                    let queue = choice[group.trailing_zeros() as usize % BURST];
                    let same = self::group(group, &choice, queue);
                    group &= !same;
                    self.send_to_pair(several[usize::from(queue) % several.len()], same, frames);
                }
            }
        }
    }

    #[inline(always)]
    pub(super) fn send_to_pair(&mut self, at: Location, group: u32, frames: Frames<'_, 'm>) {
        if at.worker != self.worker {
            return self.send_to_worker(at, group, frames);
        }
        let slot = usize::from(at.slot);
        match (self.pairs.get_mut(slot), self.memories.get(slot)) {
            (Some(Some(pair)), Some(Some(memory))) => {
                let delivered = if slot == self.likely {
                    let delivered = pair.deliver(memory, frames, group, self.room);
                    self.room.clear();
                    delivered
                } else {
                    pair.deliver(memory, frames, group, &mut ChainList::new())
                };
                self.last = slot;
                owe(self.owed, self.pairs, slot);
                self.path.forwarded_bytes.add(delivered.bytes);
                self.path.copied_bytes.add(delivered.copied);
                if delivered.generated != 0 {
                    self.counters.generated.add(delivered.generated);
                }
            }
            _ if self.expected == Some(at.slot) => self.send_to_worker(at, group, frames),
            _ => self.send_to_nic(slot, group, frames),
        }
    }

    /// To a pair of another worker, or to one that is under way here.
    #[cold]
    fn send_to_worker(&mut self, at: Location, group: u32, frames: Frames<'_, 'm>) {
        let Some(Some((link, mailbox))) = self.links.to.get_mut(usize::from(at.worker)) else {
            return self.drop(DropReason::ReceiverStopped, group);
        };
        let mut full = 0;
        for index in set_bits(group) {
            match link.send(frames, index, at.slot) {
                Some(copied) => self.counters.hand_off.copied_bytes.add(copied as u64),
                None => full |= 1 << index,
            }
        }
        mailbox.nudge();
        if full != 0 {
            self.drop(DropReason::HandOffFull, full);
        }
    }

    /// Counts frames as dropped, with the pair or the NIC queue that they came from.
    #[cold]
    pub(super) fn drop(&mut self, reason: DropReason, group: u32) {
        let count = u64::from(group.count_ones());
        if let Some(Some(pair)) = self.pairs.get(self.slot) {
            pair.counters.receive_dropped.add(reason, count);
        } else if let Some(queue) = nic_at(self.nics, self.slot) {
            queue.counters.receive_dropped.add(reason, count);
        }
    }
}

/// The frames of `pending` whose number in `of` is `number`.
#[inline(always)]
pub(super) fn group(pending: u32, of: &[u16; BURST], number: u16) -> u32 {
    let same = of.iter().enumerate().fold(0, |same, (index, &other)| same | u32::from(other == number) << index);
    pending & same
}
