//! A front end that says anything, over a socket, to a session whose pairs take what is there and give it back.

use std::collections::HashMap;
use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ringway::guest::ring::{BURST, ChainList, Direction};
use ringway::guest::{Eventfd, FrameHead, Notifier, PairHost, PairId, Port, PortState, QueuePair, serve_connection};
use ringway_config::{Mode, PortKind, VhostUser};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::input::Input;

/// Messages of one run: their answers fit into the socket.
const MESSAGES_MAX: usize = 64;

/// Bytes of the guest's file, and of a region.
const FILE_LEN: u64 = 0x1_0000;
const REGION_LEN: u64 = 0x4000;
const USER: u64 = 0x7000_0000_0000;

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let front_end = FrontEnd::new(ours, &mut input);
    for _ in 0..MESSAGES_MAX {
        if input.is_empty() || !front_end.say(&mut input) {
            break;
        }
    }
    front_end.stream.shutdown(Shutdown::Write).unwrap();
    let vhost = VhostUser { socket: PathBuf::new(), mode: Mode::Client, mask_features: Vec::new() };
    let kind = PortKind::VhostUser(vhost.clone());
    let port = ringway_config::Port {
        name: "fuzz".to_owned(),
        bridge: 0,
        mtu: 1500,
        pin: None,
        kind,
        policy: Default::default(),
    };
    let port = Arc::new(Port::new(0, &port, &vhost));
    let worker = Arc::new(Worker::default());
    let host: Arc<dyn PairHost> = worker.clone();
    serve_connection(&port, &host, theirs);
    assert!(worker.pairs.lock().unwrap().is_empty(), "a pair outlives its session");
    assert!(port.running().is_empty() && port.state() == PortState::Connecting);
}

struct FrontEnd {
    stream: UnixStream,
    memory: File,
    short: File,
    bell: OwnedFd,
    pipe: OwnedFd,
}

