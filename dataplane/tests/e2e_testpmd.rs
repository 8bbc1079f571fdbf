//! Frames from a pcap file, through DPDK's virtio driver, the switch, and DPDK's virtio driver again, to a pcap file: both
//! ways at once, byte for byte and in order, for every kind and size of ring that the driver has.
//!
//! ```text
//! wire-a.pcap → virtio-user A ⇄ Ringway ⇄ virtio-user B → caught-b.pcap     (and back: wire-b.pcap, caught-a.pcap)
//! ```
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{LOAD_CPU, SWITCH_CPU, assert_balances, count, port_says};
use ringway_testbed::{
    Forward, Memory, Ringway, TempDir, Testpmd, Topology, VirtioUser, read_pcap, scratch_dir, two_workers, wait_for,
    write_pcap,
};

/// Frames that a sender has under way at most. What waits in the receiver's ring is then fewer than the smallest ring has
/// buffers, however the three threads take turns, and nothing may be dropped.
const IN_FLIGHT: u16 = 64;
const THROUGH: Duration = Duration::from_secs(20);
const ETHERNET_HEADER: usize = 14;
/// From here frames without FCS begin, and at the other end Ethernet's payload ends.
const SIZES: RangeInclusive<usize> = 60..=1514;
/// More than a guest's 2 KiB buffer: several descriptors on the way in, several merged buffers on the way out. The longest
/// is a packet of 9000 bytes.
const JUMBO_SIZES: RangeInclusive<usize> = 2100..=9014;
/// One frame in so many. DPDK's driver takes a burst of buffers, not of frames, out of a ring while it puts a burst of
/// frames in; with more of these, receivers would fall behind by more than a ring.
const JUMBO_EVERY: usize = 40;

#[derive(Clone, Copy)]
struct Case {
    packed: bool,
    mergeable: bool,
    in_order: bool,
    vectorized: bool,
    ring_size: u16,
    jumbo: bool,
}

const CASE: Case =
    Case { packed: true, mergeable: true, in_order: false, vectorized: false, ring_size: 256, jumbo: false };

/// Each case is a test of its own, named after it.
macro_rules! cases {
    ($($name:ident: $packed:literal $mergeable:literal $ring_size:literal;)+) => {
        $(#[test]
        fn $name() {
            pass(&Case { packed: $packed, mergeable: $mergeable, ring_size: $ring_size, ..CASE });
        })+
    };
}

cases! {
    packed_mergeable_256: true true 256;
    packed_mergeable_1024: true true 1024;
    packed_mergeable_255: true true 255;
    packed_mergeable_1000: true true 1000;
    packed_plain_256: true false 256;
    packed_plain_1024: true false 1024;
    packed_plain_255: true false 255;
    packed_plain_1000: true false 1000;
    split_mergeable_256: false true 256;
    split_mergeable_1024: false true 1024;
    split_plain_256: false false 256;
    split_plain_1024: false false 1024;
}

#[test]
fn packed_frames_across_buffers() {
    pass(&Case { ring_size: 1024, jumbo: true, ..CASE });
}

#[test]
fn split_frames_across_buffers() {
    pass(&Case { packed: false, ring_size: 1024, jumbo: true, ..CASE });
}

/// The ten paths of DPDK's test suite: (packed, mergeable, in order, vectorised) and the functions that the driver says it
/// chose, for receiving and for sending. The four without IN_ORDER that are not vectorised are above, too, in other sizes.
macro_rules! paths {
    ($($name:ident: $packed:literal $mergeable:literal $in_order:literal $vectorized:literal, $receives:literal, $sends:literal;)+) => {
        $(#[test]
        fn $name() {
            let (packed, mergeable, in_order, vectorized) = ($packed, $mergeable, $in_order, $vectorized);
            take_path(&Case { packed, mergeable, in_order, vectorized, ..CASE }, $receives, $sends);
        })+
    };
}

paths! {
    path_split_mergeable: false true false false, "mergeable buffer Rx", "standard Tx";
    path_split_non_mergeable: false false false false, "standard Rx", "standard Tx";
    path_split_in_order_mergeable: false true true false, "inorder Rx", "inorder Tx";
    path_split_in_order_non_mergeable: false false true false, "inorder Rx", "inorder Tx";
    path_split_vectorized: false false false true, "vectorized Rx", "standard Tx";
    path_packed_mergeable: true true false false, "packed ring mergeable buffer Rx", "packed ring standard Tx";
    path_packed_non_mergeable: true false false false, "packed ring standard Rx", "packed ring standard Tx";
    path_packed_in_order_mergeable: true true true false, "packed ring mergeable buffer Rx", "packed ring standard Tx";
    path_packed_in_order_non_mergeable: true false true false, "packed ring standard Rx", "packed ring standard Tx";
    path_packed_vectorized: true false true true, "packed ring vectorized Rx", "packed ring vectorized Tx";
}

