//! SET_VRING_ENABLE before SET_FEATURES, as QEMU up to 7.2 sends it for every queue pair but the first.
//!
//! The text of vhost-user allows the message once VHOST_USER_F_PROTOCOL_FEATURES is negotiated; `vhost` insists on
//! SET_FEATURES having come, and would end the connection. So the message is looked for before `vhost` reads it, and
//! served here. One that wants a reply is left to `vhost`.
//!
//! `vhost` also takes a payload that arrives in pieces for a broken message, so a message is left to it only when it
//! is there as a whole.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};

const SET_VRING_ENABLE: u32 = 18;
const VERSION: u32 = 1;
/// Request, flags, size; then index and value.
const HEADER_LEN: usize = 12;
const MESSAGE_LEN: usize = 20;
/// What `vhost` takes at most.
const PAYLOAD_MAX: usize = 4096;

/// Waits for a message. If it is a SET_VRING_ENABLE without a reply, takes it: the ring's index and whether it is
/// enabled. Any other message is left where it is.
pub(super) fn take(stream: &UnixStream) -> io::Result<Option<(u32, bool)>> {
    let mut message = [0; MESSAGE_LEN];
    let (_, peeked) = recv(stream, &mut message[..HEADER_LEN], RecvFlags::PEEK | RecvFlags::WAITALL)?;
    let payload = word(&message, 2) as usize;
    if peeked == HEADER_LEN && payload <= PAYLOAD_MAX {
        wait_for(stream, HEADER_LEN + payload)?;
    }
    if peeked < HEADER_LEN
        || [word(&message, 0), word(&message, 1), word(&message, 2)] != [SET_VRING_ENABLE, VERSION, 8]
    {
        return Ok(None);
    }
    let (_, read) = recv(stream, &mut message[..], RecvFlags::WAITALL)?;
    match (read, word(&message, 4)) {
        (MESSAGE_LEN, value @ (0 | 1)) => Ok(Some((word(&message, 3), value == 1))),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "SET_VRING_ENABLE is cut off or neither 0 nor 1")),
    }
}

/// Waits until `len` bytes can be read, or no more will come. The kernel does not wait when it peeks, so this looks again,
/// ever less often; front ends send messages whole, and seldom is there anything to wait for.
fn wait_for(stream: &UnixStream, len: usize) -> io::Result<()> {
    let mut whole = [0; HEADER_LEN + PAYLOAD_MAX];
    let mut pause = Duration::from_millis(1);
    while recv(stream, &mut whole[..len], RecvFlags::PEEK)?.1 < len {
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
    use std::io::{Read, Write};

    fn message(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn takes_its_message_and_no_other() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&message(&[SET_VRING_ENABLE, VERSION, 8, 3, 1])).unwrap();
        ours.write_all(&message(&[SET_VRING_ENABLE, VERSION, 8, 2, 0])).unwrap();
        assert_eq!(take(&theirs).unwrap(), Some((3, true)));
        assert_eq!(take(&theirs).unwrap(), Some((2, false)));
        let with_reply = message(&[SET_VRING_ENABLE, VERSION | 8, 8, 2, 0]);
        ours.write_all(&with_reply).unwrap();
        assert_eq!(take(&theirs).unwrap(), None);
        let mut left = vec![0; with_reply.len()];
        (&theirs).read_exact(&mut left).unwrap();
        assert_eq!(left, with_reply);
        ours.write_all(&message(&[SET_VRING_ENABLE, VERSION, 8, 2, 7])).unwrap();
        assert!(take(&theirs).is_err());
        ours.write_all(&message(&[SET_VRING_ENABLE])).unwrap();
        drop(ours);
        assert_eq!(take(&theirs).unwrap(), None);
    }
}
