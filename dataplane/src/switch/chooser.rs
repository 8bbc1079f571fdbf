//! What the planner is told: workers, ports, what is known of who is behind them, and what was measured of their queues.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use ringway_config::{Choice, Count, Plan, PortKind, Unit, Workers};

use super::placement::{PairUse, Placed, PlacedNic};
use crate::guest::PairId;
use crate::guest::memory::{GuestMemory, Region};
use crate::nic::QueueId;
use crate::placement::host::{Host, Span, home_of, peer_pid};
use crate::placement::{
    Basis, CpuSet, Granularity, Home, NoCpus, Pin, Planner, Policy, PortFacts, Queue, Ring, Scene, Seat, Topology,
    Traffic, UnitId, Usable, Wanted, Why,
};
use crate::worker::Worker;

/// Workers that `count = "auto"` makes on each NUMA node at most, unless told: with two to four, the RFC's few guests were not
/// slower than before, with more they were.
const AUTO_PER_NODE: usize = 4;

/// Seconds for which what is known of a guest is not asked for again while its front end sets up ring after ring.
const FRESH_SECONDS: u32 = 2;

/// What is known of who is behind a port.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    home: Home,
    vcpus: CpuSet,
    /// Of which memory that is, and since when.
    memory: usize,
    at: u32,
}

/// Chooses workers for pairs.
#[derive(Debug)]
pub(super) struct Chooser {
    pub(super) planner: Planner,
    pub(super) host: Host,
    /// CPUs that the process may use.
    pub(super) allowed: Vec<usize>,
    pub(super) machine: Topology,
    pub(super) reserved: CpuSet,
    pins: HashMap<u16, Pin>,
    /// By port.
    bridge_of: Vec<u16>,
    known: HashMap<u16, Known>,
    /// Ports that are NICs.
    nics: HashSet<u16>,
    /// By port of a NIC, its node.
    nic_nodes: HashMap<u16, u16>,
    /// By worker.
    cpus: HashMap<u16, usize>,
    /// By port, pair and virtqueue; see [`super::tender`].
    pub(super) busy: HashMap<(u16, u16, Ring), f64>,
    pub(super) traffic: Vec<Flow>,
    /// A pair that its front end sets up anew stays where it was.
    kept: HashMap<PairId, (u16, Home)>,
    whys: HashMap<PairId, Why>,
}

/// What goes from one port to another, by number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) frames: f64,
    pub(super) bytes: f64,
}

impl Default for Chooser {
    /// On a machine of one node and more CPUs than there are workers.
    fn default() -> Self {
        Self {
            planner: Planner::new(Policy::Measured, Granularity::Nic, 0),
            host: Host::default(),
            allowed: Vec::new(),
            machine: Topology::even(1, 1024, 1),
            reserved: CpuSet::new(),
            pins: HashMap::new(),
            bridge_of: Vec::new(),
            known: HashMap::new(),
            nics: HashSet::new(),
            nic_nodes: HashMap::new(),
            cpus: HashMap::new(),
            busy: HashMap::new(),
            traffic: Vec::new(),
            kept: HashMap::new(),
            whys: HashMap::new(),
        }
    }
}

/// The CPUs on which workers begin, on this machine, of a switch with these ports.
///
/// # Errors
/// When there is none for them.
pub fn worker_cpus(workers: &Workers, ports: &[ringway_config::Port]) -> Result<Vec<usize>, NoCpus> {
    let allowed = Worker::allowed_cpus();
    first_cpus(&Host::default().topology(&allowed), &allowed, workers, ports)
}

fn first_cpus(
    machine: &Topology,
    allowed: &[usize],
    workers: &Workers,
    ports: &[ringway_config::Port],
) -> Result<Vec<usize>, NoCpus> {
    let Workers { cpus, count, reserved_cpus, .. } = workers;
    let (wanted, pool) = match (cpus, count) {
        (Some(cpus), Count::Default) => (Wanted::Cpus(cpus.clone()), None),
        (pool, Count::Default) => (Wanted::PerNode(1), pool.as_ref()),
        (pool, Count::PerSocket(count)) => (Wanted::PerNode(usize::from(*count)), pool.as_ref()),
        (pool, Count::Auto { .. }) => (Wanted::Auto { max: usize::MAX }, pool.as_ref()),
    };
    let mine = in_pool(allowed, pool);
    let usable = Usable::new(machine, &mine, &reserved_cpus.iter().copied().collect());
    let pinned = ports.iter().filter_map(|port| match &port.pin {
        Some(ringway_config::Pin::Cpus(cpus)) => Some(cpus.iter().copied()),
        _ => None,
    });
    let mut cpus = usable.choose(&wanted, &pinned.flatten().collect())?;
    if let Count::Auto { max: Some(max) } = count {
        cpus.truncate(usize::from(*max).max(1));
    }
    Ok(cpus)
}

