//! Which worker has which queue, in which of its slots, and what the workers were told of it. It decides and notes; who carries
//! queues about is the switch.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ringway_config::Unit;

use super::chooser::Chooser;
use crate::guest::{PairId, Port};
use crate::nic::{Queue, QueueId};
use crate::placement::Scene;
use crate::policy::Limit;
use crate::worker::{Location, Steering, Topology, Worker};

/// A queue that a worker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueueRef {
    /// A queue pair of a guest.
    Pair(PairId),
    /// A queue of a NIC.
    Nic(QueueId),
}

/// A pair in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) at: Location,
    pub(super) use_: PairUse,
}

/// What a pair is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PairUse {
    /// Its guest can be given frames.
    Receives,
    /// It can only send them.
    Sends,
    /// Nothing: what it sends is thrown away.
    Drained,
}

/// A NIC queue in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlacedNic {
    pub(super) at: Location,
    /// Frames can be sent by it.
    pub(super) sends: bool,
    /// Its worker has to be known to DPDK.
    pub(super) wants_dpdk: bool,
}

/// Slots of a worker that disabled pairs may take. A guest that was given 128 pairs and uses one has 127 of them: there must
/// be slots left for those that are of use. What is sent by one that gets no slot stays in its ring until it is enabled.
fn drained_max() -> usize {
    Worker::slots() / 4
}

/// Where queues are, and what the workers were told of it.
#[derive(Debug, Default)]
pub(super) struct Placement {
    unit: Unit,
    pub(super) chooser: Chooser,
    pub(super) pairs: HashMap<PairId, Placed>,
    pub(super) nic_queues: HashMap<QueueId, PlacedNic>,
    /// By worker and slot; no slots where there is no worker, or one that takes nothing more.
    taken: Vec<Vec<bool>>,
    pub(super) topology: Topology,
    /// Beats of control's clock.
    beats: Arc<AtomicU32>,
    /// Ports of guests.
    pub(super) guests: Vec<Arc<Port>>,
}

impl Placement {
    /// Without workers.
    pub(super) fn new(unit: Unit, chooser: Chooser, beats: Arc<AtomicU32>) -> Self {
        Self { unit, chooser, beats, ..Self::default() }
    }

    /// Queues may go to this worker.
    pub(super) fn open(&mut self, worker: u16) {
        let worker_index = usize::from(worker);
        if self.taken.len() <= worker_index {
            self.taken.resize_with(worker_index + 1, Vec::new);
        }
        self.taken[worker_index] = vec![false; Worker::slots()];
        for pair in self.pairs.values().filter(|pair| pair.at.worker == worker) {
            self.taken[worker_index][usize::from(pair.at.slot)] = true;
        }
    }

    /// No queue may go to this worker any more; `false` if there is no other one.
    pub(super) fn close(&mut self, worker: u16) -> bool {
        if !self.open_workers().any(|other| other != worker) {
            return false;
        }
        if let Some(slots) = self.taken.get_mut(usize::from(worker)) {
            slots.clear();
        }
        true
    }

    /// Workers to which queues may go.
    fn open_workers(&self) -> impl Iterator<Item = u16> {
        (0..).zip(&self.taken).filter(|(_, slots)| !slots.is_empty()).map(|(worker, _)| worker)
    }

    /// A slot for a pair, on the worker that is best for it.
    pub(super) fn place(&mut self, id: PairId, use_: PairUse) -> Option<Location> {
        let worker = self.worker_for(id, use_)?;
        let at = self.take_slot(worker, use_)?;
        self.pairs.insert(id, Placed { at, use_ });
        Some(at)
    }

    /// A slot for a queue on another worker. The present one stays its own until it is [`Placement::free`].
    pub(super) fn place_again(&mut self, queue: QueueRef, worker: u16) -> Option<Location> {
        match queue {
            QueueRef::Pair(id) => {
                let at = self.take_slot(worker, self.pairs.get(&id)?.use_)?;
                self.pairs.get_mut(&id)?.at = at;
                Some(at)
            }
            QueueRef::Nic(id) => {
                let at = self.nic_slot(worker)?;
                self.nic_queues.get_mut(&id)?.at = at;
                Some(at)
            }
        }
    }

