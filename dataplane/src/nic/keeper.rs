//! Keeps NIC ports as they are wanted: the thread of EAL. Devices that fail or vanish are tried again, links and statistics are
//! looked at, and whoever wants a port in or out of use asks here.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use super::device::Device;
use super::eal::Eal;
use super::mempool::Pools;
use super::port::{Port, PortState};
use super::queue::Queue;

/// Between two looks at links.
const LOOK: Duration = Duration::from_millis(100);

/// Between two looks at statistics, and two attempts at a device.
const SLOW: Duration = Duration::from_secs(1);

/// MiB for the mbufs of a port, without huge pages: for each queue, and for frames of each KiB of MTU, generously. What is never
/// used takes no memory.
const MIB_PER_QUEUE_AND_KIB: usize = 6;

/// Who takes queues into use: the switch, which hands each to its worker.
pub trait Host: Send + Sync {
    /// Hands the queues of a port to their workers, and tells all workers where to send for it.
    ///
    /// # Errors
    /// When a worker cannot take its queue; then no worker has any.
    fn attach(&self, port: u16, queues: Vec<Queue>) -> Result<(), String>;
    /// Takes all queues of a port back: no worker touches them any more, or sends for it.
    fn detach(&self, port: u16);
}

/// Asks the thread of EAL.
#[derive(Debug)]
enum Order {
    /// Put into use, or out of it.
    Want {
        port: u16,
        wanted: bool,
        done: Sender<()>,
    },
    Stop,
}

/// The thread of EAL, as control holds it. When dropped, all ports are closed and EAL ends.
#[derive(Debug)]
pub struct Keeper {
    orders: Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts EAL, beside workers on these CPUs, and keeps `ports` for `host`. It returns when each of them has been tried.
    ///
    /// # Errors
    /// When there is no thread to be had. Whatever else fails is told by the ports.
    pub fn start(ports: Vec<Arc<Port>>, host: Arc<dyn Host>, cpus: Vec<usize>) -> std::io::Result<Self> {
        let ((orders, receiver), (tried, all_tried)) = (unbounded(), bounded(1));
        let thread = std::thread::Builder::new().name("nic".to_owned()).spawn(move || {
            let cpu = control_cpu(&cpus);
            let kib = |port: &Arc<Port>| {
                usize::from(port.mtu).div_ceil(1024).max(3) * usize::from(port.queues_wanted()).max(cpus.len())
            };
            let kib = ports.iter().map(kib).sum::<usize>().max(3 * cpus.len());
            match Eal::start(cpu, kib * MIB_PER_QUEUE_AND_KIB) {
                Ok(eal) => {
                    let pools = Pools::new(ports.len());
                    let slots = ports.into_iter().map(Slot::new).collect();
                    let mut keeping = Keeping { eal, pools, slots, host };
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
                }
            }
        })?;
        let _ = all_tried.recv();
        Ok(Self { orders, thread: Some(thread) })
    }

    /// Takes a port out of use: its queues come back, its device is stopped and removed.
    pub fn remove(&self, port: u16) {
        self.want(port, false);
    }

    /// Puts a port into use again; whether its device can be had is to be seen at the port.
    pub fn add(&self, port: u16) {
        self.want(port, true);
    }

    fn want(&self, port: u16, wanted: bool) {
        let (done, is_done) = bounded(1);
        if self.orders.send(Order::Want { port, wanted, done }).is_ok() {
            let _ = is_done.recv();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Slot {
    port: Arc<Port>,
    wanted: bool,
    device: Option<Device>,
    retry_at: Instant,
}

impl Slot {
    fn new(port: Arc<Port>) -> Self {
        Self { port, wanted: true, device: None, retry_at: Instant::now() }
    }
}

struct Keeping {
    eal: Eal,
    pools: Pools,
    slots: Vec<Slot>,
    host: Arc<dyn Host>,
}

impl Keeping {
    fn run(mut self, orders: &Receiver<Order>) {
        let mut slow_at = Instant::now();
        loop {
            match orders.recv_timeout(LOOK) {
                Ok(Order::Want { port, wanted, done }) => {
                    self.want(port, wanted);
                    let _ = done.send(());
                }
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let now = Instant::now();
                    self.look(now);
                    if now >= slow_at {
                        slow_at = now + SLOW;
                        self.look_at_statistics();
                    }
                }
            }
        }
        for index in 0..self.slots.len() {
            self.close(index, PortState::Stopped, None);
        }
    }

    fn want(&mut self, port: u16, wanted: bool) {
        let Some(index) = self.slots.iter().position(|slot| slot.port.id == port) else { return };
        self.slots[index].wanted = wanted;
        if wanted {
            self.slots[index].retry_at = Instant::now();
            self.look(Instant::now());
        } else {
            self.close(index, PortState::Stopped, None);
        }
    }

    /// Links, devices that are gone, and those that are to be tried again.
    fn look(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            match &slot.device {
                Some(device) => {
                    device.look_at_link(&slot.port);
                    if let Some(reason) = device.gone() {
                        self.close(index, PortState::Failed, Some(reason));
                    }
                }
                None if slot.wanted && now >= slot.retry_at => self.open(index, now),
                None => {}
            }
        }
    }

    fn look_at_statistics(&self) {
        for slot in &self.slots {
            if let Some(device) = &slot.device {
                slot.port.set_xstats(device.xstats());
            }
        }
    }

    fn open(&mut self, index: usize, now: Instant) {
        let Self { eal, pools, slots, host } = self;
        let slot = &mut slots[index];
        let port = &slot.port;
        let opened = Device::open(port, eal, pools).and_then(|(device, queues, info)| {
            device.look_at_link(port);
            match host.attach(port.id, queues) {
                Ok(()) => Ok((device, info)),
                Err(error) => {
                    device.close(pools);
                    Err(error)
                }
            }
        });
        match opened {
            Ok((device, info)) => {
                tracing::info!(
                    "port {}: {} ({}), {} RX and {} TX queues",
                    port.name,
                    port.device,
                    info.driver,
                    info.rx_queues,
                    info.tx_queues
                );
                port.set_running(info);
                slot.device = Some(device);
            }
            Err(error) => {
                slot.retry_at = now + SLOW;
                if port.set_down(PortState::Failed, Some(error.clone())) {
                    tracing::warn!("port {}: {error}", port.name);
                }
            }
        }
    }

    fn close(&mut self, index: usize, state: PortState, reason: Option<String>) {
        let slot = &mut self.slots[index];
        if let Some(device) = slot.device.take() {
            slot.port.link.set(false, 0);
            self.host.detach(slot.port.id);
            device.close(&mut self.pools);
        }
        if let Some(reason) = &reason {
            tracing::warn!("port {}: {reason}", slot.port.name);
        }
        slot.port.set_down(state, reason);
        slot.retry_at = Instant::now() + SLOW;
    }
}

/// A CPU that this process may use and no worker has, if there is one.
fn control_cpu(workers: &[usize]) -> usize {
    let allowed = core_affinity::get_core_ids().unwrap_or_default();
    let mut free = allowed.iter().map(|core| core.id).filter(|cpu| !workers.contains(cpu));
    free.next().or(workers.first().copied()).unwrap_or(0)
}
