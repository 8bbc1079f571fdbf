//! A running worker, as control holds it.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::thread::JoinHandle;
use std::time::Duration;

use arrayvec::ArrayVec;
use core_affinity::CoreId;
use crossbeam::channel::bounded;

use super::clock::Clock;
use super::command::{Command, Mailbox};
use super::counters::WorkerCounters;
use super::hand_off::hand_off;
use super::heads::Scratch;
use super::poll::{Poller, SLOTS};
use super::pulse::Pulse;
use super::sleep::Alarm;
use super::topology::Topology;
use super::turns::Turns;
use super::uplink::NIC_SLOTS;
use super::walk::{Links, Walker};
use crate::flow::{FlowReader, FlowTable, MacTable, Size};
use crate::guest::ring::Direction;
use crate::guest::{Eventfd, Notifier, QueuePair};
use crate::nic::Queue;

/// Without a frame for so long, a worker goes to sleep.
const QUIET_MAX: Duration = Duration::from_micros(200);

/// Why a worker does not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The CPU does not exist or is not ours to use.
    #[error("worker {number} cannot run on CPU {cpu}; CPUs that this process may use: {allowed}")]
    Pin {
        /// Number of the worker.
        number: u16,
        /// The CPU asked for.
        cpu: usize,
        /// Those that would do.
        allowed: String,
    },
    /// The kernel refuses a thread or a file descriptor.
    #[error("worker {number}: {source}")]
    Start {
        /// Number of the worker.
        number: u16,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// A worker. Stops when dropped.
#[derive(Debug)]
pub struct Worker {
    /// Its number.
    pub number: u16,
    /// The CPU that it is pinned to.
    pub cpu: usize,
    /// What it counts.
    pub counters: Arc<WorkerCounters>,
    /// Its flow table.
    pub flows: FlowReader,
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a worker on each of `cpus`, each linked to each other and with a table for so many flows. `tick` is the coarse
    /// time that control keeps.
    pub fn start_all(
        cpus: &[usize],
        macs: &Arc<MacTable>,
        tick: &Arc<AtomicU32>,
        clock: &Clock,
        flows: usize,
    ) -> Result<Vec<Self>, WorkerError> {
        let start_error = |source| WorkerError::Start { number: 0, source };
        let mailbox = |_| Mailbox::new().map(Arc::new);
        let mailboxes = cpus.iter().map(mailbox).collect::<Result<Vec<_>, _>>().map_err(start_error)?;
        let mut links: Vec<Links> = cpus.iter().map(|_| Links::default()).collect();
        for from in 0..cpus.len() {
            for to in 0..cpus.len() {
                let way = if from == to { None } else { Some(hand_off().map_err(start_error)?) };
                let (sender, receiver) = way.unzip();
                links[from].to.push(sender.map(|sender| (sender, mailboxes[to].clone())));
                links[to].from.extend(receiver);
            }
        }
        let each = (0..).zip(cpus).zip(mailboxes).zip(links);
        each.map(|(((number, &cpu), mailbox), links)| {
            let parts = Parts { mailbox, links, macs: macs.clone(), tick: tick.clone() };
            Self::start(number, cpu, parts, clock, flows)
        })
        .collect()
    }

    fn start(number: u16, cpu: usize, parts: Parts, clock: &Clock, flows: usize) -> Result<Self, WorkerError> {
        let start_error = |source| WorkerError::Start { number, source };
        let (counters, mailbox) = (Arc::new(WorkerCounters::default()), parts.mailbox.clone());
        let alarm = Alarm::new(mailbox.wake_fd()).map_err(start_error)?;
        let quiet_max = (clock.ticks_per_second() * QUIET_MAX.as_secs_f64()) as u64;
        let (started, is_started) = bounded(1);
        let thread = std::thread::Builder::new().name(format!("ringway-w{cpu}"));
        let counts = counters.clone();
        let thread = thread.spawn(move || {
            if !core_affinity::set_for_current(CoreId { id: cpu }) {
                let _ = started.send(Ok(None));
                return;
            }
            // Here, since memory is of the NUMA node of who first writes to it.
            let made = FlowTable::new(Size::of(flows)).and_then(|flows| Ok((flows, Pulse::new()?)));
            match made {
                Ok((flows, pulse)) => {
                    let _ = started.send(Ok(Some(flows.reader())));
                    parts.poller(number, counts, flows, alarm, quiet_max).run(pulse);
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        });
        let thread = thread.map_err(start_error)?;
        let Some(flows) = is_started.recv().unwrap_or(Ok(None)).map_err(start_error)? else {
            let _ = thread.join();
            let allowed = Self::allowed_cpus().iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
            return Err(WorkerError::Pin { number, cpu, allowed });
        };
        Ok(Self { number, cpu, counters, flows, mailbox, thread: Some(thread) })
    }

    /// The CPUs that this process may use.
    #[must_use]
    pub fn allowed_cpus() -> Vec<usize> {
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect()
    }

    /// Slots that it has for pairs.
    #[must_use]
    pub fn slots() -> usize {
        SLOTS
    }

    /// Hands a pair over, into a slot that is free. Its guest can be given frames; what it sends waits for [`Worker::visit`].
    pub fn attach(&self, slot: usize, pair: QueuePair) {
        let pair = Box::new(pair);
        let _ = self.mailbox.ask(|done| Command::Attach { slot, pair, done });
    }

    /// Begins to take what the guest of a slot sends, or what comes in by its NIC queue.
    pub fn visit(&self, slot: usize) {
        let _ = self.mailbox.ask(|done| Command::Visit { slot, done });
    }

    /// Has it use another eventfd for a ring of the pair in a slot. When this returns, it is done with the one before.
    pub fn set_notifier(&self, slot: usize, ring: Direction, notifier: Notifier, fd: Option<Eventfd>) {
        drop(self.mailbox.ask(|done| Command::Notifier { slot, ring, notifier, fd, done }));
    }

    /// Slots that it has for NIC queues: they come behind those for pairs.
    #[must_use]
    pub fn nic_slots() -> std::ops::Range<usize> {
        SLOTS..SLOTS + NIC_SLOTS
    }

    /// Hands a NIC queue over, into a slot for such that is free. Frames can be sent by it; what comes in waits for
    /// [`Worker::visit`].
    ///
    /// # Errors
    /// When DPDK has no place for this worker's thread.
    pub fn attach_nic(&self, slot: usize, queue: Queue) -> Result<(), String> {
        let queue = Box::new(queue);
        let attached = self.mailbox.ask(|done| Command::AttachNic { slot, queue, done });
        attached.unwrap_or_else(|| Err("the worker has ended".to_owned()))
    }

    /// Takes the NIC queue of a slot back. The worker has no burst of it under way any more.
    #[must_use]
    pub fn detach_nic(&self, slot: usize) -> Option<Queue> {
        self.mailbox.ask(|done| Command::DetachNic { slot, done }).flatten().map(|queue| *queue)
    }

    /// Takes the pair of a slot back. The worker has no burst of it under way any more.
    #[must_use]
    pub fn detach(&self, slot: usize) -> Option<QueuePair> {
        self.mailbox.ask(|done| Command::Detach { slot, done }).flatten().map(|pair| *pair)
    }

    /// Gives it a new topology. When this returns, nothing looks at the old one.
    pub fn set_topology(&self, topology: Arc<Topology>) {
        drop(self.mailbox.ask(|done| Command::Topology { topology, done }));
    }
}

/// What a worker is given at its start.
struct Parts {
    mailbox: Arc<Mailbox>,
    links: Links,
    macs: Arc<MacTable>,
    tick: Arc<AtomicU32>,
}

impl Parts {
    fn poller(
        self,
        number: u16,
        counters: Arc<WorkerCounters>,
        flows: FlowTable,
        alarm: Alarm,
        quiet_max: u64,
    ) -> Poller {
        let Self { mailbox, links, macs, tick } = self;
        Poller {
            alarm,
            walker: Walker {
                number,
                pairs: (0..SLOTS).map(|_| None).collect(),
                memories: (0..SLOTS).map(|_| None).collect(),
                nics: (0..NIC_SLOTS).map(|_| None).collect(),
                scratch: Scratch::new(),
                flows,
                macs,
                topology: Arc::new(Topology::default()),
                topologies: 0,
                counters,
                links,
                owed: ArrayVec::new(),
                now: 0,
            },
            mailbox,
            turns: Turns::with_capacity(SLOTS + NIC_SLOTS),
            discards: Vec::with_capacity(SLOTS),
            next_discard: 0,
            clock: tick,
            quiet_max,
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.mailbox.tell(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
