//! The end of the walk: each frame to its receivers, frames for one port together and in order.

use arrayvec::ArrayVec;

use super::counters::{PathCounters, WorkerCounters};
use super::topology::{Location, Topology};
use super::uplink::{Moves, Nics, nic_at};
use super::walk::{Links, Memories, OWED_MAX, Pairs, owe};
use crate::account::DropReason;
use crate::guest::ring::{BURST, ChainList};
use crate::guest::{Frames, set_bits};
use crate::packet::spread_hash;

/// The way out of a burst.
pub(super) struct Exit<'a, 'm> {
    pub(super) worker: u16,
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
}

impl Exit<'_, '_> {
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

    /// Sends the frames of `flood` to every other port of the bridge, and those of `forward` to theirs, so that
    /// each port gets its frames in order.
    #[cold]
    pub(super) fn flood(&mut self, mut forward: u32, flood: u32, outputs: &[u16; BURST]) {
        let bridge = self.topology.ports.get(usize::from(self.port)).map_or(0, |port| usize::from(port.bridge));
        let topology = self.topology;
        let ports = topology.bridges.get(bridge).map_or(&[][..], |bridge| &bridge.ports);
        let mut copies = 0;
        for &output in ports {
            let up = topology.ports.get(usize::from(output)).is_some_and(|port| !port.receivers.is_empty());
            if output == self.port || !up {
                continue;
            }
            let group = group(forward, outputs, output);
            forward &= !group;
            self.send_to_port(output, group | flood);
            copies += 1;
        }
        let frames = u64::from(flood.count_ones());
        match copies {
            0 => self.drop(DropReason::NoDestination, flood),
            _ => self.counters.extra_copies.add(frames * (copies - 1)),
        }
        self.forward(forward, outputs);
    }

    /// To one of the port's queues, chosen by flow. `false` if it has none running.
    #[inline(always)]
    fn send_to_port(&mut self, output: u16, mut group: u32) -> bool {
        let topology = self.topology;
        let Some(port) = topology.ports.get(usize::from(output)) else { return false };
        match port.receivers.as_slice() {
            [] => return false,
            [only] => self.send_to_pair(*only, group),
            _ => {
                let several = port.of_worker(self.worker);
                if let [own] = several {
                    self.send_to_pair(*own, group);
                    return true;
                }
                let mut choice = [0u16; BURST];
                for index in set_bits(group) {
                    let head = self.frames.heads[index].frame(self.frames.lens[index] as usize);
                    choice[index] = (spread_hash(head) % several.len() as u32) as u16;
                }
                while group != 0 {
                    let queue = choice[group.trailing_zeros() as usize % BURST];
                    let same = self::group(group, &choice, queue);
                    group &= !same;
                    self.send_to_pair(several[usize::from(queue) % several.len()], same);
                }
            }
        }
        true
    }

    #[inline(always)]
    fn send_to_pair(&mut self, at: Location, group: u32) {
        if at.worker != self.worker {
            return self.send_to_worker(at, group);
        }
        let slot = usize::from(at.slot);
        match (self.pairs.get_mut(slot), self.memories.get(slot)) {
            (Some(Some(pair)), Some(Some(memory))) => {
                let delivered = if slot == self.likely {
                    let delivered = pair.deliver(memory, self.frames, group, self.room);
                    self.room.clear();
                    delivered
                } else {
                    pair.deliver(memory, self.frames, group, &mut ChainList::new())
                };
                self.last = slot;
                owe(self.owed, self.pairs, slot);
                self.path.forwarded_bytes.add(delivered.bytes);
                self.path.copied_bytes.add(delivered.copied);
                if delivered.generated != 0 {
                    self.counters.generated.add(delivered.generated);
                }
            }
            _ => self.send_to_nic(slot, group),
        }
    }

    /// To a pair of another worker.
    #[cold]
    fn send_to_worker(&mut self, at: Location, group: u32) {
        let Some(Some((link, mailbox))) = self.links.to.get_mut(usize::from(at.worker)) else {
            return self.drop(DropReason::ReceiverStopped, group);
        };
        let mut full = 0;
        for index in set_bits(group) {
            match link.send(self.frames, index, at.slot) {
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
