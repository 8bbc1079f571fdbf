//! Eventfds that a front end hands over. Those that are rung are shared with it, and so is their O_NONBLOCK: a hostile one
//! can take it away and fill the counter, and who rings waits. So only workers ring, whose pulse gets them out; the first
//! time is an [`Offence`] of the port, none of whose eventfds is rung from then on.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

/// Whether an eventfd of a port was made to block.
#[derive(Debug, Default)]
pub struct Offence(AtomicBool);

impl Offence {
    /// Whether it was.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether it was; forgotten with the answer.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// What came of ringing an eventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// It counts one more.
    Now,
    /// Its counter was full: it was rung before, and nobody has listened since.
    Before,
    /// It was made to block, or another of its port's was: it was not rung.
    Blocks,
}

/// An eventfd to ring. Whoever has it shares one file descriptor.
#[derive(Clone, Debug)]
pub struct Eventfd {
    fd: Arc<OwnedFd>,
    offence: Arc<Offence>,
}

impl Eventfd {
    /// One of a port's.
    #[must_use]
    pub fn new(fd: OwnedFd, offence: &Arc<Offence>) -> Self {
        Self { fd: Arc::new(fd), offence: offence.clone() }
    }

    /// Rings it, on a thread with a pulse.
    #[inline]
    pub fn ring(&self) -> Rung {
        if self.offence.is_committed() {
            return Rung::Blocks;
        }
        match rustix::io::write(&self.fd, &1u64.to_ne_bytes()) {
            Ok(_) => Rung::Now,
            // Only a write that waits can be interrupted, and ours must not wait.
            Err(Errno::INTR) => {
                self.offence.0.store(true, Ordering::Relaxed);
                Rung::Blocks
            }
            Err(_) => Rung::Before,
        }
    }
}

/// One that is nobody else's.
impl From<OwnedFd> for Eventfd {
    fn from(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd), offence: Arc::default() }
    }
}

/// Takes an eventfd over: it must be one (a pipe or a file could block a worker that writes to it), and it is made
/// non-blocking (an eventfd at its maximum would block, too).
pub(super) fn eventfd(file: File) -> std::io::Result<OwnedFd> {
    let kind = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if kind.as_os_str() != "anon_inode:[eventfd]" {
        let kind = kind.display();
        return Err(std::io::Error::other(format!("the file descriptor of a notification is {kind}, not an eventfd")));
    }
    fcntl_setfl(&file, fcntl_getfl(&file)? | OFlags::NONBLOCK)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::EventfdFlags;

    #[test]
    fn only_an_eventfd_will_do() {
        let fd = rustix::event::eventfd(0, EventfdFlags::empty()).unwrap();
        let fd = eventfd(fd.into()).unwrap();
        assert!(fcntl_getfl(&fd).unwrap().contains(OFlags::NONBLOCK));
        let (_read, write) = rustix::pipe::pipe().unwrap();
        assert!(eventfd(write.into()).unwrap_err().to_string().contains("not an eventfd"));
        assert!(eventfd(File::open("/dev/null").unwrap()).is_err());
    }
}