/// Of the CPUs that the process may use, those that are for workers.
pub(super) fn in_pool(allowed: &[usize], pool: Option<&Vec<usize>>) -> Vec<usize> {
    allowed.iter().copied().filter(|cpu| pool.is_none_or(|pool| pool.contains(cpu))).collect()
}

/// How many workers there may be in all, if they come and go.
pub(super) fn auto_max(workers: &Workers, machine: &Topology) -> Option<usize> {
    match workers.count {
        Count::Auto { max: Some(max) } => Some(usize::from(max)),
        Count::Auto { max: None } => {
            let has_cpus = |node: &&crate::placement::Node| machine.online_of(node.id).next().is_some();
            Some(AUTO_PER_NODE * machine.nodes.iter().filter(has_cpus).count())
        }
        _ => None,
    }
}

impl Chooser {
    pub(super) fn new(plan: &Plan) -> Self {
        let (host, allowed) = (Host::default(), Worker::allowed_cpus());
        let policy = match plan.workers.policy {
            Choice::Measured => Policy::Measured,
            Choice::RoundRobin => Policy::RoundRobin,
            Choice::Random => Policy::Random,
        };
        let granularity = match plan.workers.unit {
            Unit::Nic => Granularity::Nic,
            Unit::Pair => Granularity::Pair,
        };
        let mut seed = [0; 8];
        let _ = getrandom::fill(&mut seed); // zeros are a seed as well
        let pin = |pin: &ringway_config::Pin| match pin {
            ringway_config::Pin::Cpus(cpus) => Pin::Cpus(cpus.iter().copied().collect()),
            ringway_config::Pin::Node(node) => Pin::Node(*node),
        };
        let pins = (0..).zip(&plan.ports).filter_map(|(id, port)| Some((id, pin(port.pin.as_ref()?))));
        Self {
            planner: Planner::new(policy, granularity, u64::from_ne_bytes(seed)),
            machine: host.topology(&allowed),
            host,
            allowed,
            reserved: plan.workers.reserved_cpus.iter().copied().collect(),
            pins: pins.collect(),
            nics: (0..)
                .zip(&plan.ports)
                .filter(|(_, port)| matches!(port.kind, PortKind::Nic(_)))
                .map(|(id, _)| id)
                .collect(),
            bridge_of: plan.ports.iter().map(|port| port.bridge as u16).collect(),
            ..Self::default()
        }
    }

    /// A worker of this number is on this CPU.
    pub(super) fn note_cpu(&mut self, worker: u16, cpu: usize) {
        self.cpus.insert(worker, cpu);
    }

    /// Where the device of a NIC is, if it is near to a node.
    pub(super) fn note_nic(&mut self, port: u16, node: Option<u16>) {
        match node {
            Some(node) => self.nic_nodes.insert(port, node),
            None => self.nic_nodes.remove(&port),
        };
    }

    /// The machine as it is now.
    pub(super) fn read_machine(&mut self) -> Topology {
        self.machine = self.host.topology(&self.allowed);
        self.machine.clone()
    }

    /// Whether what is known of this memory need not be asked for again yet.
    pub(super) fn is_fresh(&self, port: u16, memory: &Arc<GuestMemory>, now: u32) -> bool {
        let is = |known: &Known| known.memory == Arc::as_ptr(memory).addr() && now < known.at + FRESH_SECONDS;
        self.known.get(&port).is_some_and(is)
    }

    /// What is known of a port from now on.
    pub(super) fn learn(&mut self, port: u16, known: Known) {
        self.known.insert(port, known);
        let home = self.facts(port).home;
        self.whys.iter_mut().filter(|(id, _)| id.port == port).for_each(|(_, why)| why.home = home);
        // Who is at home there already need not be placed anew.
        for (_, (worker, kept)) in self.kept.iter_mut().filter(|(id, _)| id.port == port) {
            let node = self.cpus.get(worker).and_then(|&cpu| self.machine.node_of(cpu));
            if node == home.node() {
                *kept = home;
            }
        }
    }

    /// A pair is where another one of its port is, for that is how they are placed.
    pub(super) fn note_beside(&mut self, id: PairId, sibling: PairId) {
        if let Some(why) = self.why(sibling) {
            self.whys.insert(id, why);
        }
    }