impl FrontEnd {
    fn new(stream: UnixStream, input: &mut Input<'_>) -> Self {
        let file = |len| {
            let file = File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC).unwrap());
            file.set_len(len).unwrap();
            file
        };
        let (memory, short) = (file(FILE_LEN), file(100));
        // What the rings, wherever they are, find in it.
        let content = input.bytes(64);
        for at in (0..FILE_LEN).step_by(1024) {
            memory.write_all_at(content, at).unwrap();
        }
        let bell = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let (_, pipe) = rustix::pipe::pipe().unwrap();
        Self { stream, memory, short, bell, pipe }
    }

    /// One message, which mostly has the form that it should have. Whether it could be said.
    fn say(&self, input: &mut Input<'_>) -> bool {
        let code = u32::from(input.byte() % 48);
        let form = input.byte();
        let index = input.number(255) as u32;
        let (mut payload, mut file): (Vec<u8>, Option<&File>) = (Vec::new(), None);
        let mut fd: Option<BorrowedFd<'_>> = None;
        let mut regions = 1;
        let mut words = |words: &[u64]| payload.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        match code {
            // SET_FEATURES and SET_PROTOCOL_FEATURES, those that are known or any.
            2 => words(&[if form & 1 == 0 { 0x5_7060_8000 & !(u64::from(index & 3) << 32) } else { input.u64() }]),
            16 => words(&[if form & 1 == 0 { 0x8009 } else { input.number(0x8009) }]),
            // SET_MEM_TABLE, ADD_MEM_REG, REM_MEM_REG
            5 | 37 | 38 => {
                regions = if code == 5 { u64::from(index % 12) } else { 1 };
                words(&[if code == 5 { regions } else { 0 }]);
                for region in 0..regions {
                    let moved = if form & 1 == 0 { 0 } else { input.number(REGION_LEN) };
                    let guest = moved.wrapping_add(region * REGION_LEN);
                    let len = if form & 2 == 0 { REGION_LEN } else { input.number(REGION_LEN) };
                    let offset = if form & 4 == 0 { region % 4 * REGION_LEN } else { input.number(FILE_LEN) };
                    words(&[guest, len, guest.wrapping_add(USER), offset]);
                }
                file = (code != 38).then_some(if form & 8 == 0 { &self.memory } else { &self.short });
            }
            // SET_VRING_ADDR
            9 => {
                let mut at = |start: u64| match form & 1 {
                    0 => USER + start,
                    _ => input.number(REGION_LEN).wrapping_add(USER + start),
                };
                words(&[index.into(), at(0), at(0x2000), at(0x1000), 0]);
            }
            // SET_VRING_NUM, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_ENABLE
            8 | 10 | 11 | 18 => {
                let usual = [64, 0x8000_8000, 0, 1][match code {
                    8 => 0,
                    10 => 1,
                    11 => 2,
                    _ => 3,
                }];
                let value = if form & 1 == 0 { usual } else { input.number(usual) };
                words(&[u64::from(index) | value.wrapping_shl(32)]);
            }
            // SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR
            12..=14 => {
                let none = form & 1 != 0;
                words(&[u64::from(index & 0xff) | if none { 0x100 } else { 0 }]);
                fd = (!none).then_some(if form & 2 == 0 { self.bell.as_fd() } else { self.pipe.as_fd() });
            }
            // Anything.
            0 | 19.. if form & 1 != 0 => payload.extend_from_slice(input.bytes(usize::from(form))),
            _ => {}
        }
        let need_reply = if form & 16 == 0 { 0 } else { 8 };
        let (mut size, mut flags) = (payload.len() as u32, 1 | need_reply);
        if form & 0xe0 == 0xe0 {
            // A header that lies.
            match input.byte() {
                0..64 => size = input.number(size.into()) as u32,
                64..128 => flags = input.number(flags.into()) as u32,
                128..192 => regions = input.number(regions) % 10,
                _ => payload.truncate(usize::from(input.byte())),
            }
        }
        let fds: Vec<_> = match file {
            Some(file) => vec![file.as_fd(); regions.min(12) as usize],
            None => fd.into_iter().collect(),
        };
        let header = [code, flags, size].map(u32::to_le_bytes);
        self.send(&[header.as_flattened(), &payload].concat(), &fds)
    }

    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        let mut space = [MaybeUninit::uninit(); 256];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut ancillary, flags).is_ok()
    }
}

/// Has all pairs, and visits each when it comes and before it goes.
#[derive(Default)]
struct Worker {
    pairs: Mutex<HashMap<PairId, QueuePair>>,
}

impl PairHost for Worker {
    fn attach(&self, mut pair: QueuePair) -> bool {
        pair.greet();
        visit(&mut pair);
        assert!(self.pairs.lock().unwrap().insert(pair.id, pair).is_none(), "a pair is attached twice");
        true
    }

    fn detach(&self, id: PairId) -> Option<QueuePair> {
        let mut pair = self.pairs.lock().unwrap().remove(&id)?;
        visit(&mut pair);
        Some(pair)
    }

    fn set_notifier(&self, id: PairId, ring: Direction, notifier: Notifier, fd: Option<Eventfd>) {
        if let Some(pair) = self.pairs.lock().unwrap().get_mut(&id) {
            drop(pair.set_notifier(ring, notifier, fd));
        }
    }

    fn forget(&self, _port: u16) {}
}

fn visit(pair: &mut QueuePair) {
    let memory = pair.memory.clone();
    let mut list = ChainList::new();
    let (header_len, mut heads) = (pair.header_len(), [FrameHead::EMPTY; BURST]);
    let list = pair.receive(&memory, BURST, &mut list).read_heads(header_len, &mut heads, |_, _, _| {});
    pair.complete(list, list.chains.len());
    let mut room = ChainList::new();
    pair.reserve(&memory, 32, &mut room);
    for chain in &room.chains {
        room.segments(chain).iter().for_each(|piece| _ = piece.write(heads[0].frame(64)));
    }
    pair.unreserve();
    pair.interrupt();
    pair.arm();
    pair.disarm();
}
