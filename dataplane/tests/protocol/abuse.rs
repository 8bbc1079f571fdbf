//! Front ends that say what is no message, or what nobody may say. Each loses its connection, and that is all (R6, R8, R9).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringway::account::DropReason;
use ringway::guest::PortState;
use ringway::guest::ring::RingFault;
use ringway_testbed::driver::frame::frame;
use ringway_testbed::driver::front_end::{Bells, feature, request, rung};
use ringway_testbed::driver::{FrontEnd, Guest, Layout, Message, Options, Piece, eventually};
use rustix::event::EventfdFlags;
use rustix::fs::{OFlags, fcntl_setfl};

use crate::guests::{LAYOUTS, Net, introduce, passes, station};

/// Two neighbours who talk, and a third port for the abuse.
struct Scene {
    net: Net,
    guests: Vec<Guest>,
}

impl Scene {
    fn new() -> Self {
        let net = Net::new(3);
        let mut guests = vec![net.plug(0, Options::new(Layout::Packed)), net.plug(1, Options::new(Layout::Split))];
        introduce(&mut guests);
        Self { net, guests }
    }

    fn connection(&self) -> FrontEnd {
        FrontEnd::from_stream(self.net.listeners[2].accept().unwrap()).unwrap()
    }

    /// A connection that has agreed on everything, of a guest that runs.
    fn running(&self, layout: Layout) -> Guest {
        self.net.plug(2, Options::new(layout))
    }

    fn running_with(&self, options: Options) -> Guest {
        self.net.plug(2, options)
    }

    fn neighbours_talk(&mut self) {
        passes(&mut self.guests, 0, 1, 64);
        passes(&mut self.guests, 1, 0, 1514);
    }

    /// Who comes after the abuse is served like anybody.
    fn the_next_one_is_welcome(mut self) {
        self.neighbours_talk();
        let next = self.net.plug(2, Options::new(Layout::Packed));
        self.guests.push(next);
        introduce(&mut self.guests);
        passes(&mut self.guests, 2, 0, 64);
        passes(&mut self.guests, 1, 2, 64);
        self.net.assert_balances();
    }
}

/// Class of CVE-2020-10722, CVE-2020-10723 and CVE-2021-3839.
#[test]
fn r06_bytes_that_are_no_message() {
    let mut scene = Scene::new();
    let zeros = [0; 12];
    let text = *b"GET / HTTP/1.1\r\n\r\n";
    let ones = [0xff; 4096];
    for bytes in [&zeros[..], &text, &ones] {
        let front_end = scene.connection();
        front_end.send(bytes, &[]).unwrap();
        assert!(front_end.closes(), "{} bytes", bytes.len());
        scene.neighbours_talk();
    }
    scene.the_next_one_is_welcome();
}

/// Headers that promise what does not follow, or speak another language.
/// Class of CVE-2020-10722, CVE-2020-10723 and CVE-2021-3839.
#[test]
fn r06_headers_that_lie() {
    let mut scene = Scene::new();
    let version_1 = 1;
    for message in [
        Message::with_header(request::GET_FEATURES, 2, 0, &[]), // another version
        Message::with_header(request::GET_FEATURES, version_1 | 4, 0, &[]), // an answer
        Message::with_header(request::GET_FEATURES, version_1 | 0x80, 0, &[]), // flags that nobody knows
        Message::with_header(request::GET_FEATURES, version_1, 8, &[0; 8]), // a payload where there is none
        Message::with_header(request::SET_FEATURES, version_1, 0, &[]), // none where there is one
        Message::with_header(request::SET_FEATURES, version_1, 16, &[0; 16]), // too much of it
        Message::with_header(request::SET_FEATURES, version_1, u32::MAX, &[]), // far too much
        Message::with_header(request::SET_FEATURES, version_1, 0x1001, &[0; 64]),
        Message::with_header(0, version_1, 0, &[]),
        Message::with_header(1000, version_1, 8, &[0; 8]),
        Message::with_header(u32::MAX, version_1, 8, &[0; 8]),
    ] {
        let front_end = scene.connection();
        front_end.send(message.bytes(), &[]).unwrap();
        assert!(front_end.closes(), "{message:x?}");
        scene.neighbours_talk();
    }
    scene.the_next_one_is_welcome();
}

