//! How control speaks to a worker: by a bounded queue that the worker empties between bursts. What a worker owns moves
//! in and out by this way only; an answer means that the worker is past every burst that began before.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam::channel::{Receiver, Sender, bounded};
use crossbeam::queue::ArrayQueue;
use rustix::event::EventfdFlags;

use super::links::Link;
use super::topology::Topology;
use crate::guest::ring::Direction;
use crate::guest::{Eventfd, Notifier, QueuePair};
use crate::nic::Queue;

/// Commands that may wait; each control thread waits for its answer, so few ever do.
const COMMANDS_MAX: usize = 64;

/// What a worker can be asked.
#[derive(Debug)]
pub(super) enum Command {
    /// Own this pair, and deliver to it; take nothing from it yet.
    /// The answer is what it kept frames in for the pair, if it was told to expect it.
    Attach { slot: usize, pair: Box<QueuePair>, done: Sender<Option<Link>> },
    /// Take from the pair or NIC queue in this slot, too: every worker knows where to deliver what its guest is answered.
    Visit { slot: usize, done: Sender<()> },
    /// Use this eventfd for a ring of the pair in this slot; the answer is the one before.
    Notifier { slot: usize, ring: Direction, notifier: Notifier, fd: Option<Eventfd>, done: Sender<Option<Eventfd>> },
    /// Own this NIC queue, and send by it; take nothing from it yet. The answer may be why not.
    AttachNic { slot: usize, queue: Box<Queue>, done: Sender<Result<Option<Link>, String>> },
    /// Be a thread that may own NIC queues.
    RegisterNics { done: Sender<Result<(), String>> },
    /// Give it back.
    DetachNic { slot: usize, done: Sender<Option<Box<Queue>>> },
    /// Give it back.
    Detach { slot: usize, done: Sender<Option<Box<QueuePair>>> },
    /// A pair or NIC queue is going to move into this slot: keep what is handed over for it, by others and by oneself.
    Expect { slot: usize, link: Box<Link>, done: Sender<()> },
    /// There is another worker.
    Link { worker: u16, link: Box<Link>, done: Sender<()> },
    /// There is not any more.
    Unlink { worker: u16, done: Sender<Option<Link>> },
    /// Deliver what other workers have handed over until now.
    Flush { done: Sender<()> },
    /// Look at this table from now on; the answer is the old one.
    Topology { topology: Arc<Topology>, done: Sender<Arc<Topology>> },
    /// End.
    Stop,
}

/// Commands for one worker, and what wakes it.
#[derive(Debug)]
pub(super) struct Mailbox {
    queue: ArrayQueue<Command>,
    wake: OwnedFd,
    asleep: AtomicBool,
}

impl Mailbox {
    pub(super) fn new() -> std::io::Result<Self> {
        let wake = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { queue: ArrayQueue::new(COMMANDS_MAX), wake, asleep: AtomicBool::new(false) })
    }

    /// Asks and waits for the answer; `None` if the worker ends meanwhile.
    pub(super) fn ask<A>(&self, command: impl FnOnce(Sender<A>) -> Command) -> Option<A> {
        self.begin(command).recv().ok()
    }

    /// Asks; the answer is to be waited for.
    pub(super) fn begin<A>(&self, command: impl FnOnce(Sender<A>) -> Command) -> Receiver<A> {
        let (done, answer) = bounded(1);
        self.tell(command(done));
        answer
    }

    /// Says without waiting for an answer.
    pub(super) fn tell(&self, mut command: Command) {
        while let Err(refused) = self.queue.push(command) {
            command = refused;
            std::thread::yield_now();
        }
        self.wake();
    }

    /// Wakes the worker if it sleeps.
    pub(super) fn wake(&self) {
        // A full counter wakes, too.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// After something was put where the worker will look for it: wakes the worker if it sleeps, or is about to and has
    /// looked already.
    #[inline]
    pub(super) fn nudge(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// The worker says that it is about to sleep; it must look once more for what was put before.
    pub(super) fn falls_asleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The worker is awake, and looks.
    pub(super) fn is_awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn next(&self) -> Option<Command> {
        self.queue.pop()
    }

    pub(super) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
