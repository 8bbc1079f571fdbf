//! Sleeping: until a guest kicks, or control wants something.

use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// The eventfds that wake a worker. Edge-triggered: each kick is an event, and nobody needs to read the counters.
#[derive(Debug)]
pub(super) struct Alarm {
    epoll: OwnedFd,
}

impl Alarm {
    /// An alarm that `wake` sets off.
    pub(super) fn new(wake: BorrowedFd<'_>) -> std::io::Result<Self> {
        let alarm = Self { epoll: epoll::create(CreateFlags::CLOEXEC)? };
        alarm.add(wake)?;
        Ok(alarm)
    }

    /// Adds an eventfd. It leaves by itself when its last copy is closed, or by `remove`.
    pub(super) fn add(&self, fd: BorrowedFd<'_>) -> std::io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(0), EventFlags::IN | EventFlags::ET)?)
    }

    /// Takes an eventfd out.
    pub(super) fn remove(&self, fd: BorrowedFd<'_>) {
        // Not there is as good as taken out.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Sleeps until an eventfd was written to since the last sleep, or `timeout`, or a signal.
    pub(super) fn sleep(&self, timeout: Option<&Timespec>) {
        let mut events = [MaybeUninit::uninit(); 64];
        let _ = epoll::wait(&self.epoll, &mut events, timeout);
    }
}