    /// The worker that is best for a queue, of those to which queues may go; of a NIC's, the one with fewest of them.
    pub(super) fn best_for(&mut self, queue: QueueRef) -> Option<u16> {
        match queue {
            QueueRef::Pair(id) => self.worker_for(id, self.pairs.get(&id)?.use_),
            QueueRef::Nic(id) => {
                let of_port = |worker| {
                    self.nic_queues.iter().filter(|(other, at)| other.port == id.port && at.at.worker == worker).count()
                };
                self.open_workers().min_by_key(|&worker| of_port(worker))
            }
        }
    }

    /// The worker for a pair that has none, or that is to leave a worker which is closed. Those that are of no use only fill slots:
    /// they go where there are most.
    fn worker_for(&mut self, id: PairId, use_: PairUse) -> Option<u16> {
        let has_room = |worker: u16| self.taken.get(usize::from(worker)).is_some_and(|slots| slots.contains(&false));
        if !self.open_workers().any(has_room) {
            return None;
        }
        if use_ == PairUse::Drained {
            let count = |worker: &u16| self.taken[usize::from(*worker)].iter().filter(|&&slot| slot).count();
            return self.open_workers().min_by_key(count);
        }
        if self.unit == Unit::Nic {
            let of_port = |(other, pair): (&PairId, &Placed)| {
                let is_sibling = other.port == id.port && *other != id && pair.use_ != PairUse::Drained;
                (is_sibling && has_room(pair.at.worker)).then_some((*other, pair.at.worker))
            };
            if let Some((sibling, worker)) = self.pairs.iter().find_map(of_port) {
                self.chooser.note_beside(id, sibling);
                return Some(worker);
            }
        }
        // Where there is one worker, nothing depends on who else it serves.
        let is_alone = self.open_workers().nth(1).is_none();
        let scene = if is_alone {
            self.chooser.scene(std::iter::empty(), &HashMap::new(), self.taken.len() as u16, has_room)
        } else {
            self.scene_without(Some(id))
        };
        self.chooser.choose(id, scene)
    }

    /// What the planner looks at.
    pub(super) fn scene(&self) -> Scene {
        self.scene_without(None)
    }

    fn scene_without(&self, id: Option<PairId>) -> Scene {
        let has_room = |worker: u16| self.taken.get(usize::from(worker)).is_some_and(|slots| slots.contains(&false));
        let pairs = self.pairs.iter().filter(|(other, _)| Some(**other) != id);
        self.chooser.scene(pairs, &self.nic_queues, self.taken.len() as u16, has_room)
    }

    fn take_slot(&mut self, worker: u16, use_: PairUse) -> Option<Location> {
        let is_drained = |pair: &&Placed| pair.at.worker == worker && pair.use_ == PairUse::Drained;
        if use_ == PairUse::Drained && self.pairs.values().filter(is_drained).count() >= drained_max() {
            return None;
        }
        let slots = self.taken.get_mut(usize::from(worker))?;
        let slot = slots.iter().position(|&taken| !taken)?;
        slots[slot] = true;
        Some(Location { worker, slot: slot as u16 })
    }

    /// The queue stays where it was.
    pub(super) fn put_back(&mut self, queue: QueueRef, at: Location) {
        match queue {
            QueueRef::Pair(id) => drop(self.pairs.entry(id).and_modify(|pair| pair.at = at)),
            QueueRef::Nic(id) => drop(self.nic_queues.entry(id).and_modify(|queue| queue.at = at)),
        }
    }

    /// Nobody is in this slot any more.
    pub(super) fn free(&mut self, at: Location) {
        let slots = self.taken.get_mut(usize::from(at.worker));
        if let Some(taken) = slots.and_then(|slots| slots.get_mut(usize::from(at.slot))) {
            *taken = false;
        }
    }

    /// A slot for a NIC queue: they are dealt out to the workers in turn.
    pub(super) fn place_nic(&mut self, queue: &Queue) -> Option<Location> {
        let (id, sends, wants_dpdk) = (queue.id, queue.tx.is_some(), !queue.is_double());
        let workers: Vec<_> = self.open_workers().collect();
        let worker = *workers.get(usize::from(id.index) % workers.len().max(1))?;
        let at = self.nic_slot(worker)?;
        self.nic_queues.insert(id, PlacedNic { at, sends, wants_dpdk });
        Some(at)
    }

