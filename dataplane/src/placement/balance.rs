//! Whether things would better be elsewhere than they are: a dry run, which moves nothing.
//!
//! Rules that are broken are mended whatever it gains. Everything else is only worth its trouble for a gain of a quarter.

use super::choose::{Planner, candidates};
use super::cost::{COMFORT, Model, State};
use super::reason::{Basis, MoveReason, Why};
use super::scene::{Policy, Scene, UnitId};
use super::topology::NodeId;

/// What a plan has to gain to be carried out, as Open vSwitch's default: the busiest worker could do a quarter more, or the
/// same is done with that much less of the CPUs.
pub const GAIN_MIN: f64 = 0.25;

/// A node whose busiest worker has less to do than this is left alone: there is nothing to be gained.
const BUSY_MIN: f64 = 0.25;

/// The least that has to be saved, in shares of a CPU, for its own sake.
const SAVED_MIN: f64 = 0.05;

/// The most moves for balance on a node in one plan. What is left is left to the next.
const MOVES_MAX: usize = 32;

/// Units of a worker that are considered, the busiest ones. The others hardly make a difference, and looking at all pairs of
/// hundreds of guests would take seconds.
const CONSIDERED_MAX: usize = 16;

/// A step that lowers the cost by less than this part of it ends the search.
const STEP_MIN: f64 = 0.005;

/// A unit that is to move.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    /// What.
    pub unit: UnitId,
    /// From this worker,
    pub from: u16,
    /// to this one.
    pub to: u16,
    /// What it is for.
    pub reason: MoveReason,
    /// Why it is to be there.
    pub why: Why,
}

/// What a dry run found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What is to move, in this order; none if all is well as it is.
    pub moves: Vec<Move>,
    /// By worker, its load now, in shares of a CPU,
    pub before: Vec<f64>,
    /// and then.
    pub after: Vec<f64>,
    /// The largest gain that it is made for; 0 if there is none but rules that are kept again.
    pub gain: f64,
}

impl Plan {
    /// Whether a rule is broken until it is carried out.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.moves.iter().any(|one| one.reason.is_repair())
    }
}

impl Planner {
    /// A dry run over the whole scene. What `settled` says is to be left alone moves only where a rule is broken.
    ///
    /// Only [`Policy::Measured`] moves anything for a gain.
    pub fn plan(&mut self, scene: &Scene, settled: impl Fn(UnitId) -> bool) -> Plan {
        let model = Model::new(scene, self.granularity);
        let mut state = model.state();
        let before = state.load.clone();
        let mut moves = self.repair(&model, &mut state);
        let mut gain: f64 = 0.0;
        if moves.is_empty() && self.policy == Policy::Measured {
            let mut is_movable: Vec<bool> = model
                .units
                .iter()
                .map(|unit| unit.worker.is_some() && !scene.ports[unit.port].is_nic && !settled(unit.id))
                .collect();
            moves = self.bring_home(&model, &mut state, &is_movable, &mut gain);
            for (unit, is_movable) in model.units.iter().zip(&mut is_movable) {
                *is_movable &= moves.iter().all(|one| one.unit != unit.id);
            }
            let mut nodes = model.nodes.clone();
            nodes.sort_unstable();
            nodes.dedup();
            for node in nodes {
                if let Some((found, better)) = self.balance(&model, &mut state, &is_movable, node) {
                    moves.extend(found);
                    gain = gain.max(better);
                }
            }
        }
        // Sums that were added to and taken from many times are not exact.
        let after = model.state_of(state.at).load;
        Plan { moves, before, after, gain }
    }

