//! SET_VRING_ENABLE before SET_FEATURES, as QEMU up to 7.2 sends it for every queue pair but the first.
//!
//! The text of vhost-user allows the message once VHOST_USER_F_PROTOCOL_FEATURES is negotiated; `vhost` insists on
//! SET_FEATURES having come, and would end the connection. So the message is looked for before `vhost` reads it, and
//! served here. QEMU from 8.2 on asks for a reply to it.
//!
//! `vhost` also takes a payload that arrives in pieces for a broken message, so a message is left to it only when it
//! is there as a whole.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};

const SET_VRING_ENABLE: u32 = 18;
const VERSION: u32 = 1;
/// Flags of a header beside the version.
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;
/// Request, flags, size; then index and value.
const HEADER_LEN: usize = 12;
const MESSAGE_LEN: usize = 20;
/// A SET_VRING_ENABLE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EarlyEnable {
    /// The virtqueue.
    pub(super) index: u32,
    /// Whether it is enabled.
    pub(super) enable: bool,
    /// Whether the front end waits for a reply, if that was negotiated.
    pub(super) need_reply: bool,
}

/// What `vhost` takes at most.
const PAYLOAD_MAX: usize = 4096;

/// Waits for a message. If it is a SET_VRING_ENABLE, takes it. Any other message is left where it is.
pub(super) fn take(stream: &UnixStream) -> io::Result<Option<EarlyEnable>> {
    let mut message = [0; MESSAGE_LEN];
    let (_, peeked) = recv(stream, &mut message[..HEADER_LEN], RecvFlags::PEEK | RecvFlags::WAITALL)?;
    let payload = word(&message, 2) as usize;
    if peeked == HEADER_LEN && payload <= PAYLOAD_MAX {
        wait_for(stream, HEADER_LEN + payload)?;
    }
    let (request, flags) = (word(&message, 0), word(&message, 1));
    if peeked < HEADER_LEN || request != SET_VRING_ENABLE || flags & !NEED_REPLY != VERSION || payload != 8 {
        return Ok(None);
    }
    let (_, read) = recv(stream, &mut message[..], RecvFlags::WAITALL)?;
    match (read, word(&message, 4)) {
        (MESSAGE_LEN, value @ (0 | 1)) => {
            Ok(Some(EarlyEnable { index: word(&message, 3), enable: value == 1, need_reply: flags & NEED_REPLY != 0 }))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "SET_VRING_ENABLE is cut off or neither 0 nor 1")),
    }
}

/// The reply to a SET_VRING_ENABLE that asked for one: zero for success (VHOST_USER_PROTOCOL_F_REPLY_ACK).
pub(super) fn reply(mut stream: &UnixStream, failed: bool) -> io::Result<()> {
    let words = [SET_VRING_ENABLE, VERSION | REPLY, 8, u32::from(failed), 0];
    stream.write_all(&words.map(u32::to_ne_bytes).concat())
}

/// Waits until `len` bytes can be read, or no more will come. Looks again and again, ever less often: the kernel does not
/// wait when it peeks, and a peek ends where file descriptors lie. Front ends send messages whole, so that there is seldom
/// anything to wait for.
fn wait_for(stream: &UnixStream, len: usize) -> io::Result<()> {
    let mut pause = Duration::from_millis(1);
    while rustix::io::ioctl_fionread(stream)? < len as u64 {
        let mut hang_up = [PollFd::new(stream, PollFlags::RDHUP)];
        let timeout = Timespec { tv_sec: 0, tv_nsec: pause.subsec_nanos().into() };
        if poll(&mut hang_up, Some(&timeout))? > 0 {
            break;
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
    Ok(())
}

fn word(message: &[u8; MESSAGE_LEN], index: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&message[index * 4..index * 4 + 4]);
    u32::from_ne_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn message(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn takes_its_message_and_no_other() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&message(&[SET_VRING_ENABLE, VERSION, 8, 3, 1])).unwrap();
        ours.write_all(&message(&[SET_VRING_ENABLE, VERSION, 8, 2, 0])).unwrap();
        let enable = |index, enable, need_reply| Some(EarlyEnable { index, enable, need_reply });
        assert_eq!(take(&theirs).unwrap(), enable(3, true, false));
        assert_eq!(take(&theirs).unwrap(), enable(2, false, false));
        ours.write_all(&message(&[SET_VRING_ENABLE, VERSION | NEED_REPLY, 8, 2, 0])).unwrap();
        assert_eq!(take(&theirs).unwrap(), enable(2, false, true));
        reply(&theirs, true).unwrap();
        let mut answer = vec![0; MESSAGE_LEN];
        ours.read_exact(&mut answer).unwrap();
        assert_eq!(answer, message(&[SET_VRING_ENABLE, VERSION | REPLY, 8, 1, 0]));
        let another = message(&[SET_VRING_ENABLE + 1, VERSION, 8, 2, 0]);
        ours.write_all(&another).unwrap();
        assert_eq!(take(&theirs).unwrap(), None);
        let mut left = vec![0; another.len()];
        (&theirs).read_exact(&mut left).unwrap();
        assert_eq!(left, another);
        ours.write_all(&message(&[SET_VRING_ENABLE, VERSION, 8, 2, 7])).unwrap();
        assert!(take(&theirs).is_err());
        ours.write_all(&message(&[SET_VRING_ENABLE])).unwrap();
        drop(ours);
        assert_eq!(take(&theirs).unwrap(), None);
    }
}
