//! The validated plan: what the dataplane builds.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::policy::{BridgePolicy, PortPolicy};
use crate::workers::FLOW_TABLE_ENTRIES_DEFAULT;

/// A whole switch, as validated. It may be empty: a switch without bridges or ports runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where `ringway show` reaches the switch: an absolute path of at most 107 bytes. Its directory is not checked.
    pub control_socket: PathBuf,
    /// Where metrics are served, or `None` if the operator wrote `"off"`. Port 0 lets the kernel choose.
    pub metrics: Option<SocketAddr>,
    /// Stations that all bridges together remember: 1 to 1,048,576.
    pub macs_max: u32,
    /// DPDK is to be started although no port may need it.
    pub nic_allowed: bool,
    /// MiB that DPDK starts with, 64 to 65,536; what the ports need, as far as can be told before, if not said.
    pub nic_memory_mib: Option<usize>,
    /// The poll-mode workers.
    pub workers: Workers,
    /// The bridges in the order written; their names differ.
    pub bridges: Vec<Bridge>,
    /// The ports in the order written; their names, their sockets and their devices differ.
    pub ports: Vec<Port>,
}

/// The poll-mode workers, one a CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workers {
    /// The CPUs to run on, in the order written, at least one, none twice, each 0 to 1023 (whether the machine has
    /// them is not checked); `None` stands for all that the process may use.
    pub cpus: Option<Vec<usize>>,
    /// On how many of them.
    pub count: Count,
    /// CPUs that no worker may have, each 0 to 1023.
    pub reserved_cpus: Vec<usize>,
    /// What is placed as one.
    pub unit: Unit,
    /// How a worker is chosen for it.
    pub policy: Choice,
    /// What they do when nothing moves.
    pub idle: Idle,
    /// Flows that each worker's table holds: 1,024 to 67,108,864.
    pub flow_table_entries: usize,
}

/// How many workers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// One on each of the CPUs that are listed; without a list one for each NUMA node.
    Default,
    /// So many for each NUMA node, 1 to 1024; as many as it has CPUs at most.
    PerSocket(u16),
    /// As many as are needed, one for each NUMA node at first, up to this many, 1 to 1024, if it is said.
    Auto {
        /// The most.
        max: Option<u16>,
    },
}

/// What of a guest goes to one worker together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Unit {
    /// All queue pairs of a NIC.
    #[default]
    Nic,
    /// Each queue pair by itself.
    Pair,
}

impl Unit {
    /// Every unit.
    pub const ALL: [Self; 2] = [Self::Nic, Self::Pair];

    /// The name written in the file.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Nic => "nic",
            Self::Pair => "pair",
        }
    }
}

/// How a worker is chosen for a guest's queue pairs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Choice {
    /// By the node of its memory, by measured busy time, by who talks to whom; and moved when it is worth it.
    #[default]
    Measured,
    /// In turn.
    RoundRobin,
    /// By lot.
    Random,
}

impl Choice {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Measured, Self::RoundRobin, Self::Random];

    /// The name written in the file.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::RoundRobin => "round-robin",
            Self::Random => "random",
        }
    }
}

/// Where the workers of a port are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// On these CPUs, at least one, none twice, each 0 to 1023.
    Cpus(Vec<usize>),
    /// On this NUMA node, 0 to 1023.
    Node(u16),
}

/// What a worker does when nothing moves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Idle {
    /// It waits to be woken.
    #[default]
    Sleep,
    /// It looks, for ever.
    Poll,
}

impl Idle {
    /// Every way.
    pub const ALL: [Self; 2] = [Self::Sleep, Self::Poll];

    /// The name written in the file.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Sleep => "sleep",
            Self::Poll => "poll",
        }
    }
}

impl Default for Workers {
    fn default() -> Self {
        let (unit, idle) = (Unit::default(), Idle::default());
        let (policy, flow_table_entries) = (Choice::default(), FLOW_TABLE_ENTRIES_DEFAULT);
        Self { cpus: None, count: Count::Default, reserved_cpus: Vec::new(), unit, policy, idle, flow_table_entries }
    }
}

/// A learning bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// 1 to 32 ASCII letters, digits, `-`, `_` or `.`; no two bridges share it.
    pub name: String,
    /// How long a MAC address is remembered after its last frame: 1 to 86,400 s.
    pub mac_ageing: Duration,
    /// What else it does.
    pub policy: BridgePolicy,
}

/// A port of one bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// 1 to 32 ASCII letters, digits, `-`, `_` or `.`; no two ports share it.
    pub name: String,
    /// The index of its bridge in [`Plan::bridges`].
    pub bridge: usize,
    /// The most bytes that a packet to or from it may have, behind Ethernet header and tags: 68 to 9000.
    pub mtu: u16,
    /// Where its workers are to be, if that is said.
    pub pin: Option<Pin>,
    /// What is behind the port.
    pub kind: PortKind,
    /// What it may do.
    pub policy: PortPolicy,
}

/// What is behind a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortKind {
    /// A guest, through a vhost-user socket.
    VhostUser(VhostUser),
    /// A NIC, through DPDK.
    Nic(Nic),
}

/// A NIC, or several as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// What frames come and go by.
    pub uplink: Uplink,
    /// RX and TX queues, 1 to 16, dealt out to the workers in turn; as many as there are workers if not said.
    pub queues: Option<u16>,
}

