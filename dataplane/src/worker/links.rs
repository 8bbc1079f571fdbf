//! The ways to and from other workers.

use std::sync::Arc;

use super::command::Mailbox;
use super::hand_off::{HandOffReceiver, HandOffSender};

/// Workers that there may be: one a CPU, of as many as the kernel's fixed-size `cpu_set_t` knows.
pub const WORKERS_MAX: usize = 1024;

/// The ways to and from another worker; or from a worker to itself, for what waits for a pair that is under way.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) to: HandOffSender,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) from: HandOffReceiver,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Links {
    /// By number of the worker.
    pub(super) to: Vec<Option<(HandOffSender, Arc<Mailbox>)>>,
    /// From each worker, of this number.
    pub(super) from: Vec<(u16, HandOffReceiver)>,
}

impl Links {
    /// None, with room for as many as there may be.
    pub(super) fn new() -> Self {
        Self { to: (0..WORKERS_MAX).map(|_| None).collect(), from: Vec::with_capacity(WORKERS_MAX) }
    }

    /// Takes one into use.
    pub(super) fn insert(&mut self, worker: u16, link: Link) {
        if let Some(to) = self.to.get_mut(usize::from(worker)) {
            *to = Some((link.to, link.mailbox));
            self.from.push((worker, link.from));
        }
    }

    /// Takes one out of use.
    pub(super) fn remove(&mut self, worker: u16) -> Option<Link> {
        let from = self.from.iter().position(|&(from, _)| from == worker)?;
        let (to, mailbox) = self.to.get_mut(usize::from(worker))?.take()?;
        Some(Link { to, mailbox, from: self.from.swap_remove(from).1 })
    }
}
