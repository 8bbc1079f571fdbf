//! What a placement costs: each worker's load, and what is spent on handing frames from one worker to another.
//!
//! A queue's busy time is measured where it is; what it would be elsewhere is estimated. Memory of another node makes it
//! longer, and so does a receiver that has no queue on the sender's worker: then a frame is copied into a hand-off ring and
//! out of it.

use std::collections::BTreeMap;

use super::scene::{Granularity, Ring, Scene, UnitId};
use super::topology::{LOCAL_DISTANCE, NodeId};

/// Below this load, in shares of a CPU, a worker has room: work that belongs together is left together.
pub const COMFORT: f64 = 0.6;

/// The load that a unit of which nothing was measured is taken for.
pub const NOMINAL: f64 = 0.02;

/// How much longer work takes on memory that is twice as far away. Cross-node switching loses up to a half, by what nova's
/// specification of NUMA-aware vSwitches says; a usual distance of 21 comes to that.
const REMOTE_PENALTY: f64 = 0.9;

/// Seconds that the hand-off of a frame costs both workers together, beyond what the frame costs anyway, and of each byte.
/// Of the order of what the frame costs anyway: one more copy, by way of the cache of another core.
const HAND_OFF_FRAME: f64 = 40e-9;
const HAND_OFF_BYTE: f64 = 0.05e-9;

/// How the parts of a placement's cost weigh: load beyond [`COMFORT`], hand-offs, and, the least, uneven load.
const OVERLOAD_WEIGHT: f64 = 10.0;
const HAND_OFF_WEIGHT: f64 = 1.0;

/// What is placed as one.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) id: UnitId,
    /// Its port, as a place in the scene.
    pub(super) port: usize,
    /// Share of a CPU that it takes with its memory local and nothing handed off.
    pub(super) busy: f64,
    /// That was measured.
    pub(super) is_measured: bool,
    /// Which part of what its port sends, and receives, goes by it.
    pub(super) sends: f64,
    pub(super) receives: f64,
    /// The worker that it has.
    pub(super) worker: Option<usize>,
}

/// The units of a scene and what they exchange.
#[derive(Debug)]
pub(super) struct Model<'s> {
    pub(super) scene: &'s Scene,
    pub(super) units: Vec<Unit>,
    /// By port, its units.
    pub(super) of_port: Vec<Vec<usize>>,
    /// By port, to whom it sends, and the hand-off of all of it in shares of a CPU.
    to: Vec<Vec<(usize, f64)>>,
    /// By port, who sends to it.
    from: Vec<Vec<usize>>,
    /// By worker, its node.
    pub(super) nodes: Vec<Option<NodeId>>,
}

/// Where each unit is, and what follows.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// By unit, its worker.
    pub(super) at: Vec<Option<usize>>,
    /// By worker, the share of its CPU that is used; more than 1 if it cannot be.
    pub(super) load: Vec<f64>,
    /// Of that, what goes into hand-offs.
    pub(super) hand_off: f64,
    /// By port and worker, units that receive.
    receivers: Vec<Vec<u32>>,
}

impl<'s> Model<'s> {
    pub(super) fn new(scene: &'s Scene, granularity: Granularity) -> Self {
        let mut model = Self::of_truth(scene, granularity);
        model.make_intrinsic();
        model
    }

    /// A model of a scene whose busy times are those at home and without hand-offs already.
    pub(super) fn of_truth(scene: &'s Scene, granularity: Granularity) -> Self {
        let mut units = units(scene, granularity);
        let mut of_port = vec![Vec::new(); scene.ports.len()];
        for (at, unit) in units.iter().enumerate() {
            of_port[unit.port].push(at);
        }
        for units_of in &of_port {
            share(&mut units, units_of);
        }
        let (mut to, mut from) = (vec![Vec::new(); scene.ports.len()], vec![Vec::new(); scene.ports.len()]);
        for traffic in scene.traffic.iter().filter(|traffic| traffic.from != traffic.to) {
            if let (Some(to), Some(from)) = (to.get_mut(traffic.from), from.get_mut(traffic.to)) {
                to.push((traffic.to, traffic.frames * HAND_OFF_FRAME + traffic.bytes * HAND_OFF_BYTE));
                from.push(traffic.from);
            }
        }
        from.iter_mut().for_each(|ports| {
            ports.sort_unstable();
            ports.dedup();
        });
        let nodes = (0..scene.workers.len()).map(|worker| scene.node_of(worker)).collect();
        Self { scene, units, of_port, to, from, nodes }
    }