    /// Moves what is where it must not be.
    fn repair(&mut self, model: &Model<'_>, state: &mut State) -> Vec<Move> {
        let mut moves = Vec::new();
        let of_guests = (0..model.units.len()).filter(|&unit| !model.scene.ports[model.units[unit].port].is_nic);
        for unit in of_guests {
            let Some(from) = state.at[unit] else { continue };
            let Some(fit) = candidates(model.scene, model.units[unit].port) else { continue };
            if fit.workers.contains(&from) {
                continue;
            }
            let facts = &model.scene.ports[model.units[unit].port];
            let reason = if !model.scene.is_open(from) {
                MoveReason::WorkerClosed
            } else if facts.vcpus.contains(&model.scene.workers[from].cpu) {
                MoveReason::OwnVcpu
            } else {
                MoveReason::Pin
            };
            model.put(state, unit, None);
            let chosen = self.choose(model, state, unit);
            model.put(state, unit, Some(chosen.map_or(from, |(to, _)| to)));
            moves.extend(chosen.map(|(to, why)| one_move(model, unit, from, to, reason, why)));
        }
        moves
    }

    /// Moves what works on memory of another node to where that is, if that makes its work a quarter less and a worker
    /// there has room.
    fn bring_home(&mut self, model: &Model<'_>, state: &mut State, movable: &[bool], gain: &mut f64) -> Vec<Move> {
        let mut moves = Vec::new();
        for unit in (0..model.units.len()).filter(|&unit| movable[unit]) {
            let Some(from) = state.at[unit] else { continue };
            let Some(mut fit) = candidates(model.scene, model.units[unit].port) else { continue };
            fit.keep_nearest(model.scene, model.units[unit].port);
            let Some(&near) = fit.workers.first() else { continue };
            let better = model.factor(unit, Some(from)) / model.factor(unit, Some(near)) - 1.0;
            if better < GAIN_MIN {
                continue;
            }
            model.put(state, unit, None);
            let chosen = self.choose(model, state, unit);
            let roomy =
                chosen.filter(|&(to, _)| state.load[to] + model.units[unit].busy <= COMFORT.max(state.load[from]));
            model.put(state, unit, Some(roomy.map_or(from, |(to, _)| to)));
            if let Some((to, why)) = roomy {
                moves.push(one_move(model, unit, from, to, MoveReason::Memory, why));
                *gain = gain.max(better);
            }
        }
        moves
    }

    /// Looks for better places on one node, step by step; `None`, and nothing changed, if it is not worth it.
    fn balance(
        &mut self,
        model: &Model<'_>,
        state: &mut State,
        movable: &[bool],
        node: Option<NodeId>,
    ) -> Option<(Vec<Move>, f64)> {
        let workers: Vec<usize> = (0..model.nodes.len()).filter(|&worker| model.nodes[worker] == node).collect();
        let begun = state.clone();
        let (busiest, total) = begun.summary(&workers);
        if workers.len() < 2 || busiest < BUSY_MIN {
            return None;
        }
        // At best the load is even and nothing is handed off any more. If that is not enough, nothing is.
        let least = (total - begun.hand_off).max(f64::MIN_POSITIVE);
        if (busiest * workers.len() as f64).max(total) / least - 1.0 < GAIN_MIN {
            return None;
        }
        let movable = considered(model, &begun, movable);
        let targets: Vec<Vec<usize>> = (0..model.units.len())
            .map(|unit| match (movable[unit], begun.at[unit]) {
                (true, Some(at)) if model.nodes[at] == node => targets(model.scene, model, unit, &workers),
                _ => Vec::new(),
            })
            .collect();
        let mut steps = 0;
        while steps < MOVES_MAX && step(model, state, &targets) {
            steps += 1;
        }
        let (busiest_then, total_then) = state.summary(&workers);
        let capacity = busiest / busiest_then.max(f64::MIN_POSITIVE) - 1.0;
        let saves = total - total_then >= SAVED_MIN && busiest_then <= COMFORT.max(busiest);
        let saving = if saves { total / total_then.max(f64::MIN_POSITIVE) - 1.0 } else { 0.0 };
        let gain = capacity.max(saving);
        if gain < GAIN_MIN {
            *state = begun;
            return None;
        }
        let reason = if capacity >= saving { MoveReason::Load } else { MoveReason::HandOff };
        let moved = (0..model.units.len()).filter(|&unit| state.at[unit] != begun.at[unit]);
        let moves = moved.filter_map(|unit| {
            let (from, to) = (begun.at[unit]?, state.at[unit]?);
            let port = model.units[unit].port;
            let beside = model.correspondent(state, unit, to);
            let basis = match (reason, beside) {
                (MoveReason::HandOff, Some(other)) => Basis::Beside(model.scene.ports[other].number),
                _ => Basis::LeastBusy,
            };
            let facts = &model.scene.ports[port];
            let compromise = candidates(model.scene, port)?.compromise;
            let pinned = facts.pin.is_some() && compromise.is_none();
            let why = Why { basis, of: targets[unit].len(), home: facts.home, node, pinned, compromise };
            Some(one_move(model, unit, from, to, reason, why))
        });
        Some((moves.collect(), gain))
    }
}