    fn nic_slot(&self, worker: u16) -> Option<Location> {
        let of_worker = |queue: &&PlacedNic| queue.at.worker == worker;
        let taken: Vec<_> =
            self.nic_queues.values().filter(of_worker).map(|queue| usize::from(queue.at.slot)).collect();
        let slot = Worker::nic_slots().find(|slot| !taken.contains(slot))?;
        Some(Location { worker, slot: slot as u16 })
    }

    /// Where a queue is.
    pub(super) fn at(&self, queue: QueueRef) -> Option<Location> {
        match queue {
            QueueRef::Pair(id) => self.pairs.get(&id).map(|pair| pair.at),
            QueueRef::Nic(id) => self.nic_queues.get(&id).map(|queue| queue.at),
        }
    }

    /// Whether the worker of a queue has to be known to DPDK.
    pub(super) fn wants_dpdk(&self, queue: QueueRef) -> bool {
        matches!(queue, QueueRef::Nic(id) if self.nic_queues.get(&id).is_some_and(|queue| queue.wants_dpdk))
    }

    /// Whether it is a pair that is good for nothing.
    pub(super) fn is_drained(&self, queue: QueueRef) -> bool {
        matches!(queue, QueueRef::Pair(id) if self.pairs.get(&id).is_some_and(|pair| pair.use_ == PairUse::Drained))
    }

    /// What a worker has.
    pub(super) fn queues_of(&self, worker: u16) -> Vec<QueueRef> {
        let pairs = self.pairs.iter().filter(|(_, pair)| pair.at.worker == worker).map(|(&id, _)| QueueRef::Pair(id));
        let nics = self.nic_queues.iter().filter(|(_, queue)| queue.at.worker == worker);
        let mut queues: Vec<_> = pairs.chain(nics.map(|(&id, _)| QueueRef::Nic(id))).collect();
        queues.sort_by_key(|queue| match queue {
            QueueRef::Pair(id) => (0, id.port, id.index),
            QueueRef::Nic(id) => (1, id.port, id.index),
        });
        queues
    }

    /// How much may go to a port.
    pub(super) fn limit_out(&self, port: u16) -> Option<Arc<Limit>> {
        self.topology.ports.get(usize::from(port))?.rules.limit_out.clone()
    }

    /// Rewrites what the topology says of the port by which frames go to a queue.
    pub(super) fn list(&mut self, queue: QueueRef) {
        match queue {
            QueueRef::Pair(id) => self.list_receivers(id.port),
            QueueRef::Nic(id) => self.list_senders(id.port),
        }
    }

    /// Rewrites what the topology says of the port's receivers.
    pub(super) fn list_receivers(&mut self, port: u16) {
        let receives = |(id, pair): (&PairId, &Placed)| {
            (id.port == port && pair.use_ == PairUse::Receives).then_some((id.index, pair.at))
        };
        let mut receivers: Vec<_> = self.pairs.iter().filter_map(receives).collect();
        receivers.sort_by_key(|&(index, _)| index);
        let Some(view) = self.topology.ports.get_mut(usize::from(port)) else { return };
        if receivers.len() > 1 || view.steering.is_some() {
            let beats = self.beats.load(Ordering::Relaxed);
            let only = match &view.receivers[..] {
                &[only] => receivers.iter().find(|&&(_, at)| at == only).copied(),
                _ => None,
            };
            // What has never been given a frame holds none.
            let has_had = |&(index, _): &(u16, Location)| {
                let guest = self.guests.iter().find(|guest| guest.id == port);
                guest.is_none_or(|guest| guest.counters(index).transmitted.packets.get() > 0)
            };
            let only = only.filter(has_had);
            let steering = Steering::new(&receivers, view.steering.as_ref().ok_or(only), beats);
            view.steering = Some(steering);
        }
        view.receivers = receivers.into_iter().map(|(_, at)| at).collect();
    }

    /// The guest of a port is gone, and its flows with it.
    pub(super) fn forget_flows(&mut self, port: u16) {
        if let Some(view) = self.topology.ports.get_mut(usize::from(port)) {
            view.steering = None;
        }
    }

