//! Who is where: the ports, their bridges and their running queues, as one immutable table. Control makes a new one for
//! every change and hands it to the workers between their bursts.

/// A pair or a NIC queue in use: which worker has it, and in which of its slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Number of the worker.
    pub worker: u16,
    /// Slot of that worker.
    pub slot: u16,
}

/// A port as the data path sees it.
#[derive(Clone, Debug, Default)]
pub struct PortView {
    /// Number of its bridge.
    pub bridge: u16,
    /// Its pairs whose guest can receive, by pair number. Of a NIC: where each worker sends to, by worker.
    pub receivers: Vec<Location>,
    /// It is a NIC.
    pub is_nic: bool,
}

impl PortView {
    /// Where a worker sends all that it has for the port, if that is not to be chosen by flow.
    #[inline]
    #[must_use]
    pub fn of_worker(&self, worker: u16) -> Option<Location> {
        if self.is_nic { self.receivers.get(usize::from(worker)).copied() } else { None }
    }
}

/// A bridge as the data path sees it.
#[derive(Clone, Debug, Default)]
pub struct BridgeView {
    /// Moves with the bridge's configuration, and ends every verdict made before.
    pub generation: u32,
    /// Numbers of its ports, ascending: a flood that is spread over visits goes on by number.
    pub ports: Vec<u16>,
}

/// The table.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// By number.
    pub ports: Vec<PortView>,
    /// By number.
    pub bridges: Vec<BridgeView>,
}
