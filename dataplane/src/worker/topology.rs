//! Who is where: the ports, their bridges and their running queues, as one immutable table. Control makes a new one for
//! every change and hands it to the workers between their bursts.

use std::sync::Arc;

use ringway_config::Flood;

use super::steering::Steering;
use crate::packet::MacAddress;
use crate::policy::PortRules;

/// A pair or a NIC queue in use: which worker has it, and in which of its slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Number of the worker.
    pub worker: u16,
    /// Slot of that worker.
    pub slot: u16,
}

/// A port as the data path sees it.
#[derive(Clone, Debug)]
pub struct PortView {
    /// Number of its bridge.
    pub bridge: u16,
    /// Its pairs whose guest can receive, by pair number. Of a NIC: the queues that send, those of a worker side by side.
    pub receivers: Vec<Location>,
    /// How its pairs share its flows, if there have ever been several.
    pub steering: Option<Steering>,
    /// It is a NIC.
    pub is_nic: bool,
    /// What it may do.
    pub rules: Arc<PortRules>,
}

impl PortView {
    /// The queues of a NIC that a worker spreads over what it has for the port: its own, or all if it has none.
    #[inline]
    #[must_use]
    pub fn of_worker(&self, worker: u16) -> &[Location] {
        let start = self.receivers.partition_point(|at| at.worker < worker);
        let behind = self.receivers.get(start..).unwrap_or_default();
        match behind.get(..behind.partition_point(|at| at.worker == worker)) {
            Some(own) if !own.is_empty() => own,
            _ => &self.receivers,
        }
    }
}

/// A bridge as the data path sees it.
#[derive(Clone, Debug, Default)]
pub struct BridgeView {
    /// Moves with the bridge's configuration, and ends every verdict made before.
    pub generation: u32,
    /// Numbers of its ports, ascending: a flood that is spread over visits goes on by number.
    pub ports: Vec<u16>,
    /// Some of its ports know VLANs: tags change under way. On any other bridge nobody looks.
    pub has_vlans: bool,
    /// What is flooded.
    pub flood: Flood,
    /// Whether frames to link-local groups go on.
    pub forward_link_local: bool,
    /// Stations that a guard names, and its port; ascending.
    pub held: Vec<(MacAddress, u16)>,
}

/// The table.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// By number.
    pub ports: Vec<PortView>,
    /// By number.
    pub bridges: Vec<BridgeView>,
    /// A queue moves: it is said to be here already, and what is handed over for it waits until it is.
    pub arrival: Option<Location>,
}