/// R9: a front end that goes in the middle of a message, wherever the middle is.
/// R9, without a CVE: DPDK 73ea44370d and 21d9fb6bad, use after free at the end of a connection.
#[test]
fn r09_half_a_message_and_gone() {
    let mut scene = Scene::new();
    let memory = ringway_testbed::driver::Span::new(0, 4096);
    for message in [
        Message::words(request::SET_FEATURES, &[feature::VERSION_1]),
        Message::vring_state(request::GET_VRING_BASE, 0, 0),
        Message::memory(request::SET_MEM_TABLE, &[memory]),
    ] {
        for len in (1..message.bytes().len()).step_by(3) {
            let front_end = scene.connection();
            front_end.send(&message.bytes()[..len], &[]).unwrap();
            front_end.hang_up();
        }
        scene.neighbours_talk();
    }
    // Not a word of complaint: a front end that is gone is nothing to speak of. But one that says half a payload and stays
    // is cut off, and holds up nobody else until then.
    let front_end = scene.connection();
    front_end.send(&Message::words(request::SET_FEATURES, &[0]).bytes()[..12], &[]).unwrap();
    scene.neighbours_talk();
    assert!(front_end.is_open());
    front_end.hang_up();
    scene.the_next_one_is_welcome();
}

/// R9: whoever says part of a message and stays, wherever it stops, holds up nobody: others speak, come and go meanwhile. Said to
/// its end, the message is understood.
#[test]
fn r09_half_a_message_stalls_only_its_sender() {
    let mut scene = Scene::new();
    let message = Message::words(request::SET_FEATURES, &[feature::VERSION_1]);
    for len in [1, 4, 11, 12, 13, 19] {
        let slow = scene.connection();
        slow.send(&message.bytes()[..len], &[]).unwrap();
        scene.neighbours_talk();
        // A neighbour's own connection ends and is made anew.
        let listener = &scene.net.listeners[0];
        scene.guests[0].replug(listener).unwrap();
        scene.neighbours_talk();
        assert!(slow.is_open(), "cut off after {len} bytes");
        slow.send(&message.bytes()[len..], &[]).unwrap();
        slow.send(Message::new(request::GET_FEATURES, &[]).bytes(), &[]).unwrap();
        assert!(slow.receive().is_ok_and(|(code, _)| code == request::GET_FEATURES), "after {len} bytes");
        slow.hang_up();
    }
    scene.the_next_one_is_welcome();
}

/// Says SET_FEATURES in pieces that end at these offsets, then asks something. Whether there is an answer.
fn is_understood_in_pieces(ends: &[usize]) -> bool {
    let net = Net::new(1);
    let front_end = FrontEnd::from_stream(net.listeners[0].accept().unwrap()).unwrap();
    let message = Message::words(request::SET_FEATURES, &[feature::VERSION_1]);
    let mut start = 0;
    for &end in ends.iter().chain(&[message.bytes().len()]) {
        if front_end.send(&message.bytes()[start..end], &[]).is_err() {
            return false;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        start = end;
    }
    let asked = front_end.send(Message::new(request::GET_FEATURES, &[]).bytes(), &[]);
    asked.is_ok() && front_end.receive().is_ok_and(|(code, answer)| (code, answer.len()) == (request::GET_FEATURES, 8))
}

/// A front end may write header and payload one after the other, and the header as it likes.
#[test]
fn header_and_payload_apart() {
    for ends in [&[12][..], &[4, 8, 12], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]] {
        assert!(is_understood_in_pieces(ends), "in pieces to {ends:?}");
    }
}