/// What frames of a NIC port come and go by. A device is a PCI address such as `0000:03:00.0`, or the name of a virtual device
/// of DPDK, which begins with `net_`, and its arguments; at most 512 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uplink {
    /// A device that DPDK has a driver for.
    Device(String),
    /// Several, used as one.
    Bond(Bond),
}

/// Several devices used as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bond {
    /// How.
    pub mode: BondMode,
    /// Their devices, 1 to 8, none a bond itself. Of an active-backup bond the first is preferred at the start.
    pub members: Vec<String>,
}

/// How the members of a bond are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BondMode {
    /// One carries all frames; another takes its place when it fails. The switch at the other end need not know.
    ActiveBackup,
    /// IEEE 802.1AX: all whose other end agrees carry frames, spread over them by flow.
    Lacp,
}

impl BondMode {
    /// Every mode.
    pub const ALL: [Self; 2] = [Self::ActiveBackup, Self::Lacp];

    /// The name written in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ActiveBackup => "active-backup",
            Self::Lacp => "lacp",
        }
    }
}

/// A guest behind a vhost-user socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VhostUser {
    /// An absolute path of at most 107 bytes, whose directory existed when the plan was made.
    pub socket: PathBuf,
    /// Which end of the socket the switch is.
    pub mode: Mode,
    /// Features the guest is not offered, in the order written, none twice.
    pub mask_features: Vec<Feature>,
}

/// Which end of the vhost-user socket the switch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The switch connects, and keeps trying; the front end (QEMU, virtio-user) listens.
    Client,
    /// The switch listens; the front end connects.
    Server,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 2] = [Self::Client, Self::Server];

    /// The name written in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// A virtio feature that an operator may withhold from a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Feature {
    /// `VIRTIO_F_RING_PACKED`; without it the rings are split.
    Packed,
    /// `VIRTIO_NET_F_MRG_RXBUF`
    MrgRxbuf,
    /// `VIRTIO_F_INDIRECT_DESC`
    IndirectDesc,
    /// `VIRTIO_RING_F_EVENT_IDX`
    EventIdx,
    /// `VIRTIO_F_IN_ORDER`
    InOrder,
    /// `VIRTIO_NET_F_MQ`
    Mq,
    /// `VIRTIO_NET_F_CTRL_VQ`
    CtrlVq,
    /// `VIRTIO_NET_F_GUEST_ANNOUNCE`
    GuestAnnounce,
    /// `VIRTIO_NET_F_CSUM`, and with it all of the guest's `HOST_` features
    Csum,
    /// `VIRTIO_NET_F_GUEST_CSUM`, and with it all other `GUEST_` offloads
    GuestCsum,
    /// `VIRTIO_NET_F_HOST_TSO4`
    HostTso4,
    /// `VIRTIO_NET_F_HOST_TSO6`
    HostTso6,
    /// `VIRTIO_NET_F_HOST_ECN`; goes with the last of `HOST_TSO4` and `HOST_TSO6`
    HostEcn,
    /// `VIRTIO_NET_F_HOST_USO`
    HostUso,
    /// `VIRTIO_NET_F_GUEST_TSO4`
    GuestTso4,
    /// `VIRTIO_NET_F_GUEST_TSO6`
    GuestTso6,
    /// `VIRTIO_NET_F_GUEST_ECN`; goes with the last of `GUEST_TSO4` and `GUEST_TSO6`
    GuestEcn,
    /// `VIRTIO_NET_F_GUEST_USO4`
    GuestUso4,
    /// `VIRTIO_NET_F_GUEST_USO6`
    GuestUso6,
}

impl Feature {
    /// Every feature that may be masked.
    pub const ALL: [Self; 19] = [
        Self::Packed,
        Self::MrgRxbuf,
        Self::IndirectDesc,
        Self::EventIdx,
        Self::InOrder,
        Self::Mq,
        Self::CtrlVq,
        Self::GuestAnnounce,
        Self::Csum,
        Self::GuestCsum,
        Self::HostTso4,
        Self::HostTso6,
        Self::HostEcn,
        Self::HostUso,
        Self::GuestTso4,
        Self::GuestTso6,
        Self::GuestEcn,
        Self::GuestUso4,
        Self::GuestUso6,
    ];

    /// The name written in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Packed => "packed",
            Self::MrgRxbuf => "mrg_rxbuf",
            Self::IndirectDesc => "indirect_desc",
            Self::EventIdx => "event_idx",
            Self::InOrder => "in_order",
            Self::Mq => "mq",
            Self::CtrlVq => "ctrl_vq",
            Self::GuestAnnounce => "guest_announce",
            Self::Csum => "csum",
            Self::GuestCsum => "guest_csum",
            Self::HostTso4 => "host_tso4",
            Self::HostTso6 => "host_tso6",
            Self::HostEcn => "host_ecn",
            Self::HostUso => "host_uso",
            Self::GuestTso4 => "guest_tso4",
            Self::GuestTso6 => "guest_tso6",
            Self::GuestEcn => "guest_ecn",
            Self::GuestUso4 => "guest_uso4",
            Self::GuestUso6 => "guest_uso6",
        }
    }
}
