//! Sleeping: until a guest kicks, or control wants something.

use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use arrayvec::ArrayVec;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// Kicks that are told at a time.
const EVENTS: usize = 64;

/// No slot's.
const WAKE: u16 = u16::MAX;

/// The eventfds that wake a worker. Edge-triggered: each kick is an event, and nobody needs to read the counters.
#[derive(Debug)]
pub(super) struct Alarm {
    epoll: OwnedFd,
}

impl Alarm {
    /// An alarm that `wake` sets off.
    pub(super) fn new(wake: BorrowedFd<'_>) -> std::io::Result<Self> {
        let alarm = Self { epoll: epoll::create(CreateFlags::CLOEXEC)? };
        alarm.add(wake, WAKE)?;
        Ok(alarm)
    }

    /// Adds an eventfd, a slot's. It leaves by itself when its last copy is closed, or by `remove`.
    pub(super) fn add(&self, fd: BorrowedFd<'_>, slot: u16) -> std::io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(slot.into()), EventFlags::IN | EventFlags::ET)?)
    }

    /// Takes an eventfd out.
    pub(super) fn remove(&self, fd: BorrowedFd<'_>) {
        // Not there is as good as taken out.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits until an eventfd was written to since the last time, or `timeout`, or a signal. The slots whose eventfds were; more
    /// than there is room for come the next time.
    pub(super) fn wait(&self, timeout: Option<&Timespec>) -> ArrayVec<u16, EVENTS> {
        let mut events = [MaybeUninit::uninit(); EVENTS];
        let written = match epoll::wait(&self.epoll, &mut events, timeout) {
            Ok((written, _)) => written,
            Err(_) => &mut [], // a signal
        };
        written.iter().map(|event| event.data.u64() as u16).filter(|&slot| slot != WAKE).collect()
    }
}
