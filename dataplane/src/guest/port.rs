//! A guest NIC as the rest of the house sees it: who it is, how it is doing, and what its pairs count.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use ringway_config::{Mode, VhostUser};

use super::features::Features;
use super::memory::GuestMemory;
use super::notifier::{Eventfd, Offence};
use super::pair::{Notifier, PairCounters, PairId, QueuePair};
use super::ring::{Direction, RingFault};
use super::spare::SparePair;

/// Queue pairs that a port offers: what GET_QUEUE_NUM answers. A QEMU that asks for more never boots.
pub const QUEUE_PAIRS_MAX: u16 = 128;

/// How long a port is shut whose front end held a worker up.
const SHUT: Duration = Duration::from_secs(10);

/// How long a port waits after a connection that ended in an error: twice this, and twice as long after each more in a row,
/// up to so many.
const REFUSED: Duration = Duration::from_millis(5);
const REFUSED_MAX: u32 = 6;

/// How far a port has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PortState {
    /// No front end is there.
    Connecting,
    /// A front end is there; its driver is not ready.
    Connected,
    /// At least one ring runs.
    Running,
}

impl PortState {
    /// Its name in `show`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Running => "running",
        }
    }
}

/// What a running pair looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairInfo {
    /// Packed or split rings.
    pub packed: bool,
    /// Descriptors of the receiveq, 0 if it does not run.
    pub receiveq_size: u16,
    /// Descriptors of the transmitq, 0 if it does not run.
    pub transmitq_size: u16,
}

/// Who takes pairs into use: the switch, which hands each to a worker. A pair moves only through here.
pub trait PairHost: Send + Sync {
    /// Hands `pair` to a worker, and tells all workers that it is there; `false` if no worker has room, which for one that is
    /// disabled comes early.
    fn attach(&self, pair: QueuePair) -> bool;
    /// Takes the pair back, quiescent: no worker touches it or its memory any more.
    fn detach(&self, id: PairId) -> Option<QueuePair>;
    /// Has the pair's worker use another eventfd for one of its rings. When this returns, the one before is not used any more.
    fn set_notifier(&self, id: PairId, ring: Direction, notifier: Notifier, fd: Option<Eventfd>);
    /// The port's guest is gone: what was learnt of it goes, too.
    fn forget(&self, port: u16);
}

/// A guest NIC.
#[derive(Debug)]
pub struct Port {
    /// Its number in the data path.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// The vhost-user socket.
    pub socket: PathBuf,
    /// What it offers to a front end.
    pub offered: Features,
    /// Which end of the socket we are.
    pub mode: Mode,
    /// The most bytes that a packet to or from it may have, behind Ethernet header and tags.
    pub mtu: u16,
    /// Whether its front end held a worker up.
    pub(super) offence: Arc<Offence>,
    /// Connections in a row that ended in an error.
    refused: AtomicU32,
    state: AtomicU8,
    connects: AtomicU64,
    negotiated: AtomicU64,
    last_error: Mutex<Option<String>>,
    counters: Box<[OnceLock<Arc<PairCounters>>]>,
    running: Mutex<Vec<(u16, PairInfo)>>,
    pairs: AtomicU16,
    spare: Mutex<Vec<SparePair>>,
    link: Mutex<Link>,
}

/// What is to be known of a connection to end it.
#[derive(Debug, Default)]
struct Link {
    stream: Weak<UnixStream>,
    memory: Weak<GuestMemory>,
}

impl Port {
    /// The port that `port` and `vhost` describe, to which nobody is connected.
    #[must_use]
    pub fn new(id: u16, port: &ringway_config::Port, vhost: &VhostUser) -> Self {
        Self {
            id,
            name: port.name.clone(),
            socket: vhost.socket.clone(),
            offered: Features::offered(&vhost.mask_features),
            mode: vhost.mode,
            mtu: port.mtu,
            offence: Arc::default(),
            refused: AtomicU32::new(0),
            state: AtomicU8::new(PortState::Connecting as u8),
            connects: AtomicU64::new(0),
            negotiated: AtomicU64::new(0),
            last_error: Mutex::new(None),
            counters: (0..QUEUE_PAIRS_MAX).map(|_| OnceLock::new()).collect(),
            running: Mutex::new(Vec::new()),
            pairs: AtomicU16::new(0),
            spare: Mutex::default(),
            link: Mutex::default(),
        }
    }

    /// The counters of pair `index`, which begin with its first use and never end.
    ///
    /// # Panics
    /// If `index` is not below [`QUEUE_PAIRS_MAX`].
    #[must_use]
    pub fn counters(&self, index: u16) -> Arc<PairCounters> {
        self.counters[usize::from(index)].get_or_init(Arc::default).clone()
    }

    /// The rule that the guest broke in pair `index`, which need never have been in use: this does not begin its counters.
    pub(super) fn fault(&self, index: u16) -> Option<RingFault> {
        self.counters.get(usize::from(index))?.get()?.fault()
    }