/// Also where a file comes with the header, which ends what can be read at a time.
#[test]
fn header_with_a_file_and_payload_apart() {
    let net = Net::new(1);
    let front_end = FrontEnd::from_stream(net.listeners[0].accept().unwrap()).unwrap();
    let bells = Bells::new(true).unwrap();
    let message = Message::words(request::SET_VRING_CALL, &[0]);
    front_end.send(&message.bytes()[..12], &[bells.error.as_fd()]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    front_end.send(&message.bytes()[12..], &[]).unwrap();
    front_end.send(Message::new(request::GET_FEATURES, &[]).bytes(), &[]).unwrap();
    assert!(front_end.receive().is_ok_and(|(code, _)| code == request::GET_FEATURES));
}

/// A stream socket may hand over a payload in pieces, too.
#[test]
fn a_payload_in_pieces() {
    for ends in [&[16][..], &[12, 13], &[12, 19]] {
        assert!(is_understood_in_pieces(ends), "in pieces to {ends:?}");
    }
}

/// R8: what is said too early is kept or refused; nothing runs before all is known, and nobody else notices.
/// R8, without a CVE: DPDK 1846fe767f, ring addresses that went stale.
#[test]
fn r08_messages_out_of_order() {
    let mut scene = Scene::new();
    // Without features, protocol features or memory.
    let early = [
        Message::vring_state(request::SET_VRING_ENABLE, 0, 1),
        Message::vring_state(request::SET_VRING_BASE, 0, 7),
        Message::vring_state(request::GET_VRING_BASE, 0, 0),
        Message::vring_state(request::SET_VRING_NUM, 0, 256),
        Message::words(request::SET_VRING_ADDR, &[0, 0x1000, 0x2000, 0x3000, 0]),
        Message::words(request::SET_VRING_KICK, &[0x100]),
        Message::words(request::SET_VRING_CALL, &[0x100]),
        Message::new(request::GET_QUEUE_NUM, &[]),
        Message::new(request::GET_MAX_MEM_SLOTS, &[]),
        Message::new(request::RESET_OWNER, &[]),
        Message::memory(request::REM_MEM_REG, &[ringway_testbed::driver::Span::new(0, 4096)]),
    ];
    for message in &early {
        let front_end = scene.connection();
        front_end.send(message.bytes(), &[]).unwrap();
        scene.neighbours_talk();
        assert_ne!(scene.net.port(2).state(), PortState::Running, "{message:x?}");
        front_end.hang_up();
    }
    // All of those that are no error, before there is memory; then memory in which those rings cannot be.
    for layout in LAYOUTS {
        let mut candidate = Guest::negotiated(scene.net.listeners[2].accept().unwrap(), Options::new(layout)).unwrap();
        for index in [0, 1] {
            candidate.front_end.enable(index, true).unwrap();
        }
        candidate.start(0).unwrap();
        scene.neighbours_talk();
        assert_eq!(scene.net.port(2).state(), PortState::Connected);
        let elsewhere =
            ringway_testbed::driver::DriverMemory::new(&[ringway_testbed::driver::Span::new(1 << 50, 4096)]).unwrap();
        candidate.front_end.share(&elsewhere).unwrap();
        assert_eq!(scene.net.port(2).state(), PortState::Connected);
        assert!(scene.net.port(2).last_error().is_some_and(|error| error.contains("waits")));
        candidate.front_end.hang_up();
        scene.neighbours_talk();
    }
    scene.the_next_one_is_welcome();
}

/// What belongs to protocol features that nobody offered.
#[test]
fn requests_that_were_not_offered() {
    let mut scene = Scene::new();
    for message in [
        Message::words(request::GET_CONFIG, &[0, 0]),
        Message::words(request::GET_INFLIGHT_FD, &[4096, 0, 0x100_0001]),
        Message::new(request::RESET_DEVICE, &[]),
        Message::words(request::GET_SHARED_OBJECT, &[1, 2]),
        Message::words(request::SET_PROTOCOL_FEATURES, &[1 << 63]),
        Message::words(request::SET_PROTOCOL_FEATURES, &[1 << 1]),
        Message::vring_state(request::SET_VRING_ENABLE, 0, 2),
    ] {
        let guest = scene.running(Layout::Packed);
        guest.front_end.send(message.bytes(), &[]).unwrap();
        assert!(guest.front_end.closes(), "{message:x?}");
        assert!(eventually(|| scene.net.port(2).running().is_empty()));
        scene.neighbours_talk();
    }
    scene.the_next_one_is_welcome();
}

/// What it costs a neighbour when a worker waits once, with room for a busy machine.
const HELD_MAX: Duration = Duration::from_millis(800);

/// Makes an eventfd block whoever rings it.
fn jam(bell: &OwnedFd) {
    let _ = rung(bell); // empty, then full
    fcntl_setfl(bell, OFlags::empty()).unwrap();
    rustix::io::write(bell, &(u64::MAX - 1).to_ne_bytes()).unwrap();
}

/// A descriptor of memory that is not there.
fn break_transmitq(guest: &mut Guest) {
    guest.pairs[0].transmitq.add(&[Piece { address: 0x7000_0000_0000, len: 100, writable: false }], false).unwrap();
    guest.pairs[0].kick();
}

impl Scene {
    /// The connection to port 2 ends by itself, and there is no other for a while.
    fn ends_shut(mut self, guest: &Guest) {
        assert!(guest.front_end.closes());
        assert!(eventually(|| self.net.port(2).state() == PortState::Connecting));
        assert!(self.net.port(2).last_error().unwrap().contains("made to block"));
        std::thread::sleep(Duration::from_secs(2));
        self.neighbours_talk();
        assert_eq!(self.net.port(2).state(), PortState::Connecting);
        std::thread::sleep(Duration::from_secs(8));
        self.the_next_one_is_welcome();
    }
}

/// An eventfd is shared with the front end, and so is its O_NONBLOCK. Who takes that away and fills the counter makes a
/// writer wait for ever; the worker and all its guests must not, however many queue pairs wait for it.
#[test]
fn eventfds_that_block() {
    let mut scene = Scene::new();
    let options = Options { pairs: 16, size: 16, buffers: 8, memory_len: 16 << 20, ..Options::new(Layout::Packed) };
    let mut guest = scene.running_with(options);
    for pair in &guest.pairs {
        jam(pair.transmit_bells.call.as_ref().unwrap());
        jam(pair.receive_bells.call.as_ref().unwrap());
    }
    for pair in &mut guest.pairs {
        pair.send(&frame(station(2), station(2), 64, 0));
    }
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        let at = Instant::now();
        scene.neighbours_talk();
        assert!(at.elapsed() < HELD_MAX, "neighbours were held up for {:?}", at.elapsed());
    }
    scene.ends_shut(&guest);
}

