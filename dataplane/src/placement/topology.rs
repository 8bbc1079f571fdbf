//! A machine's CPUs and memory as the planner sees them: NUMA nodes with their distances, cores with their siblings.

use std::collections::BTreeSet;

/// Number of a NUMA node, as in `/sys/devices/system/node/node0`.
pub type NodeId = u16;

/// A set of CPUs by number.
pub type CpuSet = BTreeSet<usize>;

/// What the kernel says of a node's distance to itself; others are multiples of a tenth of it.
pub const LOCAL_DISTANCE: u32 = 10;

/// The distance to a node of which the kernel says none: one hop, as firmware without a table has it.
const REMOTE_DISTANCE: u32 = 20;

/// A CPU that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its number.
    pub id: usize,
    /// Its NUMA node.
    pub node: NodeId,
    /// Its socket (physical package).
    pub socket: u16,
    /// The CPUs of its core, itself included: hardware threads that share its execution units.
    pub siblings: CpuSet,
    /// Whether the kernel schedules on it now.
    pub online: bool,
}

/// A NUMA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// How far its memory is from the CPUs of each node, by node; 10 is local.
    pub distances: Vec<(NodeId, u32)>,
}

/// CPUs and nodes, each by ascending number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Nodes, also those of memory only.
    pub nodes: Vec<Node>,
    /// CPUs, also those that are offline.
    pub cpus: Vec<Cpu>,
}

impl Topology {
    /// A machine of equal sockets, each a node of its own: CPUs are numbered as Linux does it on x86, first one of each core
    /// of all sockets, then their siblings. `threads` is 1 or 2 hardware threads a core.
    #[must_use]
    pub fn even(sockets: u16, cores: usize, threads: usize) -> Self {
        let all = usize::from(sockets) * cores;
        let cpu = |id: usize| {
            let core = id % all;
            let socket = (core / cores) as u16;
            let siblings = (0..threads).map(|thread| core + thread * all).collect();
            Cpu { id, node: socket, socket, siblings, online: true }
        };
        let node = |id: u16| {
            let distance = |other: u16| (other, if other == id { LOCAL_DISTANCE } else { 21 });
            Node { id, distances: (0..sockets).map(distance).collect() }
        };
        Self { nodes: (0..sockets).map(node).collect(), cpus: (0..all * threads).map(cpu).collect() }
    }

    /// The CPU of this number.
    #[must_use]
    pub fn cpu(&self, id: usize) -> Option<&Cpu> {
        self.cpus.binary_search_by_key(&id, |cpu| cpu.id).ok().and_then(|at| self.cpus.get(at))
    }

    /// The node of a CPU.
    #[must_use]
    pub fn node_of(&self, cpu: usize) -> Option<NodeId> {
        self.cpu(cpu).map(|cpu| cpu.node)
    }

    /// Whether the kernel schedules on a CPU.
    #[must_use]
    pub fn is_online(&self, cpu: usize) -> bool {
        self.cpu(cpu).is_some_and(|cpu| cpu.online)
    }

    /// The CPUs of a node that are online.
    pub fn online_of(&self, node: NodeId) -> impl Iterator<Item = &Cpu> {
        self.cpus.iter().filter(move |cpu| cpu.node == node && cpu.online)
    }

    /// How far memory on node `to` is from the CPUs of node `from`; 10 is local.
    #[must_use]
    pub fn distance(&self, from: NodeId, to: NodeId) -> u32 {
        let node = self.nodes.iter().find(|node| node.id == from);
        let said = node.and_then(|node| node.distances.iter().find(|(other, _)| *other == to));
        said.map_or(if from == to { LOCAL_DISTANCE } else { REMOTE_DISTANCE }, |&(_, distance)| distance)
    }

    /// The CPUs that a thread with these is confined to: none if it may run on every online CPU of each node that it may run
    /// on at all, as the kernel's scheduler then chooses.
    #[must_use]
    pub fn confined(&self, allowed: &CpuSet) -> CpuSet {
        let touched: BTreeSet<NodeId> = allowed.iter().filter_map(|&cpu| self.node_of(cpu)).collect();
        let is_free = touched.iter().all(|&node| self.online_of(node).all(|cpu| allowed.contains(&cpu.id)));
        if is_free { CpuSet::new() } else { allowed.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_x86() {
        let machine = Topology::even(2, 4, 2);
        assert_eq!(machine.cpus.len(), 16);
        let five = machine.cpu(5).unwrap();
        assert_eq!((five.node, five.socket, &five.siblings), (1, 1, &CpuSet::from([5, 13])));
        assert_eq!(machine.cpu(13).unwrap().siblings, five.siblings);
        assert_eq!(machine.node_of(16), None);
        assert_eq!((machine.distance(0, 0), machine.distance(0, 1), machine.distance(7, 8)), (10, 21, 20));
    }

    #[test]
    fn who_may_run_on_a_whole_node_is_not_confined() {
        let mut machine = Topology::even(2, 2, 1);
        let confined = |machine: &Topology, cpus: &[usize]| {
            machine.confined(&cpus.iter().copied().collect()).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(confined(&machine, &[0, 1]), [] as [usize; 0]);
        assert_eq!(confined(&machine, &[0, 1, 2, 3]), [] as [usize; 0]);
        assert_eq!(confined(&machine, &[1]), [1]);
        assert_eq!(confined(&machine, &[0, 1, 2]), [0, 1, 2]);
        machine.cpus[3].online = false;
        assert_eq!(confined(&machine, &[0, 1, 2]), [] as [usize; 0]);
    }
}