    /// The pairs that were ever in use, and their counters.
    pub fn pairs(&self) -> impl Iterator<Item = (u16, &Arc<PairCounters>)> {
        (0..).zip(&self.counters).filter_map(|(index, counters)| Some((index, counters.get()?)))
    }

    /// How far it has come.
    #[must_use]
    pub fn state(&self) -> PortState {
        match self.state.load(Ordering::Relaxed) {
            0 => PortState::Connecting,
            1 => PortState::Connected,
            _ => PortState::Running,
        }
    }

    /// Times that a front end was connected to.
    #[must_use]
    pub fn connects(&self) -> u64 {
        self.connects.load(Ordering::Relaxed)
    }

    /// What the guest's driver took of what was offered, while a front end is there.
    #[must_use]
    pub fn negotiated(&self) -> Features {
        Features::from_bits_retain(self.negotiated.load(Ordering::Relaxed))
    }

    /// Why the front end was lost the last time, if it was not simply gone; or why a ring of this one does not run.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The pairs that run.
    #[must_use]
    pub fn running(&self) -> Vec<(u16, PairInfo)> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Pairs that the front end offers to the guest: as many as it has spoken of.
    #[must_use]
    pub fn pairs_offered(&self) -> u16 {
        self.pairs.load(Ordering::Relaxed)
    }

    /// Pairs that are set up and that the guest does not use, and what lies idle with them.
    #[must_use]
    pub fn spare(&self) -> Vec<SparePair> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_pairs_offered(&self, pairs: usize) {
        self.pairs.store(pairs as u16, Ordering::Relaxed);
    }

    /// Notes that pair `index` is spare, or not.
    pub(super) fn set_spare(&self, index: u16, pair: Option<SparePair>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        spare.retain(|other| other.index != index);
        spare.extend(pair);
        spare.sort_by_key(|pair| pair.index);
    }

    /// After a connection: waits as long as the next one has to. A port whose front end held a worker up is shut a while; one
    /// whose front end is refused again and again is served ever more seldom.
    pub(super) fn recover(&self) {
        if self.offence.take() {
            return thread::sleep(SHUT);
        }
        let refused = self.refused.load(Ordering::Relaxed);
        if refused > 0 {
            thread::sleep(REFUSED * (1 << refused.min(REFUSED_MAX)));
        }
    }

    /// Notes how a connection ended.
    pub(super) fn set_refused(&self, refused: bool) {
        let count = if refused { self.refused.load(Ordering::Relaxed).saturating_add(1) } else { 0 };
        self.refused.store(count, Ordering::Relaxed);
    }

    /// Ends the connection if the front end held a worker up, or if memory that it shares was found not to be there; the data
    /// path reads zeros until then. For housekeeping. The connection says itself why it ends.
    pub fn end_if_unbearable(&self) {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let is_lost = link.memory.upgrade().is_some_and(|memory| memory.lost().is_some());
        if (is_lost || self.offence.is_committed())
            && let Some(stream) = link.stream.upgrade()
        {
            // An error means that it has ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// The connection that it has, and the memory that was shared by it.
    #[must_use]
    pub fn connection(&self) -> Option<(Option<Arc<UnixStream>>, Arc<GuestMemory>)> {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        Some((link.stream.upgrade(), link.memory.upgrade()?))
    }

    /// The connection that is to end when memory is lost.
    pub(super) fn set_stream(&self, stream: &Arc<UnixStream>) {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).stream = Arc::downgrade(stream);
    }

    /// The memory that is not to be lost.
    pub(super) fn set_memory(&self, memory: &Arc<GuestMemory>) {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).memory = Arc::downgrade(memory);
    }

    /// The guest has set the rings of pair `index` up anew: what it broke before is forgotten.
    pub(super) fn forgive(&self, index: u16) {
        if let Some(counters) = self.counters.get(usize::from(index)).and_then(OnceLock::get) {
            counters.set_fault(None);
        }
    }

    pub(super) fn set_connected(&self, connected: bool) {
        let state = if connected { PortState::Connected } else { PortState::Connecting };
        self.state.store(state as u8, Ordering::Relaxed);
        if connected {
            self.connects.fetch_add(1, Ordering::Relaxed);
        } else {
            self.set_negotiated(Features::empty());
        }
    }

    pub(super) fn set_negotiated(&self, features: Features) {
        self.negotiated.store(features.bits(), Ordering::Relaxed);
    }

    pub(super) fn set_last_error(&self, error: Option<String>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Notes that pair `index` runs as `info` says, or not at all.
    pub(super) fn set_running(&self, index: u16, info: Option<PairInfo>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|&(other, _)| other != index);
        running.extend(info.map(|info| (index, info)));
        running.sort_by_key(|&(index, _)| index);
        if self.state() != PortState::Connecting {
            let state = if running.is_empty() { PortState::Connected } else { PortState::Running };
            self.state.store(state as u8, Ordering::Relaxed);
        }
    }
}