fn take_path(case: &Case, receives: &str, sends: &str) {
    let log = pass_and(case, |scene| scene.guests.log());
    // Without AVX-512 there is no vectorised path for packed rings: the driver says so and takes the standard one.
    let (receives, sends) = if case.packed && case.vectorized && !is_x86_feature_detected!("avx512f") {
        ("packed ring standard Rx", "packed ring standard Tx")
    } else {
        (receives, sends)
    };
    for path in [receives, sends] {
        let said = log.matches(&format!("virtio: using {path} path on port")).count();
        assert_eq!(said, 2, "\"{path}\" is not what both ports took: {log}");
    }
}

/// Without merging, the whole frame in one large buffer, both ways.
#[test]
fn frames_in_large_buffers() {
    for packed in [true, false] {
        pass(&Case { packed, mergeable: false, jumbo: true, ..CASE });
    }
}

/// One direction: who sends, what, and where it is caught.
struct Wire {
    frames: Vec<Vec<u8>>,
    fed: PathBuf,
    caught: PathBuf,
}

impl Wire {
    fn new(dir: &Path, from: usize, to: usize, case: &Case) -> Self {
        // More than two laps of every ring.
        let frames = (0..usize::from(case.ring_size) * 2 + 333).map(|number| frame(from, to, number, case)).collect();
        let wire =
            Self { frames, fed: dir.join(format!("wire-{from}.pcap")), caught: dir.join(format!("caught-{to}.pcap")) };
        write_pcap(&wire.fed, &wire.frames).unwrap();
        wire
    }

    fn bytes(&self) -> u64 {
        self.frames.iter().map(|frame| frame.len() as u64).sum()
    }

    fn assert_caught(&self) {
        let caught = read_pcap(&self.caught).unwrap();
        for (number, (sent, caught)) in self.frames.iter().zip(&caught).enumerate() {
            assert!(sent == caught, "frame {number}: {} sent, {} caught", describe(sent), describe(caught));
        }
        assert_eq!(caught.len(), self.frames.len(), "frames are missing at the end, or there are more than were sent");
    }
}

/// Distinct in length, number and every byte.
fn frame(from: usize, to: usize, number: usize, case: &Case) -> Vec<u8> {
    let sizes = if case.jumbo && number.is_multiple_of(JUMBO_EVERY) { JUMBO_SIZES } else { SIZES };
    let (low, high) = (*sizes.start(), *sizes.end());
    // Both ends first, then a stride that meets every length, odd and even, before it meets one twice.
    let length = match number {
        0 => high,
        1 => low,
        _ => low + number * 611 % (high - low + 1),
    };
    let mut frame = Vec::with_capacity(length);
    frame.extend(address(to));
    frame.extend(address(from));
    // An EtherType for experiments, so that nobody reads more into it.
    frame.extend([0x88, 0xb5]);
    frame.extend(u32::try_from(number).unwrap().to_be_bytes());
    let mut state = (number as u32 + 1).wrapping_mul(2_654_435_761) ^ from as u32;
    while frame.len() < length {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        frame.push((state >> 24) as u8);
    }
    frame
}

fn address(number: usize) -> [u8; 6] {
    let text = VirtioUser::default_mac(number);
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

fn describe(frame: &[u8]) -> String {
    let number =
        frame.get(ETHERNET_HEADER..ETHERNET_HEADER + 4).map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap()));
    format!("{} bytes with number {number:?}", frame.len())
}

/// Both wires, the guests between them, and the switch between the guests.
struct Scene {
    wires: [Wire; 2],
    guests: Testpmd,
    ringway: Ringway,
    _dir: TempDir,
}

impl Scene {
    fn new(case: &Case) -> Self {
        let dir = scratch_dir().unwrap();
        let wires = [Wire::new(dir.path(), 0, 1, case), Wire::new(dir.path(), 1, 0, case)];
        let sockets = ["a.sock", "b.sock"].map(|name| dir.path().join(name));
        let port = |socket| {
            let port = VirtioUser::new(socket).packed(case.packed).mergeable(case.mergeable).in_order(case.in_order);
            let port = port.ring_size(case.ring_size);
            if case.vectorized { port.parameter("vectorized=1") } else { port }
        };
        let guests = Testpmd::guest();
        // A driver that does not merge puts up buffers for the longest packet that it is told of.
        let guests = if case.jumbo && !case.mergeable {
            guests.arg("--mbuf-size=9728").mbufs(4096).memory(Memory::Small(256))
        } else {
            guests
        };
        let guests = guests
            .cpu(LOAD_CPU)
            .forward(Forward::Io)
            .topology(Topology::Paired)
            .pcap(Some(&wires[0].fed), &wires[1].caught)
            .virtio_user(port(&sockets[0]))
            .virtio_user(port(&sockets[1]))
            .pcap(Some(&wires[1].fed), &wires[0].caught)
            .arg(format!("--txd={IN_FLIGHT}"))
            .eal_arg("--log-level=pmd.net.virtio.init:info");
        // The widest that the driver knows; without this, DPDK takes AVX-512 nowhere.
        let guests = if case.vectorized { guests.eal_arg("--force-max-simd-bitwidth=512") } else { guests };
        let guests = guests.start().unwrap();
        let [a, b] = &sockets;
        let mtu = if case.jumbo { "mtu = 9000" } else { "mtu = 1500" };
        let ringway = Ringway::builder().cpu(SWITCH_CPU).bridge("br0");
        let ringway = ringway.port("vm1", "br0", a).port_setting(mtu).port("vm2", "br0", b).port_setting(mtu);
        let ringway = ringway.start().unwrap();
        guests.wait_ready().unwrap();
        ringway.wait_state(&["vm1", "vm2"], "running").unwrap();
        Self { wires, guests, ringway, _dir: dir }
    }

