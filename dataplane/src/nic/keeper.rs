//! Keeps NIC ports as they are wanted: the thread of EAL. Devices that fail or vanish are tried again, links and statistics are
//! looked at, and whoever wants a port started, stopped, removed or added asks here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use super::device::Device;
use super::eal::Eal;
use super::mempool::{PoolUse, Pools};
use super::port::{Port, PortState};
use super::queue::Queue;
use super::steering::Target;

/// Between two looks at links.
const LOOK: Duration = Duration::from_millis(100);

/// Between two looks at statistics, and two attempts at a device.
const SLOW: Duration = Duration::from_secs(1);

/// MiB for the mbufs of a port, without huge pages: for each queue of each device, and for frames of each KiB of MTU, generously.
/// What is never used takes no memory.
const MIB_PER_QUEUE_AND_KIB: usize = 6;

/// Who takes queues into use: the switch, which hands each to its worker.
pub trait Host: Send + Sync {
    /// Hands the queues of a port to their workers, and tells all workers where to send for it.
    ///
    /// # Errors
    /// When a worker cannot take its queue; then no worker has any.
    fn attach(&self, port: u16, queues: Vec<Queue>) -> Result<(), String>;
    /// Takes all queues of a port back: no worker touches them any more, or sends for it. What was learnt behind it is forgotten.
    fn detach(&self, port: u16);
    /// The stations of guests that frames by this port may be for, each with the worker that has all the rings of its guest.
    fn targets(&self, port: u16) -> Vec<Target>;
    /// Takes all queues of a port back for as long as `change` takes, and hands out those that it gives. Nothing is forgotten.
    ///
    /// # Errors
    /// As [`Host::attach`].
    fn change(&self, port: u16, change: &mut dyn FnMut() -> Vec<Queue>) -> Result<(), String>;
}

/// What an operator can do with a port. Done twice, each is as if done once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Frames go in and out.
    Start,
    /// None do; the device stays as it is set up.
    Stop,
    /// None do, and the device is given back, for others to use.
    Remove,
    /// A removed one is put into use again.
    Add,
}

/// Why an [`Action`] was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// DPDK did not start.
    #[error("DPDK does not run: {0}")]
    NoEal(String),
    /// There is nobody to do it yet, or any more.
    #[error("the switch is starting or ending; try again")]
    Busy,
    /// A removed port can only be added.
    #[error("port {0} is removed; add it first: ringway port add {0}")]
    Removed(String),
}

/// What a port is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Running,
    Stopped,
    Removed,
}

/// Asks the thread of EAL.
#[derive(Debug)]
enum Order {
    Do { port: u16, action: Action, done: Sender<Result<bool, NotDone>> },
    End,
}

/// The way to ask the thread of EAL, also while it ends.
#[derive(Clone, Debug)]
pub struct Orders(Sender<Order>);

impl Orders {
    /// Does something with a port; whether it was not so already. Whether its device can be had is to be seen at the port.
    ///
    /// # Errors
    /// Why it was not done.
    pub fn act(&self, port: u16, action: Action) -> Result<bool, NotDone> {
        let (done, is_done) = bounded(1);
        let _ = self.0.send(Order::Do { port, action, done });
        is_done.recv().unwrap_or(Err(NotDone::Busy))
    }
}

/// The thread of EAL, as control holds it. When dropped, all ports are closed and EAL ends.
#[derive(Debug)]
pub struct Keeper {
    orders: Orders,
    pools: Arc<Mutex<Vec<PoolUse>>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts EAL, beside workers on these CPUs and with `mib` MiB, unless it is to be what the ports need, and keeps `ports` for
    /// `host`. It returns when each of them has been tried.
    ///
    /// # Errors
    /// When there is no thread to be had. Whatever else fails is told by the ports.
    pub fn start(
        ports: Vec<Arc<Port>>,
        host: Arc<dyn Host>,
        cpus: Vec<usize>,
        mib: Option<usize>,
    ) -> std::io::Result<Self> {
        let ((orders, receiver), (tried, all_tried)) = (unbounded(), bounded(1));
        let pools: Arc<Mutex<Vec<PoolUse>>> = Arc::default();
        let uses = pools.clone();
        let thread = std::thread::Builder::new().name("nic".to_owned()).spawn(move || {
            let mib = mib.unwrap_or_else(|| mib_of(&ports, cpus.len()));
            match Eal::start(control_cpu(&cpus), mib) {
                Ok(eal) => {
                    let pools = Pools::new(ports.len());
                    let slots = ports.into_iter().map(Slot::new).collect();
                    let mut keeping = Keeping { eal, pools, uses, slots, host, workers: cpus.len() as u16 };
                    keeping.look(Instant::now());
                    let _ = tried.send(());
                    keeping.run(&receiver);
                }
                Err(error) => {
                    tracing::error!("{error}");
                    for port in &ports {
                        port.set_down(PortState::Failed, Some(error.clone()));
                    }
                    let _ = tried.send(());
                    refuse_all(&receiver, &error);
                }
            }
        })?;
        let _ = all_tried.recv();
        Ok(Self { orders: Orders(orders), pools, thread: Some(thread) })
    }

