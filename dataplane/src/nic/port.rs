//! A NIC port as the rest of the house sees it: who it is, how it is doing, and what its queues count.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ringway_config::{BondMode, Uplink};

use crate::account::{DropCounters, Service, Traffic};

/// How far a port has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// Nobody has looked for its device yet.
    Starting,
    /// Its device cannot be used; [`Port::last_error`] says why. It is tried again.
    Failed,
    /// Frames go in and out.
    Running,
    /// It was stopped; its device is still there.
    Stopped,
    /// It was removed: its device is somebody else's to use.
    Removed,
}

impl PortState {
    /// Its name in `show`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Failed => "failed",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Removed => "removed",
        }
    }
}

/// What a member of a bond is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It carries frames.
    Active,
    /// It would, if another failed.
    Standby,
    /// Its cable is in; the other end has not agreed to LACP.
    Negotiating,
    /// Its cable is out.
    Down,
    /// Its device cannot be used; it is tried again.
    Failed,
}

impl MemberState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Active, Self::Standby, Self::Negotiating, Self::Down, Self::Failed];

    /// Its name in `show` and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
            Self::Negotiating => "negotiating",
            Self::Down => "down",
            Self::Failed => "failed",
        }
    }
}

/// A member of a bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its device.
    pub device: String,
    /// What it is doing.
    pub state: MemberState,
    /// Why it cannot be used.
    pub last_error: Option<String>,
}

/// Whether the cable is in. Written by the thread of EAL, read by workers.
#[derive(Debug, Default)]
pub struct Link {
    up: AtomicBool,
    mbit_per_second: AtomicU32,
}

impl Link {
    /// Whether frames can be sent.
    #[inline]
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Megabits a second; `None` if the device does not know.
    #[must_use]
    pub fn mbit_per_second(&self) -> Option<u32> {
        Some(self.mbit_per_second.load(Ordering::Relaxed)).filter(|&speed| speed != 0 && speed != u32::MAX)
    }

    /// Says how it is; `u32::MAX` or 0 for a speed that is not known.
    pub fn set(&self, up: bool, mbit_per_second: u32) {
        self.mbit_per_second.store(mbit_per_second, Ordering::Relaxed);
        self.up.store(up, Ordering::Relaxed);
    }
}

/// What a queue counts, beyond the life of its device. Written by the queue's worker only.
#[derive(Debug, Default)]
pub struct QueueCounters {
    /// Frames that came in.
    pub received: Traffic,
    /// Frames that the NIC was given.
    pub transmitted: Traffic,
    /// Frames that came in and that nobody got.
    pub receive_dropped: DropCounters,
    /// Frames for the NIC that it did not get.
    pub transmit_dropped: DropCounters,
    /// What the frames that came in cost.
    pub service: Service,
}

/// A device as it was found and set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The poll-mode driver.
    pub driver: String,
    /// The device's own address.
    pub mac: String,
    /// Its NUMA node, if it has one.
    pub node: Option<u32>,
    /// RX queues in use.
    pub rx_queues: u16,
    /// TX queues in use; workers without one hand off to one that has one.
    pub tx_queues: u16,
    /// Descriptors of an RX queue.
    pub rx_descriptors: u16,
    /// Descriptors of a TX queue.
    pub tx_descriptors: u16,
    /// What frames are spread over RX queues by: `flow_rules`, for the stations of guests, and RSS for the rest; `rss`, `driver`, or
    /// `none` if there is one.
    pub steering: &'static str,
    /// Why the device takes no rules.
    pub flow_rules_refused: Option<String>,
    /// What the NIC does by itself, in DPDK's words.
    pub offloads: Vec<String>,
}

#[derive(Debug)]
struct Status {
    state: PortState,
    last_error: Option<String>,
    info: Option<Info>,
    /// The driver's own counters.
    xstats: Vec<(String, u64)>,
    /// Of a bond.
    members: Vec<Member>,
    /// Rules that the device holds, and why it took no more.
    flow_rules: (usize, Option<String>),
}

/// A NIC port.
#[derive(Debug)]
pub struct Port {
    /// Its number in the data path.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// PCI address, or name and arguments of a virtual device; of a bond those of all members.
    pub devices: Vec<String>,
    /// How they are used, if they are a bond.
    pub bond: Option<BondMode>,
    /// The most bytes that a packet to or from it may have, behind Ethernet header and tags.
    pub mtu: u16,
    /// Whether the cable is in.
    pub link: Arc<Link>,
    counters: Box<[OnceLock<Arc<QueueCounters>>]>,
    status: Mutex<Status>,
}

