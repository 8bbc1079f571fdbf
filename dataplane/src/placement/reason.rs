//! Why something is where it is, in words that an operator reads.

use super::scene::Home;
use super::topology::NodeId;

/// What decided between the workers that would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// There was only one.
    Only,
    /// It had the least to do.
    LeastBusy,
    /// Who it talks to most is there: the port of this number.
    Beside(u16),
    /// It was its turn.
    Turn,
    /// The lot.
    Lot,
    /// An operator moved it there.
    Told,
}

/// What had to be given up, because no worker satisfied everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compromise {
    /// Its guest's own vCPU threads are confined to the worker's CPU.
    OwnVcpu,
    /// No worker is where the configuration pins the port.
    Pin,
}

/// Why a unit was given the worker that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Why {
    /// What decided between the workers that would do.
    pub basis: Basis,
    /// How many there were.
    pub of: usize,
    /// Where it belongs.
    pub home: Home,
    /// The worker's node.
    pub node: Option<NodeId>,
    /// The port is pinned by the configuration, and that was obeyed.
    pub pinned: bool,
    /// What had to be given up.
    pub compromise: Option<Compromise>,
}

impl Why {
    /// Whether its memory is on another node than its worker.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!((self.home, self.node), (Home::Memory(home), Some(node)) if home != node)
    }

    /// As an operator reads it; `name` knows what ports are called.
    pub fn shown<'n>(&self, name: impl Fn(u16) -> Option<&'n str>) -> String {
        let mut parts = Vec::new();
        if self.pinned {
            parts.push("pinned by the configuration".to_owned());
        }
        let remote = |home| self.node.is_some_and(|node| node != home);
        parts.push(match self.home {
            Home::Memory(home) if remote(home) => format!("memory on node {home}, which has no worker for it"),
            Home::Memory(home) => format!("memory on node {home}"),
            Home::Nic(home) if remote(home) => format!("NIC on node {home}, which has no worker for it"),
            Home::Nic(home) => format!("NIC on node {home}"),
            Home::Unknown => "memory on a node that is not known".to_owned(),
        });
        parts.push(match (self.basis, self.of) {
            (Basis::Only, _) => "the only worker that would do".to_owned(),
            (Basis::LeastBusy, of) => format!("least busy of {of} workers"),
            (Basis::Beside(port), of) => match name(port) {
                Some(name) => format!("of {of} workers the one of {name}, with which it exchanges most"),
                None => format!("of {of} workers the one of its main correspondent"),
            },
            (Basis::Turn, of) => format!("in turn, of {of} workers"),
            (Basis::Told, _) => "where `ringway move` put it".to_owned(),
            (Basis::Lot, of) => format!("by lot, of {of} workers"),
        });
        parts.extend(self.compromise.map(|compromise| match compromise {
            Compromise::OwnVcpu => {
                "a vCPU of its guest is confined to the same CPU: no other worker is left, add one elsewhere".to_owned()
            }
            Compromise::Pin => "no worker where the configuration pins it may have it: add one there".to_owned(),
        }));
        parts.join("; ")
    }
}

/// Why a unit is to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MoveReason {
    /// Its worker is not open any more: its CPU went offline, was reserved, or the worker is to end.
    WorkerClosed,
    /// A vCPU thread of its guest is confined to its worker's CPU.
    OwnVcpu,
    /// The configuration wants it elsewhere.
    Pin,
    /// Its memory, or its NIC, is on another node.
    Memory,
    /// The load is less uneven then.
    Load,
    /// Fewer frames are handed from worker to worker then.
    HandOff,
}

impl MoveReason {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::WorkerClosed, Self::OwnVcpu, Self::Pin, Self::Memory, Self::Load, Self::HandOff];

    /// Its name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WorkerClosed => "worker_closed",
            Self::OwnVcpu => "own_vcpu",
            Self::Pin => "pin",
            Self::Memory => "memory",
            Self::Load => "load",
            Self::HandOff => "hand_off",
        }
    }

    /// Whether a rule is broken as long as it does not move: then no gain is asked for.
    #[must_use]
    pub fn is_repair(self) -> bool {
        matches!(self, Self::WorkerClosed | Self::OwnVcpu | Self::Pin)
    }
}