    /// The front end of a port is gone.
    pub(super) fn forget(&mut self, port: u16) {
        self.known.remove(&port);
        self.kept.retain(|id, _| id.port != port);
        self.whys.retain(|id, _| id.port != port);
        self.busy.retain(|&(of, ..), _| of != port);
    }

    pub(super) fn why(&self, id: PairId) -> Option<Why> {
        self.whys.get(&id).copied()
    }

    /// A pair is where an operator wants it.
    pub(super) fn note_told(&mut self, id: PairId, worker: u16) {
        let (facts, cpu) = (self.facts(id.port), self.cpus.get(&worker));
        let node = cpu.and_then(|&cpu| self.machine.node_of(cpu));
        let why = Why { basis: Basis::Told, of: 1, home: facts.home, node, pinned: false, compromise: None };
        self.note_moved(id, worker, why);
    }

    /// A pair is where a plan wants it.
    pub(super) fn note_moved(&mut self, id: PairId, worker: u16, why: Why) {
        self.kept.insert(id, (worker, why.home));
        self.whys.insert(id, why);
    }

    /// The unit of a pair.
    pub(super) fn unit(&self, id: PairId) -> UnitId {
        UnitId::of(self.planner.granularity, id.port, id.index, Ring::Transmitq)
    }

    /// A worker for a pair among others that have theirs.
    pub(super) fn choose(&mut self, id: PairId, mut scene: Scene) -> Option<u16> {
        let facts = self.facts(id.port);
        let port = scene.ports.iter().position(|port| port.number == id.port).unwrap_or_else(|| {
            scene.ports.push(facts.clone());
            scene.ports.len() - 1
        });
        let busy = |ring| self.busy.get(&(id.port, id.index, ring)).copied();
        let queue = |ring| Queue { port, pair: id.index, ring, busy: busy(ring), worker: None };
        scene.queues.extend([Ring::Transmitq, Ring::Receiveq].map(queue));
        let kept = self.kept.get(&id).filter(|(worker, home)| *home == facts.home && scene.may_have(port, *worker));
        if let (Some(&(worker, _)), true) = (kept, self.whys.contains_key(&id)) {
            return Some(worker);
        }
        let (worker, why) = self.planner.place(&scene, self.unit(id))?;
        let before = self.whys.insert(id, why);
        if why.compromise.is_some() && before.is_none_or(|before| before.compromise != why.compromise) {
            tracing::warn!("queue pair {} of port {}: {}", id.index, id.port, why.shown(|_| None));
        }
        self.kept.insert(id, (worker, facts.home));
        Some(worker)
    }

    /// What the planner looks at; `is_open` says to which workers queues may go.
    pub(super) fn scene<'p>(
        &self,
        pairs: impl Iterator<Item = (&'p PairId, &'p Placed)>,
        nics: &HashMap<QueueId, PlacedNic>,
        workers: u16,
        is_open: impl Fn(u16) -> bool,
    ) -> Scene {
        let used = pairs.filter(|(_, pair)| pair.use_ != PairUse::Drained);
        let of_pairs = used.map(|(id, pair)| (id.port, id.index, pair.at.worker));
        let of_nics = nics.iter().map(|(id, queue)| (id.port, id.index, queue.at.worker));
        let queues: Vec<_> = of_pairs.chain(of_nics).collect();
        let numbers: BTreeMap<u16, ()> = queues.iter().map(|&(port, ..)| (port, ())).collect();
        let place: HashMap<u16, usize> = numbers.keys().copied().zip(0..).collect();
        let queues = queues.into_iter().flat_map(|(number, pair, worker)| {
            [Ring::Transmitq, Ring::Receiveq].map(|ring| {
                let busy = self.busy.get(&(number, pair, ring)).copied();
                Queue { port: place[&number], pair, ring, busy, worker: Some(worker) }
            })
        });
        let traffic = self.traffic.iter().filter_map(|flow| {
            let (&from, &to) = (place.get(&flow.from)?, place.get(&flow.to)?);
            Some(Traffic { from, to, frames: flow.frames, bytes: flow.bytes })
        });
        let seat = |worker| {
            let cpu = self.cpus.get(&worker).copied().unwrap_or(usize::from(worker));
            Seat { cpu, open: is_open(worker) }
        };
        Scene {
            topology: self.machine.clone(),
            reserved: self.reserved.clone(),
            workers: (0..workers).map(seat).collect(),
            ports: numbers.keys().map(|&number| self.facts(number)).collect(),
            queues: queues.collect(),
            traffic: traffic.collect(),
        }
    }

    fn facts(&self, number: u16) -> PortFacts {
        let known = self.known.get(&number).cloned().unwrap_or_default();
        let home = match (known.home, self.nic_nodes.get(&number)) {
            (Home::Memory(node), _) => Home::Memory(node),
            (_, Some(&node)) => Home::Nic(node),
            _ => self.uplink(number),
        };
        let (pin, is_nic) = (self.pins.get(&number).cloned(), self.nics.contains(&number));
        PortFacts { number, home, vcpus: known.vcpus, pin, is_nic }
    }

    /// The node of the first NIC in the bridge of a guest.
    fn uplink(&self, number: u16) -> Home {
        let bridge = |port: u16| self.bridge_of.get(usize::from(port));
        let nics = self.nic_nodes.iter().filter(|&(&nic, _)| bridge(nic).is_some() && bridge(nic) == bridge(number));
        nics.min_by_key(|&(&nic, _)| nic).map_or(Home::Unknown, |(_, &node)| Home::Nic(node))
    }
}