impl Port {
    /// A port of a device, with a queue for each of so many workers unless `nic` says how many.
    #[must_use]
    pub fn new(id: u16, port: &ringway_config::Port, nic: &ringway_config::Nic, workers: usize) -> Self {
        let status = Status {
            state: PortState::Starting,
            last_error: None,
            info: None,
            xstats: Vec::new(),
            members: Vec::new(),
            flow_rules: (0, None),
        };
        let (devices, bond) = match &nic.uplink {
            Uplink::Device(device) => (vec![device.clone()], None),
            Uplink::Bond(bond) => (bond.members.clone(), Some(bond.mode)),
        };
        Self {
            id,
            name: port.name.clone(),
            devices,
            bond,
            mtu: port.mtu,
            link: Arc::default(),
            counters: (0..nic.queues.map_or(workers, usize::from)).map(|_| OnceLock::new()).collect(),
            status: Mutex::new(status),
        }
    }

    /// Its device, or the first member of its bond.
    #[must_use]
    pub fn device(&self) -> &str {
        self.devices.first().map_or("", String::as_str)
    }

    /// Rules for stations that its device holds, and why it took no more, or none.
    #[must_use]
    pub fn flow_rules(&self) -> (usize, Option<String>) {
        let status = self.status();
        let refused = status.info.as_ref().and_then(|info| info.flow_rules_refused.clone());
        (status.flow_rules.0, refused.or_else(|| status.flow_rules.1.clone()))
    }

    pub(super) fn set_flow_rules(&self, held: usize, refused: Option<String>) {
        self.status().flow_rules = (held, refused);
    }

    /// The members of its bond, while it runs.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.status().members.clone()
    }

    /// Says how the members of its bond are. What is news goes to the log.
    pub(super) fn set_members(&self, members: Vec<Member>) {
        let before = std::mem::replace(&mut self.status().members, members.clone());
        for member in members {
            let same = |other: &&Member| other.device == member.device;
            if before.iter().find(same).is_none_or(|before| before.state != member.state) {
                let (state, error) = (member.state.as_str(), member.last_error.unwrap_or_default());
                tracing::info!("port {}: member {} is {state} {error}", self.name, member.device);
            }
        }
    }

    /// Queues that it is to have, if its device has as many.
    #[must_use]
    pub fn queues_wanted(&self) -> u16 {
        self.counters.len() as u16
    }

    /// The counters of queue `index`, which begin with its first use and never end.
    #[must_use]
    pub fn counters(&self, index: u16) -> Arc<QueueCounters> {
        self.counters
            .get(usize::from(index))
            .map_or_else(Arc::default, |counters| counters.get_or_init(Arc::default).clone())
    }

    /// The queues that were ever in use, and their counters.
    pub fn queues(&self) -> impl Iterator<Item = (u16, &Arc<QueueCounters>)> {
        (0..).zip(&self.counters).filter_map(|(index, counters)| Some((index, counters.get()?)))
    }

    /// Numbers of the queues in use that worker `worker` of `workers` has: they are dealt out in turn.
    pub fn queues_of(&self, worker: u16, workers: usize) -> impl Iterator<Item = u16> {
        let count = self.status().info.as_ref().map_or(0, |info| info.rx_queues.max(info.tx_queues));
        (worker..count).step_by(workers.max(1))
    }

    /// How far it has come.
    #[must_use]
    pub fn state(&self) -> PortState {
        self.status().state
    }

    /// Why it does not run.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.status().last_error.clone()
    }

    /// Its device, while it runs.
    #[must_use]
    pub fn info(&self) -> Option<Info> {
        self.status().info.clone()
    }

    /// The driver's own counters, as of a second ago at most.
    #[must_use]
    pub fn xstats(&self) -> Vec<(String, u64)> {
        self.status().xstats.clone()
    }

    pub(super) fn set_xstats(&self, xstats: Vec<(String, u64)>) {
        self.status().xstats = xstats;
    }

    pub(super) fn set_running(&self, info: Info) {
        let mut status = self.status();
        (status.state, status.info, status.last_error) = (PortState::Running, Some(info), None);
    }

    /// Notes that it does not run; whether that is news.
    pub(super) fn set_down(&self, state: PortState, error: Option<String>) -> bool {
        self.link.set(false, 0);
        let mut status = self.status();
        let is_news = status.state != state || error.is_some() && status.last_error != error;
        (status.state, status.info) = (state, None);
        status.xstats.clear();
        status.members.clear();
        status.flow_rules = (0, None);
        status.last_error = error;
        is_news
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
