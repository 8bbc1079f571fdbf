//! The planner on machines that are not there: many guests, sockets and queues, over some minutes of a clock of its own.
//!
//! The planner is the one that the switch uses, with its looks, dry runs and hysteresis; only the world around it is made up,
//! from a seed, and the same for every policy and granularity. What a placement costs in that world is what the planner's own
//! model says, so this shows what the planner does with what it knows, not how a machine would run.

use serde::Serialize;

use super::choose::Planner;
use super::cost::{Model, State};
use super::rebalance::{LOOK_SECONDS, Look, Rebalancer};
use super::scene::{Granularity, Home, Policy, PortFacts, Queue, Ring, Scene, Seat, Traffic, UnitId};
use super::topology::{CpuSet, Topology};
use super::workers::{Usable, Wanted};

/// Cores of a socket, each of two threads.
const CORES: usize = 16;

/// Looks of a run: two minutes, of which the traffic of some guests changes at two moments.
const LOOKS: u64 = 24;
const SHIFTS: [u64; 2] = [8, 16];

/// The load that all guests make, in shares of the workers that there are.
const LOAD: f64 = 0.4;

/// Seconds that a frame takes where nothing is remote or handed off, and its bytes.
const FRAME_SECONDS: f64 = 60e-9;
const FRAME_BYTES: f64 = 300.0;

/// Of what a guest sends, what goes to its mate, to the NIC, and to some other guest.
const TO_MATE: f64 = 0.6;
const TO_NIC: f64 = 0.3;

/// What to simulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Sockets, each a NUMA node, 1 to 64.
    pub sockets: u16,
    /// Workers for each of them, as far as there are CPUs.
    pub per_node: usize,
    /// Guests.
    pub guests: u16,
    /// Queue pairs of each.
    pub pairs: u16,
    /// What is placed as one.
    pub granularity: Granularity,
    /// How.
    pub policy: Policy,
    /// Decides the world, and the lots.
    pub seed: u64,
}

/// A worker at the end of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerLoad {
    /// Its CPU.
    pub cpu: usize,
    /// Its node.
    pub node: u16,
    /// Share of its CPU that it would need; more than 1 is more than there is.
    pub load: f64,
    /// Virtqueues that it has.
    pub virtqueues: usize,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// As set.
    pub sockets: u16,
    /// As set.
    pub guests: u16,
    /// As set.
    pub pairs: u16,
    /// As set.
    pub granularity: &'static str,
    /// As set.
    pub policy: &'static str,
    /// Workers by number.
    pub workers: Vec<WorkerLoad>,
    /// Virtqueues of guests in all, and the NIC's.
    pub virtqueues: usize,
    /// Of them, those that work on memory of another node than their worker's.
    pub remote_virtqueues: usize,
    /// Of them, those on a CPU that their own guest's vCPUs are confined to.
    pub own_vcpu_virtqueues: usize,
    /// What is spent on hand-offs, in shares of a CPU.
    pub hand_off: f64,
    /// Units moved in all looks.
    pub moves: usize,
    /// Looks that ended in a dry run.
    pub dry_runs: usize,
}

impl Outcome {
    /// The load of the busiest worker.
    #[must_use]
    pub fn busiest(&self) -> f64 {
        self.workers.iter().map(|worker| worker.load).fold(0.0, f64::max)
    }

    /// The mean load of all workers.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.workers.iter().map(|worker| worker.load).sum::<f64>() / self.workers.len().max(1) as f64
    }
}

/// Lots, reproducible: xorshift64*.
struct Lots(u64);

impl Lots {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn share(&mut self) -> f64 {
        self.next() as f64 / (1_u64 << 53) as f64
    }
}

/// A world: its scene without workers' choices, and what is true of its queues.
struct World {
    scene: Scene,
    /// By queue of the scene, the busy time that it would take at home and without hand-offs.
    truth: Vec<f64>,
    /// By guest, to whom it talks most.
    mates: Vec<usize>,
    /// By guest, what it does, as a part of all.
    weights: Vec<f64>,
    lots: Lots,
    pairs: u16,
}

