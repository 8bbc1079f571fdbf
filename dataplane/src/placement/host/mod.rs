//! What is true of this host: its CPUs and nodes (`machine`), the CPUs that a front end's vCPUs are confined to (`peer`), the
//! node that holds a guest's memory (`memory`). The only part of the planner that reads anything, and it changes nothing.
//!
//! What cannot be read is not known, and no error: without it the planner still places, by what is left.

mod calls;
mod machine;
mod memory;
mod peer;

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

pub use memory::Span;

use super::scene::Home;
use super::topology::{CpuSet, NodeId, Topology};

/// Where to read.
#[derive(Clone, Debug)]
pub struct Host {
    /// Usually `/sys`.
    pub sysfs: PathBuf,
    /// Usually `/proc`.
    pub proc: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self { sysfs: "/sys".into(), proc: "/proc".into() }
    }
}

impl Host {
    /// CPUs and nodes as they are now. Where the kernel shows none, one node of the CPUs in `allowed`.
    #[must_use]
    pub fn topology(&self, allowed: &[usize]) -> Topology {
        machine::read(&self.sysfs, allowed)
    }

    /// The CPUs that vCPU threads of QEMU's process `pid` are confined to, see [`Topology::confined`].
    #[must_use]
    pub fn vcpus(&self, pid: i32, machine: &Topology) -> CpuSet {
        peer::vcpus(&self.proc, pid, machine)
    }

    /// How much memory of these spans is on which node, in any unit. `front_end` is the process that shared them and where they
    /// lie in it; `ours` are the same spans in this process, of which the kernel knows only what was touched here.
    #[must_use]
    pub fn memory(&self, front_end: Option<(i32, &[Span])>, ours: &[Span]) -> BTreeMap<NodeId, u64> {
        memory::by_node(&self.proc, front_end, ours)
    }
}

/// The process that made the other end of a connection, or listened there; `None` if that is of another PID namespace.
///
/// A QEMU whose sockets libvirtd made for it is not found so: then nothing is known of its vCPUs, and its memory is seen by our
/// mappings only.
#[must_use]
pub fn peer_pid(stream: &UnixStream) -> Option<i32> {
    calls::peer_pid(stream).ok().filter(|&pid| pid > 0)
}

/// The node with most of the memory; of equal ones the first.
#[must_use]
pub fn home_of(memory: &BTreeMap<NodeId, u64>) -> Home {
    let most = memory
        .iter()
        .filter(|(_, amount)| **amount > 0)
        .max_by_key(|&(node, amount)| (amount, std::cmp::Reverse(node)));
    most.map_or(Home::Unknown, |(&node, _)| Home::Memory(node))
}
