//! Eventfds that a front end hands over.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

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