    /// By unit, the busy time that would be measured in a state.
    pub(super) fn measured(&self, state: &State) -> Vec<f64> {
        let at = |unit: usize| self.units[unit].busy * self.factor(unit, state.at[unit]);
        let mut busy: Vec<f64> = (0..self.units.len()).map(at).collect();
        for port in 0..self.of_port.len() {
            self.hand_offs(port, state, |unit, cost| busy[unit] += cost);
        }
        busy
    }

    /// From busy time as it was measured to what it would be at home and without hand-offs.
    fn make_intrinsic(&mut self) {
        // Loads of hand-offs alone, unit by unit.
        let state = self.state();
        let mut spent = vec![0.0; self.units.len()];
        for port in 0..self.of_port.len() {
            self.hand_offs(port, &state, |unit, cost| spent[unit] += cost);
        }
        let factors: Vec<f64> = (0..self.units.len()).map(|unit| self.factor(unit, self.units[unit].worker)).collect();
        for (unit, (spent, factor)) in self.units.iter_mut().zip(spent.into_iter().zip(factors)) {
            if unit.is_measured {
                unit.busy = (unit.busy - spent).max(0.0) / factor;
            }
        }
    }

    /// The state that the scene is in.
    pub(super) fn state(&self) -> State {
        self.state_of(self.units.iter().map(|unit| unit.worker).collect())
    }

    pub(super) fn state_of(&self, at: Vec<Option<usize>>) -> State {
        let workers = self.nodes.len();
        let receivers = vec![vec![0; workers]; self.of_port.len()];
        let mut state = State { at, load: vec![0.0; workers], hand_off: 0.0, receivers };
        for (unit, at) in self.units.iter().zip(&state.at) {
            if let (Some(at), true) = (at, unit.receives > 0.0) {
                state.receivers[unit.port][*at] += 1;
            }
        }
        for port in 0..self.of_port.len() {
            self.account(port, &mut state, 1.0);
        }
        state
    }

    /// How much longer a unit's work takes on a worker than where its memory is.
    pub(super) fn factor(&self, unit: usize, worker: Option<usize>) -> f64 {
        let home = self.scene.ports[self.units[unit].port].home.node();
        let node = worker.and_then(|worker| self.nodes[worker]);
        let (Some(home), Some(node)) = (home, node) else { return 1.0 };
        let distance = self.scene.topology.distance(node, home);
        1.0 + REMOTE_PENALTY * (f64::from(distance) / f64::from(LOCAL_DISTANCE) - 1.0).max(0.0)
    }

    /// Moves a unit.
    pub(super) fn put(&self, state: &mut State, unit: usize, worker: Option<usize>) {
        let port = self.units[unit].port;
        // What is sent to the port changes, too: who sends may now meet it on its own worker.
        let affected = || std::iter::once(port).chain(self.from[port].iter().copied());
        affected().for_each(|port| self.account(port, state, -1.0));
        let before = std::mem::replace(&mut state.at[unit], worker);
        if self.units[unit].receives > 0.0 {
            before.into_iter().for_each(|worker| state.receivers[port][worker] -= 1);
            worker.into_iter().for_each(|worker| state.receivers[port][worker] += 1);
        }
        affected().for_each(|port| self.account(port, state, 1.0));
    }

    /// What the state costs: less is better.
    pub(super) fn cost(&self, state: &State) -> f64 {
        let of_load = |&load: &f64| OVERLOAD_WEIGHT * (load - COMFORT).max(0.0) + load * load;
        HAND_OFF_WEIGHT * state.hand_off + state.load.iter().map(of_load).sum::<f64>()
    }

    /// What the state would cost with the unit on this worker.
    pub(super) fn cost_with(&self, state: &mut State, unit: usize, worker: usize) -> f64 {
        let before = state.at[unit];
        self.put(state, unit, Some(worker));
        let cost = self.cost(state);
        self.put(state, unit, before);
        cost
    }

