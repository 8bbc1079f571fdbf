//! A running worker, as control holds it.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::thread::JoinHandle;

use arrayvec::ArrayVec;
use core_affinity::CoreId;
use crossbeam::channel::bounded;

use super::command::{Command, Mailbox};
use super::counters::WorkerCounters;
use super::hand_off::hand_off;
use super::heads::Scratch;
use super::idle::Idle;
use super::links::{Link, Links};
use super::poll::{Poller, SLOTS};
use super::pulse::Pulse;
use super::sleep::Alarm;
use super::topology::Topology;
use super::turns::Turns;
use super::uplink::NIC_SLOTS;
use super::walk::Walker;
use crate::flow::{FlowReader, FlowTable, MacTable, Size};
use crate::guest::ring::Direction;
use crate::guest::{Eventfd, Notifier, QueuePair};
use crate::nic::Queue;

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

/// What all workers of a switch share.
#[derive(Debug)]
pub struct Common {
    /// Who is behind which port.
    pub macs: Arc<MacTable>,
    /// The coarse time that control keeps.
    pub tick: Arc<AtomicU32>,
    /// Counts on every [`crate::flow::BEAT`].
    pub beats: Arc<AtomicU32>,
    /// Flows that each one's table is for.
    pub flows: usize,
    /// Ticks of the time-stamp counter without a frame after which one arms a ring, and goes to sleep; `u64::MAX` for never.
    pub quiet: u64,
}

impl Worker {
    /// Starts a worker on a CPU, linked with those that there are; it knows of no port yet. It counts on with `counters`.
    ///
    /// # Errors
    /// When the CPU is not ours to use, or the kernel refuses what it needs.
    pub fn start(
        number: u16,
        cpu: usize,
        peers: &[Arc<Self>],
        common: &Common,
        counters: Arc<WorkerCounters>,
    ) -> Result<Self, WorkerError> {
        let start_error = |source| WorkerError::Start { number, source };
        let mailbox = Arc::new(Mailbox::new().map_err(start_error)?);
        let mut links = Links::new();
        let mut theirs = Vec::new();
        for peer in peers {
            let ((to, from_us), (to_us, from)) = (hand_off().map_err(start_error)?, hand_off().map_err(start_error)?);
            links.insert(peer.number, Link { to, mailbox: peer.mailbox.clone(), from });
            theirs.push((peer, Link { to: to_us, mailbox: mailbox.clone(), from: from_us }));
        }
        let alarm = Alarm::new(mailbox.wake_fd()).map_err(start_error)?;
        let (started, is_started) = bounded(1);
        let thread = std::thread::Builder::new().name(format!("ringway-w{cpu}"));
        let (parts, size, quiet) = (Parts::new(&mailbox, links, common), Size::of(common.flows), common.quiet);
        let counts = counters.clone();
        let thread = thread.spawn(move || {
            if !core_affinity::set_for_current(CoreId { id: cpu }) {
                let _ = started.send(Ok(None));
                return;
            }
            // What it sleeps for is to end when it is said to; without this word the kernel may add 50 µs.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
            // Here, since memory is of the NUMA node of who first writes to it.
            let made = FlowTable::new(size).and_then(|flows| Ok((flows, Pulse::new()?)));
            match made {
                Ok((flows, pulse)) => {
                    let _ = started.send(Ok(Some(flows.reader())));
                    parts.poller(number, counts, flows, alarm, quiet).run(pulse);
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
        for (peer, link) in theirs {
            let _ = peer.mailbox.ask(|done| Command::Link { worker: number, link: Box::new(link), done });
        }
        Ok(Self { number, cpu, counters, flows, mailbox, thread: Some(thread) })
    }

    /// Has `peers` forget this worker, which nobody sends to any more.
    pub fn unlink(&self, peers: &[Arc<Self>]) {
        for peer in peers {
            // What it gives back is unmapped here.
            drop(peer.mailbox.ask(|done| Command::Unlink { worker: self.number, done }));
        }
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
        drop(self.mailbox.ask(|done| Command::Attach { slot, pair, done }));
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
        attached.unwrap_or_else(|| Err("the worker has ended".to_owned())).map(drop)
    }

    /// Makes it one that may have queues of NICs. DPDK must run.
    ///
    /// # Errors
    /// When DPDK has no place for its thread.
    pub fn register_nics(&self) -> Result<(), String> {
        let registered = self.mailbox.ask(|done| Command::RegisterNics { done });
        registered.unwrap_or_else(|| Err("the worker has ended".to_owned()))
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

    /// Has it keep what is handed over for a slot that is free, until a pair or NIC queue comes into it.
    ///
    /// # Errors
    /// When there is no memory for what it will keep.
    pub fn expect(&self, slot: usize) -> std::io::Result<()> {
        let (to, from) = hand_off()?;
        let link = Box::new(Link { to, mailbox: self.mailbox.clone(), from });
        let _ = self.mailbox.ask(|done| Command::Expect { slot, link, done });
        Ok(())
    }

    /// Has all of `workers` deliver what was handed over until now.
    pub fn flush(workers: &[Arc<Self>]) {
        let begin = |worker: &Arc<Self>| worker.mailbox.begin(|done| Command::Flush { done });
        let answers: Vec<_> = workers.iter().map(begin).collect();
        for answer in answers {
            let _ = answer.recv();
        }
    }

    /// Gives all of `workers` a new topology. When this returns, nothing looks at the old one.
    pub fn set_topology(workers: &[Arc<Self>], topology: &Arc<Topology>) {
        let begin = |worker: &Arc<Self>| {
            let topology = topology.clone();
            worker.mailbox.begin(|done| Command::Topology { topology, done })
        };
        let answers: Vec<_> = workers.iter().map(begin).collect();
        answers.into_iter().for_each(|answer| drop(answer.recv()));
    }
}

/// What a worker is given at its start.
struct Parts {
    mailbox: Arc<Mailbox>,
    links: Links,
    macs: Arc<MacTable>,
    tick: Arc<AtomicU32>,
    beats: Arc<AtomicU32>,
}

impl Parts {
    fn new(mailbox: &Arc<Mailbox>, links: Links, common: &Common) -> Self {
        Self {
            mailbox: mailbox.clone(),
            links,
            macs: common.macs.clone(),
            tick: common.tick.clone(),
            beats: common.beats.clone(),
        }
    }

    fn poller(self, number: u16, counters: Arc<WorkerCounters>, flows: FlowTable, alarm: Alarm, quiet: u64) -> Poller {
        let Self { mailbox, links, macs, tick, beats } = self;
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
                beats,
                expected: None,
                worked: Box::new([0; SLOTS]),
                moment: 0,
            },
            mailbox,
            turns: Turns::with_capacity(SLOTS + NIC_SLOTS),
            discards: Vec::with_capacity(SLOTS),
            next_discard: 0,
            clock: tick,
            idle: Idle::new(quiet),
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
