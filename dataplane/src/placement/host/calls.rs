//! Two questions to the kernel that no library of the switch's asks well: move_pages(2), where pages are, which none knows; and
//! SO_PEERCRED, where rustix takes it that there is a process, but for one of another PID namespace the kernel says 0.
#![expect(unsafe_code, reason = "two system calls that no library wraps")]

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// By address of process `pid` (0 is this one), the node of its page, or what is wrong with it as a negative errno.
pub(super) fn nodes(pid: i32, addresses: &[u64]) -> io::Result<Vec<i32>> {
    let mut nodes = vec![-libc::ENOENT; addresses.len()];
    // SAFETY: the kernel reads `addresses.len()` addresses, which it only looks up, and writes as many numbers of type int to
    // `nodes`, which is that long. Without target nodes no page is moved.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            libc::c_long::from(pid),
            addresses.len() as libc::c_ulong,
            addresses.as_ptr(),
            std::ptr::null::<libc::c_int>(),
            nodes.as_mut_ptr(),
            0 as libc::c_long,
        )
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(nodes) }
}

/// The process at the other end; 0 if it is of another PID namespace.
pub(super) fn peer_pid(stream: &UnixStream) -> io::Result<i32> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which `peer` has, and any bytes are a `ucred`.
    let answer = unsafe {
        libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &raw mut len)
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(peer.pid) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_what_is_not_and_nobody() {
        let here = [1_u8; 1];
        let answers = nodes(0, &[here.as_ptr() as u64 & !4095, 0]).unwrap();
        assert!(answers[0] >= 0 && answers[1] < 0, "{answers:?}");
        assert!(nodes(i32::MAX, &[0]).is_err());
        assert_eq!(nodes(0, &[]).unwrap(), [] as [i32; 0]);
    }

    #[test]
    fn the_process_at_the_other_end() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(peer_pid(&ours).unwrap(), std::process::id() as i32);
    }
}