    /// The ports to which, and from which, most is exchanged with a port that has units on `worker`.
    pub(super) fn correspondent(&self, state: &State, unit: usize, worker: usize) -> Option<usize> {
        let port = self.units[unit].port;
        let sent = self.to[port].iter().copied();
        let received = self.from[port].iter().flat_map(|&from| {
            self.to[from].iter().filter(move |&&(to, _)| to == port).map(move |&(_, cost)| (from, cost))
        });
        let mut with: BTreeMap<usize, f64> = BTreeMap::new();
        sent.chain(received).for_each(|(other, cost)| *with.entry(other).or_default() += cost);
        let is_there = |other: &usize| self.of_port[*other].iter().any(|&unit| state.at[unit] == Some(worker));
        let most = with.into_iter().filter(|(other, _)| is_there(other)).max_by(|a, b| a.1.total_cmp(&b.1));
        most.filter(|&(_, cost)| cost > 0.0).map(|(other, _)| other)
    }

    /// Adds what a port's units cost, themselves and by what they send, or takes it away.
    fn account(&self, port: usize, state: &mut State, sign: f64) {
        for &unit in &self.of_port[port] {
            if let Some(worker) = state.at[unit] {
                state.load[worker] += sign * self.units[unit].busy * self.factor(unit, Some(worker));
            }
        }
        let mut load = std::mem::take(&mut state.load);
        let mut sum = 0.0;
        self.hand_offs(port, state, |unit, cost| {
            sum += cost;
            if let Some(worker) = state.at[unit] {
                load[worker] += sign * cost;
            }
        });
        state.load = load;
        state.hand_off += sign * sum;
    }

    /// What the hand-offs of frames that a port sends cost each unit: half the sender's, half the receiver's.
    fn hand_offs(&self, port: usize, state: &State, mut spend: impl FnMut(usize, f64)) {
        for &unit in &self.of_port[port] {
            let (Some(worker), sends) = (state.at[unit], self.units[unit].sends) else { continue };
            for &(other, all) in &self.to[port] {
                // A receiver with a queue on this worker is given its frames there.
                if state.receivers[other][worker] > 0 || sends == 0.0 {
                    continue;
                }
                let cost = all * sends / 2.0;
                let placed = |&&unit: &&usize| state.at[unit].is_some() && self.units[unit].receives > 0.0;
                let shares: f64 =
                    self.of_port[other].iter().filter(placed).map(|&unit| self.units[unit].receives).sum();
                if shares > 0.0 {
                    spend(unit, cost);
                    for &receiver in self.of_port[other].iter().filter(placed) {
                        spend(receiver, cost * self.units[receiver].receives / shares);
                    }
                }
            }
        }
    }
}

impl State {
    /// The load of the busiest of these workers, and that of all of them.
    pub(super) fn summary(&self, workers: &[usize]) -> (f64, f64) {
        let loads = || workers.iter().map(|&worker| self.load[worker]);
        (loads().fold(0.0, f64::max), loads().sum())
    }
}

/// The units, by name, with what was measured of their queues.
fn units(scene: &Scene, granularity: Granularity) -> Vec<Unit> {
    let mut units: BTreeMap<UnitId, Unit> = BTreeMap::new();
    for queue in &scene.queues {
        if queue.port >= scene.ports.len() {
            continue;
        }
        let id = scene.unit_of(granularity, queue);
        let unit = units.entry(id).or_insert_with(|| Unit {
            id,
            port: queue.port,
            busy: 0.0,
            is_measured: false,
            sends: 0.0,
            receives: 0.0,
            worker: None,
        });
        let busy = queue.busy.filter(|busy| busy.is_finite()).unwrap_or(0.0).max(0.0);
        unit.is_measured |= queue.busy.is_some();
        unit.busy += busy;
        // Made into shares below. A queue that has done nothing yet counts a little: it may begin to.
        match queue.ring {
            Ring::Transmitq => unit.sends += busy + 1e-6,
            Ring::Receiveq => unit.receives += busy + 1e-6,
        }
        unit.worker = unit.worker.or(queue.worker.map(usize::from).filter(|&worker| worker < scene.workers.len()));
    }
    let mut units: Vec<_> = units.into_values().collect();
    units.iter_mut().filter(|unit| !unit.is_measured).for_each(|unit| unit.busy = NOMINAL);
    units
}

/// Makes what the units of a port send and receive shares of all that it does.
fn share(units: &mut [Unit], of_port: &[usize]) {
    let sum = |units: &[Unit], part: fn(&Unit) -> f64| of_port.iter().map(|&unit| part(&units[unit])).sum::<f64>();
    let (sends, receives) = (sum(units, |unit| unit.sends), sum(units, |unit| unit.receives));
    for &unit in of_port {
        units[unit].sends /= if sends > 0.0 { sends } else { 1.0 };
        units[unit].receives /= if receives > 0.0 { receives } else { 1.0 };
    }
}