    /// The way to ask for something.
    #[must_use]
    pub fn orders(&self) -> Orders {
        self.orders.clone()
    }

    /// How much of each mempool is in use, as of a second ago at most.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolUse> {
        lock(&self.pools).clone()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.orders.0.send(Order::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Slot {
    port: Arc<Port>,
    wanted: Wanted,
    device: Option<Device>,
    /// The device runs, and workers have its queues.
    is_running: bool,
    retry_at: Instant,
}

impl Slot {
    fn new(port: Arc<Port>) -> Self {
        Self { port, wanted: Wanted::Running, device: None, is_running: false, retry_at: Instant::now() }
    }
}

struct Keeping {
    eal: Eal,
    pools: Pools,
    uses: Arc<Mutex<Vec<PoolUse>>>,
    slots: Vec<Slot>,
    host: Arc<dyn Host>,
    workers: u16,
}

impl Keeping {
    fn run(mut self, orders: &Receiver<Order>) {
        let mut slow_at = Instant::now();
        let mut look_at = Instant::now() + LOOK;
        loop {
            match orders.recv_deadline(look_at) {
                Ok(Order::Do { port, action, done }) => {
                    let _ = done.send(self.act(port, action));
                    self.look_at_statistics();
                }
                Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let now = Instant::now();
                    self.look(now);
                    if now >= slow_at {
                        slow_at = now + SLOW;
                        self.steer();
                        self.look_at_statistics();
                    }
                    look_at = Instant::now() + LOOK;
                }
            }
        }
        for index in 0..self.slots.len() {
            self.close(index, PortState::Stopped, None);
        }
    }

    fn act(&mut self, port: u16, action: Action) -> Result<bool, NotDone> {
        let Some(index) = self.slots.iter().position(|slot| slot.port.id == port) else { return Ok(false) };
        let slot = &mut self.slots[index];
        let wanted = match (action, slot.wanted) {
            (Action::Start | Action::Stop, Wanted::Removed) => {
                return Err(NotDone::Removed(slot.port.name.clone()));
            }
            (Action::Start, _) | (Action::Add, Wanted::Removed) => Wanted::Running,
            (Action::Stop, _) => Wanted::Stopped,
            (Action::Remove, _) => Wanted::Removed,
            (Action::Add, already) => already,
        };
        let is_new = std::mem::replace(&mut slot.wanted, wanted) != wanted;
        match wanted {
            Wanted::Running => self.open(index, Instant::now()),
            Wanted::Stopped if is_new => self.stop(index),
            Wanted::Removed if is_new => self.close(index, PortState::Removed, None),
            Wanted::Stopped | Wanted::Removed => {}
        }
        if is_new {
            let slot = &self.slots[index];
            tracing::info!("port {} is {}", slot.port.name, slot.port.state().as_str());
        }
        Ok(is_new)
    }

    /// Links, devices that are gone, bonds that are to be changed, and devices that are to be tried again.
    fn look(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            match &slot.device {
                Some(device) if let Some(reason) = device.gone() => {
                    let state = if slot.wanted == Wanted::Running { PortState::Failed } else { PortState::Stopped };
                    self.close(index, state, Some(reason));
                }
                Some(_) if slot.is_running => self.look_at_device(index, now),
                Some(_) => {}
                None if slot.wanted == Wanted::Running && now >= slot.retry_at => self.open(index, now),
                None => {}
            }
        }
    }