impl World {
    fn new(setting: &Setting) -> Self {
        let mut lots = Lots(setting.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let topology = Topology::even(setting.sockets.clamp(1, 64), CORES, 2);
        let all: Vec<usize> = topology.cpus.iter().map(|cpu| cpu.id).collect();
        let reserved = CpuSet::from([0, CORES * usize::from(setting.sockets.clamp(1, 64))]);
        let wanted = Wanted::PerNode(setting.per_node.max(1));
        let cpus = Usable::new(&topology, &all, &reserved).choose(&wanted, &CpuSet::new()).unwrap_or_default();
        let workers: Vec<Seat> = cpus.into_iter().map(|cpu| Seat { cpu, open: true }).collect();
        let guests = usize::from(setting.guests);
        // Two of three guests are pinned, as nova does it: each vCPU to a CPU of the guest's node.
        let mut ports: Vec<PortFacts> = (0..setting.guests)
            .map(|number| {
                let node = lots.below(topology.nodes.len()) as u16;
                let of_node: Vec<usize> = topology.online_of(node).map(|cpu| cpu.id).collect();
                let pinned = if lots.below(3) == 0 { 0 } else { usize::from(setting.pairs) };
                let mut vcpus: CpuSet = (0..pinned).map(|_| of_node[lots.below(of_node.len())]).collect();
                // An operator leaves it at least one worker.
                if workers.iter().all(|seat| vcpus.contains(&seat.cpu)) {
                    vcpus.pop_first();
                }
                PortFacts { number, home: Home::Memory(node), vcpus, ..PortFacts::default() }
            })
            .collect();
        // A NIC in the first socket, with a queue for each worker.
        ports.push(PortFacts { number: setting.guests, home: Home::Nic(0), is_nic: true, ..PortFacts::default() });
        let queue = |port: usize, pair: u16| {
            [Ring::Transmitq, Ring::Receiveq].map(|ring| Queue { port, pair, ring, busy: None, worker: None })
        };
        let of_guests = (0..guests).flat_map(|port| (0..setting.pairs).flat_map(move |pair| queue(port, pair)));
        let of_nic = (0..workers.len() as u16)
            .flat_map(|worker| queue(guests, worker).map(|queue| Queue { worker: Some(worker), ..queue }));
        let queues: Vec<Queue> = of_guests.chain(of_nic).collect();
        // Who talks to whom was most often started together, and a node is filled before the next: three of four mates are
        // neighbours.
        let mates = (0..guests).map(|guest| mate(&ports, guest, lots.below(4) == 0, &mut lots)).collect();
        let weights = (0..guests).map(|rank| 1.0 / (1.0 + rank as f64).powf(0.8)).collect();
        let truth = vec![0.0; queues.len()];
        let scene = Scene { topology, reserved, workers, ports, queues, traffic: Vec::new() };
        let mut world = Self { scene, truth, mates, weights, lots, pairs: setting.pairs };
        world.shuffle();
        world.make_traffic();
        world
    }

    /// Deals what guests do out to them anew.
    fn shuffle(&mut self) {
        for guest in (1..self.weights.len()).rev() {
            let other = self.lots.below(guest + 1);
            self.weights.swap(guest, other);
        }
    }

    /// Some guests do what others did before.
    fn shift(&mut self) {
        for _ in 0..self.weights.len() / 3 {
            let (one, other) = (self.lots.below(self.weights.len()), self.lots.below(self.weights.len()));
            self.weights.swap(one, other);
        }
        self.make_traffic();
    }

    /// From what guests do to busy time and traffic.
    fn make_traffic(&mut self) {
        let guests = self.weights.len();
        let all: f64 = self.weights.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let cpus = LOAD * self.scene.workers.len() as f64;
        self.scene.traffic.clear();
        self.truth.fill(0.0);
        let mut to_nic = 0.0;
        for guest in 0..guests {
            let busy = cpus * self.weights[guest] / all;
            // Flows of a guest never fall evenly on its queues.
            let shares: Vec<f64> = (0..self.pairs).map(|_| 0.2 + self.lots.share()).collect();
            let sum: f64 = shares.iter().sum();
            for (pair, share) in shares.iter().enumerate() {
                let queue = 2 * (guest * usize::from(self.pairs) + pair);
                // The sender's burst carries the copy; the receiver's ring takes its part of it.
                self.truth[queue] += busy * share / sum * 0.7;
                self.truth[queue + 1] += busy * share / sum * 0.3 * (1.0 - TO_NIC);
            }
            to_nic += busy * 0.3 * TO_NIC;
            let other = self.lots.below(guests);
            let frames = busy / FRAME_SECONDS;
            for (to, part) in [(self.mates[guest], TO_MATE), (guests, TO_NIC), (other, 1.0 - TO_MATE - TO_NIC)] {
                if to != guest {
                    let frames = frames * part;
                    self.scene.traffic.push(Traffic { from: guest, to, frames, bytes: frames * FRAME_BYTES });
                }
            }
        }
        let first = 2 * guests * usize::from(self.pairs);
        let queues = self.truth.len() - first;
        self.truth[first..].iter_mut().for_each(|busy| *busy = to_nic / queues.max(1) as f64);
    }

    /// The scene with the truth as its measure.
    fn true_scene(&self) -> Scene {
        let mut scene = self.scene.clone();
        scene.queues.iter_mut().zip(&self.truth).for_each(|(queue, &busy)| queue.busy = Some(busy));
        scene
    }

    /// Measures every queue where it is: at home and without hand-offs it would take less.
    fn measure(&mut self, granularity: Granularity) {
        let scene = self.true_scene();
        let model = Model::of_truth(&scene, granularity);
        let measured = model.measured(&model.state());
        for (queue, &truth) in self.scene.queues.iter_mut().zip(&self.truth) {
            let id = scene.unit_of(granularity, queue);
            let unit = model.units.iter().zip(&measured).find(|(unit, _)| unit.id == id);
            queue.busy = unit.map(|(unit, all)| all * truth / unit.busy.max(f64::MIN_POSITIVE));
        }
    }

    fn put(&mut self, granularity: Granularity, unit: UnitId, worker: u16) {
        for at in 0..self.scene.queues.len() {
            if self.scene.unit_of(granularity, &self.scene.queues[at]) == unit {
                self.scene.queues[at].worker = Some(worker);
            }
        }
    }
}

/// To whom a guest talks most: another one of its node, or any.
fn mate(ports: &[PortFacts], guest: usize, any: bool, lots: &mut Lots) -> usize {
    let guests = ports.len() - 1;
    let is_near = |&other: &usize| other != guest && (any || ports[other].home == ports[guest].home);
    let near: Vec<usize> = (0..guests).filter(is_near).collect();
    near.get(lots.below(near.len())).copied().unwrap_or(guest)
}

/// Runs one setting.
#[must_use]
pub fn run(setting: &Setting) -> Outcome {
    let granularity = setting.granularity;
    let mut world = World::new(setting);
    let mut planner = Planner::new(setting.policy, granularity, setting.seed);
    // Guests come one after the other, and nothing is known of what any does.
    let traffic = std::mem::take(&mut world.scene.traffic);
    let all = std::mem::take(&mut world.scene.queues);
    for queue in all {
        world.scene.queues.push(queue);
        let id = world.scene.unit_of(granularity, &queue);
        let is_other = |other: &&Queue| other.worker.is_some() && world.scene.unit_of(granularity, other) == id;
        let known = world.scene.queues.iter().find(is_other).and_then(|known| known.worker);
        if let Some(worker) = known.or_else(|| planner.place(&world.scene, id).map(|(worker, _)| worker)) {
            world.put(granularity, id, worker);
        }
    }
    world.scene.traffic = traffic;
    let (mut rebalancer, mut moves, mut dry_runs) = (Rebalancer::default(), 0, 0);
    for look in 0..LOOKS {
        if SHIFTS.contains(&look) {
            world.shift();
        }
        world.measure(granularity);
        let now = look * LOOK_SECONDS;
        match rebalancer.look(&mut planner, &world.scene, now) {
            Look::Nothing => {}
            Look::DryRun(_) => dry_runs += 1,
            Look::Carry(plan) => {
                moves += plan.moves.len();
                plan.moves.iter().for_each(|one| world.put(granularity, one.unit, one.to));
                rebalancer.carried(&plan.moves, now);
            }
        }
    }
    outcome(setting, &world, moves, dry_runs)
}

fn outcome(setting: &Setting, world: &World, moves: usize, dry_runs: usize) -> Outcome {
    let scene = world.true_scene();
    let model = Model::of_truth(&scene, setting.granularity);
    let state: State = model.state();
    let worker = |(number, seat): (usize, &Seat)| WorkerLoad {
        cpu: seat.cpu,
        node: scene.node_of(number).unwrap_or_default(),
        load: state.load[number],
        virtqueues: scene.queues.iter().filter(|queue| queue.worker == Some(number as u16)).count(),
    };
    let count = |is: &dyn Fn(&PortFacts, usize) -> bool| {
        let placed =
            scene.queues.iter().filter_map(|queue| Some((&scene.ports[queue.port], usize::from(queue.worker?))));
        placed.filter(|&(port, worker)| is(port, worker)).count()
    };
    Outcome {
        sockets: setting.sockets,
        guests: setting.guests,
        pairs: setting.pairs,
        granularity: setting.granularity.as_str(),
        policy: setting.policy.as_str(),
        workers: scene.workers.iter().enumerate().map(worker).collect(),
        virtqueues: scene.queues.len(),
        remote_virtqueues: count(&|port, worker| !port.is_nic && port.home.node() != scene.node_of(worker)),
        own_vcpu_virtqueues: count(&|port, worker| port.vcpus.contains(&scene.workers[worker].cpu)),
        hand_off: state.hand_off,
        moves,
        dry_runs,
    }
}
