//! What the planner looks at: one moment of a switch, as plain values.

use std::fmt;

use super::topology::{CpuSet, NodeId, Topology};

/// What is placed as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Granularity {
    /// All queues of a port.
    Nic,
    /// A queue pair.
    Pair,
    /// Each virtqueue for itself.
    Virtqueue,
}

impl Granularity {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Nic, Self::Pair, Self::Virtqueue];

    /// Its name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nic => "nic",
            Self::Pair => "pair",
            Self::Virtqueue => "virtqueue",
        }
    }
}

/// How a worker is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// By memory, measured busy time, and who talks to whom.
    Measured,
    /// In turn. Memory and load do not count.
    RoundRobin,
    /// By lot. Memory and load do not count.
    Random,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Measured, Self::RoundRobin, Self::Random];

    /// Its name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::RoundRobin => "round-robin",
            Self::Random => "random",
        }
    }
}

/// A virtqueue, seen from the guest as virtio does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ring {
    /// The guest sends by it.
    Transmitq,
    /// The guest receives by it.
    Receiveq,
}

/// What is placed as one, by name. Which of `pair` and `ring` there are, the [`Granularity`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnitId {
    /// Number of the port.
    pub port: u16,
    /// The queue pair, if not all of the port's.
    pub pair: Option<u16>,
    /// The virtqueue, if not both of the pair's.
    pub ring: Option<Ring>,
}

impl UnitId {
    /// The unit that holds this virtqueue.
    #[must_use]
    pub fn of(granularity: Granularity, port: u16, pair: u16, ring: Ring) -> Self {
        match granularity {
            Granularity::Nic => Self { port, pair: None, ring: None },
            Granularity::Pair => Self { port, pair: Some(pair), ring: None },
            Granularity::Virtqueue => Self { port, pair: Some(pair), ring: Some(ring) },
        }
    }

    /// As an operator reads it; `port` is the port's name.
    #[must_use]
    pub fn shown(self, port: &str) -> String {
        match (self.pair, self.ring) {
            (None, _) => port.to_owned(),
            (Some(pair), None) => format!("{port}/{pair}"),
            (Some(pair), Some(Ring::Transmitq)) => format!("{port}/{pair} transmitq"),
            (Some(pair), Some(Ring::Receiveq)) => format!("{port}/{pair} receiveq"),
        }
    }
}

/// Where a port belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// Where most of its guest's memory is.
    Memory(NodeId),
    /// Where the NIC is: its own, or, of a guest of whose memory nothing is known, that of its bridge.
    Nic(NodeId),
    /// Nobody knows.
    #[default]
    Unknown,
}

impl Home {
    /// The node, if it is known.
    #[must_use]
    pub fn node(self) -> Option<NodeId> {
        match self {
            Self::Memory(node) | Self::Nic(node) => Some(node),
            Self::Unknown => None,
        }
    }
}

/// Where an operator wants a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// With workers on these CPUs.
    Cpus(CpuSet),
    /// With workers of this node.
    Node(NodeId),
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpus(cpus) => {
                f.write_str("CPU")?;
                cpus.iter().try_for_each(|cpu| write!(f, " {cpu}"))
            }
            Self::Node(node) => write!(f, "node {node}"),
        }
    }
}

/// A worker as the planner knows it; its number is its place in [`Scene::workers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The CPU that it is pinned to.
    pub cpu: usize,
    /// It may be given queues. A worker that rests, or is to end, may not.
    pub open: bool,
}

/// A port, and what is known of who is behind it.
#[derive(Clone, Debug, Default)]
pub struct PortFacts {
    /// Its number.
    pub number: u16,
    /// Where it belongs.
    pub home: Home,
    /// CPUs that vCPU threads of its guest are confined to.
    pub vcpus: CpuSet,
    /// Where an operator wants it.
    pub pin: Option<Pin>,
    /// It is a NIC: each worker has a queue of it, and none moves.
    pub is_nic: bool,
}

/// A virtqueue, or one direction of a NIC's queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Queue {
    /// Its port, as a place in [`Scene::ports`].
    pub port: usize,
    /// Its pair.
    pub pair: u16,
    /// Which of the two.
    pub ring: Ring,
    /// Share of a CPU's time that its worker spends on it, 0 to 1; `None` if that was not measured yet.
    pub busy: Option<f64>,
    /// Its worker, if it has one.
    pub worker: Option<u16>,
}

/// What goes from one port to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// Whence, as a place in [`Scene::ports`].
    pub from: usize,
    /// Whither, likewise.
    pub to: usize,
    /// Frames a second.
    pub frames: f64,
    /// Their bytes a second.
    pub bytes: f64,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// The machine.
    pub topology: Topology,
    /// CPUs that are not to be touched.
    pub reserved: CpuSet,
    /// Workers by number.
    pub workers: Vec<Seat>,
    /// Ports that have queues.
    pub ports: Vec<PortFacts>,
    /// Their queues.
    pub queues: Vec<Queue>,
    /// Who talks to whom.
    pub traffic: Vec<Traffic>,
}

impl Scene {
    /// The node of a worker.
    #[must_use]
    pub fn node_of(&self, worker: usize) -> Option<NodeId> {
        self.topology.node_of(self.workers.get(worker)?.cpu)
    }

    /// The unit of a virtqueue. A NIC's queues are each for themselves, whatever the granularity.
    #[must_use]
    pub fn unit_of(&self, granularity: Granularity, queue: &Queue) -> UnitId {
        let port = self.ports.get(queue.port);
        let granularity = if port.is_some_and(|port| port.is_nic) { Granularity::Pair } else { granularity };
        UnitId::of(granularity, port.map_or(u16::MAX, |port| port.number), queue.pair, queue.ring)
    }

    /// Whether a port may have queues on a worker, as far as rules go.
    #[must_use]
    pub fn may_have(&self, port: usize, worker: u16) -> bool {
        super::choose::candidates(self, port).is_some_and(|fit| fit.workers.contains(&usize::from(worker)))
    }

    /// Whether a worker may be given queues now: it is open, and its CPU online and not reserved.
    #[must_use]
    pub fn is_open(&self, worker: usize) -> bool {
        self.workers
            .get(worker)
            .is_some_and(|seat| seat.open && self.topology.is_online(seat.cpu) && !self.reserved.contains(&seat.cpu))
    }
}