/// Nor does it help to break a ring, be it to hide the offence or to have the eventfd for errors rung.
#[test]
fn eventfds_that_block_behind_a_fault() {
    for errors in [false, true] {
        let mut scene = Scene::new();
        let mut guest = scene.running(Layout::Packed);
        let bells = &guest.pairs[0].transmit_bells;
        jam(if errors { &bells.error } else { bells.call.as_ref().unwrap() });
        let kick = guest.pairs[0].transmit_bells.kick.take();
        guest.send(&frame(station(2), station(2), 64, 0));
        guest.pairs[0].transmit_bells.kick = kick;
        break_transmitq(&mut guest);
        let at = Instant::now();
        scene.neighbours_talk();
        assert!(at.elapsed() < HELD_MAX, "neighbours were held up for {:?}", at.elapsed());
        scene.ends_shut(&guest);
    }
}

/// The thread of a session rings nothing: it could not be got out of it.
#[test]
fn a_session_is_not_held_by_its_eventfds() {
    let mut scene = Scene::new();
    let guest = scene.running(Layout::Packed);
    let call = rustix::event::eventfd(0, EventfdFlags::empty()).unwrap();
    rustix::io::write(&call, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = fcntl_setfl(&call, OFlags::empty());
            }
        });
        for _ in 0..100 {
            let message = Message::words(request::SET_VRING_CALL, &[0]);
            if guest.front_end.send(message.bytes(), &[call.as_fd()]).is_err() {
                break; // found out
            }
        }
        std::thread::sleep(Duration::from_secs(1));
        stop.store(true, Ordering::Relaxed);
    });
    guest.front_end.hang_up();
    assert!(eventually(|| scene.net.port(2).state() == PortState::Connecting));
    scene.neighbours_talk();
}

/// A rule that was broken ends the whole pair, also the half of it that did not run then.
#[test]
fn the_other_half_of_a_broken_pair() {
    let mut scene = Scene::new();
    let mut guest = scene.running(Layout::Packed);
    guest.send(&frame(station(0), station(2), 64, 0));
    assert!(scene.guests[0].receive().is_some());
    guest.front_end.enable(0, false).unwrap();
    break_transmitq(&mut guest);
    assert!(eventually(|| scene.net.counters(2).fault() == Some(RingFault::BadAddress)));
    guest.front_end.enable(0, true).unwrap();
    scene.guests[0].send(&frame(station(2), station(0), 64, 1));
    assert!(scene.guests[0].settles());
    assert_eq!(scene.net.counters(2).transmitted.packets.get(), 0);
    assert!(scene.net.counters(2).transmit_dropped.get(DropReason::ReceiverStopped) > 0);
    // One ring reset is not enough; both are.
    let areas = guest.front_end.base(0).unwrap();
    assert_eq!(scene.net.counters(2).fault(), Some(RingFault::BadAddress), "{areas:#x}");
    guest.front_end.base(1).unwrap();
    assert_eq!(scene.net.counters(2).fault(), None);
    scene.net.assert_balances();
}

/// Everything that a front end may say, of a guest that runs, ten times over: traffic goes on.
#[test]
fn the_same_again_and_again() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        for round in 0..10 {
            let features = guests[0].options.features;
            guests[0].front_end.offered().unwrap();
            guests[0].front_end.set_features(features).unwrap();
            assert_eq!(guests[0].front_end.queue_num().unwrap(), 128);
            guests[0].start_all().unwrap();
            passes(&mut guests, 0, 1, 60 + round);
            passes(&mut guests, 1, 0, 60 + round);
        }
        net.assert_balances();
    }
}

/// A front end that asks and does not listen fills its own socket, and waits for itself alone.
#[test]
fn a_front_end_that_does_not_listen() {
    let mut scene = Scene::new();
    let front_end = scene.connection();
    let question = Message::new(request::GET_FEATURES, &[]).bytes().repeat(200);
    let is_stuck = std::thread::scope(|scope| {
        // Far more than the socket holds of answers, and then of questions.
        let asks = scope.spawn(|| (0..2000).any(|_| front_end.send(&question, &[]).is_err()));
        scene.neighbours_talk();
        std::thread::sleep(std::time::Duration::from_millis(200));
        scene.neighbours_talk();
        front_end.hang_up();
        asks.join().unwrap()
    });
    assert!(is_stuck, "all was taken though no answer was");
    scene.the_next_one_is_welcome();
}
