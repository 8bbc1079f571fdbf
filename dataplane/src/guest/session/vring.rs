//! What a front end has said of one virtqueue.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::super::notifier::Eventfd;
use super::super::ring::RingFault;

/// What the front end has said of one virtqueue.
#[derive(Debug, Default)]
pub(super) struct Vring {
    pub(super) size: u16,
    /// Descriptor, driver and device area in the front end's addresses.
    pub(super) areas: Option<[u64; 3]>,
    pub(super) base: u32,
    pub(super) kick: Kick,
    pub(super) call: Option<Eventfd>,
    /// It was not rung yet.
    pub(super) call_is_new: bool,
    pub(super) error: Option<Eventfd>,
    /// By SET_VRING_ENABLE.
    pub(super) enabled: bool,
    /// The rule that was broken in it, since it was last set up.
    pub(super) fault: Option<RingFault>,
    /// It would run if its areas were in the guest's memory.
    pub(super) waits: bool,
}

/// How a ring is kicked.
#[derive(Debug, Default)]
pub(super) enum Kick {
    /// Not told yet, or stopped since: the ring does not run.
    #[default]
    Stopped,
    /// By this eventfd.
    By(Arc<OwnedFd>),
    /// Not at all: it is to be polled.
    Polled,
}