    fn look_at_device(&mut self, index: usize, now: Instant) {
        let Self { eal, slots, host, .. } = self;
        let Slot { port, device: Some(device), .. } = &mut slots[index] else { return };
        let changes = device.changes(now, eal);
        if !changes.is_empty() {
            let mut changes = Some(changes);
            let changed = host.change(port.id, &mut || {
                if let Some(changes) = changes.take() {
                    device.change(changes, eal);
                }
                device.queues(port)
            });
            if let Err(error) = changed {
                self.close(index, PortState::Failed, Some(error));
                return;
            }
        }
        device.look_at_link(port);
    }

    /// Frames go where the rings that they are for are now.
    fn steer(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| slot.is_running) {
            if let Some(device) = slot.device.as_mut().filter(|device| device.steers()) {
                device.steer(&self.host.targets(slot.port.id), &slot.port);
            }
        }
    }

    fn look_at_statistics(&self) {
        for slot in &self.slots {
            if let Some(device) = &slot.device {
                slot.port.set_xstats(device.xstats());
            }
        }
        *lock(&self.uses) = self.pools.uses();
    }

    /// Puts a port into use, if it is not.
    fn open(&mut self, index: usize, now: Instant) {
        let Self { eal, pools, slots, host, workers, .. } = self;
        let (slot, workers) = (&mut slots[index], *workers);
        if slot.is_running {
            return;
        }
        let port = &slot.port;
        let opened = match slot.device.take() {
            None => Device::open(port, eal, pools, workers),
            Some(mut device) => match device.start(workers) {
                Ok(()) => Ok(device),
                Err(error) => {
                    device.close(pools);
                    Err(eal.explain(&error))
                }
            },
        };
        let opened = opened.and_then(|device| {
            device.look_at_link(port);
            match host.attach(port.id, device.queues(port)) {
                Ok(()) => Ok(device),
                Err(error) => {
                    device.close(pools);
                    Err(error)
                }
            }
        });
        match opened {
            Ok(device) => {
                let info = device.info();
                tracing::info!(
                    "port {}: {} ({}), {} RX and {} TX queues",
                    port.name,
                    port.devices.join(" "),
                    info.driver,
                    info.rx_queues,
                    info.tx_queues
                );
                port.set_running(info);
                (slot.device, slot.is_running) = (Some(device), true);
            }
            Err(error) => {
                slot.retry_at = now + SLOW;
                if port.set_down(PortState::Failed, Some(error.clone())) {
                    tracing::warn!("port {}: {error}", port.name);
                }
            }
        }
    }

    /// Takes its queues back, if workers have them.
    fn take_back(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        if std::mem::take(&mut slot.is_running) {
            slot.port.link.set(false, 0);
            self.host.detach(slot.port.id);
        }
    }

    fn stop(&mut self, index: usize) {
        self.take_back(index);
        let slot = &mut self.slots[index];
        if let Some(device) = &mut slot.device {
            device.stop();
        }
        slot.port.set_down(PortState::Stopped, None);
    }

    fn close(&mut self, index: usize, state: PortState, reason: Option<String>) {
        self.take_back(index);
        let slot = &mut self.slots[index];
        if let Some(device) = slot.device.take() {
            device.close(&mut self.pools);
        }
        if let Some(reason) = &reason {
            tracing::warn!("port {}: {reason}", slot.port.name);
        }
        slot.port.set_down(state, reason);
        slot.retry_at = Instant::now() + SLOW;
    }
}

/// Answers for an EAL that did not start.
fn refuse_all(orders: &Receiver<Order>, why: &str) {
    while let Ok(Order::Do { done, .. }) = orders.recv() {
        let _ = done.send(Err(NotDone::NoEal(why.to_owned())));
    }
}

/// MiB that the mbufs of these ports may need.
fn mib_of(ports: &[Arc<Port>], workers: usize) -> usize {
    let kib = |port: &Arc<Port>| {
        let queues = usize::from(port.queues_wanted()).max(workers);
        usize::from(port.mtu).div_ceil(1024).max(3) * queues * port.devices.len()
    };
    ports.iter().map(kib).sum::<usize>().max(3 * workers) * MIB_PER_QUEUE_AND_KIB
}

/// A CPU that this process may use and no worker has, if there is one.
fn control_cpu(workers: &[usize]) -> usize {
    let allowed = core_affinity::get_core_ids().unwrap_or_default();
    let mut free = allowed.iter().map(|core| core.id).filter(|cpu| !workers.contains(cpu));
    free.next().or(workers.first().copied()).unwrap_or(0)
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