    fn assert_negotiated(&self, case: &Case) {
        let ring = if case.packed { "packed" } else { "split" };
        for port in ["vm1", "vm2"] {
            assert_eq!(port_says(&self.ringway, port, "ring"), ring, "{port}");
            let features = port_says(&self.ringway, port, "features");
            for (name, taken) in
                [("ring_packed", case.packed), ("mrg_rxbuf", case.mergeable), ("in_order", case.in_order)]
            {
                assert_eq!(features.contains(name), taken, "{name} of {port}: {features}");
            }
        }
        for queue in self.ringway.show("queues").unwrap().as_array().unwrap() {
            assert_eq!(
                (&queue["size_receive"], &queue["size_transmit"]),
                (&case.ring_size.into(), &case.ring_size.into())
            );
        }
    }

    /// Sends all of it and waits until it is on the other wire.
    fn run(&self) {
        // Otherwise testpmd throws away what its full ring does not take at once.
        self.guests.command("set fwd io retry").unwrap();
        self.guests.command("set burst tx delay 100 retry 100000").unwrap();
        self.guests.forward().unwrap();
        let sent: u64 = self.wires.iter().map(|wire| wire.frames.len() as u64).sum();
        let through = || {
            let metrics = self.ringway.metrics().unwrap();
            let moved =
                count(&metrics, "port_transmit_packets_total", &[]) + count(&metrics, "dropped_packets_total", &[]);
            (moved >= sent).then_some(())
        };
        if wait_for("all frames", THROUGH, through).is_err() {
            panic!("not all of {sent} frames are through: {:#}", self.ringway.show("ports").unwrap());
        }
        // Forwarding goes on until the receivers' rings are empty.
        let written = || {
            let ports = self.guests.port_stats().unwrap();
            (ports[0].tx_packets + ports[3].tx_packets >= sent).then_some(())
        };
        if wait_for("all frames on the wire", THROUGH, written).is_err() {
            let ports = self.ringway.show("ports").unwrap();
            panic!("not all of {sent} frames arrived: {:#?}, {ports:#}", self.guests.port_stats().unwrap());
        }
    }

    fn assert_accounts(&self) {
        let metrics = self.ringway.metrics().unwrap();
        let of = |name: &str, labels: &[(&str, &str)]| count(&metrics, name, labels);
        for (port, wire) in [("vm1", &self.wires[0]), ("vm2", &self.wires[1])] {
            assert_eq!(of("port_receive_packets_total", &[("port", port)]), wire.frames.len() as u64, "{port}");
            assert_eq!(of("port_receive_bytes_total", &[("port", port)]), wire.bytes(), "{port}");
        }
        assert_eq!(of("dropped_packets_total", &[]), 0);
        // One copy of each payload byte, no more and no less; two from one worker to another.
        let bytes: u64 = self.wires.iter().map(Wire::bytes).sum();
        let (path, copies) = if two_workers() { ("hand_off", 2) } else { ("guest_to_guest", 1) };
        assert_eq!(of("forwarded_bytes_total", &[]), bytes);
        assert_eq!(of("copied_bytes_total", &[("path", path)]), bytes * copies);
        assert_eq!(of("copied_bytes_total", &[]), bytes * copies);
        assert_eq!(of("queue_broken", &[]), 0);
        assert_balances(&self.ringway);
    }

    /// Both stations are known, each behind its port: what was not the first frames was forwarded, not flooded.
    fn assert_learnt(&self) {
        let macs = self.ringway.show("macs").unwrap();
        let known = |number: usize, port: &str| {
            let mac = VirtioUser::default_mac(number);
            macs.as_array().unwrap().iter().any(|entry| entry["mac"] == mac.as_str() && entry["port"] == port)
        };
        assert!(known(0, "vm1") && known(1, "vm2"), "{macs:#}");
    }
}

fn pass(case: &Case) {
    pass_and(case, |_| ());
}

/// Sends all frames through, checks all that there is to check, and says what `look` saw before the guests were gone.
fn pass_and<A>(case: &Case, look: impl FnOnce(&Scene) -> A) -> A {
    let scene = Scene::new(case);
    scene.assert_negotiated(case);
    scene.run();
    scene.assert_accounts();
    scene.assert_learnt();
    let seen = look(&scene);
    // The files are whole once testpmd has closed its ports.
    scene.guests.quit().unwrap();
    scene.wires.iter().for_each(Wire::assert_caught);
    seen
}
