//! Where something goes that has no place yet. What is placed already stays.

use super::cost::{COMFORT, Model, State, Unit};
use super::reason::{Basis, Compromise, Why};
use super::scene::{Granularity, Pin, Policy, Scene, UnitId};

/// Workers of a node that are used before one of them is busy. With more of them, few guests would hand nearly every frame
/// from one worker to another; with two, no setting of more workers can be slower than two.
const OPENED_AT_ONCE: usize = 2;

/// Chooses workers. Pure: the same scenes in the same order give the same choices.
#[derive(Clone, Debug)]
pub struct Planner {
    /// How.
    pub policy: Policy,
    /// What is placed as one.
    pub granularity: Granularity,
    turn: usize,
    lot: u64,
}

/// The workers that would do for a port, and what was given up for it.
pub(super) struct Candidates {
    pub(super) workers: Vec<usize>,
    pub(super) pinned: bool,
    pub(super) compromise: Option<Compromise>,
}

impl Planner {
    /// A planner; `seed` decides the lots of [`Policy::Random`].
    #[must_use]
    pub fn new(policy: Policy, granularity: Granularity, seed: u64) -> Self {
        Self { policy, granularity, turn: 0, lot: seed }
    }

    /// The worker that a unit of the scene goes to, and why; `None` if no worker is open.
    pub fn place(&mut self, scene: &Scene, unit: UnitId) -> Option<(u16, Why)> {
        let model = Model::new(scene, self.granularity);
        let at = model.units.iter().position(|known| known.id == unit)?;
        let mut state = model.state();
        model.put(&mut state, at, None);
        self.choose(&model, &mut state, at).map(|(worker, why)| (worker as u16, why))
    }

    pub(super) fn choose(&mut self, model: &Model<'_>, state: &mut State, unit: usize) -> Option<(usize, Why)> {
        let scene = model.scene;
        let port = &scene.ports[model.units[unit].port];
        let mut candidates = candidates(scene, model.units[unit].port)?;
        if self.policy == Policy::Measured {
            candidates.keep_nearest(scene, model.units[unit].port);
        }
        let (worker, basis) = match (self.policy, candidates.workers.as_slice()) {
            (_, &[only]) => (only, Basis::Only),
            (Policy::Measured, workers) => best(model, state, unit, workers)?,
            (Policy::RoundRobin, workers) => (*workers.get(self.next_turn() % workers.len())?, Basis::Turn),
            (Policy::Random, workers) => (*workers.get((self.next_lot() % workers.len() as u64) as usize)?, Basis::Lot),
        };
        let why = Why {
            basis,
            of: candidates.workers.len(),
            home: port.home,
            node: model.nodes[worker],
            pinned: candidates.pinned,
            compromise: candidates.compromise,
        };
        Some((worker, why))
    }

    fn next_turn(&mut self) -> usize {
        self.turn = self.turn.wrapping_add(1);
        self.turn.wrapping_sub(1)
    }

