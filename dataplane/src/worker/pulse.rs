//! A pulse: a signal to a worker, ten times a second while it is awake, that ends whatever system call it is stuck in.
//!
//! The one call that can stick is the write to a guest's eventfd. We make that non-blocking, but the flag belongs to the open
//! file, which the front end holds, too: a hostile one clears it and fills the counter, and the write waits for ever.
//! With the pulse it fails with EINTR, which no write that does not block ever does; the guest is found out by that.

#![expect(unsafe_code, reason = "a signal's action")]

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

use std::time::Duration;

/// Nobody else means anything by it to a thread, and its default action is none.
const SIGNAL: Signal = Signal::SIGURG;

/// How long a guest can hold its worker at most, with all its neighbours.
const PERIOD: Duration = Duration::from_millis(100);

extern "C" fn nothing(_signal: i32) {}

/// The calling thread's pulse.
#[derive(Debug)]
pub(super) struct Pulse(Timer);

impl Pulse {
    /// A pulse for the calling thread, which does not beat yet.
    pub(super) fn new() -> std::io::Result<Self> {
        // Not SA_RESTART: calls are to end.
        let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
        // SAFETY: a function that does nothing may run at any time.
        unsafe { sigaction(SIGNAL, &action) }?;
        let thread_id = rustix::thread::gettid().as_raw_nonzero().get();
        let notify = SigevNotify::SigevThreadId { signal: SIGNAL, thread_id, si_value: 0 };
        Ok(Self(Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify))?))
    }

    /// Begins to beat.
    pub(super) fn start(&mut self) {
        let _: Result<(), Errno> =
            self.0.set(Expiration::Interval(TimeSpec::from_duration(PERIOD)), TimerSetTimeFlags::empty());
    }

    /// Stops: a sleeping worker is to sleep.
    pub(super) fn stop(&mut self) {
        let _: Result<(), Errno> =
            self.0.set(Expiration::OneShot(TimeSpec::from_duration(Duration::ZERO)), TimerSetTimeFlags::empty());
    }
}