/// Of what may move, the units of each worker that have most to do.
fn considered(model: &Model<'_>, state: &State, movable: &[bool]) -> Vec<bool> {
    let mut by_busy: Vec<usize> = (0..movable.len()).filter(|&unit| movable[unit]).collect();
    by_busy.sort_by(|&a, &b| model.units[b].busy.total_cmp(&model.units[a].busy));
    let mut considered = vec![false; movable.len()];
    let mut counts = vec![0; state.load.len()];
    for unit in by_busy {
        if let Some(worker) = state.at[unit].filter(|&worker| counts[worker] < CONSIDERED_MAX) {
            counts[worker] += 1;
            considered[unit] = true;
        }
    }
    considered
}

fn one_move(model: &Model<'_>, unit: usize, from: usize, to: usize, reason: MoveReason, why: Why) -> Move {
    Move { unit: model.units[unit].id, from: from as u16, to: to as u16, reason, why }
}

/// The workers of its node that a unit may have.
fn targets(scene: &Scene, model: &Model<'_>, unit: usize, workers: &[usize]) -> Vec<usize> {
    let fit = candidates(scene, model.units[unit].port).map(|fit| fit.workers).unwrap_or_default();
    workers.iter().copied().filter(|worker| fit.contains(worker)).collect()
}

/// One step: the move that lowers the cost most, or, if none does, the exchange of two units. Whether there was one.
fn step(model: &Model<'_>, state: &mut State, targets: &[Vec<usize>]) -> bool {
    let now = model.cost(state);
    let enough = now * (1.0 - STEP_MIN);
    let mut best = (enough, None);
    let movable: Vec<usize> = (0..targets.len()).filter(|&unit| targets[unit].len() > 1).collect();
    for &unit in &movable {
        let at = state.at[unit];
        for &worker in targets[unit].iter().filter(|&&worker| at != Some(worker)) {
            let cost = model.cost_with(state, unit, worker);
            if cost < best.0 {
                best = (cost, Some((unit, worker)));
            }
        }
    }
    if let (_, Some((unit, worker))) = best {
        model.put(state, unit, Some(worker));
        return true;
    }
    exchange(model, state, targets, &movable, enough)
}

/// Exchanges a unit of the busiest worker with one of another, if that lowers the cost.
fn exchange(model: &Model<'_>, state: &mut State, targets: &[Vec<usize>], movable: &[usize], enough: f64) -> bool {
    let loads = movable.iter().filter_map(|&unit| state.at[unit]);
    let Some(busiest) = loads.max_by(|&a, &b| state.load[a].total_cmp(&state.load[b])) else { return false };
    let (ours, others): (Vec<usize>, Vec<usize>) = movable.iter().partition(|&&unit| state.at[unit] == Some(busiest));
    let mut best = (enough, None);
    for &unit in &ours {
        for &other in &others {
            let Some(there) = state.at[other] else { continue };
            if !targets[unit].contains(&there) || !targets[other].contains(&busiest) {
                continue;
            }
            // What is lighter than the other only makes it worse.
            if model.units[unit].busy <= model.units[other].busy {
                continue;
            }
            model.put(state, unit, Some(there));
            let cost = model.cost_with(state, other, busiest);
            model.put(state, unit, Some(busiest));
            if cost < best.0 {
                best = (cost, Some((unit, other, there)));
            }
        }
    }
    let Some((unit, other, there)) = best.1 else { return false };
    model.put(state, unit, Some(there));
    model.put(state, other, Some(busiest));
    true
}