    /// Nobody is to send for a NIC any more.
    pub(super) fn send_no_more(&mut self, port: u16) {
        self.nic_queues.iter_mut().filter(|(id, _)| id.port == port).for_each(|(_, queue)| queue.sends = false);
        self.list_senders(port);
    }

    /// Rewrites by which queues is sent for a NIC.
    pub(super) fn list_senders(&mut self, port: u16) {
        let of_port = self.nic_queues.iter().filter(|(id, queue)| id.port == port && queue.sends);
        let mut senders: Vec<_> = of_port.map(|(id, queue)| (queue.at.worker, id.index, queue.at)).collect();
        senders.sort_by_key(|&(worker, index, _)| (worker, index));
        if let Some(view) = self.topology.ports.get_mut(usize::from(port)) {
            (view.receivers, view.is_nic) = (senders.into_iter().map(|(.., at)| at).collect(), true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Granularity;

    fn chooser(unit: Unit) -> Chooser {
        let mut chooser = Chooser::default();
        chooser.planner.granularity = if unit == Unit::Pair { Granularity::Pair } else { Granularity::Nic };
        chooser
    }

    fn of_workers(count: u16, unit: Unit) -> Placement {
        let mut placement = Placement::new(unit, chooser(unit), Arc::default());
        (0..count).for_each(|worker| placement.open(worker));
        placement
    }

    /// Pairs that are of no use take a quarter of the slots, and no more, however many there are.
    #[test]
    fn disabled_pairs_leave_slots_for_others() {
        let slots = Worker::slots();
        let mut placement = of_workers(2, Unit::Nic);
        let ids = |port: u16| (0..).map(move |pair| PairId { port: port + pair / 128, index: pair % 128 });
        let place = |placement: &mut Placement, port, use_| {
            ids(port).take(2 * slots).filter(|&id| placement.place(id, use_).is_some()).count()
        };
        assert_eq!(place(&mut placement, 0, PairUse::Drained), 2 * drained_max());
        // All but a few of those that are left are somebody's: thousands of pairs take the planner a while.
        const FEW: usize = 40;
        for slots in &mut placement.taken {
            let spare = slots.len() - drained_max() - FEW;
            slots.iter_mut().filter(|taken| !**taken).take(spare).for_each(|taken| *taken = true);
        }
        assert_eq!(place(&mut placement, 1000, PairUse::Receives), 2 * FEW);
        assert_eq!(place(&mut placement, 2000, PairUse::Sends), 0);
        // A slot that comes free is for anybody.
        let pairs = placement.pairs.clone();
        for (id, pair) in pairs.iter().filter(|(_, pair)| pair.use_ == PairUse::Receives) {
            placement.pairs.remove(id);
            placement.free(pair.at);
        }
        let full = PairId { port: 3000, index: 0 };
        assert_eq!(placement.place(full, PairUse::Drained), None);
        assert!(placement.place(full, PairUse::Sends).is_some());
    }

    #[test]
    fn a_guest_is_one_or_its_pairs_are_each_for_themselves() {
        for (unit, expected) in [(Unit::Nic, [6, 6, 0]), (Unit::Pair, [6, 6, 0])] {
            let mut placement = of_workers(3, unit);
            let mut counts = [0; 3];
            for (port, index) in (0..2).flat_map(|port| (0..6).map(move |index| (port, index))) {
                let at = placement.place(PairId { port, index }, PairUse::Receives).unwrap();
                counts[usize::from(at.worker)] += 1;
            }
            assert_eq!(counts, expected, "{unit:?}");
        }
    }

    #[test]
    fn nothing_goes_to_a_worker_that_is_closed() {
        let mut placement = of_workers(2, Unit::Nic);
        let id = |port| PairId { port, index: 0 };
        let at = placement.place(id(0), PairUse::Receives).unwrap();
        assert!(placement.close(at.worker));
        let other = placement.best_for(QueueRef::Pair(id(0))).unwrap();
        assert_ne!(other, at.worker);
        assert!(!placement.close(other), "it is the last");
        let again = placement.place_again(QueueRef::Pair(id(0)), other).unwrap();
        assert_eq!((again.worker, placement.queues_of(at.worker)), (other, Vec::new()));
        placement.open(at.worker);
        assert_eq!(placement.place(id(1), PairUse::Receives).unwrap().worker, at.worker);
    }
}