/// Asks the kernel for what is behind a port: to be called without any lock.
pub(super) fn ask(
    (host, machine): (&Host, &Topology),
    stream: Option<&UnixStream>,
    memory: &Arc<GuestMemory>,
    now: u32,
) -> Known {
    let pid = stream.and_then(peer_pid);
    let spans = |start: fn(&Region) -> u64| -> Vec<Span> {
        memory.regions().iter().map(|region| Span { start: start(region), len: region.address().len }).collect()
    };
    let home = match &machine.nodes[..] {
        // The kernel's answer would be long, and known beforehand.
        [only] => Home::Memory(only.id),
        _ => {
            let (theirs, ours) = (spans(|region| region.address().user), spans(Region::host_address));
            home_of(&host.memory(pid.map(|pid| (pid, &*theirs)), &ours))
        }
    };
    let vcpus = pid.map(|pid| host.vcpus(pid, machine)).unwrap_or_default();
    Known { home, vcpus, memory: Arc::as_ptr(memory).addr(), at: now }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an operator may write of workers, on two sockets of four cores with two threads each.
    #[test]
    fn where_workers_begin() {
        let machine = Topology::even(2, 4, 2);
        let all: Vec<usize> = (0..16).collect();
        let first = |workers: &Workers| first_cpus(&machine, &all, workers, &[]);
        let of = |count| Workers { count, ..Workers::default() };
        assert_eq!(first(&of(Count::Default)), Ok(vec![0, 4]));
        assert_eq!(first(&of(Count::PerSocket(2))), Ok(vec![0, 1, 4, 5]));
        assert_eq!(first(&of(Count::PerSocket(5))), Ok(vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 12]));
        assert_eq!(first(&of(Count::Auto { max: None })), Ok(vec![0, 4]));
        assert_eq!(first(&of(Count::Auto { max: Some(1) })), Ok(vec![0]));
        let listed = |cpus: &[usize], count| Workers { cpus: Some(cpus.to_vec()), ..of(count) };
        assert_eq!(first(&listed(&[9, 3], Count::Default)), Ok(vec![9, 3]));
        assert_eq!(first(&listed(&[5, 3, 7, 1], Count::PerSocket(1))), Ok(vec![1, 5]));
        assert_eq!(first(&listed(&[2, 3], Count::Auto { max: None })), Ok(vec![2]));
        let reserved = Workers { reserved_cpus: vec![0, 1, 4], ..of(Count::PerSocket(2)) };
        assert_eq!(first(&reserved), Ok(vec![2, 3, 5, 6]));
        assert!(first(&Workers { reserved_cpus: all.clone(), ..Workers::default() }).is_err());
    }

    #[test]
    fn how_many_there_may_be() {
        let mut machine = Topology::even(2, 4, 1);
        let max = |machine: &Topology, count| auto_max(&Workers { count, ..Workers::default() }, machine);
        assert_eq!(max(&machine, Count::Default), None);
        assert_eq!(max(&machine, Count::Auto { max: Some(3) }), Some(3));
        assert_eq!(max(&machine, Count::Auto { max: None }), Some(8));
        machine.cpus.iter_mut().filter(|cpu| cpu.node == 1).for_each(|cpu| cpu.online = false);
        assert_eq!(max(&machine, Count::Auto { max: None }), Some(4));
    }
}