    /// SplitMix64: for a lot, good enough and reproducible.
    fn next_lot(&mut self) -> u64 {
        self.lot = self.lot.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut lot = self.lot;
        lot = (lot ^ (lot >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        lot = (lot ^ (lot >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        lot ^ (lot >> 31)
    }
}

/// Whether a worker would do.
type Rule<'r> = &'r dyn Fn(&usize) -> bool;

/// The open workers that a port may have: pinned to, and off its own vCPUs. If there is none, the pin goes first: rather an
/// unwanted CPU than one that the guest itself needs; and rather that than no network.
pub(super) fn candidates(scene: &Scene, port: usize) -> Option<Candidates> {
    let facts = scene.ports.get(port)?;
    let open: Vec<usize> = (0..scene.workers.len()).filter(|&worker| scene.is_open(worker)).collect();
    let is_pinned = |&worker: &usize| match &facts.pin {
        Some(Pin::Cpus(cpus)) => cpus.contains(&scene.workers[worker].cpu),
        Some(Pin::Node(node)) => scene.node_of(worker) == Some(*node),
        None => true,
    };
    let is_free = |&worker: &usize| !facts.vcpus.contains(&scene.workers[worker].cpu);
    let both = |worker: &usize| is_pinned(worker) && is_free(worker);
    let all = |_: &usize| true;
    let ladder: [(Rule<'_>, _); 3] =
        [(&both, None), (&is_free, Some(Compromise::Pin)), (&all, Some(Compromise::OwnVcpu))];
    ladder.into_iter().find_map(|(is_fit, compromise)| {
        let workers: Vec<usize> = open.iter().copied().filter(is_fit).collect();
        let pinned = facts.pin.is_some() && compromise.is_none();
        (!workers.is_empty()).then_some(Candidates { workers, pinned, compromise })
    })
}

impl Candidates {
    /// Leaves those whose CPUs are nearest to the port's memory.
    pub(super) fn keep_nearest(&mut self, scene: &Scene, port: usize) {
        let Some(home) = scene.ports[port].home.node() else { return };
        let distance =
            |worker: usize| scene.node_of(worker).map_or(u32::MAX, |node| scene.topology.distance(node, home));
        let nearest = self.workers.iter().map(|&worker| distance(worker)).min();
        self.workers.retain(|&worker| Some(distance(worker)) == nearest);
    }
}

/// Of several workers the one with which the whole costs least; of equal ones the one with the fewest units of the port, then
/// with the fewest units.
fn best(model: &Model<'_>, state: &mut State, unit: usize, workers: &[usize]) -> Option<(usize, Basis)> {
    let port = model.units[unit].port;
    let count = |state: &State, worker: usize, of: &dyn Fn(&Unit) -> bool| {
        state.at.iter().zip(&model.units).filter(|(at, unit)| **at == Some(worker) && of(unit)).count()
    };
    let of_port = |state: &State, worker: usize| count(state, worker, &|other| other.port == port);
    let mut opened = opened(model, state, workers);
    if !model.units[unit].is_measured {
        // As long as nothing is known of it: so that as many workers as can be have a queue of the port, and need not hand off.
        let fewest = opened.iter().map(|&worker| of_port(state, worker)).min();
        opened.retain(|&worker| Some(of_port(state, worker)) == fewest);
    }
    let costs: Vec<(usize, f64)> =
        opened.into_iter().map(|worker| (worker, model.cost_with(state, unit, worker))).collect();
    let least = costs.iter().map(|&(_, cost)| cost).min_by(f64::total_cmp)?;
    // What is the same but for rounding is the same.
    let equal = costs.iter().filter(|&&(_, cost)| cost <= least + 1e-9).map(|&(worker, _)| worker);
    let worker = equal.min_by_key(|&worker| (of_port(state, worker), count(state, worker, &|_| true), worker))?;
    // Would it be here if it were only for the load?
    let idlest = costs.iter().map(|&(worker, _)| worker).min_by(|&a, &b| state.load[a].total_cmp(&state.load[b]))?;
    let basis = match model.correspondent(state, unit, worker) {
        Some(other) if state.load[worker] > state.load[idlest] => Basis::Beside(model.scene.ports[other].number),
        _ => Basis::LeastBusy,
    };
    Some((worker, basis))
}

/// Of these workers those that are in use, up to two of each node that are not, and one more where all are busy.
fn opened(model: &Model<'_>, state: &State, workers: &[usize]) -> Vec<usize> {
    let mut nodes: Vec<_> = workers.iter().map(|&worker| model.nodes[worker]).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let mut opened = Vec::new();
    for node in nodes {
        let of_node: Vec<usize> = workers.iter().copied().filter(|&worker| model.nodes[worker] == node).collect();
        let (mut used, unused): (Vec<usize>, Vec<usize>) =
            of_node.into_iter().partition(|&worker| state.at.contains(&Some(worker)));
        let is_busy = used.iter().all(|&worker| state.load[worker] >= COMFORT);
        let more = if used.len() < OPENED_AT_ONCE { OPENED_AT_ONCE - used.len() } else { usize::from(is_busy) };
        used.extend(unused.into_iter().take(more));
        opened.extend(used);
    }
    opened
}
